"""Parquet files of the Hub for the kinds of the extra suite: the numbers of the same samples in shards."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evalsets import (
    multilabel_samples,
    pair_samples,
    scored,
    selection_samples,
    write_captioned,
    write_checkpoint,
    write_multilabel,
)
from hub_tables import CHOICES, WHOLE, choices, labelled, numbers, pairs, write_rows, write_table

from poolbench.errors import UserError

from tasks.examples import Example
from tasks.readers import open_data, read_examples
from tasks.registry import load_tasks
from tasks.verify import verify

TASKS = load_tasks()
WINOGROUND, VOC, EUROSAT = TASKS["winoground"], TASKS["voc2007_multilabel"], TASKS["vtab/eurosat"]


@pytest.mark.parametrize("key", CHOICES)
def test_captions_to_choose_among(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = TASKS[key]
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    samples, rows = choices(selection_samples(23), CHOICES[key])
    write_captioned(tmp_path / "shards", task, samples)
    write_rows(tmp_path / "tables" / task.folder, rows)
    plain, ours = (scored(checkpoint, tmp_path / form, tmp_path / form / "out", [key]) for form in ("shards", "tables"))
    assert ours.line(key)["metrics"] == plain.line(key)["metrics"] and ours.line(key)["samples"] == 23
    for name in ("captions", "prediction", "picture", "right", "tied"):
        assert ours.predictions[key][name] == plain.predictions[key][name]
    assert 0 < ours.line(key)["metrics"]["acc"] < 1
    capsys.readouterr()
    assert verify([task.model_copy(update={"samples": 23})], tmp_path / "tables", images=True, jobs=1) == 0
    assert f"ok, 23 samples, not pinned (23 samples by {task.counted})" in capsys.readouterr().out


def test_pairs(tmp_path: Path) -> None:
    samples = pair_samples(20)
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    write_captioned(tmp_path / "shards", WINOGROUND, samples, shards=1)
    write_rows(tmp_path / "tables" / WINOGROUND.folder, pairs(samples))
    plain, ours = (
        scored(checkpoint, tmp_path / form, tmp_path / form / "out", ["winoground"], limit=17)
        for form in ("shards", "tables")
    )
    assert ours.line("winoground")["metrics"] == plain.line("winoground")["metrics"]
    assert ours.line("winoground")["samples"] == 17
    assert {**ours.predictions["winoground"], "key": None} == {**plain.predictions["winoground"], "key": None}


def test_tables_that_cannot_be_read(tmp_path: Path) -> None:
    _, rows = choices(selection_samples(3), CHOICES["aro/relation"])
    wrong = [{**row, "false_caption": " "} for row in rows]
    for number, (table, message) in enumerate(
        (
            ([{"image": row["image"], "caption": "a"} for row in rows], "no columns of captions to choose among"),
            (wrong, "row 0: caption 2 of 2 is blank"),
            ([{**row, "image": "a.jpg"} for row in rows], "pictures that lie outside of the file"),
        )
    ):
        path = write_rows(tmp_path / str(number), table)
        with pytest.raises(UserError, match=message):
            list(read_examples(path, frozenset({"choices"}), 0))
    without = [{**row, "image": {"bytes": None, "path": "a.jpg"}} for row in rows[:1]]
    path = write_rows(tmp_path / "without", [*rows[1:], *without])
    found = list(read_examples(path, frozenset({"choices"}), 0))
    assert [isinstance(one, Example) for one in found] == [True, True, False]
    two = pairs(pair_samples(3))
    for number, (table, message) in enumerate(
        (
            ([{**row, "caption_1": ""} for row in two], "row 0, has a blank caption"),
            ([{name: value for name, value in row.items() if name != "image_1"} for row in two], "no column 'image_1'"),
        )
    ):
        path = write_rows(tmp_path / f"pairs{number}", table)
        with pytest.raises(UserError, match=message):
            list(read_examples(path, frozenset({"pairs"}), 0))
    path = write_rows(tmp_path / "half", [{**two[0], "image_0": {"bytes": b"", "path": ""}}, two[1]])
    found = list(read_examples(path, frozenset({"pairs"}), 0))
    assert [isinstance(one, Example) for one in found] == [False, True, True]
    assert "no picture in the column 'image_0'" in str(found[0])


def test_a_missing_caption_is_a_blank_one(tmp_path: Path) -> None:
    """It leaves no choice among the others."""
    _, rows = choices(selection_samples(3), CHOICES["aro/coco_order"])
    path = write_rows(tmp_path, [*rows[:2], {**rows[2], "hard_text_2": None}])
    with pytest.raises(UserError, match="row 2: caption 3 of 5 is blank"):
        list(read_examples(path, frozenset({"choices"}), 0))


# --- several labels ---

CLASSES = [f"thing {number}" for number in range(20)]
SAMPLES, TRUTH = multilabel_samples(31, 20)
ORDER = np.random.default_rng(1).permutation(20)
NAMES = [[CLASSES[number] for number in row] for row in numbers(TRUTH)]
FORMS: dict[str, tuple[Any, pa.DataType | None, list[str] | None]] = {
    "numbers": (numbers(TRUTH), None, None),
    "numbers of bytes": (numbers(TRUTH), pa.large_list(pa.uint8()), None),
    "repeated": ([row + row[:1] for row in numbers(TRUTH)], None, None),
    "of the file's classes": (numbers(TRUTH[:, ORDER]), None, [CLASSES[number] for number in ORDER]),
    "names": (NAMES, None, None),
    "padded names": ([[f" {name} " for name in row] for row in NAMES], pa.list_(pa.large_string()), None),
    "whole": (TRUTH.astype(int).tolist(), None, None),
    "fractions": (TRUTH.tolist(), pa.list_(pa.float32(), 20), None),
    "truth values": (TRUTH.astype(bool).tolist(), None, None),
}


def write_lists(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(CLASSES))
    (folder / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na drawing of the {c}\n")
    return folder


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["labels", "categories"])
def test_several_labels_in_every_form(form: str, name: str, tmp_path: Path) -> None:
    values, kind, classes = FORMS[form]
    table = labelled(SAMPLES, pa.array(values, kind), name, classes)
    path = write_table(write_lists(tmp_path), table)
    read = list(read_examples(path, frozenset({"labels"}), 20))
    assert all(isinstance(item, Example) for item in read)
    pictures = [next(data for name, data in members.items() if name != "npy") for _, members in SAMPLES]
    assert [item.image for item in read if isinstance(item, Example)] == pictures
    found = np.stack([item.metadata for item in read if isinstance(item, Example)])
    assert found.dtype == np.int64 and np.array_equal(found, TRUTH)


def test_two_classes_are_no_vector_unless_all_are_as_long(tmp_path: Path) -> None:
    write_lists(tmp_path)
    (tmp_path / "classnames.txt").write_text("cat\ndog")
    for values, expected in (
        ([[0], [1], [0, 1], []], [[1, 0], [0, 1], [1, 1], [0, 0]]),
        ([[0, 1], [1, 1], [0, 0], [1, 0]], [[0, 1], [1, 1], [0, 0], [1, 0]]),
    ):
        path = write_table(tmp_path, labelled(SAMPLES[:4], pa.array(values, pa.list_(pa.int64()))))
        read = list(read_examples(path, frozenset({"labels"}), 2))
        assert [item.metadata.tolist() for item in read if isinstance(item, Example)] == expected


def test_several_labels_are_scored_as_in_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    write_multilabel(tmp_path / "shards", VOC, SAMPLES)
    folder = write_lists(tmp_path / "tables" / VOC.folder)
    for place, rows in enumerate((slice(0, 18), slice(18, None))):
        table = labelled(SAMPLES[rows], pa.array(NAMES[rows]))
        write_table(folder, table, f"test-{place:05d}-of-00002.parquet")
    plain, ours = (
        scored(checkpoint, tmp_path / form, tmp_path / form / "out", [VOC.key]) for form in ("shards", "tables")
    )
    assert ours.line(VOC.key)["metrics"] == plain.line(VOC.key)["metrics"] and ours.line(VOC.key)["samples"] == 31
    tables = [{**outcome.predictions[VOC.key], "key": None} for outcome in (ours, plain)]
    one, other = (np.array(table.pop("scores"), float) for table in tables)
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-4)  # a batch is no longer than its file
    assert tables[0] == tables[1] and one.std() > 0.1
    assert 0 < ours.line(VOC.key)["metrics"]["mean_average_precision"] < 1
    capsys.readouterr()
    verify([VOC.model_copy(update={"samples": 31})], tmp_path / "tables", images=True, jobs=1)
    told = capsys.readouterr().out
    assert "voc2007_multilabel: wrong, 31 samples, 20 classes, not pinned" in told
    assert told.count("\n  ") == 2 and "classnames.txt, line 1, is 'thing 0', known is 'aeroplane'" in told
    before = ours.line(VOC.key)["data_digest"]
    (folder / "classnames.txt").write_text("\n".join([*CLASSES[:19], "thing 19 "]) + "\n")
    again = scored(checkpoint, tmp_path / "tables", tmp_path / "tables" / "out", [VOC.key])
    assert again.lines[-1]["data_digest"] != before, "the names are part of the data"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (pa.array([1, 2]), "the column 'labels' is int64, not a list of numbers or names of classes, or of 1 and 0"),
        (pa.array(["cat", "dog"]), "the column 'labels' is string, not a list of numbers or names of classes"),
        (pa.array([[b"cat"], []]), "the column 'labels' is list<element: binary>, not a list of numbers"),
        (pa.array([[{"a": 1}], []]), "not a list of numbers or names of classes"),
        (pa.array([[1], [20]]), "row 1: the label 20 is none of 0 .. 19, the numbers of the classes"),
        (pa.array([[-1], [2]]), "row 0: the label -1 is none of 0 .. 19"),
        (pa.array([[2, None], []]), "row 0: the number of a class is missing"),
        (pa.array([[2], None]), "row 1, has no list of labels; an empty one says that it has none"),
        (pa.array([["thing 1"], ["thin 2"]]), "row 1: none has the name 'thin 2'; did you mean 'thing 2'?"),
        (pa.array([["thing 1", None], []]), "row 0: the name of a class is missing"),
        (pa.array([[0, 1] * 10, [1, 0, 1]]), "row 1: 3 values of 1 and 0, but there are 20 class names"),
        (pa.array([[True] * 20, [True] * 19]), "row 1: 19 values of 1 and 0, but there are 20 class names"),
        (pa.array([[0.0] * 20, [0.5] * 20]), "row 1: something else than 1 and 0"),
        (pa.array([[1.0] * 19 + [float("nan")], [1.0] * 20]), "row 0: something else than 1 and 0"),
        (pa.array([[True] * 19 + [None], [True] * 20]), "row 0: something else than 1 and 0"),
    ],
)
def test_labels_that_cannot_be_read(labels: pa.Array, message: str, tmp_path: Path) -> None:
    path = write_table(write_lists(tmp_path), labelled(SAMPLES[:2], labels))
    with pytest.raises(UserError) as error:
        list(read_examples(path, frozenset({"labels"}), 20))
    assert message in str(error.value) and str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_classes_that_the_names_do_not_tell(tmp_path: Path) -> None:
    write_lists(tmp_path)
    labels = pa.array([[0], [1]])
    path = write_table(tmp_path, labelled(SAMPLES[:2], labels, classes=["thing 0", "other"]))
    with pytest.raises(UserError, match="column 'labels' is of classes of which none has the name 'other'; known: "):
        list(read_examples(path, frozenset({"labels"}), 20))
    (tmp_path / "classnames.txt").write_text("thing 0\nthing 0")
    path = write_table(tmp_path, labelled(SAMPLES[:2], pa.array([["thing 0"], []])))
    with pytest.raises(UserError, match="row 0: several have the name 'thing 0': number them"):
        list(read_examples(path, frozenset({"labels"}), 2))


def test_folders_of_several_labels_that_lack_something(tmp_path: Path) -> None:
    folder = write_lists(tmp_path / VOC.folder)
    for columns, message in (
        (
            pa.table({"labels": pa.array([[1]]), "words": ["a"]}),
            r"no column of pictures \(image, .*; it has labels, words",
        ),
        (pa.table({"image": pa.array([b"a"]), "words": ["a"]}), r"no column of labels \(labels, label, classes, "),
        (pa.table({"image": ["a.jpg"], "labels": [[1]]}), "pictures that lie outside of the file have to be put into"),
    ):
        path = write_table(folder, columns)
        with pytest.raises(UserError, match=message):
            list(read_examples(path, frozenset({"labels"}), 20))
    write_table(folder, labelled(SAMPLES[:1], pa.array([[1]])))
    (folder / "classnames.txt").unlink()
    with pytest.raises(UserError, match=r"classnames\.txt is missing"):
        open_data(VOC, tmp_path)


# --- which files ---


def test_files_of_a_split_are_one_version_of_it_and_whole(tmp_path: Path) -> None:
    folder, rows = tmp_path / WINOGROUND.folder, pairs(pair_samples(1))
    marks = ("-0a1b2c3d4e5f6789", "-fedcba9876543210")  # as the package datasets wrote them until 2023
    write_rows(folder, rows, f"train-00000-of-00001{marks[0]}.parquet")
    first = write_rows(folder, rows, f"test-00000-of-00002{marks[1]}.parquet")
    with pytest.raises(UserError, match=r"test-00001-of-00002-\*\.parquet is missing: test-00000-of-.* is one of 2"):
        open_data(WINOGROUND, tmp_path)
    second = write_rows(folder, rows, f"test-00001-of-00002{marks[0]}.parquet")
    assert open_data(WINOGROUND, tmp_path).shards == (first, second)
    for name in (WHOLE, "test-00001-of-00002.parquet", "test-00002-of-00002.parquet", "test.parquet"):
        other = write_rows(folder, rows, name)
        with pytest.raises(UserError, match=rf"two versions of the split test: .*{name}.*; take one away"):
            open_data(WINOGROUND, tmp_path)
        other.unlink()
    for path in (first, second):
        path.unlink()
    (whole, _) = (write_rows(folder, rows, name) for name in ("test.parquet", "val.parquet"))
    assert open_data(WINOGROUND, tmp_path).shards == (whole,)


def test_the_test_split_is_read_where_others_lie_beside_it(tmp_path: Path) -> None:
    folder, rows = tmp_path / WINOGROUND.folder, pairs(pair_samples(6))
    write_rows(folder, rows[:4], "train-00000-of-00001.parquet")
    assert [path.name for path in open_data(WINOGROUND, tmp_path).shards] == ["train-00000-of-00001.parquet"]
    write_rows(folder, rows[:4], "validation-00000-of-00001.parquet")
    with pytest.raises(UserError, match="holds no split test, only train, validation"):
        open_data(WINOGROUND, tmp_path)
    for place in range(2):
        write_rows(folder, rows[4:], f"test-{place:05d}-of-00002.parquet")
    names = [path.name for path in open_data(WINOGROUND, tmp_path).shards]
    assert names == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    (folder / names[0]).unlink()
    with pytest.raises(UserError, match=r"test-00000-of-00002\.parquet is missing: test-00001-of-.* is one of 2 files"):
        open_data(WINOGROUND, tmp_path)
    (folder / names[1]).rename(folder / WHOLE)
    write_rows(folder, rows, "0000.parquet")
    with pytest.raises(
        UserError, match=r"0000\.parquet does not tell its split, as test-00000-of-00001\.parquet beside"
    ):
        open_data(WINOGROUND, tmp_path)
    for path in folder.glob("*-of-*"):
        path.unlink()
    assert [path.name for path in open_data(WINOGROUND, tmp_path).shards] == ["0000.parquet"]


def test_kinds_that_are_not_read_from_tables(tmp_path: Path) -> None:
    write_rows(tmp_path / EUROSAT.folder, pairs(pair_samples(1)))
    with pytest.raises(UserError, match="holds parquet files, but vtab/eurosat is read from webdataset shards"):
        open_data(EUROSAT, tmp_path)
