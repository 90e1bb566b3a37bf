"""The contact sheet: from stored predictions and the data alone, the same pictures every time."""

import io
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evalsets import (
    classification_samples,
    metadata_of,
    retrieval_samples,
    scored,
    with_metadata,
    write_checkpoint,
    write_classification,
    write_faces,
    write_retrieval,
)
from PIL import Image

from poolbench.errors import UserError
from poolbench.shards.pictures import rgb

from evaluate.contact_sheet import COLUMNS, COMMAND, RIGHT, TRUTH, WRONG, Cell, draw, lines_of, sampled
from tasks.registry import load_tasks
from tasks.results import predictions_path

FLICKR, EUROSAT = "retrieval/flickr_1k_test_image_text_retrieval", "vtab/eurosat"
FACES = "fairness/utkface"


LABELS = np.zeros(4, np.int64)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and run/, in which a retrieval task and one of classification were evaluated."""
    root = tmp_path_factory.mktemp("sheet")
    write_retrieval(root / "data", load_tasks()[FLICKR], retrieval_samples(30))
    write_classification(root / "data", load_tasks()[EUROSAT], classification_samples(20, 10))
    samples = classification_samples(4, 2)
    write_faces(root / "data", load_tasks()[FACES], with_metadata(samples, metadata_of(load_tasks()[FACES], LABELS)))
    checkpoint = write_checkpoint(root / "model.pt")
    scored(checkpoint, root / "data", root / "run", [FLICKR, EUROSAT, FACES])
    scored(write_checkpoint(root / "model.pt", seed=4), root / "data", root / "other", [EUROSAT])
    checkpoint.unlink()
    return root


def run_main(root: Path, **options: Any) -> int:
    options = {"run": root / "run", "data": root / "data", "task": FLICKR, **options}
    return COMMAND.answer([f"{key}={value}" for key, value in options.items()])


def test_a_sheet_is_written(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(evaluated, count=20) == 0
    path = evaluated / "run" / "contact_sheet.png"
    rows = sampled(predictions_path(evaluated / "run", FLICKR), 20)
    hits = sum(row["text_rank"] == 1 for row in rows)
    assert capsys.readouterr().out == f"{path}: 20 pictures, the first caption is right for {hits}\n"
    first = path.read_bytes()
    with Image.open(path) as sheet:
        assert sheet.mode == "RGB" and sheet.width > COLUMNS * 100
    run_main(evaluated, count=20)
    assert path.read_bytes() == first
    run_main(evaluated, count=99, out=evaluated / "all.png")  # more than there are
    with Image.open(evaluated / "all.png") as sheet:
        assert sheet.height > Image.open(path).height


def test_rows_are_drawn_evenly_and_always_the_same(tmp_path: Path) -> None:
    columns = {
        "key": [f"{n}" for n in range(100)],
        "captions": [["a"]] * 100,
        "text_rank": range(1, 101),
        "best_caption": ["a"] * 100,
    }
    pa.parquet.write_table(pa.table({**columns, "top_captions": [["a"]] * 100}), tmp_path / "p.parquet")
    rows = sampled(tmp_path / "p.parquet", 40)
    assert rows == sampled(tmp_path / "p.parquet", 40)
    assert len({row["key"] for row in rows}) == 40
    assert 35 < np.mean([row["text_rank"] for row in rows]) < 65


def test_right_captions_are_green_and_wrong_ones_red() -> None:
    image = Image.new("RGB", (30, 60), (0, 0, 255))
    row = {
        "captions": ["a dog", "hound"],
        "text_rank": 2,
        "best_caption": "hound",
        "top_captions": ["a cat", "hound", "fish"],
    }
    assert lines_of(row) == [("a cat", WRONG), ("hound", RIGHT), ("fish", WRONG), ("right at #2: hound", TRUTH)]
    right = Cell(image, lines_of({"captions": ["a dog"], "text_rank": 1, "top_captions": ["a dog", "b"]}))
    assert right.lines == [("a dog", RIGHT), ("b", WRONG)]
    colours = {colour for _, colour in draw([right]).getcolors(100_000) or []}
    assert {RIGHT, WRONG, (0, 0, 255)} <= colours and TRUTH not in colours
    long = Cell(image, lines_of({"captions": ["x " * 400], "text_rank": 1, "top_captions": ["x " * 400]}))
    assert draw([long]).width == draw([right]).width


def test_a_task_of_classification_is_drawn(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_main(evaluated, task=EUROSAT, out=evaluated / "classes.png") == 0
    table = pa.parquet.read_table(predictions_path(evaluated / "run", EUROSAT))
    hits = int(np.sum(np.equal(table["label"], table["prediction"])))
    assert capsys.readouterr().out == f"{evaluated}/classes.png: 20 pictures, the class is right for {hits}\n"


def test_classes_are_called_as_the_task_calls_them(tmp_path: Path) -> None:
    task = load_tasks()["multilingual/imagenet1k_it"]
    samples = classification_samples(3, 1000)
    write_classification(tmp_path / "data", load_tasks()["imagenet1k"], samples, shards=1, known=True)
    path = files("clip_benchmark") / "datasets" / "it_classnames.json"
    names = json.loads(path.read_text(encoding="utf-8"))["imagenet1k"]
    labels = [int(members["cls"]) for _, members in samples]
    predictions_path(tmp_path / "run", task.key).parent.mkdir(parents=True)
    predicted = [labels[0], 7, 8]
    columns = {"key": [key for key, _ in samples], "label": labels, "prediction": predicted}
    pa.parquet.write_table(pa.table(columns), predictions_path(tmp_path / "run", task.key))
    assert run_main(tmp_path, task=task.key) == 0
    cells = []
    for (_, members), label, said in zip(samples, labels, predicted, strict=True):
        (data,) = [content for extension, content in members.items() if extension != "cls"]
        lines = [(names[said], RIGHT)] if said == label else [(names[said], WRONG), (f"right: {names[label]}", TRUTH)]
        cells.append(Cell(rgb(Image.open(io.BytesIO(data))), lines))
    with Image.open(tmp_path / "run" / "contact_sheet.png") as sheet:
        assert sheet.tobytes() == draw(cells).tobytes()


def test_samples_on_which_two_models_differ_are_drawn(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"task": EUROSAT, "against": evaluated / "other", "out": evaluated / "two.png"}
    assert run_main(evaluated, **options) == 0
    names = ("run", "other")
    first, second = (pa.parquet.read_table(predictions_path(evaluated / name, EUROSAT)) for name in names)
    right = [np.equal(table["label"], table["prediction"]) for table in (first, second)]
    a, b = int(np.sum(right[0] & ~right[1])), int(np.sum(right[1] & ~right[0]))
    assert a + b > 0
    said = f"{a + b} of {a + b} pictures that one has right, {a} A, {b} B\n"
    assert capsys.readouterr().out == f"{evaluated}/two.png: {said}"
    with Image.open(evaluated / "two.png") as sheet:
        colours = {colour for _, colour in sheet.getcolors(1_000_000) or []}
    assert {RIGHT, WRONG, TRUTH} <= colours


def test_classes_that_the_data_lack_are_told(evaluated: Path, tmp_path: Path) -> None:
    write_classification(tmp_path, load_tasks()[EUROSAT], classification_samples(20, 2), classes=2)
    with pytest.raises(UserError, match="the predictions are of other data; evaluate again"):
        run_main(evaluated, task=EUROSAT, data=tmp_path)


def test_wrong_input(evaluated: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"run": tmp_path}, "evaluate the task first"),
        ({"task": FACES}, "of neither a retrieval task nor one of classification"),
        ({"against": evaluated / "run"}, "is not a task with a class for each sample"),
        ({"task": EUROSAT, "against": tmp_path}, "has no results"),
        ({"task": EUROSAT, "against": evaluated / "run"}, "have the same samples of vtab/eurosat right"),
        ({"data": tmp_path}, "does not exist"),
        ({"count": 0}, "count=0"),
        ({"count": "many"}, "count"),
        ({"tusk": "a"}, "unknown key 'tusk'"),
    ):
        with pytest.raises(UserError, match=message):
            run_main(evaluated, **options)
    write_retrieval(tmp_path, load_tasks()[FLICKR], retrieval_samples(3))
    with pytest.raises(UserError, match="the predictions are of other data"):
        run_main(evaluated, data=tmp_path)
    with pytest.raises(UserError, match="task= is needed"):
        COMMAND.answer([f"run={evaluated}"])
