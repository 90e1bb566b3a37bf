"""The tasks of a resharding, and in which order they are handed out."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from poolbench.errors import UserError, first_line
from poolbench.files import read_json

from curate.reshard.copy import copy_shard
from curate.reshard.folder import held_in, is_whole
from curate.reshard.index import index_shard
from curate.reshard.job import Job, shards_of
from curate.reshard.options import ReshardOptions
from curate.reshard.plan import Counts, Place, Plan, places, why
from curate.reshard.processes import Task

_SHOWN = 5  # failures that are told one by one


class Schedule:
    """Hands out the tasks. A shard of the output comes as soon as all of it has been found, so that it is written while
    the next ones of the input are read, and its bytes are still in memory.

    Attributes:
        counts: what the input held, once all of it is indexed.
        total: shards of the input and of the output, as far as these are known.
        failed: of them.
    """

    def __init__(self, job: Job, options: ReshardOptions) -> None:
        self._job, self._options = job, options
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
            self._found(self._plan.add(part))
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
        wanted = [place for place in settled if not is_whole(self._job, place.shard, self._held)]
        self._places.extend(wanted)
        self.total += len(wanted)
