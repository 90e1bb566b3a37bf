"""The tasks of a resharding, in which order they are handed out, and how they are worked off."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from poolbench.errors import UserError, first_line
from poolbench.files import read_json
from poolbench.machine import cores
from poolbench.progress import Progress

from curate.reshard.copy import copy_shard
from curate.reshard.folder import held_in, is_whole
from curate.reshard.index import index_shard
from curate.reshard.job import Job, shards_of
from curate.reshard.options import ReshardOptions
from curate.reshard.plan import Counts, Place, Plan, places, why
from curate.reshard.processes import Task, in_processes

_SHOWN = 5  # failures that are told one by one


class Tasks(Protocol):
    """What is worked off; see Schedule."""

    total: int
    failed: int

    def take(self) -> Task | None: ...

    def note(self, task: Task, result: Any) -> str | None: ...


def work_off(tasks: Tasks, options: ReshardOptions, what: str) -> int:
    """Do all tasks in processes; returns how many failed, the first of which are told."""
    with (
        contextlib.closing(in_processes(tasks.take, options.workers or cores())) as ended,
        Progress(tasks.total, what, " shards", logged=True) as bar,
    ):
        for task, result in ended:
            if failure := tasks.note(task, result):
                bar.write(failure)
            bar.total = tasks.total
            bar.update()
    return tasks.failed


class Schedule:
    """Hands out the tasks. A shard of the output comes as soon as all of it has been found, so that it is written while
    the next ones of the input are read, and its bytes are still in memory.

    Attributes:
        counts: what the input held, once all of it is indexed.
        total: shards of the input and of the output, as far as these are known.
        failed: of them.
    """

    def __init__(self, job: Job, options: ReshardOptions, wanted: Callable[[Place], bool] = lambda place: True) -> None:
        """
        Args:
            wanted: which shards of the output are written.
        """
        self._job, self._options, self._is_wanted = job, options, wanted
        self._held = held_in(job.out)
        self._places: deque[Place] = deque()
        self._unread: deque[int] = deque()
        self.counts: Counts | None = None
        self.total = self.failed = 0
        if job.counts.exists():
            self.counts = Counts(**read_json(job.counts))
            self._found(places(job))
            return
        self.total = len(shards_of(job))
        self._plan = Plan(job, options.samples_per_shard, options.size)
        self._left = self.total
        self._unread.extend(range(self.total))

    def take(self) -> Task | None:
        """The next task; None where there is none until another has ended."""
        if self._places:
            return Task(copy_shard, (self._job, self._places.popleft()))
        return Task(index_shard, (self._job, self._unread.popleft())) if self._unread else None

    def note(self, task: Task, result: Any) -> str | None:
        """Take in what came of a task. Returns a line to be told where it failed, of the first few.

        Raises:
            UserError: not one chosen sample is there.
        """
        _, part = task.arguments
        if isinstance(result, Exception):
            self.failed += 1
            what, shard = ("copying", part.shard) if isinstance(part, Place) else ("indexing", part)
            return f"{what} shard {shard} failed: {first_line(result)}" if self.failed <= _SHOWN else None
        if not isinstance(part, Place):
            self._found(self._plan.add(part, result))
            self._left -= 1
            if not self._left:
                self._end()
        return None

    def _end(self) -> None:
        self.counts, settled = self._plan.end()
        if not self.counts.samples:
            raise UserError(
                f"shards={self._options.shards}: none of the chosen uids is in their "
                f"{self.counts.pool_samples:,} samples{why(self._job)}"
            )
        self._found(settled)

    def _found(self, settled: Iterable[Place]) -> None:
        own = filter(self._is_wanted, settled)
        wanted = [place for place in own if not is_whole(self._job, place.shard, self._held)]
        self._places.extend(wanted)
        self.total += len(wanted)
