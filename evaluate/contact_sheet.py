"""A picture of what a model sees: held-out images with the captions it ranks first, or the class it chooses, right ones
green, wrong ones red.

python -m evaluate.contact_sheet run=runs/<name> task=<task> [data=<evalsets>]
python -m evaluate.contact_sheet run=runs/<name> against=runs/<other> task=<task of classification> [data=<evalsets>]

Needs the stored predictions of the task and no model. The images are drawn at random with a fixed seed, so neither
good nor bad ones are picked; with `against=` they are those on which two models differ most.
"""

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont, ImageOps

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic
from poolbench.options import option, output, source
from poolbench.shards.pictures import rgb

from evaluate.compare import differing
from evaluate.config import data_folder
from evaluate.disagreements import Said
from tasks.examples import Example
from tasks.languages import open_task
from tasks.readers import TaskData, read_examples
from tasks.registry import select
from tasks.results import predictions_path

COLUMNS = 6
SIDE = 144  # pixels of a picture's square
WIDTH = 290  # pixels for a line of text
LINE = 18  # pixels of a line of text
MARGIN = 10
FONT_SIZE = 13
SEED = 0
RIGHT, WRONG, TRUTH = (0, 110, 40), (185, 20, 20), (90, 90, 90)
FRAME, PAPER = (215, 215, 215), (255, 255, 255)
Lines = list[tuple[str, tuple[int, int, int]]]  # of text, each in its colour
_COLUMNS = (["key", "captions", "text_rank", "best_caption", "top_captions"], ["key", "label", "prediction"])


@dataclass
class SheetOptions:
    """The options."""

    run: str = output("folder of a run, or of other results")
    data: str | None = source("folder of the evaluation sets; null: the embedded ones", None)
    task: str = option("a task of retrieval or classification")
    against: str | None = source("another run: draw the samples on which the two differ most", None)
    count: int = option("pictures", 42)
    out: str | None = output("file, a PNG; null: contact_sheet.png in the run", None)


class Cell(NamedTuple):
    """A picture of the sheet and the lines of text below it, each in its colour."""

    image: Image.Image
    lines: Lines


def write(options: SheetOptions) -> None:
    """The command: write the sheet and print where it lies.

    Raises:
        UserError: no predictions are stored, or the pictures are not in the data folder.
    """
    if options.count < 1:
        raise UserError(f"count={options.count}: at least 1")
    task = select([options.task])[0]
    data = open_task(task, data_folder(options.data, task.suite))
    keys, cells, said = _of_two(options, data) if options.against is not None else _of_one(options, data)
    images = read_images(data, set(keys))
    path = Path(options.run) / "contact_sheet.png" if options.out is None else Path(options.out)
    with atomic(path, "wb") as file:
        draw([Cell(images[key], lines) for key, lines in zip(keys, cells, strict=True)]).save(file, "PNG")
    print(f"{path}: {said}")


def _of_one(options: SheetOptions, data: TaskData) -> tuple[list[str], list[Lines], str]:
    """Keys of the pictures, the lines below each, and what is said of them all."""
    rows = sampled(predictions_path(Path(options.run), options.task), options.count)
    keys = [row["key"] for row in rows]
    if "text_rank" in rows[0]:
        hits = sum(row["text_rank"] == 1 for row in rows)
        return keys, [lines_of(row) for row in rows], f"{len(rows)} pictures, the first caption is right for {hits}"
    hits = sum(row["prediction"] == row["label"] for row in rows)
    lines = [_class_lines(row["label"], [("", Said(row["prediction"], row.get("confidence")))], data) for row in rows]
    return keys, lines, f"{len(rows)} pictures, the class is right for {hits}"


def _of_two(options: SheetOptions, data: TaskData) -> tuple[list[str], list[Lines], str]:
    """The same of the samples on which two models differ most: of each model the class and how sure it is."""
    assert options.against is not None
    found = differing(options.task, Path(options.run), Path(options.against), options.count)
    if not found.samples:
        raise UserError(f"{options.run} and {options.against} have the same samples of {options.task} right")
    lines = [_class_lines(one.label, [("A: ", one.a), ("B: ", one.b)], data) for one in found.samples]
    differ = found.only_a + found.only_b
    said = f"{len(lines)} of {differ} pictures that one has right, {found.only_a} A, {found.only_b} B"
    return [one.key for one in found.samples], lines, said


