"""From sorted runs of uids, in files, to one sorted subset file, of any size in bounded memory.

The uids are cut into ranges small enough for memory; each range is read from all runs, sorted and appended.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from poolbench.files import atomic
from poolbench.uids import DTYPE, Uids, write_header

RUN = 2**20  # uids that are sorted at a time
_SAMPLES = 2**20  # leading halves, over all runs, that the ranges are cut by
_BYTES = 64  # that sorting takes for each uid
# A range does not fill the memory that there is, as larger ones are no faster. Only many runs ask for larger ones: each
# is opened and read for every range.
_RANGE, _OF_A_RUN = 2**18, 2**8  # uids


class Run(NamedTuple):
    """Sorted uids in a file without a header, from row `first` on."""

    path: Path
    first: int
    rows: int

    def read(self, start: int, stop: int) -> np.ndarray:
        with self.path.open("rb") as file:
            file.seek((self.first + start) * DTYPE.itemsize)
            return np.fromfile(file, DTYPE, stop - start)

    def high(self) -> np.ndarray:
        """The leading halves, memory-mapped."""
        mapped = np.memmap(self.path, "u8", "r", self.first * DTYPE.itemsize, (self.rows, 2))
        return np.asarray(mapped[:, 0])


class RunWriter:
    """Writes uids, as they come, as sorted runs of about RUN, one behind the other.

    Attributes:
        lengths: uids of each run so far.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.lengths: list[int] = []
        self._stream = stream
        self._pending: list[Uids] = []

    @property
    def uids(self) -> int:
        """How many were written."""
        return sum(self.lengths)

    def add(self, uids: Uids) -> None:
        """Take uids in any order."""
        self._pending.append(uids)
        if sum(map(len, self._pending)) >= RUN:
            self.end()

    def end(self) -> None:
        """Write what is not written yet."""
        if self._pending:
            uids = sort_uids(np.concatenate(self._pending))
            self._stream.write(uids.data)
            self.lengths.append(len(uids))
            self._pending.clear()


def runs_in(path: Path, lengths: Sequence[int]) -> list[Run]:
    """The runs that a RunWriter wrote into a file."""
    firsts = np.cumsum([0, *lengths]).tolist()
    return [Run(path, first, rows) for first, rows in zip(firsts, lengths, strict=False)]


def merge(runs: list[Run], out: Path, memory: int) -> int:
    """Write all uids of `runs`, repeats too, as a subset file; how many they are.

    Args:
        memory: bytes that this may take at most. Uids with the same leading half are never parted, so many of those
            take more.
    """
    runs = [run for run in runs if run.rows]
    total = sum(run.rows for run in runs)
    with atomic(out, "wb") as file:
        write_header(file, total)
        for part in _sorted_parts(runs, max(1, min(memory // _BYTES, max(_RANGE, len(runs) * _OF_A_RUN)))):
            file.write(part.data)
    return total


def sort_uids(uids: Uids, in_runs: bool = False) -> Uids:
    """Sorted by both halves: by the leading bits of the first one, which takes a fortieth of np.sort's time, where that
    is enough.

    Args:
        in_runs: whether they are sorted runs, one behind the other, which a stable sort merges. It takes a quarter of
            the time for them, and longer for others.
    """
    # The place of each uid takes the last bits, so that sorting plain numbers, which is fastest, gives the order.
    places = np.uint64((1 << max(len(uids) - 1, 0).bit_length()) - 1)
    keys = uids["f0"] & ~places
    keys |= np.arange(len(uids), dtype=np.uint64)
    keys.sort(kind="stable" if in_runs else None)
    keys &= places
    found: Uids = uids[keys.view(np.int64)]
    high, low = found["f0"].copy(), found["f1"]
    further = high[1:] > high[:-1]
    if not further.all() and (~further & ((high[1:] < high[:-1]) | (low[1:] < low[:-1]))).any():
        found = uids[np.lexsort((uids["f1"], uids["f0"]))]
    return found


def _sorted_parts(runs: list[Run], most: int) -> Iterator[np.ndarray]:
    """The uids in order, about `most` at a time."""
    edges = _edges(runs, most)
    cuts = [np.concatenate([[0], np.searchsorted(run.high(), edges), [run.rows]]) for run in runs]
    for part in range(len(edges) + 1):
        pieces = [run.read(cut[part], cut[part + 1]) for run, cut in zip(runs, cuts, strict=True)]
        if pieces:
            yield sort_uids(np.concatenate(pieces), in_runs=True)


def _edges(runs: list[Run], most: int) -> np.ndarray:
    """Leading halves that cut the runs into ranges of about `most` uids."""
    total = sum(run.rows for run in runs)
    if total <= most:
        return np.zeros(0, np.uint64)
    # Each run gives samples at even steps, so that n samples stand for about n steps of uids.
    step = max(1, min(most // 8, max(total // _SAMPLES, most // (8 * len(runs)))))
    # Copies: what is mapped counts as this process's memory.
    samples = np.sort(np.concatenate([run.high()[::step].copy() for run in runs]))
    return np.unique(samples[:: max(1, most // step)][1:])
