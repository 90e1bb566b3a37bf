"""Training in processes of their own that start in a second: forked from a server that has imported everything."""

import contextlib
import multiprocessing
import os
import pkgutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
from ports import free_port

from poolbench.command import compose
from poolbench.errors import status_of
from poolbench.processes import heartbeat, rendezvous

from train.config import TrainConfig
from train.loop import train

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["train.loop", "poolbench.command"]
)  # installed, thus found without this process's sys.path


class Fault(NamedTuple):
    """A signal that a process sends itself when it comes to call `place`, a name as `pkgutil.resolve_name` knows it."""

    rank: int
    place: str
    number: signal.Signals


@contextlib.contextmanager
def started(
    options: Sequence[str], log: Path, processes: int = 1, patience: float | None = None, fault: Fault | None = None
) -> Iterator[list[BaseProcess]]:
    """`python -m train` with `options` in so many processes; what they print goes to `log`, behind what it holds.

    `patience`: seconds that they wait for one another, instead of what users have.
    """
    ports = {}
    if processes > 1:
        ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    group = []
    for rank in range(processes):
        place = {"RANK": str(rank), "WORLD_SIZE": str(processes), "LOCAL_RANK": str(rank)} if processes > 1 else {}
        arguments = (list(options), str(log), {**ports, **place}, patience, fault)
        group.append(_CONTEXT.Process(target=_train, args=arguments))
        group[-1].start()
    try:
        yield group
    finally:
        for process in group:
            process.kill()
            process.join()


def statuses(group: Sequence[BaseProcess], within: float = 600) -> list[int | None]:
    """The exit statuses of processes that end by themselves; None for one that still runs after `within` seconds."""
    end = time.monotonic() + within
    for process in group:
        process.join(max(0.0, end - time.monotonic()))
    return [process.exitcode for process in group]


def wait_for(happened: Callable[[], bool], group: Sequence[BaseProcess], within: float = 600) -> bool:
    """Wait until something happened; False where the processes ended, or the time was up, before."""
    end = time.monotonic() + within
    while not happened():
        if time.monotonic() > end or not any(process.is_alive() for process in group):
            return happened()
        time.sleep(0.002)
    return True


def _train(
    options: list[str], log: str, environment: dict[str, str], patience: float | None, fault: Fault | None
) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # of data workers, as in a process started by hand
    if patience is not None:
        heartbeat.TIMEOUT = rendezvous.ANSWER = rendezvous.ARRIVAL = patience
    if fault is not None and str(fault.rank) == environment.get("RANK", "0"):
        _plant(fault)
    open_clip.add_model_config(Path(__file__).parent / "models")
    sys.exit(status_of(lambda: train(compose("train", options, TrainConfig))))


def _plant(fault: Fault) -> None:
    owner, _, name = fault.place.rpartition(".")
    holder = pkgutil.resolve_name(owner)
    call = getattr(holder, name)

    def faulty(*arguments: Any, **named: Any) -> Any:
        setattr(holder, name, call)  # the first call alone
        os.kill(os.getpid(), fault.number)
        return call(*arguments, **named)

    setattr(holder, name, faulty)
