"""Run a command as a user would, and measure it from outside: seconds and memory of all its processes together."""

import contextlib
import os
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

_SHARE = 0.02  # of one core, which looking at the memory may take: a look is tens of milliseconds a process


class Ran(NamedTuple):
    """Wall time from start to exit, the peak of memory, and processor time, in user and in kernel mode together.

    Processor time is that of the command and of all whom it waited for, or, where that is more (a fork server's
    processes are its own), what those that still lived had taken when they were looked at last.

    Memory is the proportional set size, in bytes, summed over the processes: what workers share with the process that
    forked them counts once. It is looked at a few times a second.
    """

    seconds: float
    memory: int
    processor: float


def measured(
    command: Sequence[str], folder: Path, log: Path, environment: Mapping[str, str], statuses: Collection[int] = (0,)
) -> Ran:
    """Run `command` in `folder` to its end, its output in `log`; where its exit status is none of `statuses`, show the
    end of that and exit."""
    peak, taken, ended = 0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak, taken
        pause = 0.2
        while not ended.wait(pause):
            begun = time.perf_counter()
            peak = max(peak, sum(_memory(pid) for pid in _family(process.pid)))
            taken = max(taken, cpu_seconds(process.pid))
            pause = min(0.3, (time.perf_counter() - begun) / _SHARE)  # longer ones miss the peaks of short runs

    before = processor()
    with log.open("w") as file:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=dict(environment)
        )
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            status = process.wait()
        finally:
            process.kill()
            ended.set()
        seconds = time.perf_counter() - started
    watcher.join()
    if status not in statuses:
        sys.exit(f"exit status {status} of {' '.join(command)}\n{log.read_text()[-4000:]}")
    return Ran(seconds, peak, max(taken, processor() - before))


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and all that come from it have taken, as far as they live, to 10 ms each."""
    return sum(_ticks(one) for one in _family(pid)) / os.sysconf("SC_CLK_TCK")


def processor() -> float:
    """Seconds of all processes that this one has started and that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> Iterator[int]:
    """A process and all that come from it, as far as they live."""
    yield pid
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def _memory(pid: int) -> int:
    """Proportional set size in bytes, 0 for a process that has ended."""
    try:
        found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0


def _ticks(pid: int) -> int:
    """Processor time in clock ticks, 0 for a process that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()  # the name may hold anything
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])  # in user and in kernel mode
