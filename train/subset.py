"""Subset files: the uids of the chosen samples, as every filter writes them and training and resharding read them.

A `.npy` array of dtype `u8,u8`, the two halves of each 128-bit hex uid, sorted. A uid that stands m times counts m
times.
"""

import bisect
import re
from pathlib import Path

import numpy as np

from conf.errors import UserError
from conf.files import atomic

DTYPE = np.dtype("u8,u8")
_UID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)


def split_uid(uid: str) -> tuple[int, int]:
    """The two 64-bit halves of a uid.

    Raises:
        ValueError: `uid` is not 32 hex digits.
    """
    if not isinstance(uid, str) or not _UID.fullmatch(uid):
        raise ValueError(f"uid {uid!r} is not 32 hex digits")
    return int(uid[:16], 16), int(uid[16:], 16)


class Subset:
    """How often each uid is wanted, looked up in the memory-mapped file: 1.4 billion uids cost no memory.

    Raises:
        UserError: the file is missing, empty, of another dtype, or not sorted.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise UserError(f"subset {path} cannot be read: {error}") from None
        if array.dtype != DTYPE or array.ndim != 1:
            raise UserError(f"subset {path} holds {array.dtype} {list(array.shape)}; a subset is a list of u8,u8 uids")
        if not len(array):
            raise UserError(f"subset {path} is empty; nothing would be trained on")
        self.size = len(array)
        # A plain memoryview gives Python integers several times faster than numpy does, one at a time.
        self._halves = memoryview(array.view("u8").reshape(-1))

    def __reduce__(self) -> tuple[type["Subset"], tuple[str]]:
        return Subset, (self.path,)  # workers map the file again instead of copying it

    def check_sorted(self) -> None:
        """Read the whole file once; lookups in an unsorted one would miss samples in silence."""
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for start in range(0, self.size, 2**22):
            part = array[start : start + 2**22 + 1]
            high, low = part["f0"], part["f1"]
            wrong = (high[1:] < high[:-1]) | ((high[1:] == high[:-1]) & (low[1:] < low[:-1]))
            if wrong.any():
                raise UserError(
                    f"subset {self.path} is not sorted at row {start + int(wrong.argmax()) + 1}; np.sort it"
                )

    def count(self, uid: str) -> int:
        """How often the subset holds `uid`: 0 where it is not chosen.

        Raises:
            ValueError: `uid` is not 32 hex digits.
        """
        wanted = split_uid(uid)
        first = bisect.bisect_left(range(self.size), wanted, key=self._at)
        last = first
        while last < self.size and self._at(last) == wanted:
            last += 1
        return last - first

    def _at(self, row: int) -> tuple[int, int]:
        return self._halves[2 * row], self._halves[2 * row + 1]


def write_subset(path: Path | str, uids: list[str]) -> None:
    """Write hex uids as a subset file, sorted, repeats kept."""
    array = np.array([split_uid(uid) for uid in uids], dtype=DTYPE)
    array.sort()
    with atomic(path, "wb") as file:
        np.save(file, array)
