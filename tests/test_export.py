"""Data sets of clip_benchmark, written as evaluation folders and held against what clip_benchmark itself yields."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from clip_benchmark.datasets.builder import (
    build_dataset,
    get_dataset_default_task,
    image_captions_collate_fn,
)
from clip_benchmark.metrics import zeroshot_retrieval
from clip_benchmark.metrics.zeroshot_classification import run_classification, zero_shot_classifier
from evalsets import MODEL, scored, write_checkpoint
from PIL import Image
from published_sets import PUBLISHED, Published, fer2013, pixels

from poolbench.errors import status_of

from tasks import export
from tasks.command import VERBS
from tasks.datasets import MULTILABEL, RETRIEVAL, SELECTION, kind_of, task_of
from tasks.examples import Example
from tasks.readers import open_data, read_examples
from tasks.registry import Task, load_tasks, read_task
from tasks.verify import verify

ROOT = Path(__file__).parent.parent
TASKS = load_tasks()


def command(*words: str) -> int:
    return status_of(lambda: VERBS.answer(["export", *words]))


def exported(name: str, tmp_path: Path, patch: pytest.MonkeyPatch, *words: str) -> Path:
    """A data set, made and exported; the folder that it got."""
    published = PUBLISHED[name]
    published.make(tmp_path / "data", patch)
    places = (f"dataset={name}", f"root={tmp_path}/data", f"out={tmp_path}/out", f"language={published.language}")
    assert command(*places, *words) == 0
    return tmp_path / "out" / published.folder


def theirs(name: str, root: Path, transform: Any = None, **options: Any) -> Any:
    """The data set as a user of clip_benchmark gets it."""
    task = get_dataset_default_task(name)
    options = {"split": "test", "language": PUBLISHED[name].language} | options
    dataset = build_dataset(name, str(root), transform, download=False, task=task, **options)
    if name == "imagenetv2":  # which lists its files in no order
        dataset.fnames = sorted(dataset.fnames)
    return dataset


def _all(dataset: Any) -> list[Any]:
    """Its samples; SugarCrepe's does not end by itself when it is gone through."""
    return [dataset[index] for index in range(len(dataset))]


def reading(name: str, folder: Path) -> Task:
    """A task that reads the folder of an export."""
    models = {"retrieval": "retrieval/flickr_1k_test_image_text_retrieval", "caption_selection": "sugarcrepe/add_att"}
    models["multilabel"] = "voc2007_multilabel"
    model = TASKS[models.get(kind_of(name), "mnist")]
    return model.model_copy(update={"source": model.source.model_copy(update={"repo": f"x/{folder.name}"})})


def ours(task: Task, root: Path) -> tuple[tuple[str, ...], tuple[str, ...], list[Example]]:
    data = open_data(task, root)
    needs = frozenset(
        {{"retrieval": "captions", "caption_selection": "choices", "multilabel": "labels"}.get(task.kind, "label")}
    )
    read = [item for shard in data.shards for item in read_examples(shard, needs, len(data.classnames))]
    assert all(isinstance(item, Example) for item in read) and not data.surplus
    return data.classnames, data.templates, [item for item in read if isinstance(item, Example)]


