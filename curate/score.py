"""Embed and score image-text shards with any CLIP model: pool metadata, as the filters read them.

python -m curate.score checkpoint=runs/mine shards=pool out=metadata
python -m curate.score checkpoint=openai model=ViT-B-32 shards='pool/{00000..01287}.tar' out=metadata part=3/16

Each shard becomes `<shard>.parquet` (uid, url, text, sizes, sha256, clip_<arch>_similarity_score, face_bboxes) and,
row for row, `<shard>.npz` (<arch>_img, <arch>_txt: float16 unit vectors). The same command again scores what is
missing. Options: docs/score.md.
"""

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from curate.models.towers import Towers, weights_named
from curate.pool.scored import Conditions, Record, ScoredShard, Scores, is_scored
from curate.scorers.stream import End, Failed, Message, ScoreStream
from poolbench.command import parse, part_of
from poolbench.errors import UserError, exit_on_user_error
from poolbench.files import atomic, files_in, json_line
from poolbench.models.conventions import Conventions
from poolbench.models.inference import batch_size_of, check_options, device_of, worker_count
from poolbench.models.weights import Weights
from poolbench.options import option, output, source
from poolbench.shards.messages import loader_of
from poolbench.shards.samples import Problem, commonest
from poolbench.shards.sources import Shard, resolve
from poolbench.shards.workers import Iterated, readable_errors

ARCHS = {"ViT-B-32": "b32", "ViT-L-14": "l14"}  # the names that published pools give these
_SHOWN = 10  # bad samples that are printed; the file lists all

Value = TypeVar("Value")


@dataclass
class ScoreOptions:
    """The options; docs/score.md says more."""

    shards: Any = source("folder, .tar, brace pattern, URL, or a list [a,b] of them", remote=True, shards=True)
    out: str = output("folder for the metadata")
    checkpoint: str | None = source(
        "file of weights, one of open_clip's pretrained tags, or folder of a run; null: what model= brings", None
    )
    model: str | None = source("open_clip's name of the model; null: as the run says", None, remote=True)
    arch: str | None = option("what columns and arrays are called; null: after the model, b32 for ViT-B-32", None)
    precision: str = option("fp32 | amp_bf16", "fp32")
    device: str = option("auto | cpu | cuda:<i>, several with commas; a process for each", "auto")
    batch_size: int | None = option("samples at a time; null: 256 on a GPU, 32 on a CPU", None)
    workers: int | None = option("processes that read shards, for each device; null: as the cores allow", None)
    part: str = option("i/n: the shards i, i+n, i+2n, ...", "1/1")
    overwrite: bool = option("true: replace other scores of this arch, and files of other samples", False)


class Job(NamedTuple):
    """One shard that has to be scored, where its scores go, and what they will depend on."""

    shard: Shard
    files: ScoredShard
    conditions: Conditions


@dataclass
class Clock:
    """Where the time goes, in seconds."""

    spent: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.spent[what] = self.spent.get(what, 0.0) + time.perf_counter() - began

    def waiting(self, items: Iterator[Value]) -> Iterator[Value]:
        """The items, while the time until each comes counts as waiting."""
        while True:
            with self.on("waiting for samples"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def shares(self, samples: int) -> str:
        """One line: the rate, and the share of each kind of time."""
        total = max(time.perf_counter() - self.began, 1e-9)
        parts = ", ".join(f"{what} {seconds / total:.0%}" for what, seconds in self.spent.items())
        return f"{samples / total:,.0f} samples/s; {parts}"


@dataclass
class Report:
    """What became of the shards: the records of the scored ones and why the others have none, by name."""

    records: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def bad(self) -> list[tuple[str, str, str]]:
        """(shard, key, reason) of all that was left out; an empty key stands for the rest of a shard."""
        found = [(name, key, why) for name, record in self.records.items() for key, why in record.bad]
        return sorted([*found, *((name, "", why) for name, why in self.failed.items())])


def main() -> int:
    """Score as the command line says; exit status 1 where samples or shards were left out.

    Raises:
        UserError: wrong options, no shards, no model, or other scores in the way.
    """
    words, options = parse(sys.argv[1:], ScoreOptions)
    if words:
        raise UserError(f"unknown word {words[0]!r}; options are written key=value")
    devices = check(options)
    return score(options, torch.device(devices[0])) if len(devices) == 1 else on_each(devices, options)


def check(options: ScoreOptions) -> list[str]:
    """Refuse what cannot be right; the devices to work on.

    Raises:
        UserError: as said, one line.
    """
    check_options(options.precision, options.batch_size, options.workers)
    if options.arch is not None and not re.fullmatch(r"[a-z0-9_]+", options.arch):
        raise UserError(f"arch={options.arch}: small letters, digits and _ only, as it becomes the name of a column")
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a file, not a folder")
    part_of(options.part)
    return devices_of(options.device)


def devices_of(names: str) -> list[str]:
    """The devices of `device=`; "auto" is every GPU of this machine, or its CPU.

    Raises:
        UserError: no such device on this machine.
    """
    if names == "auto":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())] or ["cpu"]
    return [str(device_of(name)) for name in names.split(",")]


