"""Parquet files that hold the pictures themselves, as the Hub has data sets."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line
from poolbench.shards.parquet import picture

from curate.pack.options import FIRST
from curate.pack.plan import Held, Plan
from curate.pack.rows import NO_CAPTION, Wrong, captions_in, is_utf8

_BATCH = 32  # rows in memory at a time; one holds a whole picture
_BUFFER = 2**20  # bytes that are read at a time of each column; else Arrow reads a whole row group


class Picture(NamedTuple):
    """A row that holds a picture; `captions` are those of which a sample each is made, or why one is none."""

    row: int
    where: str
    name: str
    data: bytes
    captions: list[str | Wrong]
    url: str | None


def pictures(plan: Plan, start: int, stop: int) -> Iterator[Picture]:
    """The rows from one number to another, of all files one behind the other.

    Raises:
        UserError: a file cannot be read.
    """
    first = 0
    for held in plan.held:
        if first < stop and first + held.rows > start:
            yield from _of_file(plan, held, first, max(start - first, 0), min(stop - first, held.rows))
        first += held.rows


def where_of(plan: Plan, row: int) -> str:
    """How a report calls a row."""
    for held in plan.held:
        if row < held.rows:
            return f"{Path(held.path).name} row {row}"
        row -= held.rows
    raise AssertionError(row)


def _of_file(plan: Plan, held: Held, first: int, start: int, stop: int) -> Iterator[Picture]:
    """Rows of a file, whose own first one has the number `first`."""
    columns = [plan.layout.image, *plan.layout.captions, *([plan.layout.url] if plan.layout.url else [])]
    name = Path(held.path).name
    for number, record in _records(held, columns, start, stop):
        data, called = picture(record[plan.layout.image])
        url = record.get(plan.layout.url)
        link = url if isinstance(url, str) and url and is_utf8(url) else None
        captions = [one for column in plan.layout.captions for one in captions_in(record[column])]
        yield Picture(first + number, f"{name} row {number}", called or "", data, _wanted(captions, plan), link)


def _wanted(captions: list[str | Wrong], plan: Plan) -> list[str | Wrong]:
    """Of columns of captions some may be empty."""
    good = [one for one in captions if isinstance(one, str) or one.reason != NO_CAPTION] or captions[:1]
    return good[:1] if plan.captions == FIRST else good


def _records(held: Held, columns: list[str], start: int, stop: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows from `start` to `stop` with their numbers, little in memory at a time."""
    groups: list[int] = []
    number = first = 0
    for group, rows in enumerate(held.groups):
        if first < stop and first + rows > start:
            number = number if groups else first
            groups.append(group)
        first += rows
    try:
        with pq.ParquetFile(held.path, buffer_size=_BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(_BATCH, row_groups=groups, columns=columns, use_threads=False):
                if number + len(batch) > start:
                    for place, record in enumerate(batch.to_pylist(), start=number):
                        if start <= place < stop:
                            yield place, record
                number += len(batch)
                if number >= stop:
                    return
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{held.path} is damaged: {first_line(error)}; bring it anew, with all its rows") from None