@pytest.mark.parametrize(("name", "published"), PUBLISHED.items(), ids=PUBLISHED)
def test_an_export_is_what_clip_benchmark_yields(
    name: str, published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported(name, tmp_path, monkeypatch)
    told = capsys.readouterr().out
    kept = f"{published.untouched} pictures as they were, {published.samples - published.untouched} as PNG"
    assert f"{folder}: {published.samples} samples of split=test in 1 shards, {kept}\n" in told
    dataset = theirs(name, tmp_path / "data")
    classnames, templates, samples = ours(reading(name, folder), tmp_path / "out")
    assert len(samples) == len(dataset) == published.samples
    originals = {path.read_bytes() for path in (tmp_path / "data").rglob("*.*") if path.is_file()}
    assert sum(item.image in originals for item in samples) == published.untouched
    if name in (*RETRIEVAL, *SELECTION):
        for item, (picture, captions) in zip(samples, _all(dataset), strict=True):
            assert pixels(item.image) == pixels(picture)
            assert item.captions == tuple(caption.replace("\n", " ").strip() for caption in captions)
        return
    assert classnames == tuple(dataset.classes)
    assert templates == tuple(dataset.templates)
    for index, item in enumerate(samples):
        picture, label = dataset[index]
        found = item.metadata.tolist() if name in MULTILABEL else item.label
        assert (found, pixels(item.image)) == (np.asarray(label).astype(int).tolist(), pixels(picture))


def test_tasks_get_their_names_and_what_differs_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real sets have the counts; the names are the known ones, in the known order."""
    for name in ("mnist", "gtsrb", "voc2007", "imagenet-a"):
        exported(name, tmp_path / name, monkeypatch)
        notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
        (count,) = notes
        assert f"but {name} has {TASKS[name].samples:,}: its results will be unofficial" in count
    for name, key in {"eurosat": "eurosat", "crossmodal3600": "crossmodal3600-de"}.items():
        folder = exported(name, tmp_path / name, monkeypatch)
        assert f"no task reads it yet; a file in tasks/main/ with the key {key} makes one" in capsys.readouterr().out
        made = {"key": key, "name": "Mine", "kind": "classification", "samples": 1, "groups": ["other"]}
        (tmp_path / f"{key}.yaml").write_text(json.dumps(made | {"source": {"packages": ["clip_benchmark"]}}))
        assert read_task(tmp_path / f"{key}.yaml", "main").folder == folder.name


@pytest.mark.parametrize("name", ["mnist", "cifar10", "flickr30k"])
def test_verify_and_evaluate_read_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics are those that clip_benchmark computes over its own data set."""
    exported(name, tmp_path, monkeypatch)
    task = TASKS[task_of(name) or ""]
    here = task.model_copy(update={"samples": PUBLISHED[name].samples})
    assert verify([here], tmp_path / "out", images=True, jobs=1) == 0
    assert verify([task], tmp_path / "out", images=True, jobs=1) == 1, "the registry knows the count of the whole set"

    checkpoint = write_checkpoint(tmp_path / "model.pt")
    line = scored(checkpoint, tmp_path / "out", tmp_path / "results", [task.key]).line(task.key)
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    model, tokenizer = model.eval(), open_clip.get_tokenizer(MODEL)
    dataset = theirs(name, tmp_path / "data", transform)
    if name in RETRIEVAL:
        loader = torch.utils.data.DataLoader(dataset, batch_size=12, collate_fn=image_captions_collate_fn)
        found = zeroshot_retrieval.evaluate(model, loader, tokenizer, "cpu", amp=False, recall_k_list=[1, 5])
        assert {key: line["metrics"][key] for key in found} == pytest.approx(found, abs=1e-6)
        return
    weights = zero_shot_classifier(model, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8)
    scores, labels = run_classification(model, weights, loader, "cpu", amp=False)
    assert line["metrics"]["acc1"] == pytest.approx((scores.argmax(1) == labels).double().mean().item(), abs=1e-6)
    assert line["samples"] == len(dataset) and line["official"] is False


def test_train_lies_beside_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported("mnist", tmp_path, monkeypatch)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    where = ("dataset=mnist", f"root={tmp_path}/data", f"out={tmp_path}/out")
    assert command(*where, "split=train") == 0
    assert (folder / "train/nshards.txt").read_text() == "1\n"
    assert before.items() <= {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}.items()
    dataset = theirs("mnist", tmp_path / "data", split="train")
    for (picture, label), item in zip(
        dataset, read_examples(folder / "train/0.tar", frozenset({"label"}), 10), strict=True
    ):
        assert isinstance(item, Example) and (item.label, pixels(item.image)) == (label, pixels(picture))


def test_what_is_trained_on_lies_in_train() -> None:
    assert [export.part_of(split) for split in ("test", "train", "trainval", "val")] == [
        "test",
        "train",
        "train",
        "val",
    ]


def test_a_second_run_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported("mnist", tmp_path, monkeypatch)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    capsys.readouterr()
    assert command("dataset=mnist", f"root={tmp_path}/data", f"out={tmp_path}/out") == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{folder}/test is there already: 1 shards, ") and "take it away" in told
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    # Another data set's train does not come to lie beside it.
    PUBLISHED["cifar10"].make(tmp_path / "other", monkeypatch)
    words = ("dataset=cifar10", f"root={tmp_path}/other", f"out={tmp_path}/out", "task=mnist", "split=train")
    assert command(*words) == 2
    assert "classnames.txt is there with another content" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [folder.name]


def test_what_lies_in_the_way_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    PUBLISHED["mnist"].make(tmp_path / "data", monkeypatch)
    where = ("dataset=mnist", f"root={tmp_path}/data")
    folder = tmp_path / "out" / "wds_mnist_test"
    (folder / "test").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "wds_mnist_test").touch()
    for out, told in (
        ("out", f"{folder}/test is there without nshards.txt, so it is no whole split; take it away"),
        ("file", f"{tmp_path}/file is a file; choose another out="),
        ("file/x", f"out={tmp_path}/file/x cannot be written: {tmp_path}/file is a file, not a folder"),
        ("full", f"{tmp_path}/full/wds_mnist_test is a file; choose another out="),
    ):
        assert command(*where, f"out={tmp_path}/{out}") == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert not list((folder / "test").iterdir())


