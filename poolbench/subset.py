"""The subset of the data that a run trains on, looked up one uid at a time."""

import bisect

from poolbench.errors import UserError
from poolbench.uids import mapped, split_uid, unsorted_row


class Subset:
    """How often each uid is wanted, looked up in the memory-mapped file.

    Args:
        empty: whether the file may hold none, see `mapped`.

    Raises:
        UserError: the file is missing, empty or of another dtype.
    """

    def __init__(self, path: str, empty: bool = False) -> None:
        self.path, self._empty = path, empty
        try:
            uids = mapped(path, empty)
        except UserError as error:
            raise UserError(f"subset {error}") from None
        self.size = len(uids)
        # A plain memoryview gives Python integers several times faster than numpy does, one at a time.
        self._halves = uids.view("u8").data

    def __reduce__(self) -> tuple[type["Subset"], tuple[str, bool]]:
        return Subset, (self.path, self._empty)  # workers map the file again instead of copying it

    def check_sorted(self) -> None:
        """Read the whole file once; lookups in an unsorted one would miss samples in silence.

        Raises:
            UserError: it is not sorted.
        """
        row = unsorted_row(mapped(self.path, self._empty))
        if row is not None:
            raise UserError(f"subset {self.path} is not sorted at row {row}; np.sort it")

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
