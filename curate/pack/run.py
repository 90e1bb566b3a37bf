"""A packing: plan, shards in processes, and, when all are there, what is twice taken out, and the report."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from poolbench.arrow import do_without_pandas
from poolbench.errors import UserError
from poolbench.files import atomic, claimed, json_line, write_json
from poolbench.machine import cores
from poolbench.progress import Progress
from poolbench.shards.samples import kind_of
from poolbench.text import one_line
from poolbench.versions import version

from curate.pack.duplicates import repeats, take_out, write_uids
from curate.pack.layouts import told
from curate.pack.options import PackOptions, check
from curate.pack.plan import Plan, Task, planned, rejected_in
from curate.pack.rows import Rejected
from curate.pack.shard import METADATA, SHARDS, Done, done_of, duplicate_of, make, paths_of
from curate.pool.parts import part_or_merge, tell_missing
from curate.pool.passes import Passes

REJECTED, SUMMARY, UIDS = "rejected.jsonl", "packed.json", "uids.npy"
_DUPLICATE = kind_of(duplicate_of(""))


def pack(options: PackOptions) -> int:
    """Pack as told; the exit status is 1 where something could not be used that is not there twice.

    Raises:
        UserError: wrong options, nothing to pack, or a folder with something else in it.
    """
    check(options)
    do_without_pandas()
    out = Path(options.out)
    plan = planned(options, out)
    for folder in (out / SHARDS, out / METADATA, plan.done(0).parent):
        folder.mkdir(exist_ok=True)
    part = part_or_merge(options.part, options.merge)
    if part.of == 1:
        with claimed(plan.work, wait=2.0):
            return _whole(plan, options)
    with _passes(options) as passes:
        _make(passes, plan, part.own(plan.tasks()), f"part {part}: ")
    print(f"when all parts have ended, merge={part.of} finds what is there twice, and ends the packing")
    return 0


def _passes(options: PackOptions) -> Passes:
    return Passes([], None, options.workers or cores())


def _make(passes: Passes, plan: Plan, tasks: Sequence[Task], which: str = "") -> None:
    """Make the shards of some tasks that are not there."""
    there = sum(done_of(plan, shard) is not None for task in tasks for shard in range(*task))
    every = sum(task.last - task.first for task in tasks)
    if there:
        print(f"continuing: {there:,} of {every:,} shards are done", file=sys.stderr)
    with Progress(every, "packing", " shards", initial=there) as bar:
        for made in passes.gathered(make, [task for task in tasks if _lacks(plan, task)], plan):
            bar.update(made)
    print(f"{which}{every:,} of {plan.shards:,} shards", flush=True)


def _lacks(plan: Plan, task: Task) -> bool:
    return any(done_of(plan, shard) is None for shard in range(*task))


def _check_there(plan: Plan, of: int) -> None:
    """
    Raises:
        UserError: one of so many parts has not packed all of its shards.
    """
    tasks = plan.tasks()
    names = [" to ".join(dict.fromkeys(str(paths_of(plan, one)[0].name) for one in (a, b - 1))) for a, b in tasks]
    kind = "shards" if len(tasks) == plan.shards else "groups of shards"
    if missing := tell_missing(names, [not _lacks(plan, task) for task in tasks], of, kind):
        raise UserError(
            f"nothing is reported: {missing:,} of {len(tasks):,} {kind} are missing, see above; without merge= this "
            "command packs them itself"
        )


def _whole(plan: Plan, options: PackOptions) -> int:
    """Make what is missing, or see that parts have made all; take out what is there twice, and report."""
    out = Path(options.out)
    with _passes(options) as passes:
        if options.merge is None:
            _make(passes, plan, plan.tasks())
        else:
            _check_there(plan, options.merge)
        done = _done(plan)
        uids = plan.work / UIDS
        if any(one.samples for one in done) and write_uids(plan, uids) and (twice := repeats(plan, uids)):
            for _ in passes.gathered(take_out, twice, plan):
                pass
            write_uids(plan, uids)
            done = _done(plan)
    if uids.exists():
        uids.replace(out / UIDS)
    return _report(plan, out, done)


def _done(plan: Plan) -> list[Done]:
    """What became of every shard, all of which are there.

    Raises:
        UserError: one has gone meanwhile.
    """
    found = []
    for shard in range(plan.shards):
        done = done_of(plan, shard)
        if done is None:
            raise UserError(f"{paths_of(plan, shard)[0]} has gone; start the same command again")
        found.append(done)
    return found


def _report(plan: Plan, out: Path, done: Sequence[Done]) -> int:
    """List what was left out, write the counts, say both, and give the exit status."""
    kinds: Counter[str] = Counter()
    commonest: dict[str, Rejected] = {}
    with atomic(out / REJECTED) as file:
        for one in _rejected(plan, done):
            kind = kind_of(one.reason)
            kinds[kind] += 1
            commonest.setdefault(kind, one)
            file.write(json_line({"source": one.where, "picture": one.picture, "reason": one.reason}))
    if not kinds:
        (out / REJECTED).unlink()
    samples, size = sum(one.samples for one in done), sum(one.bytes for one in done)
    shards = [
        {"name": paths_of(plan, shard)[0].name, "samples": one.samples, "bytes": one.bytes}
        for shard, one in enumerate(done)
        if one.samples
    ]
    counts = {"samples": samples, "left_out": kinds.total(), "reasons": dict(kinds.most_common())}
    about = {"version": version("poolbench"), "source": told(plan.layout), "passed": plan.passed}
    write_json(out / SUMMARY, {**about, "counts": counts, "shards": shards})
    print(f"{out}: {samples:,} samples in {len(shards):,} shards, {tqdm.format_sizeof(size, 'B', 1000)}")
    for line in plan.passed:
        print(line)
    for kind, count in kinds.most_common():
        first = commonest[kind]
        print(one_line(f"left out: {count:,} x {first.reason} ({first.where})"), file=sys.stderr)
    if kinds:
        print(f"{out / REJECTED} lists all {kinds.total():,}", file=sys.stderr)
    return int(not samples or bool(kinds.keys() - {_DUPLICATE}))


def _rejected(plan: Plan, done: Sequence[Done]) -> Iterator[Rejected]:
    """All that was left out: what did not become a row, then the rows in their order."""
    yield from rejected_in(plan)
    for one in done:
        yield from one.rejected
