"""Which samples a subset file holds, many looked up at a time in the memory-mapped file."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from train.subset import Subset

_CHUNK = 2**20  # uids that are in memory at a time


class Overlap(NamedTuple):
    """Two subsets side by side, in different uids; repeats count once."""

    both: int
    first_only: int
    second_only: int

    @property
    def jaccard(self) -> float:
        """The share of both in either."""
        return self.both / (self.both + self.first_only + self.second_only)


class Runs(NamedTuple):
    """Different uids of a subset, and how often the most repeated one stands there."""

    distinct: int
    longest: int


class Members:
    """A subset file.

    Raises:
        UserError: the file is missing, empty, of another dtype, or not sorted.
    """

    def __init__(self, path: str) -> None:
        subset = Subset(path)
        subset.check_sorted()
        self.path, self.size = path, subset.size
        self._uids: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        self._seen = np.zeros(-(-self.size // 8), np.uint8)  # a bit for each place whose uid has been looked up

    def times(self, uids: np.ndarray) -> np.ndarray:
        """How often the subset holds each uid of u8,u8 [n], int64 [n]; remembers which of its own it was asked for."""
        first = self._search(uids, after=False)
        count: np.ndarray = self._search(uids, after=True) - first
        places = first[count > 0]
        for bit in range(8):  # no two places of one bit share a byte, but for the same place twice
            self._seen[places[places % 8 == bit] // 8] |= np.uint8(1 << bit)
        return count

    def seen(self) -> int:
        """How many different uids were found by `times` so far."""
        return int(np.bitwise_count(self._seen).sum())

    def runs(self) -> Runs:
        """Read the whole file once and count its equals, which stand beside each other."""
        distinct, longest, start = 0, 1, 0
        for offset, _, new in self._chunks():
            places = offset + np.flatnonzero(new)
            if len(places):
                longest = max(longest, int(places[0]) - start, int(np.diff(places).max(initial=0)))
                distinct, start = distinct + len(places), int(places[-1])
        return Runs(distinct, max(longest, self.size - start))

    def overlap(self, other: "Members") -> Overlap:
        """What this subset has in common with another one."""
        both = sum(int((other.times(uids[new]) > 0).sum()) for _, uids, new in self._chunks())
        return Overlap(both, self.runs().distinct - both, other.runs().distinct - both)

    def _chunks(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Some uids at a time: the place of the first, the uids, and which of them differ from the one before."""
        for start in range(0, self.size, _CHUNK):
            uids = np.asarray(self._uids[start : start + _CHUNK])
            new = np.ones(len(uids), bool)
            new[1:] = uids[1:] != uids[:-1]
            new[0] = start == 0 or uids[0] != self._uids[start - 1]
            yield start, uids, new

    def _search(self, uids: np.ndarray, after: bool) -> np.ndarray:
        """Where each uid would be put in, before its equals or after them, int64 [n].

        numpy's own search would copy the whole file, and compares pairs one at a time.
        """
        low, high = np.zeros(len(uids), np.int64), np.full(len(uids), self.size, np.int64)
        for _ in range(self.size.bit_length()):
            middle = (low + high) // 2
            there = self._uids[np.minimum(middle, self.size - 1)]
            same = there["f0"] == uids["f0"]
            below = there["f1"] <= uids["f1"] if after else there["f1"] < uids["f1"]
            right = (low < high) & ((there["f0"] < uids["f0"]) | (same & below))
            low, high = np.where(right, middle + 1, low), np.where((low < high) & ~right, middle, high)
        return low
