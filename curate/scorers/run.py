"""The runner of every scorer: shards -> batches, read in workers -> a scorer -> files.

It is the same for all of them: parts of the shards, a process for each device, shards that are scored already, samples
that cannot be, and where the time goes.
"""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from poolbench.command import part_of
from poolbench.errors import UserError
from poolbench.files import atomic, json_line
from poolbench.machine import owning
from poolbench.models.inference import batch_size_of, device_of, worker_count
from poolbench.processes.preemption import GLANCE
from poolbench.shards.samples import Problem, commonest
from poolbench.shards.sources import Shard, resolve
from poolbench.shards.workers import Iterated, loader_of, readable_errors
from poolbench.text import one_line

from curate.pool.parts import tell_missing
from curate.pool.scored import Conditions, Made, Record, Scores
from curate.scorers.base import Clock, Part, Product, Scorer, ScorerOptions, ShardFiles
from curate.scorers.registry import build
from curate.scorers.stream import End, Failed, Message, ScoreStream

_SHOWN = 10  # bad samples that are printed; the file lists all
_GRACE = 5.0  # seconds for a device's process to write what it has scored, once it is asked to stop


class Job(NamedTuple):
    """One shard that has to be scored, where its scores go, and which products it lacks."""

    shard: Shard
    files: ShardFiles
    lacks: list[Product]

    @property
    def names(self) -> list[str]:
        return [one.made.name for one in self.lacks]


@dataclass
class Report:
    """What became of the shards: the records of the scored ones, one of each product, and why the others have none."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(records[0].rows for records in self.records.values())

    @property
    def bad(self) -> list[tuple[str, str, str]]:
        """(shard, key, reason) of all that was left out; an empty key stands for the rest of a shard."""
        each = [(name, one) for name, records in self.records.items() for record in records for one in record.bad]
        found = {(name, key, why) for name, (key, why) in each}
        return sorted([*found, *((name, "", why) for name, why in self.failed.items())])


def run(options: ScorerOptions, arguments: Sequence[str]) -> int:
    """Score as the options, which are checked, say; exit status 1 where samples or shards were left out.

    Args:
        arguments: the words that the options came from, for the processes of several devices.

    Raises:
        UserError: no such device, no shards, no model, or other scores in the way.
    """
    devices = devices_of(options.device) if options.merge is None else ["cpu"]
    if len(devices) > 1:
        return _on_each(devices, options, arguments)
    return score(build(options), options, torch.device(devices[0]))


def devices_of(names: str) -> list[str]:
    """The devices of `device=`; "auto" is every GPU of this machine, or its CPU.

    Raises:
        UserError: no such device on this machine.
    """
    if names == "auto":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    return [str(device_of(name)) for name in names.split(",")]


def _on_each(devices: Sequence[str], options: ScorerOptions, arguments: Sequence[str]) -> int:
    """Score in one process for each device, the k-th with part k of our shards; their worst exit status."""
    index, count = part_of(options.part)
    shared = [word for word in arguments if word.split("=")[0] not in ("part", "device", "workers")]
    workers = worker_count(options.workers, len(devices))
    processes: list[subprocess.Popen[bytes]] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        for number, device in enumerate(devices):
            # The elements i, i+n, i+2n, ... of our part, split as shards[k::devices] of it.
            own = f"part={index + count * number}/{count * len(devices)}"
            command = [sys.executable, "-m", "curate.score", *shared, own, f"device={device}", f"workers={workers}"]
            processes.append(subprocess.Popen(command, env=owning(os.environ)))
        return max(_status(_ended(process), device) for process, device in zip(processes, devices, strict=True))
    except KeyboardInterrupt:  # which each of them has got too, most likely
        _await(processes)
        raise
    finally:
        for process in processes:
            process.terminate()
        _await(processes)
        for process in processes:
            process.kill()  # one that is suspended hears nothing else
        signal.signal(signal.SIGTERM, before)


def _status(ended: int, device: str) -> int:
    """The exit status of a process as the whole command's; told is what the process could not tell."""
    if ended >= 0:
        return ended
    why = ", for want of memory most likely" if -ended == signal.SIGKILL else ""
    name = signal.Signals(-ended).name
    print(f"{device}: {name} ended its process{why}; the same command scores what is missing", file=sys.stderr)
    return 1


def _ended(process: subprocess.Popen[bytes]) -> int:
    """The exit status of a process, waited for in glances: see `Preemption.waiting`."""
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(GLANCE)
    return process.returncode