def on_each(devices: Sequence[str], options: ScoreOptions) -> int:
    """Score in one process for each device, the k-th with part k of our shards; their worst exit status."""
    index, count = part_of(options.part)
    shared = [word for word in sys.argv[1:] if word.split("=")[0] not in ("part", "device", "workers")]
    workers = worker_count(options.workers, len(devices))
    processes = []
    for number, device in enumerate(devices):
        # The elements i, i+n, i+2n, ... of our part, split as shards[k::devices] of it.
        own = f"part={index + count * number}/{count * len(devices)}"
        command = [sys.executable, "-m", "curate.score", *shared, own, f"device={device}", f"workers={workers}"]
        processes.append(subprocess.Popen(command))

    def end(number: int, frame: object) -> None:
        for process in processes:
            process.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        return max(abs(process.wait()) for process in processes)
    except KeyboardInterrupt:  # which each of them has got too
        for process in processes:
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def score(options: ScoreOptions, device: torch.device) -> int:
    """Score our part of the shards on one device.

    Raises:
        UserError: see `main`; a model that gives no finite numbers, or a batch that does not fit the device.
    """
    weights = weights_named(options.checkpoint, options.model)
    arch = options.arch or ARCHS.get(weights.model.removesuffix("-quickgelu")) or _slug(weights)
    jobs = jobs_of(options, weights)
    check_folder(Path(options.out), {job.files.parquet.name for job in jobs})
    index, count = part_of(options.part)
    jobs, report = jobs[index - 1 :: count], Report()
    todo = unfinished(jobs, arch, options.overwrite, report)
    print(f"{weights.model}, {weights.checkpoint}, as {arch}: {len(todo)} of {len(jobs)} shards to score, {device}")
    if todo:
        score_all(todo, arch, options, weights, device, report)
    return summarized(Path(options.out), f".{index}-of-{count}" if count > 1 else "", report)


def _slug(weights: Weights) -> str:
    """The name of the model, of its repository or of its folder, as that of a column."""
    name = weights.model if weights.folder is None else weights.model.split("/")[-1]
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def jobs_of(options: ScoreOptions, weights: Weights) -> list[Job]:
    """Every shard of `shards=`, with the files it becomes.

    Raises:
        UserError: no shards, or two that would become one file.
    """
    try:
        data = resolve(options.shards)
    except UserError as error:
        raise UserError(str(error).replace("data=", "shards=")) from None
    names = {shard.path: shard.name.removesuffix(".tar").replace("/", "_") for shard in data.shards}
    doubled = [name for name, times in Counter(names.values()).items() if times > 1]
    if doubled:
        raise UserError(f"shards={options.shards}: two are called {doubled[0]}; give each source an out= of its own")
    missing = sum(source.missing for source in data.sources)
    if missing:
        print(f"{missing} names of the brace pattern do not exist")
    conditions = partial(Conditions, weights.model, weights.tag, weights.sha256, options.precision)
    out = Path(options.out)
    return [Job(shard, ScoredShard(out, names[shard.path]), conditions(shard.size)) for shard in data.shards]


def check_folder(out: Path, ours: set[str]) -> None:
    """Refuse a folder with metadata of other origin, beside which every sample would stand twice.

    Raises:
        UserError: as said.
    """
    for path in files_in(out, "*.parquet"):
        if path.name not in ours and not is_scored(path):
            raise UserError(
                f"{path} is metadata of no shard of shards=: the pool would have samples twice; choose another out="
            )