def test_shards_are_of_bounded_size_and_always_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for place in ("a", "b"):
        monkeypatch.setattr(export, "SHARD_SAMPLES", 4)
        folder = exported("eurosat", tmp_path / place, monkeypatch, "task=vtab/eurosat").with_name(
            "wds_vtab-eurosat_test"
        )
        assert (folder / "test/nshards.txt").read_text() == "5\n"
        files_ = sorted(path for path in folder.rglob("*") if path.is_file())
        digests.append([(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files_])
    assert digests[0] == digests[1]
    names = ["classnames.txt", "dataset_type.txt", *(f"{n}.tar" for n in range(5)), "nshards.txt"]
    assert [name for name, _ in digests[0]] == [*names, "zeroshot_classification_templates.txt"]
    with tarfile.open(folder / "test/1.tar") as tar:
        members = tar.getmembers()
    assert [one.name for one in members[:3]] == ["s0000004.cls", "s0000004.jpg", "s0000005.cls"] and len(members) == 8
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in members} == {
        (0, 0, 0, "", "", 0o644)
    }
    monkeypatch.setattr(export, "SHARD_SAMPLES", 10_000)
    monkeypatch.setattr(export, "SHARD_BYTES", 2000)
    whole = exported("eurosat", tmp_path / "c", monkeypatch)
    largest = max(path.stat().st_size for path in (tmp_path / "c").rglob("*.jpg"))
    sizes = []
    for path in (whole / "test").glob("*.tar"):
        with tarfile.open(path) as tar:
            sizes.append(sum(one.size for one in tar))
    assert len(sizes) > 3 and max(sizes) < 2000 + largest


def test_the_folder_is_one_that_clip_benchmark_and_webdataset_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = exported("fer2013", tmp_path, monkeypatch)
    read = list(build_dataset("wds/fer2013", str(folder), None, "test"))
    plain = theirs("fer2013", tmp_path / "data")
    assert [label for _, label in read] == [label for _, label in plain]
    assert [pixels(picture) for picture, _ in read] == [pixels(picture) for picture, _ in plain]


def test_languages_and_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    PUBLISHED["imagenet-a"].make(root, monkeypatch)
    where = ("dataset=imagenet-a", f"root={root}")
    assert command(*where, f"out={tmp_path}/out", "language=it") == 0
    folder = tmp_path / "out/wds_imagenet-a-it_test"
    dataset = build_dataset("imagenet-a", str(root), None, "test", False, language="it")
    assert (folder / "classnames.txt").read_text().splitlines() == dataset.classes
    templates = folder / "zeroshot_classification_templates.txt"
    assert templates.read_text().splitlines() == dataset.templates and "una foto" in templates.read_text()
    (tmp_path / "mine.json").write_text(json.dumps({"imagenet-a": ["Sieh, {c}!"]}))
    assert command(*where, f"out={tmp_path}/mine", f"prompts={tmp_path}/mine.json") == 0
    assert (tmp_path / "mine/wds_imagenet-a_test" / templates.name).read_text() == "Sieh, {c}!\n"
    assert "note: zeroshot_classification_templates.txt, line 1, is 'Sieh, {c}!', known is" in capsys.readouterr().out
    capsys.readouterr()
    for words, told in {
        "language=itt": "clip_benchmark has none such for imagenet-a; did you mean 'it'?",
        "prompts=cupl_prompts.json": "prompts of each class, which an evaluation folder has no place for",
        "prompts=jp_zeroshot_classification_template.json": "did you mean 'jp_zeroshot_classification_templates.json'?",
        "prompts=nllb_dist13b_prompts.json": "Templates not specified for imagenet-a",
    }.items():
        assert command(*where, f"out={tmp_path}/no", words) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1


