"""`python -m tasks captions`: labelled sets as shards to train on."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from evalsets import MODEL, classification_samples, picture, write_classification, write_retrieval
from pools import by_webdataset, write_tar

from poolbench.command import compose
from poolbench.errors import status_of
from poolbench.files import read_lines
from poolbench.shards.samples import Sample, read_shard
from poolbench.uids import write_subset

from tasks.command import VERBS
from tasks.languages import translated
from tasks.registry import load_tasks
from train.config import TrainConfig
from train.loop import train
from train.step import Stepper

TASK = load_tasks()["vtab/eurosat"]
TEMPLATES = ("a photo of a {c}.", "a drawing of the {c}", "{c}")


def command(*words: str | Path) -> int:
    return status_of(lambda: VERBS.answer(["captions", *map(str, words)]))


@pytest.fixture
def sets(tmp_path: Path) -> Path:
    """Evaluation sets with a train split of 26 pictures beside the test split of one task."""
    samples = classification_samples(32, 10)
    folder = write_classification(tmp_path / "sets", TASK, samples[:6], shards=1, templates=TEMPLATES)
    write_split(folder / "train", samples[6:], 3)
    return tmp_path / "sets"


def write_split(folder: Path, samples: list[tuple[str, dict[str, bytes]]], shards: int) -> None:
    for index in range(shards):
        write_tar(folder / f"{index}.tar", samples[index::shards])
    (folder / "nshards.txt").write_text(f"{shards}\n")


def read(out: Path) -> list[Sample]:
    items = [item for path in sorted(out.glob("*.tar")) for item in read_shard(str(path))]
    assert all(isinstance(item, Sample) for item in items)
    return [item for item in items if isinstance(item, Sample)]


def digests(out: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")}


def of_the_set(sets: Path, split: str = "train") -> dict[bytes, int]:
    """Picture -> label, as webdataset reads them."""
    found = {}
    for _, members in by_webdataset(sorted((sets / TASK.folder / split).glob("*.tar"))):
        label = int(members.pop("cls"))
        found.update(dict.fromkeys(members.values(), label))
    return found


@pytest.mark.parametrize("templates", ["one", "all"])
def test_every_picture_has_its_captions(sets: Path, tmp_path: Path, templates: str) -> None:
    assert command("task=vtab/eurosat", f"data={sets}", f"out={tmp_path}/out", f"templates={templates}") == 0
    found, labels = read(tmp_path / "out"), of_the_set(sets)
    assert len(labels) == 26 and {sample.picture() for sample in found} == labels.keys()
    per_picture = Counter(sample.picture() for sample in found)
    assert set(per_picture.values()) == {1 if templates == "one" else 3}
    for sample in found:
        possible = [template.replace("{c}", f"thing {labels[sample.picture()]}") for template in TEMPLATES]
        assert sample.caption() in possible
        record = sample.record()
        digest = hashlib.sha256(sample.picture() + sample.caption().encode()).hexdigest()
        assert (record["uid"], record["sha256"]) == (digest[:32], hashlib.sha256(sample.picture()).hexdigest())
    assert len({sample.record()["uid"] for sample in found}) == len({sample.key for sample in found}) == len(found)
    used = Counter(template for sample in found for template in TEMPLATES if _is_of(template, sample.caption()))
    assert len(used) == 3 and (templates == "one" or set(used.values()) == {26})


def _is_of(template: str, caption: str) -> bool:
    before, after = template.split("{c}")
    return caption.startswith(f"{before}thing") and caption.endswith(after) and (bool(before) or "of" not in caption)


def test_draws_follow_from_seed_and_picture_alone(sets: Path, tmp_path: Path) -> None:
    """Not from the shards that the pictures lie in."""
    folder = sets / TASK.folder
    assert command(f"task={folder}", f"out={tmp_path}/a") == 0
    assert command(f"task={TASK.folder}", f"data={sets}", f"out={tmp_path}/b") == 0
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert command(f"task={folder}", f"out={tmp_path}/c", "seed=1") == 0
    write_split(folder / "other", classification_samples(32, 10)[6:][::-1], 1)
    assert command(f"task={folder}", f"out={tmp_path}/d", "split=other") == 0
    drawn = [{sample.picture(): sample.caption() for sample in read(tmp_path / name)} for name in "acd"]
    assert drawn[0] == drawn[2] and drawn[0] != drawn[1]


def test_training_reads_them(sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("task=vtab/eurosat", f"data={sets}", f"out={tmp_path}/out") == 0
    found = read(tmp_path / "out")
    write_subset(tmp_path / "some.npy", [sample.record()["uid"] for sample in found[:8]])
    seen: set[tuple[int, ...]] = set()
    step = Stepper.step

    def watched(self: Stepper, images: torch.Tensor, texts: torch.Tensor, rate: float) -> torch.Tensor:
        seen.update(map(tuple, texts.tolist()))
        return step(self, images, texts, rate)

    monkeypatch.setattr(Stepper, "step", watched)
    words = ["scale=tiny", "precision=fp32", f"recipe.model={MODEL}", "recipe.batch_size=8", "recipe.samples=48"]
    words += ["recipe.warmup=1", "recipe.streams=2", "recipe.shuffle_buffer=8", "efficiency.workers=0"]
    places = [f"data={tmp_path}/out", f"subset={tmp_path}/some.npy", f"out={tmp_path}/runs", "name=a"]
    assert train(compose("train", [*words, *places], TrainConfig)) == 0
    tokens = open_clip.get_tokenizer(MODEL)([sample.caption() for sample in found[:8]])
    assert seen == set(map(tuple, np.asarray(tokens).tolist()))


def test_the_same_again_does_what_is_missing(
    sets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, words = tmp_path / "out", ("task=vtab/eurosat", f"data={sets}", "templates=all")
    monkeypatch.setattr("tasks.captions.SHARD_SAMPLES", 10)  # several tars of each shard
    assert command(*words, f"out={tmp_path}/whole") == 0
    whole = digests(tmp_path / "whole")
    assert len(whole) == 9
    pieces = __import__("tasks.captions", fromlist=["_pieces"])._pieces
    calls: list[str] = []

    def broken(samples: object, out: Path, stem: str) -> list[str]:
        calls.append(stem)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return list(pieces(samples, out, stem))

    monkeypatch.setattr("tasks.captions._pieces", broken)
    assert command(*words, f"out={out}") == 130
    assert len(digests(out)) == 3 and len(read_lines(out / "captions.jsonl")) == 2
    assert command(*words, f"out={out}") == 0
    assert digests(out) == whole and calls == ["00000", "00001", "00001", "00002"]
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert command(*words, f"out={out}") == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "00002-001.tar").unlink()
    assert command(*words, f"out={out}") == 0
    assert digests(out) == whole
    write_tar(sets / TASK.folder / "train" / "1.tar", classification_samples(2, 10, seed=3))  # a shorter one came
    assert command(*words, f"out={out}") == 0
    assert len(digests(out)) == 7 and len(read(out)) == 3 * (2 + 17)
    capsys.readouterr()
    assert command(*words, f"out={out}", "seed=4") == 2
    assert "holds other captions, choose another folder; what differs: seed 0 -> 4" in capsys.readouterr().err


def test_bad_samples_are_counted(sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = sets / TASK.folder / "train"
    extension, data = picture(0)
    bad = [
        ("a", {extension: data, "cls": b"1"}),
        ("b", {"cls": b"2"}),
        ("c", {"png": b"<html>404</html>", "cls": b"3"}),
    ]
    write_tar(split / "1.tar", bad)
    write_tar(split / "2.tar", [(f"d{n}", {extension: data, "cls": b"1"}) for n in range(4)])
    (split / "2.tar").write_bytes((split / "2.tar").read_bytes()[: -3 * 1024 - 10_240])
    assert command("task=vtab/eurosat", f"data={sets}", f"out={tmp_path}/out") == 1
    told = capsys.readouterr()
    assert "left out: 4 samples or rests of shards; 1.tar, key b: no picture" in told.err
    assert ["c", "image cannot be decoded"] in [[key, why[:23]] for key, why in _bad(tmp_path / "out")]
    assert command("task=vtab/eurosat", f"data={sets}", f"out={tmp_path}/out") == 1  # it is said again


def _bad(out: Path) -> list[tuple[str, str]]:
    return [(key, reason) for line in read_lines(out / "captions.jsonl")[1:] for _, key, reason in line["bad"]]


def test_the_split_that_is_asked_about_is_told_loudly(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("task=vtab/eurosat", f"data={sets}", f"out={tmp_path}/a") == 0
    assert "WARNING" not in capsys.readouterr().err
    assert command("task=vtab/eurosat", f"data={sets}", f"out={tmp_path}/b", "split=test") == 0
    told = capsys.readouterr().err
    assert told.count("WARNING: split=test holds the pictures that vtab/eurosat asks models about") == 2


def test_a_task_in_another_language_is_captioned_in_it(tmp_path: Path) -> None:
    """Its folder is that of the English one."""
    task, english = (load_tasks()[key] for key in ("multilingual/imagenet1k_it", "imagenet1k"))
    samples = classification_samples(5, 1000)
    write_classification(tmp_path, english, samples, shards=1, known=True)
    words = (f"data={tmp_path}", "split=test", "templates=all")
    assert command(f"task={task.key}", f"out={tmp_path}/it", *words) == 0
    lists = translated("it")
    expected = [
        template.replace("{c}", lists.classnames[int(members["cls"])])
        for _, members in samples
        for template in lists.templates
    ]
    assert [item.members["txt"].decode() for item in read(tmp_path / "it")] == expected
    assert command(f"task={english.key}", f"out={tmp_path}/en", *words) == 0
    assert not {item.members["txt"] for item in read(tmp_path / "en")} & {text.encode() for text in expected}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task=vtab/eurosad", "data={sets}"], "task=vtab/eurosad is neither a folder nor the key of a task; did you"),
        (["task=vtab/eurosat"], "data= is needed with task=vtab/eurosat"),
        (["task=vtab/eurosat", "data={tmp}"], "{tmp}/wds_vtab-eurosat_test does not exist"),
        (
            ["task=vtab/eurosat", "data={sets}", "split=val"],
            "has no split val, only test, train; python -m tasks",
        ),
        (["task=misc/winogavil", "data={sets}"], "is of the kind winogavil, whose samples have no class names"),
        (["task={retrieval}", "split=test"], "{retrieval} holds pictures with captions, not with labels"),
        (["task=vtab/eurosat", "data={sets}", "split=../train"], "split=../train is no name of a split"),
        (["task=vtab/eurosat", "data={sets}", "split="], "split= is no name of a split, such as test or train"),
        (["task={tmp}/empty"], "{tmp}/empty has no split train, nor any other; python -m tasks export"),
        (["task={tmp}/bare"], "{tmp}/bare/classnames.txt is missing"),
        (["task={tmp}/wrong"], "0.tar: a.cls says 7, but there are 2 class names"),
        (["task={tmp}/none"], "{tmp}/none/train holds no sample to train on; 0.tar, key a: no picture"),
        (["task=vtab/eurosat", "data={sets}", "templates=some"], "templates=some is not known; known: all, one"),
        (
            ["task=vtab/eurosat", "data={sets}", "out={sets}"],
            "holds files but no captions.jsonl; choose another folder",
        ),
        (["task=vtab/eurosat", "data={sets}", "outt=x"], "unknown key 'outt'"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], told: str, sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flickr = load_tasks()["retrieval/flickr_1k_test_image_text_retrieval"]
    retrieval = write_retrieval(tmp_path / "other", flickr, [("a", {"jpg": b"x", "txt": b"y"})], shards=1)
    (sets / "a.txt").touch()
    extension, data = picture(0)
    for name, members in (("bare", {}), ("wrong", {extension: data, "cls": b"7"}), ("none", {"cls": b"1"})):
        write_split(tmp_path / name / "train", [("a", {**members, "json": json.dumps(0).encode()})], 1)
        if name != "bare":
            (tmp_path / name / "classnames.txt").write_text("one\ntwo\n")
            (tmp_path / name / "zeroshot_classification_templates.txt").write_text("{c}\n")
    (tmp_path / "empty").mkdir()
    places = {"sets": str(sets), "tmp": str(tmp_path), "retrieval": str(retrieval)}
    given = {word.split("=")[0]: word.format(**places) for word in [f"out={tmp_path}/out", *words]}
    assert command(*given.values()) == 2
    errors = capsys.readouterr().err
    assert told.format(**places) in errors and errors.count("\n") == 1
