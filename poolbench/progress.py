"""How far a command has come, shown once it takes longer than a moment."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm

_MOMENT = 0.5  # seconds, within which nobody waits for a bar; tqdm takes a tenth of one to load


class Progress:
    """A bar of tqdm's, within a `with` block.

    Attributes:
        total: how many there are, which may grow.
    """

    def __init__(self, total: int, what: str, unit: str, *, logged: bool = False, initial: int = 0) -> None:
        """
        Args:
            logged: whether it is written where there is no terminal, too, and stays at the end.
            initial: how many were done before.
        """
        self.total = total
        self._what, self._unit, self._logged, self._initial = what, unit, logged, initial
        self._shown = logged or sys.stderr.isatty()
        self._begun, self._done = time.time(), 0
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self._done += count
        if self._bar is None and self._shown and time.time() > self._begun + _MOMENT:
            self._bar, count = self._made(), self._done
        if self._bar is not None:
            self._bar.total = self.total
            self._bar.update(count)

    def write(self, line: str) -> None:
        """Tell something above the bar."""
        if self._bar is None:
            print(line, file=sys.stderr)
        else:
            self._bar.write(line, file=sys.stderr)

    def _made(self) -> "tqdm[Any]":
        from tqdm import tqdm

        bar: tqdm[Any] = tqdm(
            total=self.total,
            desc=self._what,
            unit=self._unit,
            initial=self._initial,
            leave=self._logged,
            mininterval=_MOMENT if self._logged else 0.1,
        )
        bar.start_t = self._begun  # else its rate would be that of what comes now
        return bar