def unfinished(jobs: Sequence[Job], arch: str, overwrite: bool, report: Report) -> list[Job]:
    """The shards without scores that were made like this; the others' records go into the report.

    Raises:
        UserError: other scores of `arch` would be lost.
    """
    todo = []
    for job in jobs:
        way = job.files.in_the_way(arch, job.conditions)
        if way and not overwrite:
            raise UserError(f"{job.files.parquet} holds {way}; choose another arch= or out=, or say overwrite=true")
        record = job.files.record(arch)
        if record is None or record.conditions != job.conditions:
            todo.append(job)
        else:
            report.records[job.shard.name] = record
    return todo


def score_all(
    todo: Sequence[Job], arch: str, options: ScoreOptions, weights: Weights, device: torch.device, report: Report
) -> None:
    """Score every shard of `todo`, each written down as soon as it is through."""
    towers = Towers(weights, device, options.precision)
    batch_size = batch_size_of(options.batch_size, device)
    stream = ScoreStream([job.shard for job in todo], towers.pixels, towers.tokenizer, batch_size)
    workers = worker_count(options.workers, 1)
    loader = loader_of(stream, min(workers, len(todo)), device)
    clock, before = Clock(), sum(record.rows for record in report.records.values())
    try:
        with (
            readable_errors("workers"),
            Writer(todo, arch, options.overwrite, report, towers.conventions) as writer,
            tqdm(total=len(todo), unit="shard", disable=None) as bar,
        ):
            for message in clock.waiting(Iterated(loader)):
                take(message, writer, towers, clock, bar)
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory on {device}; lower batch_size={batch_size}") from None
    scored = sum(record.rows for record in report.records.values()) - before
    if scored:
        print(clock.shares(scored))


def take(message: Message, writer: "Writer", towers: Towers, clock: Clock, bar: Any) -> None:
    """Take in what a worker has read."""
    if isinstance(message, Failed):
        writer.fail(message)
        bar.update()
    elif isinstance(message, End):
        writer.end(message)
        bar.update()
    else:
        with clock.on("image tower"):
            images = towers.images(message.pictures)
        with clock.on("text tower"):
            texts = towers.texts(message.tokens)
        writer.add(message.shard, message.rows, Scores(images, texts))


class Writer:
    """Collects the scores of the shards under way and writes each whole one while the towers go on."""

    def __init__(
        self, jobs: Sequence[Job], arch: str, overwrite: bool, report: Report, conventions: Conventions
    ) -> None:
        self._jobs, self._arch, self._overwrite, self._report = jobs, arch, overwrite, report
        self._conventions = conventions._asdict()
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
        empty = np.empty((0, 0), np.float32)
        joined = (
            (np.concatenate(side) if side else empty for side in zip(*parts, strict=True)) if parts else (empty,) * 2
        )
        self._pending = self._thread.submit(self._write, message, rows, Scores(*joined))

    def _write(self, message: End, rows: list[dict[str, Any]], scores: Scores) -> None:
        job = self._jobs[message.shard]
        record = Record(job.conditions, len(rows), message.bad, self._conventions)
        if not self._overwrite and not job.files.same_rows([row["uid"] for row in rows]):
            reason = f"{job.files.parquet} is of other samples; choose another out=, or say overwrite=true"
            self._report.failed[job.shard.name] = reason
            return
        try:
            job.files.write(self._arch, rows, scores, record)
        except OSError as error:
            raise UserError(f"{job.files.npz} cannot be written: {error}; the shards before it are whole") from None
        self._report.records[job.shard.name] = record


def summarized(out: Path, part: str, report: Report) -> int:
    """Say what came out, list what was left out, and give the exit status."""
    rows, bad = sum(record.rows for record in report.records.values()), report.bad
    listed = out / f"bad_samples{part}.jsonl"
    print(f"{out}: {len(report.records)} shards, {rows:,} samples scored, {len(bad) - len(report.failed):,} left out")
    if report.failed:
        print(f"{len(report.failed)} shards have no scores; the same command tries them again", file=sys.stderr)
    for shard, key, reason in bad[:_SHOWN]:
        print(f"{shard}{' ' if key else ''}{key}: {reason}", file=sys.stderr)
    if bad and not rows:
        print(f"nothing could be scored{commonest(Problem(*one) for one in bad)}", file=sys.stderr)
    if not bad:
        listed.unlink(missing_ok=True)
        return 0
    with atomic(listed) as file:
        file.writelines(json_line({"shard": shard, "key": key, "reason": reason}) for shard, key, reason in bad)
    print(f"{listed} lists all {len(bad):,}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    exit_on_user_error(main)
