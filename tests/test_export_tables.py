"""Sets of the Hub's parquet files, and clip_benchmark's Winoground, as folders: the same samples, the same numbers."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from clip_benchmark.datasets.builder import build_dataset, image_captions_collate_fn
from clip_benchmark.metrics import image_caption_selection
from evalsets import (
    MODEL,
    Outcome,
    encoded,
    multilabel_samples,
    noise,
    pair_samples,
    retrieval_samples,
    scored,
    selection_samples,
    write_checkpoint,
    write_parquet,
)
from hub_tables import CHOICES, WHOLE, choices, image_of, labelled, numbers, pairs, write_rows, write_table
from PIL import Image
from published_sets import pixels

from poolbench.errors import status_of

from tasks.command import VERBS
from tasks.examples import Example
from tasks.names import packaged
from tasks.readers import open_data, read_examples
from tasks.registry import Task, load_tasks

TASKS = load_tasks()
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
VOC = TASKS["voc2007_multilabel"]
NEEDS = {"caption_selection": "choices", "winoground": "pairs", "multilabel": "labels", "retrieval": "captions"}
KEYS = (*CHOICES, "winoground", VOC.key, FLICKR)


def command(*words: str) -> int:
    return status_of(lambda: VERBS.answer(["export", *words]))


def write_published(key: str, folder: Path) -> None:
    """A task's set as the Hub has it; one of its pictures is in a format that shards do not hold."""
    folder.mkdir(parents=True)
    if key == FLICKR:
        return write_parquet(folder / "0000.parquet", retrieval_samples(9))
    if key == VOC.key:
        samples, truth = multilabel_samples(26, 20)
        for what, name in (("classnames", "classnames.txt"), ("templates", "zeroshot_classification_templates.txt")):
            (folder / name).write_text("\n".join(packaged()[key][what]))
        write_table(folder, labelled(samples, pa.array(numbers(truth))))
        return None
    if key == "winoground":
        write_rows(folder, pairs(pair_samples(20)))
        return None
    _, rows = choices(selection_samples(21), CHOICES[key])
    rows[4][CHOICES[key][0]] = {"bytes": encoded(Image.fromarray(noise(99)), "BMP"), "path": "a.bmp"}
    write_rows(folder, rows)
    return None


def read(task: Task, root: Path) -> list[Example]:
    data = open_data(task, root)
    needs = frozenset({NEEDS[task.kind]})
    items = [item for shard in data.shards for item in read_examples(shard, needs, len(data.classnames))]
    assert all(isinstance(item, Example) for item in items)
    return [item for item in items if isinstance(item, Example)]


class Both:
    """The sets of all KEYS as published and as exported, and what a model makes of them."""

    def __init__(self, root: Path) -> None:
        self.tables, self.folders = root / "tables", root / "folders"
        for key in KEYS:
            place = self.tables / TASKS[key].folder
            write_published(key, place)
            words = ("dataset=parquet", f"root={place}", f"task={key}", f"out={self.folders}")
            assert command(*words) == 0
        checkpoint = write_checkpoint(root / "model.pt")
        self.published, self.exported = (
            scored(checkpoint, place, root / "out" / place.name, KEYS) for place in (self.tables, self.folders)
        )


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(tmp_path_factory.mktemp("both"))


@pytest.mark.parametrize("key", KEYS)
def test_a_set_of_parquet_files_is_the_same_as_a_folder(key: str, both: Both) -> None:
    """Sample by sample, and in every number of an evaluation."""
    before, after = (read(TASKS[key], root) for root in (both.tables, both.folders))
    assert not list((both.folders / TASKS[key].folder).glob("*.parquet")) and len(before) > 8
    for one, other in zip(before, after, strict=True):
        assert (one.captions, one.label, one.metadata.tolist()) == (
            other.captions,
            other.label,
            other.metadata.tolist(),
        )
        assert one.image == other.image or (one.image[:2] == b"BM" and pixels(one.image) == pixels(other.image))
    results: list[Outcome] = [both.published, both.exported]
    lines = [outcome.line(key) for outcome in results]
    assert lines[0]["metrics"] == lines[1]["metrics"] and lines[0]["stderr"] == lines[1]["stderr"]
    assert lines[0]["samples"] == lines[1]["samples"]
    assert any(0 < value < 1 for value in lines[0]["metrics"].values()), "else all models would give these numbers"
    tables = [{**outcome.predictions[key], "key": None, "picture": None} for outcome in results]
    assert tables[0] == tables[1]


