"""A table of values by a 128-bit name, of any size, in a file: written in any order, looked up in sorted order.

Rows are parted by the leading bits of their names' hashes into as many parts as fit into memory one at a time; each is
sorted, and of rows with one name the first stays.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poolbench.files import atomic
from poolbench.uids import DTYPE, Uids

from curate.pool.hashes import mixed

_PART = 2**20  # rows that are sorted at a time
_PARTS = 512  # files that are open at a time


class Counts(NamedTuple):
    """Rows of a table that is written: how many names, and rows beyond the first of a name."""

    names: int
    repeated: int
    contradictory: int  # of those repeated, with other values than the first


def scattered(uids: Uids) -> Uids:
    """Other names for uids, one for each, evenly spread however alike those are."""
    names = np.empty(len(uids), DTYPE)
    names["f0"], names["f1"] = mixed(uids["f0"] ^ mixed(uids["f1"])), uids["f1"]
    return names


def names_of_texts(texts: Sequence[str]) -> Uids:
    """The names of any texts: 128 bits of their BLAKE2b."""
    digests = b"".join(hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in texts)
    return np.frombuffer(digests, DTYPE)


def kind_of(values: int) -> np.dtype:
    """Rows of a table: a name, and so many values."""
    return np.dtype([("f0", "u8"), ("f1", "u8"), ("values", "f4", (values,))])


def rows_of(names: Uids, values: np.ndarray) -> np.ndarray:
    """Rows of a table from names and values, float32 [rows, columns]."""
    rows = np.empty(len(names), kind_of(values.shape[1]))
    rows["f0"], rows["f1"], rows["values"] = names["f0"], names["f1"], values
    return rows


def write_table(pieces: Iterable[np.ndarray], kind: np.dtype, path: Path, expected: int) -> Counts:
    """Sort rows into a file; the first of each name stays.

    Args:
        pieces: arrays of `kind`.
        expected: about how many rows there will be.
    """
    parts = min(_PARTS, max(1, -(-expected // _PART)))
    places = [path.with_name(f".{path.name}.{part}") for part in range(parts)]
    try:
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(place.open("wb")) for place in places]
            for rows in pieces:
                # Names are even over u8, so that the high bits of a product with the number of parts tell the part.
                of = (rows["f0"] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
                for part in np.unique(of).tolist():
                    streams[part].write(rows[of == part].tobytes())
        names = total = contradictory = 0
        with atomic(_first_halves(path), "wb") as halves, atomic(path, "wb") as stream:
            for place in places:
                rows = np.fromfile(place, kind)
                rows = rows[np.lexsort((np.arange(len(rows)), rows["f1"], rows["f0"]))]
                new, other = _told_apart(rows)
                stream.write(rows[new].tobytes())
                halves.write(rows["f0"][new].tobytes())
                names, total, contradictory = names + int(new.sum()), total + len(rows), contradictory + other
    finally:
        for place in places:
            place.unlink(missing_ok=True)
    return Counts(names, total - names, contradictory)


class Table(NamedTuple):
    """A table, memory-mapped: its rows, sorted by name, and the first halves of the names by themselves, which
    np.searchsorted takes as they lie there."""

    rows: np.ndarray
    first: np.ndarray


def open_table(path: Path, kind: np.dtype) -> Table:
    """What write_table wrote."""
    if not path.stat().st_size:
        return Table(np.zeros(0, kind), np.zeros(0, "u8"))
    return Table(np.memmap(path, kind, "r"), np.memmap(_first_halves(path), "u8", "r"))


def look_up(table: Table, names: Uids) -> np.ndarray:
    """The row of each name in a table, int64 [names]; -1 where it has none."""
    order = np.argsort(names["f0"])  # so that the file is read from front to back
    high, low = names["f0"][order], names["f1"][order]
    places = np.searchsorted(table.first, high)
    found = np.full(len(names), -1)
    left = np.flatnonzero(places < len(table.first))
    while len(left):  # once, but for names that begin alike
        left = left[table.first[places[left]] == high[left]]
        hit = table.rows["f1"][places[left]] == low[left]
        found[order[left[hit]]] = places[left[hit]]
        left = left[~hit]
        places[left] += 1
        left = left[places[left] < len(table.first)]
    return found


def _first_halves(path: Path) -> Path:
    return path.with_name(f"{path.name}.first")


def _told_apart(rows: np.ndarray) -> tuple[np.ndarray, int]:
    """Of rows sorted by name, which are the first of theirs, and how many others differ from the first in a value."""
    new = np.ones(len(rows), bool)
    new[1:] = (rows["f0"][1:] != rows["f0"][:-1]) | (rows["f1"][1:] != rows["f1"][:-1])
    first = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
    ones, others = rows["values"][~new], rows["values"][first[~new]]
    same = (ones == others) | (np.isnan(ones) & np.isnan(others))
    return new, int((~same.all(axis=1)).sum())
