"""Pictures with captions that a table, COCO's file or pairs of files name, in the order in which they are packed."""

import csv
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from poolbench.errors import UserError, first_line
from poolbench.files import files_below, once
from poolbench.shards.parquet import rows as parquet_rows
from poolbench.shards.parquet import texts

from curate.pack.layouts import Layout, delimiter_of, header_of, open_text
from curate.pack.options import COCO, FIRST, PAIRS

NO_CAPTION = "empty caption"
NO_TEXT = "caption is no text"
NOT_UTF8 = "caption is not UTF-8"
_NO_NAME = "no name of a picture"
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".jfif"}


class Row(NamedTuple):
    """A picture in a file of its own, and its caption.

    Attributes:
        where: how a report calls it.
        file: the picture, from the folder of the pictures on.
        caption: None where it is the content of `caption_file`.
    """

    where: str
    file: str
    caption: str | None
    caption_file: str | None
    url: str | None


class Rejected(NamedTuple):
    """What cannot be used, and why. `row` is its number among the rows, -1 of what did not become one."""

    row: int
    where: str
    picture: str
    reason: str


class Passed:
    """What is passed over, and is nothing wrong: further captions, and files that are none of ours by their suffix."""

    def __init__(self) -> None:
        self.captions = 0
        self.files: Counter[str] = Counter()


def rows_of(layout: Layout, captions: str, passed: Passed) -> Iterator[Row | Rejected]:
    """All rows of a source that has its pictures in files of their own.

    Args:
        captions: FIRST: only the first caption of each picture becomes a row.

    Raises:
        UserError: a file cannot be read.
    """
    if layout.kind == PAIRS:
        yield from _pairs(layout.pictures, passed)
        return
    seen: set[str] = set()
    for where, name, value, url in _coco(layout.files[0]) if layout.kind == COCO else _table(layout):
        if isinstance(value, Rejected):
            yield value
            continue
        for row in _worded(where, name, value, url):
            if isinstance(row, Row) and captions == FIRST:
                if row.file in seen:
                    passed.captions += 1
                    continue
                seen.add(row.file)
            yield row


def names_of(layout: Layout) -> Iterator[str]:
    """The pictures that a table or COCO's file names."""
    for _, name, value, _ in _coco(layout.files[0]) if layout.kind == COCO else _table(layout):
        if isinstance(name, str) and not isinstance(value, Rejected):
            yield name


def _worded(where: str, name: Any, value: Any, url: Any) -> Iterator[Row | Rejected]:
    """A row for each caption of a picture."""
    if not isinstance(name, str) or not name.strip():
        yield Rejected(-1, where, "", _NO_NAME)
        return
    shown = name.encode(errors="backslashreplace").decode()
    if "\0" in name or not _encodable(name):
        yield Rejected(-1, where, shown, "its name is none that a file can have")
        return
    for caption in captions_in(value):
        if isinstance(caption, str):
            link = url if isinstance(url, str) and url and is_utf8(url) else None
            yield Row(where, name.strip(), caption, None, link)
        else:
            yield Rejected(-1, where, shown, str(caption))


class Wrong(NamedTuple):
    """Why a caption is none."""

    reason: str

    def __str__(self) -> str:
        return self.reason


def captions_in(value: Any) -> list[str | Wrong]:
    """The captions of a value, without the space around them; at least one, or why there is none."""
    if not (value is None or isinstance(value, str) or _is_texts(value)):
        return [Wrong(NO_TEXT)]
    found = texts(value)
    if not found:
        return [Wrong(NO_CAPTION)]
    return [_checked(caption) for caption in found]


def _checked(caption: str) -> str | Wrong:
    if not caption.strip("\0 "):  # zeros are what a hole in a file reads as
        return Wrong(NO_CAPTION)
    return caption if is_utf8(caption) else Wrong(NOT_UTF8)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str | None) for text in value)


