"""Do something for every number of a range in processes; a part that fails does not stop the others."""

import functools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")

_WAITING = 4  # parts handed to the pool for each worker


def in_processes(
    function: Callable[[Job, int], Result], job: Job, parts: Iterable[int], workers: int
) -> Generator[tuple[int, Result | Exception], None, None]:
    """`function(job, part)` for each part, as they end: its result, or what it raised."""
    task, parts = functools.partial(function, job), iter(parts)
    waiting: dict[Future[Result], int] = {}
    # Forked: a worker that imports everything anew takes longer than many a shard.
    context = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(workers, context, _end_with, (os.getpid(),))
    try:
        while True:
            while len(waiting) < _WAITING * workers and (part := next(parts, None)) is not None:
                try:
                    waiting[pool.submit(task, part)] = part
                except BrokenProcessPool as error:
                    yield part, error
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                failure = future.exception()
                if failure is not None and not isinstance(failure, Exception):
                    raise failure
                yield waiting.pop(future), failure or future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with(parent: int) -> None:
    """Let this process end when the one that started it is killed, before another run takes its place."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
