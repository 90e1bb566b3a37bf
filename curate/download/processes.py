"""Make shards in processes of their own, one each: what a killed or stuck one takes along is its shard alone."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from poolbench.errors import UserError, unwritable
from poolbench.machine import end_with_parent
from poolbench.processes.pool import deaf_to_interrupts, held

from curate.download.images import Settings, Shard, Stats, make, name_of, stats_of

_IN_A_ROW = 3  # shards that could not be written, after which the others are not tried: the disk or network is at fault
_KINDS = 4  # of failures that a shard's line names

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["curate.download.images", "webdataset"])  # once for all of them


class _Running(NamedTuple):
    process: BaseProcess
    shard: Shard
    answer: Connection


def make_all(shards: Sequence[Shard], folder: Path, settings: Settings, processes: int) -> dict[int, str]:
    """Make the shards, several at a time, and print a line for each.

    Returns:
        Number of a shard -> why it could not be written; where one after the other fails the rest is not tried.
    """
    problems: dict[int, str] = {}
    running: list[_Running] = []
    waiting = iter(shards)
    failed = 0
    total = sum(shard.stop - shard.start for shard in shards)
    with tqdm(total=total, unit="url", disable=None if shards else True, leave=False) as bar:
        try:
            while True:
                while len(running) < processes and failed < _IN_A_ROW and (shard := next(waiting, None)) is not None:
                    running.append(_started(shard, folder, settings))
                if not running:
                    break
                wait([one.process.sentinel for one in running])
                for one in [one for one in running if not one.process.is_alive()]:
                    running.remove(one)
                    problem = _problem(one)
                    failed = failed + 1 if problem else 0
                    if problem:
                        problems[one.shard.number] = problem
                    bar.update(one.shard.stop - one.shard.start)
                    bar.write(_line(one.shard, problem, folder), file=sys.stderr if problem else sys.stdout)
        finally:
            for one in running:
                one.process.kill()
                one.process.join()
    for shard in waiting:
        problems[shard.number] = f"not tried, as {_IN_A_ROW} shards before it could not be written"
    return problems


def _started(shard: Shard, folder: Path, settings: Settings) -> _Running:
    """
    Raises:
        UserError: the process that forks the others was killed meanwhile.
    """
    answer, telling = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_make, args=(shard, folder, settings, telling), daemon=True)
    resource_tracker.ensure_running()  # begun below, it would let signals through
    try:
        with held():
            process.start()
    except (EOFError, ConnectionError):
        raise UserError(
            "the process that starts the others was killed, probably for memory; the same command continues, with "
            "fewer processes= or lower threads= if so"
        ) from None
    telling.close()
    return _Running(process, shard, answer)


def _make(shard: Shard, folder: Path, settings: Settings, telling: Connection) -> None:
    """The work of a process: the shard, and a word where it could not be made."""
    deaf_to_interrupts()
    end_with_parent()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # OpenCV's decoders print a line there for many a picture
    try:
        make(shard, folder, settings)
    except UserError as error:
        telling.send(str(error))
    except OSError as error:
        if not (unwritable(error) or isinstance(error, PermissionError)):
            raise
        telling.send(f"{folder} cannot be written: {error.strerror}")


def _problem(one: _Running) -> str:
    """Why an ended process left no shard, "" where it did."""
    one.process.join()
    with one.answer, contextlib.suppress(EOFError):  # it ended without a word
        return str(one.answer.recv())
    code = one.process.exitcode
    if code == 0:
        return ""
    return (
        "its process was killed, probably for memory; lower threads="
        if code == -9
        else f"its process ended with {code}"
    )


def _line(shard: Shard, problem: str, folder: Path) -> str:
    stats = stats_of(folder, shard.number)
    if problem or stats is None:
        return f"shard {name_of(shard.number)}: {problem}"
    return f"shard {name_of(shard.number)}: {told(stats)}"


def told(stats: Stats) -> str:
    """Counts, share, rate and the most frequent failures."""
    share = 100 * stats.arrived / stats.rows if stats.rows else 0.0
    rate = stats.rows / stats.seconds if stats.seconds else 0.0
    parts = [f"{stats.arrived:,} of {stats.rows:,} arrived ({share:.1f} %)", f"{rate:,.0f} urls/s"]
    parts += [f"{stats.changed:,} of them changed"] if stats.changed else []
    kinds = sorted(stats.failures.items(), key=lambda pair: (-pair[1], pair[0]))
    parts += [f"{kind} {count:,}" for kind, count in kinds[:_KINDS]]
    others = sum(count for _, count in kinds[_KINDS:])
    return ", ".join(parts + ([f"others {others:,}"] if others else []))