def test_data_sets_that_are_read_once_from_front_to_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of VTAB are; their packages are not here, so one stands in for them."""
    pictures = np.random.default_rng(0).integers(0, 256, (6, 8, 9, 3), dtype=np.uint8)

    class Batch(types.SimpleNamespace):
        def numpy(self) -> Any:
            return self.value

    class SvhnData:
        def __init__(self, data_dir: str) -> None:
            assert data_dir == str(tmp_path)

        def get_num_samples(self, split: str) -> int:
            return len(pictures)

        def get_tf_data(self, split: str, **options: Any) -> Iterator[dict[str, Batch]]:
            for number in range(len(pictures)):
                labels = np.array([number])
                yield {"image": Batch(value=pictures[number : number + 1]), "label": Batch(value=labels)}

    for name in ("task_adaptation", "task_adaptation.data"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "task_adaptation.data.svhn", types.SimpleNamespace(SvhnData=SvhnData))
    assert command("dataset=vtab/svhn", f"root={tmp_path}", f"out={tmp_path}/out") == 0
    classnames, _, samples = ours(TASKS["vtab/svhn"], tmp_path / "out")
    assert classnames[:3] == ("zero", "one", "two") and [item.label for item in samples] == list(range(6))
    assert [pixels(item.image) for item in samples] == [picture.tobytes() for picture in pictures]


# Data sets of which clip_benchmark builds the same samples whatever the split, with a language.
ONE_SPLIT = {
    **dict.fromkeys(("flickr30k-200", "xtd200"), "deu_Latn"),
    **dict.fromkeys(("crossmodal3600", "multilingual_mscoco_captions", "xtd10"), "de"),
    "winoground": "en",
}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dataset=cifr10"], "dataset=cifr10: clip_benchmark has no such data set; did you mean 'cifar10'?"),
        (["dataset=winoground"], "dataset=winoground needs the package datasets, which is not installed here"),
        (
            ["dataset=imagenet-w"],
            "dataset=imagenet-w is not exported: its watermark is drawn by the transform of a model",
        ),
        (["dataset=parqet"], "clip_benchmark has no such data set; did you mean 'parquet'?"),
        (["dataset=wds/x"], "it is a webdataset folder already"),
        (["dataset=fer2013", "task=mnst"], "task=mnst: there is no such task; did you mean 'mnist'?"),
        (
            ["dataset=flickr8k", "task=mnist"],
            "task=mnist is of the kind classification, dataset=flickr8k",
        ),
        (
            ["dataset=fer2013", "root=/nowhere"],
            "root=/nowhere is not a folder; download=true lets clip_benchmark",
        ),
        (["dataset=fer2013", "split=tset"], "Only `train` and `test` split available for fer2013"),
        (["dataset=cifar10"], "Dataset not found or corrupted."),
        (["dataset=vtab/dmlab"], "dataset=vtab/dmlab needs the package task_adaptation, which is not installed here"),
        (
            ["dataset=tfds/beans"],
            "needs the package tensorflow_datasets, which is not installed here",
        ),
        (["dataset=flickr8k"], "something is missing there that clip_benchmark would download; download=true lets it"),
        (
            ["dataset=imagenetv2"],
            "something is missing there that clip_benchmark would download; download=true lets it",
        ),
        (["dataset=xtd10", "language=de"], "something is missing there that clip_benchmark would download"),
        (["dataset=mscoco_captions", "language=de"], "clip_benchmark has none such for mscoco_captions; known: en"),
        (["dataset=mnist", "language=it"], "language=it: clip_benchmark has none such for mnist; known: en"),
        (
            ["dataset=eurosat", "split=train"],
            "eurosat has no splits, so split=train would hold the samples of split=test",
        ),
        *(
            (
                [f"dataset={name}", f"language={language}", "split=train"],
                f"dataset={name} has no splits, so split=train",
            )
            for name, language in ONE_SPLIT.items()
        ),
        (["dataset=xtd200"], "language=en: clip_benchmark has none such for xtd200; known: ace_Arab, ace_Latn, "),
        (["dataset=flickr30k-200", "language=deu_Lat"], "has none such for flickr30k-200; did you mean 'deu_Latn'?"),
        (["dataset=multilingual_mscoco_captions", "language=jpn"], "multilingual_mscoco_captions; did you mean 'jp'?"),
        (["dataset=flickr8k", "language=de"], "clip_benchmark has none such for flickr8k; known: en, zh"),
        (["dataset=mnist", "split=../x"], "split=../x is no name of a split, such as test or train"),
        (["dataset=mnist", "split="], "split= is no name of a split, such as test or train"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "split=train" in words:
        PUBLISHED["eurosat"].make(tmp_path / "data", monkeypatch)
    (tmp_path / "data").mkdir(exist_ok=True)
    root = [] if any(word.startswith("root=") for word in words) else [f"root={tmp_path}/data"]
    assert command(*words, *root, f"out={tmp_path}/out") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and told in lines[0]
    assert not (tmp_path / "out").exists()
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file() and not path.stat().st_size]


def test_data_that_do_not_fit_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fer2013(tmp_path / "data", monkeypatch)
    where = ("dataset=fer2013", f"root={tmp_path}/data", f"out={tmp_path}/out")
    (picture,) = (tmp_path / "data/test/happy").iterdir()
    whole = picture.read_bytes()
    picture.write_bytes(b"no picture")
    assert command(*where) == 2
    assert "error: fer2013: sample 3 cannot be read: UnidentifiedImageError: " in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    picture.write_bytes(whole)
    cut = tmp_path / "v2"
    PUBLISHED["imagenetv2"].make(cut, monkeypatch)
    file = cut / "ImageNetV2-matched-frequency/123/1230.jpeg"
    file.write_bytes(file.read_bytes()[:-200])  # its header is whole
    assert command("dataset=imagenetv2", f"root={cut}", f"out={tmp_path}/out") == 2
    assert "imagenetv2: sample 2 cannot be read: OSError: image file is truncated" in capsys.readouterr().err
    (tmp_path / "data/test/happy").rename(tmp_path / "data/happy")
    assert command(*where) == 2
    assert "6 folders of classes lie there, but there are 7 class names" in capsys.readouterr().err
    (tmp_path / "data/happy").rename(tmp_path / "data/test/happy")
    # What a killed process left is taken away, and what is still being written is not touched.
    part = tmp_path / "out/.wds_fer2013_test-test.part"
    part.mkdir()
    (part / "7.tar").write_bytes(b"half")
    assert command(*where) == 0
    assert sorted(path.name for path in (tmp_path / "out/wds_fer2013_test/test").iterdir()) == ["0.tar", "nshards.txt"]
    assert not part.exists()


def test_a_download_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """clip_benchmark passes over the status of its shell commands, and what they leave looks like the file."""
    PUBLISHED["flickr30k"].make(tmp_path / "data", monkeypatch)
    annotations = tmp_path / "data/flickr30k_test_karpathy.txt"
    annotations.unlink()
    (tmp_path / "bin").mkdir()
    wget = tmp_path / "bin/wget"
    wget.write_text('#!/bin/sh\n: > "${2#--output-document=}"\nexit 4\n')
    wget.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    where = ("dataset=flickr30k", f"root={tmp_path}/data", f"out={tmp_path}/out", "download=true")
    assert command(*where) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "a download failed, with status 4: wget https://" in line and not annotations.exists()


def test_what_export_needs_is_not_imported_for_the_other_commands() -> None:
    words = [sys.executable, "-X", "importtime", "-m", "tasks", "list"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tasks.registry" in loaded
    assert not loaded & {"torch", "torchvision", "open_clip", "clip_benchmark", "webdataset"}


def test_pictures_keep_what_a_model_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transparency and 16 bits of grey: a file is kept only where our decoder makes of it what the data set yields."""
    fer2013(tmp_path / "data", monkeypatch)
    (tmp_path / "data/test/sad/deep.png").write_bytes(deep_grey())
    assert command("dataset=fer2013", f"root={tmp_path}/data", f"out={tmp_path}/out") == 0
    _, _, samples = ours(reading("fer2013", tmp_path / "out/wds_fer2013_test"), tmp_path / "out")
    for item, (picture, _) in zip(samples, theirs("fer2013", tmp_path / "data"), strict=True):
        assert pixels(item.image) == pixels(picture)
    assert deep_grey() not in {item.image for item in samples}


def deep_grey() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()
