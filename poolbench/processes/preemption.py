"""Stopping when asked to. SLURM warns before it preempts a job or its time is up; a run then finishes its step, writes
a checkpoint and ends with a status that asks for another start."""

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPED = os.EX_TEMPFAIL  # 75: "temporary failure, try again"
GLANCE = 0.2  # seconds between two looks for signals of a process that waits; see `Preemption.waiting`
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)  # cancel and preemption, our sbatch scripts', submitit's


class GracePeriodOver(BaseException):
    """What a process asked to stop waits for does not come."""


class Preemption:
    """Whether this process was asked to stop. Until `defer` that ends it at once, as there is nothing to save."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self._before: dict[int, Any] = {}
        self._deferred = False
        self._grace: float | None = None  # while waiting
        self._leave_at = math.inf  # by time.monotonic()

    def defer(self) -> None:
        """From here on only `asked` tells of a signal; the caller comes to an end in order."""
        self._deferred = True

    @contextmanager
    def waiting(self, grace: float) -> Iterator[None]:
        """For a block that may take forever, and can be left at any point.

        The block is interrupted every GLANCE seconds. While this thread is about to hear of another signal (a worker's
        end or suspension), the kernel gives a request to stop to any other thread; Python acts on it here alone, and
        not before what this thread waits for returns.

        Raises:
            GracePeriodOver: `grace` seconds went by since it began and a request to stop came.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        self._grace = grace
        self._leave_at = math.inf if self.asked is None else time.monotonic() + grace
        before = signal.signal(signal.SIGALRM, self._look)
        try:
            signal.setitimer(signal.ITIMER_REAL, GLANCE, GLANCE)
            yield
        finally:
            self._grace = None
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _look(self, number: int, frame: FrameType | None) -> None:
        if self._grace is not None and time.monotonic() >= self._leave_at:
            self._leave_at = math.inf  # what clears up behind us may take its time
            raise GracePeriodOver

    def end(self) -> int:
        """Do what was to be done at the signal before us (submitit's jobs requeue themselves), or return STOPPED."""
        assert self.asked is not None
        before = self._before.get(self.asked)
        if callable(before):
            before(self.asked, None)
        return STOPPED

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = signal.Signals(number)
        if not self._deferred:
            sys.exit(self.end())
        if self._grace is not None:
            self._leave_at = time.monotonic() + self._grace

    def _install(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no other may
            self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}

    def _restore(self) -> None:
        for number, handler in self._before.items():
            # A second signal must not change the exit status of a process that is about to end for the first.
            signal.signal(number, handler if self.asked is None else signal.SIG_IGN)


@contextmanager
def preemption_signals() -> Iterator[Preemption]:
    """Listen to SIGNALS for as long as the block lasts."""
    preemption = Preemption()
    preemption._install()
    try:
        yield preemption
    finally:
        preemption._restore()


def leave_stopping_to_parent(ended: Callable[[], bool]) -> None:
    """For a process that serves another one: signals to the whole job must not end it before its parent, which still
    has a step to finish. SIGTERM does once `ended()` is true."""

    def quit_if_ended(number: int, frame: FrameType | None) -> None:
        if ended():
            os._exit(0)

    for number in SIGNALS:
        signal.signal(number, quit_if_ended)
    quit_if_ended(0, None)  # what came before was for the handlers of our parent, which we had from it
