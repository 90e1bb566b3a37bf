"""Scores of a run's checkpoints while it trains, from `python -m evaluate` as a process of its own.

Imports go the other way, from `evaluate` to here. And what another process does draws none of the run's random numbers
and reads none of its data: a run has the same weights with evaluations and without.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType
from typing import IO, NamedTuple

import torch

from poolbench.command import in_quotes
from poolbench.errors import UserError
from poolbench.files import digest_file, read_lines
from poolbench.machine import owning
from poolbench.processes.preemption import GLANCE, SIGNALS

from train.checkpoint import path_of
from train.config import Evaluation, TrainConfig
from train.run_log import say

EVALUATE = (sys.executable, "-m", "evaluate")
_SHOWN = 4  # tasks whose scores are told; metrics.jsonl has all

# What torchrun, srun and MPI tell a process of its place among others. The evaluation is one process.
_PLACE = re.compile(
    r"RANK|WORLD_SIZE|(LOCAL|GROUP|ROLE)_(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)"
    r"|(TORCHELASTIC|SLURM_STEP|PMI|PMIX|OMPI)_.*|SLURM_(PROCID|LOCALID|NODEID)"
)


class Scores(NamedTuple):
    """The main metric of each task by its key, None where it has none; and whether anything went wrong."""

    values: dict[str, float | None]
    failed: bool


def check_tasks(options: Evaluation) -> None:
    """Refuse tasks that cannot be evaluated, before the first step rather than at the first checkpoint.

    Raises:
        UserError: a word that names no task, or tasks that need a folder of evaluation sets.
    """
    if not options.words:
        return
    keys = task_keys(options.words)
    if options.data is None:
        others = [key for key in keys if key not in task_keys(("demo",))]
        if others:
            raise UserError(f"evaluate.data= is needed for {others[0]}: the folder that holds the tasks' folders")
        from demodata.pool import build

        build()


@cache
def task_keys(words: tuple[str, ...]) -> list[str]:
    """The keys of the tasks that `words` name, as `python -m tasks list` shows them in its first column.

    Raises:
        UserError: a word that names no task.
    """
    command = [sys.executable, "-m", "tasks", "list", f"tasks={','.join(words)}"]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"evaluate.tasks: {reason.removeprefix('error: ').removeprefix('tasks: ')}")
    return [row.split()[0] for row in done.stdout.rstrip("\n").split("\n")[1:]]


def evaluate(
    config: TrainConfig, checkpoint: Path, device: torch.device, stopped: Callable[[], bool] = lambda: False
) -> Scores | None:
    """Score a checkpoint. Results and log lie in evaluations/<checkpoint's name>/; finished results are found again.

    What goes wrong is told and never raised, so that the training goes on. None where `stopped()` came true before the
    evaluation had come to its end.
    """
    folder, name = _folder(config, checkpoint), checkpoint.stem
    keys = task_keys(config.evaluate.words)
    log = folder / "log"
    say(f"{name}: evaluating {len(keys)} {'task' if len(keys) == 1 else 'tasks'}; log: {log}")
    began = time.monotonic()
    values: dict[str, float | None] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            status = _run(_command(config, checkpoint, device), output, stopped)
        if status != 0 and stopped():
            return None
        values = _values(config, checkpoint, keys)
        problem = f"exit status {status}, see {log}" if status else None
    except (OSError, UserError) as error:
        problem = str(error)
    if problem is not None:
        say(f"warning: the evaluation of {name} failed: {problem}; the training goes on")
    if any(value is not None for value in values.values()):
        shown = [f"{key} {'-' if value is None else f'{value:.4f}'}" for key, value in list(values.items())[:_SHOWN]]
        more = [f"{len(values) - _SHOWN} more in metrics.jsonl"] if len(values) > _SHOWN else []
        say(f"{name}: {', '.join([*shown, *more])} ({time.monotonic() - began:.0f} s)")
    return Scores(values, problem is not None)


def how_to_repeat(config: TrainConfig, steps: Sequence[int], device: torch.device) -> str:
    """One line that names the steps whose evaluation failed, and the command for the newest checkpoint that is kept."""
    line = f"error: the evaluation failed at step {', '.join(str(step) for step in steps)}"
    paths = [path_of(config.folder / "checkpoints", step) for step in steps]
    kept = [path for path in paths if path.is_file()]
    if not kept:
        return f"{line}; the log in evaluations/{paths[-1].stem} says why; none of the checkpoints is kept"
    words = ["python", "-m", "evaluate", *_command(config, kept[-1], device)[len(EVALUATE) :]]
    return f"{line}; the log in evaluations/{kept[-1].stem} says why; to repeat it: {shlex.join(words)}"


def _folder(config: TrainConfig, checkpoint: Path) -> Path:
    return config.folder / "evaluations" / checkpoint.stem


def _command(config: TrainConfig, checkpoint: Path, device: torch.device) -> list[str]:
    options = config.evaluate
    values = {
        "model": config.recipe.model,
        "checkpoint": str(checkpoint),
        "out": str(_folder(config, checkpoint)),
        "data": options.data,
        "limit": options.limit,
        "precision": options.precision,
        "device": str(device),
    }
    given = {
        key: in_quotes(value) if isinstance(value, str) else str(value)
        for key, value in values.items()
        if value is not None
    }
    given["tasks"] = f"[{','.join(map(in_quotes, options.words))}]"
    return [*EVALUATE, *(f"{key}={value}" for key, value in given.items())]


def _environment() -> dict[str, str]:
    return owning({key: value for key, value in os.environ.items() if not _PLACE.fullmatch(key)})


def _values(config: TrainConfig, checkpoint: Path, keys: Sequence[str]) -> dict[str, float | None]:
    """The main metrics in eval_results.jsonl that belong to this checkpoint and these options, in the order of `keys`.

    Raises:
        UserError: the file is not what `python -m evaluate` writes.
    """
    file = _folder(config, checkpoint) / "eval_results.jsonl"
    wanted = (digest_file(checkpoint), config.evaluate.precision, config.evaluate.limit)
    found: dict[str, float | None] = {}
    try:
        for line in read_lines(file):
            if (line["checkpoint_sha256"], line["precision"], line["limit"]) == wanted:
                found[line["key"]] = line["metrics"]["main_metric"]
    except (KeyError, TypeError) as error:
        raise UserError(f"{file} is not a file of results ({error!r})") from None
    return {key: found.get(key) for key in keys}


def _run(command: Sequence[str], output: IO[bytes], stopped: Callable[[], bool]) -> int:
    """Run a command to its end, or until `stopped()`, and return its exit status. Neither it nor what it started
    outlives this process."""
    started: list[subprocess.Popen[bytes]] = []
    with _fatal_signals_end(started):
        process = subprocess.Popen(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        try:
            while process.poll() is None and not stopped():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GLANCE)
            if process.returncode in [-number for number in SIGNALS]:
                time.sleep(GLANCE)  # sent to all of the job; this process's own may be a moment behind
            return -signal.SIGKILL if process.returncode is None else process.returncode
        finally:
            _kill(started)
            process.wait()


@contextmanager
def _fatal_signals_end(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Let the signals that would end this process at once, without clearing up, end those of `started` first."""

    def end(number: int, frame: FrameType | None) -> None:
        _kill(started)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _kill(started: Sequence[subprocess.Popen[bytes]]) -> None:
    """Kill the processes that still run, with all of their group; what they write is whole at any moment."""
    for process in started:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
