"""Which samples a subset file holds, many looked up at a time in the memory-mapped file."""

from typing import NamedTuple

import numpy as np

from poolbench.subset import Subset
from poolbench.uids import find, mapped, pieces


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
        self._uids = mapped(path)
        self._seen = np.zeros(-(-self.size // 8), np.uint8)  # a bit for each place whose uid has been looked up

    def times(self, uids: np.ndarray) -> np.ndarray:
        """How often the subset holds each uid of u8,u8 [n], int64 [n]; remembers which of its own it was asked for."""
        first, count = find(self._uids, uids)
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
        for offset, _, new in pieces(self._uids):
            places = offset + np.flatnonzero(new)
            if len(places):
                longest = max(longest, int(places[0]) - start, int(np.diff(places).max(initial=0)))
                distinct, start = distinct + len(places), int(places[-1])
        return Runs(distinct, max(longest, self.size - start))

    def overlap(self, other: "Members") -> Overlap:
        """What this subset has in common with another one."""
        both = sum(int((other.times(uids[new]) > 0).sum()) for _, uids, new in pieces(self._uids))
        return Overlap(both, self.runs().distinct - both, other.runs().distinct - both)
