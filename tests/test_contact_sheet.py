"""The contact sheet: from stored predictions and the data alone, the same pictures every time."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from evalsets import (
    classification_samples,
    retrieval_samples,
    scored,
    write_checkpoint,
    write_classification,
    write_retrieval,
)
from PIL import Image

from poolbench.errors import UserError

from evaluate.contact_sheet import COLUMNS, COMMAND, RIGHT, TRUTH, WRONG, cell_of, draw, sampled
from tasks.registry import load_tasks
from tasks.results import predictions_path

FLICKR, EUROSAT = "retrieval/flickr_1k_test_image_text_retrieval", "vtab/eurosat"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/ and run/, in which a retrieval task and one of classification were evaluated."""
    root = tmp_path_factory.mktemp("sheet")
    write_retrieval(root / "data", load_tasks()[FLICKR], retrieval_samples(30))
    write_classification(root / "data", load_tasks()[EUROSAT], classification_samples(5, 10))
    checkpoint = write_checkpoint(root / "model.pt")
    scored(checkpoint, root / "data", root / "run", [FLICKR, EUROSAT])
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
    cell = cell_of(row, image)
    assert cell.lines == [("a cat", WRONG), ("hound", RIGHT), ("fish", WRONG), ("right at #2: hound", TRUTH)]
    right = cell_of({"captions": ["a dog"], "text_rank": 1, "top_captions": ["a dog", "b"]}, image)
    assert right.lines == [("a dog", RIGHT), ("b", WRONG)]
    colours = {colour for _, colour in draw([right]).getcolors(100_000) or []}
    assert {RIGHT, WRONG, (0, 0, 255)} <= colours and TRUTH not in colours
    long = cell_of({"captions": ["x " * 400], "text_rank": 1, "top_captions": ["x " * 400]}, image)
    assert draw([long]).width == draw([right]).width


def test_wrong_input(evaluated: Path, tmp_path: Path) -> None:
    for options, message in (
        ({"run": tmp_path}, "evaluate the task first"),
        ({"task": EUROSAT}, "is not of a retrieval task"),
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
