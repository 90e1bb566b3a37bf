"""Which samples a subset file holds, many looked up at a time in the memory-mapped file."""

from typing import Any, NamedTuple

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

    Args:
        empty: whether it may hold no uid, see `mapped`.

    Raises:
        UserError: the file is missing, empty, of another dtype, or not sorted.
    """

    def __init__(self, path: str, empty: bool = False) -> None:
        subset = Subset(path, empty)
        subset.check_sorted()
        self.path, self.size = path, subset.size
        self._uids = mapped(path, empty)
        self._seen = np.zeros(-(-self.size // 8), np.uint8)  # a bit for each place that was noted

    def __reduce__(self) -> Any:
        """In another process it is the file alone, which is known to be good."""
        return _known, (self.path, self.size)

    def find(self, uids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each uid of u8,u8 [n] its first place in the file, and how often it stands there; int64 [n] both."""
        return find(self._uids, uids)

    def note(self, places: np.ndarray) -> None:
        """Remember that the uids at these places, first ones, are in the pool."""
        for bit in range(8):  # no two places of one bit share a byte, but for the same place twice
            self._seen[places[places % 8 == bit] // 8] |= np.uint8(1 << bit)

    def seen(self) -> int:
        """How many different uids were noted so far."""
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
        both = sum(int((other.find(uids[new])[1] > 0).sum()) for _, uids, new in pieces(self._uids))
        return Overlap(both, self.runs().distinct - both, other.runs().distinct - both)


def _known(path: str, size: int) -> Members:
    """Members of a file that was looked through before."""
    found = Members.__new__(Members)
    found.path, found.size, found._uids, found._seen = path, size, mapped(path, empty=True), np.empty(0, np.uint8)
    return found
