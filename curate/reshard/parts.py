"""A resharding in parts, each by a process that may run on another node, and what the last step says is missing.

A part indexes its own shards of the input first, then those that nobody has indexed yet: it waits for no other part.
One of them plans, from the indexes alone, so that it does not matter which; with the plan the shards of the output and
their numbers are fixed. Of n parts the i-th writes every n-th of these.
"""

import dataclasses
import re
import shutil
import sys
import uuid
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from poolbench.errors import first_line
from poolbench.files import claimed, read_json, write_json

from curate.pool.parts import Part, tell_missing
from curate.reshard.copy import names
from curate.reshard.folder import DRAFT, clear_drafts, held_in, is_whole
from curate.reshard.index import ensure_index, is_indexed
from curate.reshard.job import Job, shards_of
from curate.reshard.options import ReshardOptions
from curate.reshard.plan import places
from curate.reshard.processes import Task
from curate.reshard.schedule import Schedule, work_off

_FOLDER, _ENDED = "parts", "ended.json"


class Indexing:
    """Hands out the indexing of the shards: of a part's own, then of those of the others that nobody has done yet.

    Attributes:
        total: shards that are left to do or to look at.
        failed: of them.
    """

    def __init__(self, job: Job, part: Part) -> None:
        self._job, self._part = job, part
        count = len(shards_of(job))
        self._own = deque(range(part.number - 1, count, part.of))
        self._others = deque(_of_others(count, part))
        self.total, self.failed = len(self._own), 0

    def take(self) -> Task | None:
        if self._own:
            return Task(ensure_index, (self._job, self._own.popleft()))
        while self._others:
            shard = self._others.popleft()
            if not is_indexed(self._job, shard):
                self.total += 1
                return Task(ensure_index, (self._job, shard))
        return None

    def note(self, task: Task, result: Any) -> str | None:
        if not isinstance(result, Exception):
            return None
        self.failed += 1
        return f"indexing {shards_of(self._job)[task.arguments[1]][0]} failed: {first_line(result)}"


def _of_others(count: int, part: Part) -> Iterator[int]:
    """The shards of the other parts. Where several take over from one, they do not begin at the same of its shards."""
    for turn in range(1, part.of):
        theirs = list(range((part.number - 1 + turn) % part.of, count, part.of))
        begin = len(theirs) * turn // part.of
        yield from theirs[begin:] + theirs[:begin]


def do_part(job: Job, options: ReshardOptions, part: Part, collect: Any) -> int:
    """Do one part; the exit status is 1 where something failed, which the same command tries again.

    Args:
        collect: what has to be there before copying is done by this.

    Raises:
        UserError: the same part is being done by another process; or see Schedule.
    """
    with claimed(_folder(job, part)):
        ended = _folder(job, part) / _ENDED
        ended.unlink(missing_ok=True)
        if failed := work_off(Indexing(job, part), options, "indexing"):
            return _failed(part, failed, "shards of the input")
        if failed := _plan(job, options, collect):
            return _failed(part, failed, "shards of the input")
        own = [place.shard for place in places(job) if place.shard % part.of == part.number - 1]
        for shard in own:
            _clean(job, shard)
        copying = Schedule(job, options, lambda place: place.shard % part.of == part.number - 1)
        failed = work_off(copying, options, "resharding")
        write_json(ended, {"shards": len(own), "failed": failed})
    if failed:
        return _failed(part, failed, "shards of the output")
    print(f"part {part}: {len(own):,} of {len(places(job)):,} shards of the output are written")
    return 0


def _folder(job: Job, part: Part) -> Path:
    """There once the part has begun."""
    return job.work / _FOLDER / f"{part.number}-of-{part.of}"


def _failed(part: Part, count: int, what: str) -> int:
    print(f"part {part}: {count:,} {what} failed; the same command continues with these")
    return 1


def _plan(job: Job, options: ReshardOptions, collect: Any) -> int:
    """See that there is a plan; returns how many shards failed. The others wait for the part that makes it."""
    with claimed(job.work / "planner", wait=float("inf")):
        if job.counts.exists():
            return 0
        collect()
        # It gets its name when it is whole: where the file system locks nothing, two may be made side by side.
        draft = dataclasses.replace(job, plan_folder=f"{DRAFT}{uuid.uuid4().hex}")
        if failed := work_off(Schedule(draft, options, lambda place: False), options, "planning"):
            return failed
        shutil.rmtree(job.planning, ignore_errors=True)  # what a run without parts had begun
        draft.planning.rename(job.planning)
        return 0


def _clean(job: Job, shard: int) -> None:
    """Delete what a killed process left of a shard of the output."""
    for name in names(shard):
        for left in job.staging.glob(f".{name}.????????"):
            left.unlink(missing_ok=True)


def begun(job: Job) -> list[Part]:
    """The parts that have been begun, those of the last command last."""
    found = sorted((job.work / _FOLDER).glob("*-of-*"), key=lambda path: path.stat().st_mtime_ns)
    numbers = [re.fullmatch(r"(\d+)-of-(\d+)", path.name) for path in found]
    return [Part(int(match[1]), int(match[2])) for match in numbers if match]


def lacks_some(job: Job, of: int) -> bool:
    """Whether shards of the output are missing; it is said which, and whose of `of` parts they are. Clear away what is
    not used."""
    clear_drafts(job)
    if not job.counts.exists():
        indexed = [is_indexed(job, shard) for shard in range(len(shards_of(job)))]
        of_input = [name for _, name, _ in shards_of(job)]
        tell_missing(of_input, indexed, of, "shards of the input", lambda part: _state(part, job))
        told = f"{sum(indexed):,} of {len(indexed):,} shards of the input are indexed"
        print(f"missing: the plan, which any part makes once all are: {told}", file=sys.stderr)
        return True
    held, every = held_in(job.out), places(job)
    whole = [is_whole(job, place.shard, held) for place in every]
    tars = [names(place.shard)[0] for place in every]
    return tell_missing(tars, whole, of, "shards of the output", lambda part: _state(part, job)) > 0


def _state(part: Part, job: Job) -> str:
    """Why something is missing of a part."""
    folder = _folder(job, part)
    if not folder.exists():
        return "has not begun"
    if not (folder / _ENDED).exists():
        return "was ended before it was done"
    if read_json(folder / _ENDED)["failed"]:
        return "could not do all of its shards"
    return "ended, and its shards are gone or changed"
