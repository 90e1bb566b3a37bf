"""Where the pictures and captions of a source are, and how its tables of text are read."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from poolbench.text import some

from curate.pack.options import COCO, PAIRS, PARQUET


class Layout(NamedTuple):
    """Where pictures and captions are.

    Attributes:
        files: tables, COCO's file, or parquet files with pictures; none of pairs.
        pictures: folder of the pictures that lie in files of their own.
        image: column of the pictures, or of their names.
        captions: columns of captions.
        url: column of urls, "" where there is none.
    """

    kind: str
    files: tuple[str, ...]
    pictures: str
    image: str = ""
    captions: tuple[str, ...] = ()
    url: str = ""


def told(layout: Layout) -> str:
    """The layout in a line."""
    if layout.kind == PAIRS:
        return f"{layout.pictures}: pictures, each with its caption in the .txt beside it"
    files = some([Path(file).name for file in layout.files])
    if layout.kind == COCO:
        return f"{files}: captions of COCO, of the pictures in {layout.pictures}"
    where = "pictures" if layout.kind == PARQUET else f"names of the pictures in {layout.pictures}"
    captions = " and ".join(map(repr, layout.captions))
    url = f", urls from {layout.url!r}" if layout.url else ""
    return f"{files}: {where} from the column {layout.image!r}, captions from {captions}{url}"


def delimiter_of(path: str) -> str:
    """By what the columns of a table of text are parted: a tab, or what its first line has most of."""
    if path.lower().endswith(".tsv"):
        return "\t"
    with open_text(path) as file:
        first = file.readline()
    return max(",;\t|", key=first.count)


def open_text(path: str) -> io.TextIOWrapper:
    """A text in UTF-8; what is not becomes surrogates, so that one bad line does not spoil the others."""
    return open(path, encoding="utf-8-sig", errors="surrogateescape", newline="")  # noqa: PTH123


def header_of(rows: Iterator[list[str]]) -> list[str]:
    """The names of the columns, which the first row of a table of text holds."""
    try:
        return [name.strip() for name in next(rows, [])]
    except csv.Error:
        return []
