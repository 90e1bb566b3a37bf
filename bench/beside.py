"""What the benchmarks of curation share: the head of a page, cold files, and the rounds of several sides in turn."""

import argparse
import contextlib
import datetime
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from evaluation_report import ratios, spread
from machine import machine
from processes import Ran

_OF_THIS_MACHINE = ("--peer", "--harness", "--polars", "--out", "--scratch")


def heading(title: str, script: str, packages: Sequence[str], rounds: int) -> list[str]:
    """Title, command, machine and versions."""
    mine = ", ".join(f"{name} {version(name)}" for name in packages)
    return [
        f"# {title}",
        "",
        f"`{_command(script)}`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. In turn, medians of {rounds} rounds; a "
        "ratio has the range of the rounds. Seconds are from the start of the command to its end.",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, {mine}.",
        "",
    ]


def in_turn(sides: Mapping[str, Callable[[], Ran]], rounds: int) -> dict[str, list[Ran]]:
    """Run each side once a round."""
    found: dict[str, list[Ran]] = {name: [] for name in sides}
    for number in range(rounds):
        for name, run in sides.items():
            found[name].append(run())
            print(f"round {number + 1}, {name}: {found[name][-1].seconds:.1f} s", file=sys.stderr, flush=True)
    return found


def medians(runs: Sequence[Ran], work: float) -> tuple[str, str, str]:
    """Cells: seconds, work a second, peak memory."""
    seconds = statistics.median(run.seconds for run in runs)
    memory = statistics.median(run.memory for run in runs)
    return f"{seconds:.2f}", f"{work / seconds:,.0f}", f"{memory / 1e6:,.0f} MB"


def verdict(slow: Sequence[Ran], fast: Sequence[Ran], goal: float | None) -> tuple[str, str]:
    """Cells: how many times faster the second is, by round, and whether the median reaches the goal."""
    times = ratios((run.seconds for run in slow), (run.seconds for run in fast))
    if goal is None:
        return spread(times), "-"
    return spread(times), f"{goal}: {'met' if statistics.median(times) >= goal else '**missed**'}"


def forget(paths: Iterable[Path]) -> None:
    """Let the system drop these files from its memory, so that the disk takes part."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        with contextlib.closing(os.fdopen(handle, "rb")):
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)


def options_of(description: str | None, harness: bool = True) -> argparse.ArgumentParser:
    """A parser with what all of these benchmarks take; `harness` says whether the original one has to be named."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--harness", type=Path, required=harness, help="checkout of the original harness")
    parser.add_argument("--peer", default=sys.executable, help="python of an environment that has what it needs")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", type=Path, help="folder for the pools and outputs; default: the system's")
    parser.add_argument("--out", type=Path, help="also write the page here")
    return parser


def _command(script: str) -> str:
    """The command line, without what is of one machine only."""
    harness = ["--harness <checkout>"] if any(word.startswith("--harness") for word in sys.argv) else []
    words, arguments = [f"python bench/{script}", *harness], iter(sys.argv[1:])
    for word in arguments:
        name, equals, _ = word.partition("=")
        if name not in _OF_THIS_MACHINE:
            words.append(word)
        elif not equals:
            next(arguments)
    return " ".join(words)