def is_utf8(text: str) -> bool:
    """Whether a text can be written: JSON can spell a lone surrogate, and what was no UTF-8 was read as some."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def _encodable(name: str) -> bool:
    try:
        os.fsencode(name)
        return True
    except UnicodeEncodeError:
        return False


def _table(layout: Layout) -> Iterator[tuple[str, Any, Any, Any]]:
    """Where each row of tables is, the name of its picture, its caption or captions, and its url; or a Rejected as the
    third of them."""
    columns = [layout.image, layout.captions[0], layout.url or None]
    for path in layout.files:
        name = Path(path).name
        if path.lower().endswith(".parquet"):
            for number, record in parquet_rows(Path(path), [column for column in columns if column]):
                yield (f"{name} row {number}", *_picked(record, columns))
        else:
            lined = _json_lines if path.lower().endswith(("jsonl", ".ndjson")) else _csv_lines
            for number, held in lined(path):
                where = f"{name} line {number}"
                if isinstance(held, dict):
                    yield (where, *_picked(held, columns))
                else:
                    yield where, None, Rejected(-1, where, "", held), None


def _picked(record: dict[str, Any], columns: list[str | None]) -> tuple[Any, Any, Any]:
    image, caption, url = (record.get(column) if column else None for column in columns)
    return image, caption, url


def _json_lines(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """The numbers of lines, and what they hold or why they hold nothing."""
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line, object_pairs_hook=once)
            except UserError as error:
                yield number, f"no JSON object: {error}"
                continue
            except (ValueError, RecursionError):
                record = None
            yield number, record if isinstance(record, dict) else "no JSON object"


def _csv_lines(path: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with open_text(path) as file:
        reader = csv.reader(file, delimiter=delimiter_of(path), strict=True)
        names = header_of(reader)
        while True:
            start = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = f"{start}" if reader.line_num <= start else f"{start} to {reader.line_num}"
                yield start, f"no row of a table: {error} (lines {lines})"
                continue
            if not cells:
                continue
            if len(cells) != len(names):
                yield start, f"other columns than the first line: {len(cells)} instead of {len(names)}"
                continue
            yield start, dict(zip(names, cells, strict=True))


def _coco(path: str) -> Iterator[tuple[str, Any, Any, Any]]:
    """As `_table`, of COCO's captions in the order of the file; at its end the pictures without any.

    Raises:
        UserError: it is no file of captions.
    """
    try:
        content = json.loads(Path(path).read_bytes(), object_pairs_hook=once)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON, or was cut off: {first_line(error)}") from None
    try:
        images = {image["id"]: image for image in content["images"]}
        annotations = content["annotations"]
        if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
            raise TypeError
    except (KeyError, TypeError):
        raise UserError(f"{path} is no file of COCO's captions: it lacks a list of images or of annotations") from None
    if annotations and not any("caption" in one for one in annotations):
        raise UserError(f"{path} holds no captions, but other annotations; captions_*.json has them")
    captioned = set()
    for number, one in enumerate(annotations):
        where = f"{Path(path).name} annotation {one.get('id', f'number {number}')}"
        image = images.get(one.get("image_id"))
        if image is None:
            yield where, None, Rejected(-1, where, "", f"no image of its id: {one.get('image_id')}"), None
            continue
        captioned.add(image["id"])
        yield where, image.get("file_name"), one.get("caption"), image.get("coco_url")
    for image in images.values():
        if image["id"] not in captioned:
            where = f"{Path(path).name} image {image['id']}"
            yield where, None, Rejected(-1, where, str(image.get("file_name")), "no caption"), None


def _pairs(folder: str, passed: Passed) -> Iterator[Row | Rejected]:
    """The pictures below a folder that have a .txt of their name beside them, sorted by name.

    Raises:
        UserError: there is no picture, or no .txt.
    """
    pictures, captions = [], set()
    start = len(str(Path(folder))) + 1 if str(Path(folder)) != "." else 0
    for path in map(str, files_below(Path(folder))):
        name = path[start:]
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (a Path of each of millions takes long)
        if suffix in _PICTURES:
            pictures.append(name)
        elif suffix == ".txt":
            captions.add(name)
        else:
            passed.files[suffix or "no suffix"] += 1
    if not pictures or not captions:
        lacks = "no pictures" if not pictures else "no .txt beside a picture, nor a table at its top"
        raise UserError(f"from={folder} holds {lacks}; name a table by from=, and the pictures' folder by pictures=")
    used = set()
    for name in sorted(pictures, key=os.fsencode):
        stem = os.path.splitext(name)[0]  # noqa: PTH122
        caption = next((text for text in (f"{stem}.txt", f"{stem}.TXT") if text in captions), None)
        shown = os.fsencode(name).decode(errors="backslashreplace")
        if caption is None:
            yield Rejected(-1, shown, shown, "no caption: no .txt of its name beside it")
            continue
        used.add(caption)
        yield Row(shown, name, None, caption, None)
    for name in sorted(captions - used, key=os.fsencode):
        shown = os.fsencode(name).decode(errors="backslashreplace")
        yield Rejected(-1, shown, "", "no picture: none of its name beside it")
