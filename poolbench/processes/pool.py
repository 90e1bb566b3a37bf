"""A pool of processes that work for this one and never longer than it does."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from poolbench.machine import end_with_parent

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Pool(ProcessPoolExecutor):
    """Processes that leave Ctrl-C to this one, which ends them at once where an error leaves the `with` block; they end
    with this one, too, however that ends.

    What an executor does by itself at such an end is to wait for what is under way: for as long as that takes, or for
    ever where a process is suspended.
    """

    def __init__(self, count: int, method: str | None = None, begin: Callable[[], None] | None = None) -> None:
        """
        Args:
            method: by which processes are started; None: the system's default.
            begin: called first in each of them.
        """
        super().__init__(count, multiprocessing.get_context(method), _begin, (begin,))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        with held():  # this starts processes
            return super().submit(fn, *args, **kwargs)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(at_once=error is not None)

    def end(self, at_once: bool) -> None:
        """End the processes behind what is under way, or `at_once`."""
        processes = list((self._processes or {}).values())
        manager: Any = self._executor_manager_thread  # a thread, for typeshed its wakeup
        results: Any = self._result_queue
        try:
            self.shutdown(wait=not at_once, cancel_futures=at_once)
        finally:  # a request to stop may find us waiting
            for process in processes:
                process.kill()  # one that is suspended hears nothing else
            if results is not None:
                results._writer.close()  # else the rest of a result that one was sending is waited for
            if manager is not None:  # left behind, it closes pipes that the interpreter's end is writing to
                manager.join()


@contextmanager
def held() -> Iterator[None]:
    """Hold the signals that ask to stop, for a block that starts processes: these begin with them held, and have not to
    act on one before they can. What comes meanwhile is heard here behind the block.

    Another thread may take one all the same, of which Python tells the main one at once: it is noted until then.
    """
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # no other may
        handlers = {one: handler for one in _STOPPING if (handler := signal.getsignal(one)) is not None}
    for one in handlers:
        signal.signal(one, lambda number, frame: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for one, handler in handlers.items():
            signal.signal(one, handler)
        for number in came:
            signal.raise_signal(number)


def deaf_to_interrupts() -> None:
    """In a process that was started with signals `held`: leave Ctrl-C to the one that started it, which hears it too,
    and hear the others from here on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def _begin(begin: Callable[[], None] | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever the process that started this one does then
    deaf_to_interrupts()
    end_with_parent()
    if begin is not None:
        begin()