def test_what_is_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, told in (
        ("aro/relation", "21 samples of split=test in 1 shards, 20 pictures as they were, 1 as PNG"),
        ("winoground", "20 samples of split=test in 1 shards, 40 pictures as they were, 0 as PNG"),
    ):
        write_published(key, tmp_path / key)
        words = ("dataset=parquet", f"root={tmp_path / key}", f"task={key}", f"out={tmp_path}/out")
        assert command(*words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == f"{tmp_path}/out/{TASKS[key].folder}: {told}"
        count = f"{told.partition(' ')[0]} samples, but {key} has {TASKS[key].samples:,}"
        assert lines[1:] == [f"note: {count}: its results will be unofficial"]
        assert command(*words) == 0 and "is there already: 1 shards" in capsys.readouterr().out


def test_class_names_are_those_beside_the_files_or_those_that_are_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, truth = multilabel_samples(8, 20)
    known = packaged()[VOC.key]["classnames"]
    order = np.random.default_rng(0).permutation(20)
    own = [known[number] for number in order]
    write_table(tmp_path / "in" / "data", labelled(samples, pa.array(numbers(truth[:, order])), "label", own))
    words = ("dataset=parquet", f"root={tmp_path}/in", f"task={VOC.key}")
    assert command(*words, f"out={tmp_path}/known") == 0
    assert "unofficial" not in "".join(capsys.readouterr().out.splitlines()[2:])
    assert open_data(VOC, tmp_path / "known").classnames == known
    assert np.array_equal([item.metadata for item in read(VOC, tmp_path / "known")], truth)
    (tmp_path / "in" / "classnames.txt").write_text("\n".join(own))
    (tmp_path / "in" / "zeroshot_classification_templates.txt").write_text("{c}!")
    assert command(*words, f"out={tmp_path}/own") == 0
    assert "note: classnames.txt, line 1, is " in capsys.readouterr().out
    data = open_data(VOC, tmp_path / "own")
    assert (data.classnames, data.templates) == (tuple(own), ("{c}!",))
    assert np.array_equal([item.metadata for item in read(VOC, tmp_path / "own")], truth[:, order])


def test_splits_of_the_hub(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the names of files, in the folder or in data/, or by that of their folder."""
    rows = pairs(pair_samples(9))
    places = {"plain": "plain", "repository": "repository/data"}
    for name, place in places.items():
        write_rows(tmp_path / place, rows[:5])
        write_rows(tmp_path / place, rows[5:], "train-00000-of-00001.parquet")
        words = ("dataset=parquet", "task=winoground", f"root={tmp_path / name}", f"out={tmp_path}/out-{name}")
        assert command(*words) == command(*words, "split=train") == 0
    write_rows(tmp_path / "conversion" / "test", rows[:5], "0000.parquet")
    write_rows(tmp_path / "conversion" / "train", rows[5:], "0000.parquet")
    words = ("dataset=parquet", "task=winoground", f"root={tmp_path}/conversion", f"out={tmp_path}/out-conversion")
    assert command(*words) == command(*words, "split=train") == 0
    tars = [
        [(tmp_path / f"out-{name}" / TASKS["winoground"].folder / split / "0.tar").read_bytes() for split in parts]
        for name in (*places, "conversion")
        for parts in [("test", "train")]
    ]
    assert tars[0] == tars[1] == tars[2] and tars[0][0] != tars[0][1]
    capsys.readouterr()
    write_rows(tmp_path / "nameless", rows, "0000.parquet")
    for root, split, told in (
        ("plain", "validation", f"{tmp_path}/plain holds no split validation, only test, train"),
        (
            "nameless",
            "train",
            "0000.parquet tells no split, as train-00000-of-00001.parquet does, so split=train would",
        ),
        ("out-plain", "test", "holds no parquet file, nor do folders data and test in it"),
    ):
        words = ("dataset=parquet", "task=winoground", f"root={tmp_path / root}", f"out={tmp_path}/no")
        assert command(*words, f"split={split}") == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1 and not (tmp_path / "no").exists()


GOOD = choices(selection_samples(3), CHOICES["aro/relation"])[1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def spoilt(path: Path) -> None:
    """The same with other bytes where the pages are."""
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\xff" * 2000 + data[2004:])


@pytest.mark.parametrize(
    ("words", "rows", "told"),
    [
        (["task=aro/relation"], [], "dataset=parquet: the split test holds no sample"),
        (["task=aro/relation"], cut, f"{WHOLE} is not a parquet file: "),
        (["task=aro/relation"], spoilt, f"{WHOLE} is damaged: "),
        ([], GOOD, "dataset=parquet needs task=<key>: the task that is to read it says what the files hold"),
        (["task=aro/relatoin"], GOOD, "task=aro/relatoin: there is no such task; did you mean 'aro/relation'?"),
        (["task=mnist"], GOOD, "dataset=parquet: task=mnist is of the kind classification; exported are retrieval, "),
        (["task=misc/winogavil"], GOOD, "task=misc/winogavil is of the kind winogavil; exported are retrieval, "),
        (["task=winoground"], GOOD, "has no column 'image_0'; it has image, id, true_caption, false_caption"),
        (["task=voc2007_multilabel"], GOOD, "has no column of labels (labels, label, classes, categories)"),
        (["task=aro/relation", "root=/nowhere"], GOOD, "error: root=/nowhere is not a folder\n"),
        (
            ["task=aro/relation", "language=de"],
            GOOD,
            "dataset=parquet takes the files as they are; language=, prompts=",
        ),
        (["task=aro/relation", "download=true"], GOOD, "dataset=parquet takes the files as they are"),
        (
            ["task=aro/relation"],
            [GOOD[0], {**GOOD[1], "image": {"bytes": None, "path": "b.jpg"}}],
            "the sample b.jpg cannot be read: no picture in the column 'image', only the path b.jpg",
        ),
        (
            ["task=aro/relation"],
            [GOOD[0], {**GOOD[1], "image": {"bytes": b"no picture", "path": None}}],
            "the sample test-00000-of-00001-1 cannot be read: image cannot be decoded: it is none of JPEG",
        ),
        (
            ["task=aro/relation"],
            [{**GOOD[0], "image": {"bytes": GOOD[0]["image"]["bytes"][:-60], "path": "c.png"}}],
            "the sample c.png cannot be read: image cannot be decoded: ",
        ),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    words: list[str], rows: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ((name, pa.string()) for name in ("true_caption", "false_caption"))
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("id", pa.int64()), *texts]
    )
    table = pa.Table.from_pylist(GOOD if callable(rows) else rows, schema)
    path = write_table(tmp_path / "in", table)
    if callable(rows):
        rows(path)
    root = [] if any(word.startswith("root=") for word in words) else [f"root={tmp_path}/in"]
    assert command("dataset=parquet", *words, *root, f"out={tmp_path}/out") == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines(keepends=True) if line.startswith("error: ")]
    assert len(lines) == 1 and told in lines[0] and not captured.out
    assert not list((tmp_path / "out").glob("**/*"))


# --- Winoground as clip_benchmark builds it ---


class Rows:
    """What the package `datasets`, which is not installed here, makes of Winoground's file: pictures opened from the
    bytes in it, anew for each use."""

    def __init__(self, folder: str) -> None:
        self._rows = pq.read_table(Path(folder) / WHOLE).to_pylist()

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[index]
        return {
            name: Image.open(io.BytesIO(value["bytes"])) if name.startswith("image") else value
            for name, value in row.items()
        }

    def __len__(self) -> int:
        return len(self._rows)


def test_clip_benchmarks_winoground(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in = SimpleNamespace(load_dataset=lambda name, cache_dir: {"test": Rows(cache_dir)})
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    root, plain = tmp_path / "cache", []
    for number in range(16):
        pictures = {f"{place}.png": encoded(Image.fromarray(noise(2 * number + place)), "PNG") for place in range(2)}
        plain.append((f"s{number}", {**pictures, "txt": f"a dog {number}\na {number} dog".encode()}))
    plain[3][1]["1.png"] = encoded(Image.fromarray(noise(3)), "GIF")
    write_rows(root, pairs(plain))
    words = ("dataset=winoground", f"root={root}", f"out={tmp_path}/out")
    assert command(*words, "split=train") == 2
    assert (
        "dataset=winoground has no splits, so split=train would hold the samples of split=test"
        in capsys.readouterr().err
    )
    assert command(*words) == 0
    told = capsys.readouterr().out
    assert "16 samples of split=test in 1 shards, 31 pictures as they were, 1 as PNG" in told
    items = read(TASKS["winoground"], tmp_path / "out")
    for number, (_, members) in enumerate(plain):
        for place, item in enumerate(items[2 * number : 2 * number + 2]):
            original = image_of(members, f"{place}.")["bytes"]
            assert item.captions == tuple(members["txt"].decode().split("\n")) and item.label == place
            assert pixels(item.image) == pixels(original)
            assert (item.image == original) == (original[:3] != b"GIF")

    checkpoint = write_checkpoint(tmp_path / "model.pt")
    ours = scored(checkpoint, tmp_path / "out", tmp_path / "results", ["winoground"]).line("winoground")["metrics"]
    model, _, transform = open_clip.create_model_and_transforms(MODEL, pretrained=str(checkpoint))
    dataset = build_dataset("winoground", str(root), transform, task="image_caption_selection")
    loader = torch.utils.data.DataLoader(dataset, batch_size=1, collate_fn=image_captions_collate_fn)
    tokenizer = open_clip.get_tokenizer(MODEL)
    theirs = image_caption_selection.evaluate(model.eval(), loader, tokenizer, "cpu", amp=False)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-6)
    assert 0 < ours["acc"] < 1