def _class_lines(label: int, said: Sequence[tuple[str, Said]], data: TaskData) -> Lines:
    """What each model says, in its colour; below, where one is wrong, what is right."""
    lines = []
    for name, (prediction, confidence) in said:
        sure = "" if confidence is None else f"{confidence:.2f} "  # before the name, which may be too long
        lines.append((f"{name}{sure}{_class(prediction, data)}", RIGHT if prediction == label else WRONG))
    if any(one.prediction != label for _, one in said):
        lines.append((f"right: {_class(label, data)}", TRUTH))
    return lines


def _class(index: int, data: TaskData) -> str:
    """The name of a class.

    Raises:
        UserError: the data have fewer.
    """
    if index >= len(data.classnames):
        raise UserError(f"{data.folder} has no class {index}: the predictions are of other data; evaluate again")
    return data.classnames[index]


def sampled(path: Path, count: int) -> list[dict[str, Any]]:
    """`count` rows of a predictions file at random, or all where there are fewer; the same ones every time.

    Raises:
        UserError: the file does not exist or is of neither a retrieval task nor one of classification.
    """
    try:
        table = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowException):
        raise UserError(f"{path} does not exist; evaluate the task first (python -m evaluate ...)") from None
    needed = next((needed for needed in _COLUMNS if set(needed) <= set(table.column_names)), None)
    if needed is None:
        raise UserError(f"{path} is of neither a retrieval task nor one of classification; choose one with task=")
    columns = [*needed, *(name for name in ("confidence",) if name in table.column_names)]
    chosen = random.Random(SEED).sample(range(len(table)), min(count, len(table)))
    rows: list[dict[str, Any]] = table.select(columns).take(sorted(chosen)).to_pylist()
    return rows


def read_images(data: TaskData, keys: set[str]) -> dict[str, Image.Image]:
    """The pictures of the samples `keys` of a task, by key.

    Raises:
        UserError: a picture is not in its folder.
    """
    images: dict[str, Image.Image] = {}
    for shard in data.shards:
        for item in read_examples(shard, frozenset(), 0):
            if isinstance(item, Example) and item.key in keys:
                images[item.key] = rgb(Image.open(io.BytesIO(item.image)))
    missing = sorted(keys - set(images))
    if missing:
        raise UserError(f"{data.folder} has no picture {missing[0]}: the predictions are of other data; evaluate again")
    return images


def lines_of(row: dict[str, Any]) -> Lines:
    """The model's captions in their order; below them, where the first is wrong, the first right one."""
    right = set(row["captions"])
    captions = row["top_captions"]
    lines = [(caption, RIGHT if caption in right else WRONG) for caption in captions]
    if captions[0] not in right:
        lines.append((f"right at #{row['text_rank']}: {row['best_caption']}", TRUTH))
    return lines


def draw(cells: list[Cell]) -> Image.Image:
    """The cells in rows of COLUMNS."""
    font = ImageFont.load_default(FONT_SIZE)
    width = WIDTH + MARGIN
    height = SIDE + LINE * max(len(cell.lines) for cell in cells) + MARGIN
    columns = min(COLUMNS, len(cells))
    sheet = Image.new("RGB", (columns * width + MARGIN, -(-len(cells) // columns) * height + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    for index, cell in enumerate(cells):
        x, y = MARGIN + index % columns * width, MARGIN + index // columns * height
        picture = ImageOps.contain(cell.image, (SIDE, SIDE), Image.Resampling.BICUBIC)
        left = x + (WIDTH - SIDE) // 2
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, y + (SIDE - picture.height) // 2))
        pen.rectangle((left, y, left + SIDE - 1, y + SIDE - 1), outline=FRAME)
        for number, (text, colour) in enumerate(cell.lines):
            pen.text((x, y + SIDE + 3 + number * LINE), shortened(text, font, WIDTH), colour, font)
    return sheet


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, or as much of it as fits `width` pixels with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


COMMAND = Command(SheetOptions, write)

if __name__ == "__main__":
    COMMAND.start()