def _await(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Give processes that are to end, each for itself, the time to do so."""
    end = time.monotonic() + _GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, end - time.monotonic()))


def score(scorer: Scorer, options: ScorerOptions, device: torch.device) -> int:
    """Score our part of the shards on one device.

    Raises:
        UserError: see `run`; a model that gives no finite numbers, or a batch that does not fit the device.
    """
    every = _parts(scorer, options)
    scorer.begin({part.files.name: part.shard for part in every})
    if options.merge is not None:
        return _merged(every, scorer, options, options.merge)
    index, count = part_of(options.part)
    ours, report = every[index - 1 :: count], Report()
    todo = _unfinished(ours, scorer, options.overwrite, report)
    print(f"{scorer}: {len(todo)} of {len(ours)} shards to score, {device}")
    if todo:
        _score_all(todo, scorer, options, device, report)
    status = _summarized(Path(options.out), f".{index}-of-{count}" if count > 1 else "", report)
    scorer.finish(every, [part for part in ours if part.shard.name not in report.failed])
    return status


def _merged(every: Sequence[Part], scorer: Scorer, options: ScorerOptions, of: int) -> int:
    """Put the lists of what each part left out together, and end what all shards are needed for.

    Raises:
        UserError: a part has not done all of its shards; which, is printed.
    """
    report, out = Report(), Path(options.out)
    lacking = {job.shard.name for job in _unfinished(every, scorer, True, report)}
    names = [part.shard.name for part in every]
    if missing := tell_missing(names, [name not in lacking for name in names], of, "shards"):
        raise UserError(f"nothing is put together: {missing:,} of {len(every):,} shards are missing, see above")
    status = _summarized(out, "", report)
    for listed in out.glob("bad_samples.*-of-*.jsonl"):
        listed.unlink()
    scorer.finish(every, [])
    return status


def _parts(scorer: Scorer, options: ScorerOptions) -> list[Part]:
    """Every shard of `shards=`, with the files it becomes.

    Raises:
        UserError: no shards, or two that would become one file.
    """
    try:
        data = resolve(options.shards)
    except UserError as error:
        raise UserError(str(error).replace("data=", "shards=")) from None
    shards = [shard._replace(name=scorer.called(shard)) for shard in data.shards]
    names = [shard.name.removesuffix(".tar").replace("/", "_") for shard in shards]
    doubled = [name for name, times in Counter(names).items() if times > 1]
    if doubled:
        raise UserError(f"shards={options.shards}: two are called {doubled[0]}; give each source an out= of its own")
    missing = sum(source.missing for source in data.sources)
    if missing:
        print(f"{missing} names of the brace pattern do not exist")
    return [Part(shard, scorer.files_of(name)) for shard, name in zip(shards, names, strict=True)]


def _unfinished(parts: Sequence[Part], scorer: Scorer, overwrite: bool, report: Report) -> list[Job]:
    """The shards that lack a product that was made like this; the records of what they have go into the report.

    Raises:
        UserError: other scores of one of the names would be lost.
    """
    todo = []
    for shard, files in parts:
        job = Job(shard, files, [])
        for product in scorer.products:
            made, conditions = product.made, _conditions(product, shard)
            way = files.in_the_way(made, conditions)
            if way and not overwrite:
                raise UserError(f"{files} holds {way}; choose another arch= or out=, or say overwrite=true")
            record = files.record(made)
            if record is None or record.conditions != conditions:
                job.lacks.append(product)
            else:
                report.records.setdefault(shard.name, []).append(record)
        if job.lacks:
            todo.append(job)
    return todo


def _conditions(product: Product, shard: Shard) -> Conditions:
    return Conditions(**product.identity.model_dump(), size=shard.size)


def _score_all(
    todo: Sequence[Job], scorer: Scorer, options: ScorerOptions, device: torch.device, report: Report
) -> None:
    """Score every shard of `todo`, each written down as soon as it is through."""
    scorer.load(device)
    batch_size = batch_size_of(options.batch_size, device)
    shards = [(job.shard, job.names) for job in todo]
    stream = ScoreStream(shards, scorer.parted, scorer.row_of, scorer.look, scorer.tokenizer, batch_size)
    loader = loader_of(stream, min(worker_count(options.workers, 1), len(todo)), device)
    clock = Clock()
    try:
        with (
            readable_errors("workers"),
            Writer(todo, scorer, options.overwrite, report) as writer,
            tqdm(total=len(todo), unit="shard", disable=None) as bar,
            Iterated(loader) as messages,
        ):
            for message in clock.waiting(messages):
                _take(message, writer, scorer, clock, bar)
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory on {device}; lower batch_size={batch_size}") from None
    if clock.samples:
        print(clock.shares())


def _take(message: Message, writer: "Writer", scorer: Scorer, clock: Clock, bar: Any) -> None:
    """Take in what a worker has read."""
    if isinstance(message, Failed):
        writer.fail(message)
        bar.update()
    elif isinstance(message, End):
        writer.end(message)
        bar.update()
    else:
        clock.take(message)
        writer.add(message.shard, message.rows, scorer.score(message, clock))


class Writer:
    """Collects the scores of the shards under way and writes each whole one while the scorer goes on."""

    def __init__(self, jobs: Sequence[Job], scorer: Scorer, overwrite: bool, report: Report) -> None:
        self._jobs, self._scorer, self._overwrite, self._report = jobs, scorer, overwrite, report
        self._rows: dict[int, list[dict[str, Any]]] = {}
        self._scores: dict[int, list[Scores]] = {}
        self._thread = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._thread.shutdown()  # what is being written becomes whole, however the rest ended
        if kind is None and self._pending is not None:
            self._pending.result()

    def add(self, shard: int, rows: list[dict[str, Any]], scores: Scores) -> None:
        self._rows.setdefault(shard, []).extend(rows)
        self._scores.setdefault(shard, []).append(scores)

    def fail(self, message: Failed) -> None:
        self._rows.pop(message.shard, None)
        self._scores.pop(message.shard, None)
        self._report.failed[self._jobs[message.shard].shard.name] = message.reason

    def end(self, message: End) -> None:
        """Write a shard that is read to its end. One waits at most: what is scored must not pile up in memory."""
        if self._pending is not None:
            self._pending.result()
        rows, parts = self._rows.pop(message.shard, []), self._scores.pop(message.shard, [])
        self._pending = self._thread.submit(self._write, message, rows, parts)

    def _write(self, message: End, rows: list[dict[str, Any]], parts: Sequence[Scores]) -> None:
        """Write what a shard lacked, product by product: after a crash those that are there are not made again."""
        job = self._jobs[message.shard]
        if not self._overwrite and not job.files.same_rows(rows):
            reason = f"{job.files} is of other samples; choose another out=, or say overwrite=true"
            self._report.failed[job.shard.name] = reason
            return
        for product in job.lacks:
            said = self._scorer.conventions if product.conventions is None else product.conventions
            bad = sorted([*message.bad, *message.lacking]) if product.may_lack else message.bad
            conditions = _conditions(product, job.shard)
            record = Record(conditions=conditions, rows=len(rows), bad=bad, conventions=dict(said))
            try:
                job.files.write(product.made, rows, _joined(product.made, parts), record)
            except OSError as error:
                raise UserError(f"{job.files} cannot be written: {error}; the shards before it are whole") from None
            self._report.records.setdefault(job.shard.name, []).append(record)


def _joined(made: Made, parts: Sequence[Scores]) -> Scores:
    """The scores of a whole shard, of no rows where it had none that could be scored."""
    if not parts:
        none, flat = np.empty(0, np.float32), np.empty((0, 0), np.float32)
        columns = {name: none.astype(object) if name in made.texts else none for name in made.columns}
        return Scores(columns, dict.fromkeys(made.arrays, flat))
    return Scores(
        {name: np.concatenate([part.columns[name] for part in parts]) for name in made.columns},
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in made.arrays},
    )


def _summarized(out: Path, part: str, report: Report) -> int:
    """Say what came out, list what was left out, and give the exit status.

    Before `Scorer.finish`: what that refuses is often for what was left out.
    """
    rows, bad = report.rows, report.bad
    listed = out / f"bad_samples{part}.jsonl"
    whole = report.records.keys() - report.failed.keys()
    print(f"{out}: {len(whole)} shards, {rows:,} samples scored, {len(bad) - len(report.failed):,} left out")
    if report.failed:
        print(f"{len(report.failed)} shards have no scores; the same command tries them again", file=sys.stderr)
    for shard, key, reason in bad[:_SHOWN]:
        print(one_line(f"{shard}{' ' if key else ''}{key}: {reason}"), file=sys.stderr)
    if bad and not rows:
        print(one_line(f"nothing could be scored{commonest(Problem(*one) for one in bad)}"), file=sys.stderr)
    if not bad:
        listed.unlink(missing_ok=True)
        return 0
    with atomic(listed) as file:
        file.writelines(json_line({"shard": shard, "key": key, "reason": reason}) for shard, key, reason in bad)
    print(f"{listed} lists all {len(bad):,}", file=sys.stderr)
    return 1
