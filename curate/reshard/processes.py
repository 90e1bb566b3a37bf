"""Do tasks in processes as they come up; one that fails does not stop the others."""

from collections.abc import Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from poolbench.processes.pool import Pool
from poolbench.processes.preemption import GLANCE


class Task(NamedTuple):
    """`function(*arguments)`, which can be sent to a process."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def in_processes(take: Callable[[], Task | None], workers: int) -> Generator[tuple[Task, Any], None, None]:
    """Each task with its result, or with the Exception that it raised, as they end.

    One more than there are workers waits for them, so that what `take` has first is not far from being done first.
    `take` gives the next task, or None where there is none for now; it is asked again after each result, and the end is
    when it has none while none is under way.
    """
    waiting: dict[Future[Any], Task] = {}
    # Forked: a worker that imports everything anew takes longer than many a shard.
    with Pool(workers, "fork") as pool:
        while True:
            while len(waiting) <= workers and (task := take()) is not None:
                try:
                    waiting[pool.submit(task.function, *task.arguments)] = task
                except BrokenProcessPool as error:
                    yield task, error
            if not waiting:
                return
            # In glances: see `Preemption.waiting`.
            for future in wait(waiting, GLANCE, FIRST_COMPLETED).done:
                failure = future.exception()
                if failure is not None and not isinstance(failure, Exception):
                    raise failure
                yield waiting.pop(future), failure or future.result()
