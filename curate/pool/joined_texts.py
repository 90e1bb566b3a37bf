"""Lists of texts by a 128-bit name, any number of any length, in files: written in any order, looked up by name.

The lists lie one behind the other as JSON; a table (curate.pool.joined) says where each name's begins and how long it
is.
"""

import functools
import json
import mmap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from poolbench.files import atomic
from poolbench.uids import Uids

from curate.pool.joined import Counts, Table, kind_of, rows_of, write_table

KIND = kind_of(4)  # where a list begins and its bytes, two u8, kept as the bits of four values


def write_texts(pieces: Iterable[tuple[Uids, Sequence[Sequence[str]]]], path: Path, expected: int) -> Counts:
    """Keep lists of texts by their names; the first list of each name stays.

    Args:
        pieces: names and a list for each.
        path: of the table; the lists lie beside it.
        expected: about how many names there will be.

    Returns:
        How many; whether repeated names had other texts is not told.
    """
    with atomic(_lists(path), "wb") as stream:

        def rows() -> Iterator[np.ndarray]:
            end = 0
            for names, texts in pieces:
                lists = [json.dumps(list(one)).encode() for one in texts]
                spans = np.zeros((len(lists), 2), "u8")
                spans[:, 1] = [len(one) for one in lists]
                spans[:, 0] = end + np.cumsum(spans[:, 1]) - spans[:, 1]
                end += int(spans[:, 1].sum())
                stream.write(b"".join(lists))
                yield rows_of(names, spans.view("f4"))

        counts = write_table(rows(), KIND, path, expected)
    return counts._replace(contradictory=0)


def texts_at(path: Path, table: Table, places: np.ndarray) -> list[list[str]]:
    """The lists of some rows of the table, as `curate.pool.joined.look_up` finds them."""
    spans = np.ascontiguousarray(table.rows["values"][places]).view("u8").tolist()
    lists = _opened(str(_lists(path)))
    return [json.loads(lists[start : start + length]) for start, length in spans]


@functools.cache
def _opened(path: str) -> mmap.mmap:
    with Path(path).open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _lists(path: Path) -> Path:
    return path.with_name(f"{path.name}.lists")
