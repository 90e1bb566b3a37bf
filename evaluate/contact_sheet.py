"""A picture of what a model sees: held-out images with the captions it ranks first, right ones green, wrong ones red.

python -m evaluate.contact_sheet run=runs/<name> task=<retrieval task> [data=<evalsets>]

Needs the stored predictions of the task and no model. The images are drawn at random with a fixed seed, so neither
good nor bad ones are picked.
"""

import io
import random
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

from evaluate.config import data_folder
from tasks.readers import Example, open_data, read_examples
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


@dataclass
class SheetOptions:
    """The options."""

    run: str = output("folder of a run, or of other results")
    data: str | None = source("folder of the evaluation sets; null: the embedded ones", None)
    task: str = option("a retrieval task")
    count: int = option("pictures", 42)
    out: str | None = output("file, a PNG; null: contact_sheet.png in the run", None)


class Cell(NamedTuple):
    """A picture of the sheet and the lines of text below it, each in its colour."""

    image: Image.Image
    lines: list[tuple[str, tuple[int, int, int]]]


def write(options: SheetOptions) -> None:
    """The command: write the sheet and print where it lies.

    Raises:
        UserError: no predictions are stored, or the pictures are not in the data folder.
    """
    if options.count < 1:
        raise UserError(f"count={options.count}: at least 1")
    rows = sampled(predictions_path(Path(options.run), options.task), options.count)
    folder = data_folder(options.data, select([options.task])[0].suite)
    images = read_images(options.task, folder, {row["key"] for row in rows})
    path = Path(options.run) / "contact_sheet.png" if options.out is None else Path(options.out)
    with atomic(path, "wb") as file:
        draw([cell_of(row, images[row["key"]]) for row in rows]).save(file, "PNG")
    hits = sum(row["text_rank"] == 1 for row in rows)
    print(f"{path}: {len(rows)} pictures, the first caption is right for {hits}")


def sampled(path: Path, count: int) -> list[dict[str, Any]]:
    """`count` rows of a predictions file at random, or all where there are fewer; the same ones every time.

    Raises:
        UserError: the file does not exist or is not of a retrieval task.
    """
    columns = ["key", "captions", "text_rank", "best_caption", "top_captions"]
    try:
        table = pq.read_table(path)
    except (FileNotFoundError, pa.ArrowException):
        raise UserError(f"{path} does not exist; evaluate the task first (python -m evaluate ...)") from None
    if not set(columns) <= set(table.column_names):
        raise UserError(f"{path} is not of a retrieval task; choose one with task=")
    chosen = random.Random(SEED).sample(range(len(table)), min(count, len(table)))
    rows: list[dict[str, Any]] = table.select(columns).take(sorted(chosen)).to_pylist()
    return rows


def read_images(key: str, data: Path, keys: set[str]) -> dict[str, Image.Image]:
    """The pictures of the samples `keys` of a task, by key.

    Raises:
        UserError: the task or its folder does not exist, or a picture is not in it.
    """
    task = select([key])[0]
    images: dict[str, Image.Image] = {}
    for shard in open_data(task, data).shards:
        for item in read_examples(shard, frozenset(), 0):
            if isinstance(item, Example) and item.key in keys:
                images[item.key] = rgb(Image.open(io.BytesIO(item.image)))
    missing = sorted(keys - set(images))
    if missing:
        raise UserError(f"{data} has no picture {missing[0]}: the predictions are of other data; evaluate again")
    return images


def cell_of(row: dict[str, Any], image: Image.Image) -> Cell:
    """The model's captions in their order; below them, where the first is wrong, the first right one."""
    right = set(row["captions"])
    captions = row["top_captions"]
    lines = [(caption, RIGHT if caption in right else WRONG) for caption in captions]
    if captions[0] not in right:
        lines.append((f"right at #{row['text_rank']}: {row['best_caption']}", TRUTH))
    return Cell(image, lines)


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
