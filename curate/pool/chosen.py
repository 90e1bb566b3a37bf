"""A choice among a pool's rows, as passes over the pool know it: how often each row of a file is kept."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError

from curate.pool.files import File, Rows, read, read_columns
from curate.pool.passes import attempt, light


class Needs(NamedTuple):
    """Columns of the parquet, besides uid, and arrays of the npz."""

    columns: tuple[str, ...]
    arrays: tuple[str, ...]


def joined(every: Iterable[Needs]) -> Needs:
    """All columns and arrays that some need, each once."""
    both = list(every)
    columns, arrays = ([name for one in both for name in one[place]] for place in (0, 1))
    return Needs(tuple(dict.fromkeys(columns)), tuple(dict.fromkeys(arrays)))


def check_there(files: Sequence[File], needs: Needs) -> None:
    """Look for a file that has what is needed, before anything is fetched or computed for it. Others that lack it are
    told in their turn.

    Raises:
        UserError: there is none.
    """
    if not any(needs) or any(file.subsets for file in files[:1]):
        return
    reasons = []
    for file in files:
        found = attempt(_opened, (needs,), file)
        if not found.why:
            return
        reasons.append(found.why)
    raise UserError(f"no file of the pool can be used; {reasons[0]}")


def _opened(file: File, needs: Needs) -> None:
    next(read_columns(file, *needs, at_once=1), None)


class Chooser(Protocol):
    """What says which rows are kept. Sent to workers, once it knows all that it has to know of the whole pool."""

    @property
    def needs(self) -> Needs:
        """What `count` reads."""
        ...

    @property
    def light(self) -> bool:
        """Whether Arrow and numpy do its work; see curate.pool.passes.light."""
        ...

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """How often each row is kept, int64 [rows]; `rows` is never empty, and "uid" is among the arrays, u8,u8."""
        ...

    def identity(self) -> Any:
        """All that the kept rows depend on, JSON-able."""
        ...


class Everything:
    """Keeps each row that has a good uid."""

    needs = Needs((), ())
    light = True

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.ones(len(arrays["uid"]), np.int64)

    def identity(self) -> Any:
        return "everything"


def judged(file: File, chosen: Chooser) -> Iterator[tuple[Rows, np.ndarray]]:
    """The rows of a file piece by piece, with how often each is kept.

    Raises:
        BadFile: it cannot be read, or lacks what the choice needs.
    """
    for rows in read(file, *chosen.needs):
        if len(rows.arrays["uid"]):
            yield rows, chosen.count(rows.table, rows.arrays)
        else:
            yield rows, np.zeros(0, np.int64)


@light
def kept_bits(file: File, chosen: Chooser) -> np.ndarray:
    """Which rows of a file are kept, however often, a bit each, u1 [rows / 8]; one without a good uid is not."""
    parts = []
    for rows, counts in judged(file, chosen):
        kept = np.zeros(len(rows.good), bool)
        kept[rows.good] = counts > 0
        parts.append(kept)
    return np.packbits(np.concatenate(parts) if parts else np.zeros(0, bool))


def bits_of(bits: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Those of some rows, of what `kept_bits` gives, bool [stop - start]."""
    some = np.unpackbits(bits[start // 8 : -(-stop // 8)])
    return some[start % 8 :][: stop - start].astype(bool)
