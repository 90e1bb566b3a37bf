"""Columns that somebody else made, found by uid or by webdataset key."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from poolbench.uids import Uids

from curate.pool.files import BadFile, File, parse_uids, read_columns, schema_of
from curate.pool.joined import Table, kind_of, look_up, names_of_texts, open_table, scattered
from curate.scorers.rows import RowScorer

UID, KEY = "uid", "key"  # what rows may be found by
_INSTEAD = "name tables that have key and uid by keys="


class Matched(NamedTuple):
    """Of one file of the pool: its rows, those that have a value, and which rows of the table it has."""

    rows: int
    matched: int
    found: np.ndarray


class Piece(NamedTuple):
    """Some rows of a file: what the scorer reads of all of them, which have a name, bool, and the names of those."""

    table: pa.Table
    good: np.ndarray
    names: Uids


class Imported(RowScorer):
    """The values that a table has for each row, see curate.pool.joined; NaN for a row that it does not have."""

    def __init__(self, name: str, makes: tuple[str, ...], by: str, table: Path, digest: str, remake: str) -> None:
        """
        Args:
            table: names of uids or keys, and values of `makes`.
            digest: of what it was made of.
        """
        self.name, self.makes, self.remake = name, makes, remake
        self.by, self.table, self.digest = by, table, digest
        self.columns, self.kind = (by,), kind_of(len(makes))

    def identity(self) -> Any:
        return {"imported": self.digest, "by": self.by}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        table, parts = opened_table(str(self.table), self.kind), []
        for piece in self.pieces(file):
            values = np.full((len(piece.good), len(self.makes)), np.nan, np.float32)
            found = look_up(table, piece.names)
            rows = np.flatnonzero(piece.good)[found >= 0]
            values[rows] = table.rows["values"][found[found >= 0]]
            parts.append(values)
        every = np.concatenate([*parts, np.zeros((0, len(self.makes)), np.float32)])
        return {name: np.ascontiguousarray(every[:, place]) for place, name in enumerate(self.makes)}

    def matched(self, file: File) -> Matched:
        """What of a file and of the table belongs together."""
        table = opened_table(str(self.table), self.kind)
        rows, matched, found = 0, 0, []
        for piece in self.pieces(file):
            places = look_up(table, piece.names)
            found.append(places[places >= 0])
            rows, matched = rows + len(piece.good), matched + self.valued(table, found[-1])
        return Matched(rows, matched, np.unique(np.concatenate([*found, np.zeros(0, np.int64)])))

    def valued(self, table: Table, found: np.ndarray) -> int:
        """How many of some rows of the table have a value."""
        return int((~np.isnan(table.rows["values"][found])).any(axis=1).sum())

    def pieces(self, file: File) -> Iterator[Piece]:
        """The rows of a file, some after the others.

        Raises:
            BadFile: it cannot be read, has no keys, or such as are no text.
        """
        if self.by == KEY and KEY not in schema_of(file).names:
            raise BadFile(f"{file.path} has no column {KEY!r}; {_INSTEAD}")
        for table, _ in read_columns(file, self.columns):
            if self.by == UID:
                uids, good, _ = parse_uids(table[UID])
                yield Piece(table, good, scattered(uids))
                continue
            texts = table[KEY].to_pylist()
            good = np.array([isinstance(text, str) for text in texts], bool)
            if texts and not good.any():
                kind = "empty" if table[KEY].null_count == len(texts) else table[KEY].type
                raise BadFile(f"{file.path}: its column {KEY!r} is {kind}, not text; {_INSTEAD}")
            yield Piece(table, good, names_of_texts([text for text in texts if isinstance(text, str)]))


def matched(file: File, scorer: Imported) -> Matched:
    """See Imported.matched; a function that passes can call."""
    return scorer.matched(file)


@functools.cache
def opened_table(path: str, kind: np.dtype) -> Table:
    """A table, opened once per process."""
    return open_table(Path(path), kind)
