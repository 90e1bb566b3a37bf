"""Processes that train together: one on a CPU, one per local GPU, or as many as torchrun or srun started."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from poolbench.errors import UserError, unwritable
from poolbench.processes.heartbeat import Heartbeat, RefusedError
from poolbench.processes.place import Place, place
from poolbench.processes.preemption import STOPPED
from poolbench.processes.rendezvous import ArrivalTimeout, connect

Value = TypeVar("Value")

_ALONE = Place(0, 1, 0, 1)
_JOINS = count()  # of this process, which in a sweep does one run after the other


class _Turns:
    """Lets the other processes wait for the first one as long as it takes; a collective gives up after minutes."""

    def __init__(self, store: Store, rank: int) -> None:
        self._store, self._rank, self._turn = store, rank, 0

    def wait(self) -> None:
        """Return when the first process has come as far. Every process calls this equally often."""
        self._turn += 1
        pause = 0.001  # seconds
        while self._done(add=int(self._rank == 0)) < self._turn:
            time.sleep(pause)
            pause = min(1.0, 2 * pause)

    def _done(self, add: int) -> int:
        """How often the first process was here, with `add` counted in. Raises where the store's process has died."""
        return self._store.add("turns", add)


class World(NamedTuple):
    """This process among those that train together."""

    rank: int
    size: int
    local_size: int  # processes on this machine
    device: torch.device
    turns: _Turns | None = None  # None for a process alone

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and talks to the user."""
        return self.rank == 0


def launch(run: Callable[..., int], *arguments: Any) -> int:
    """Call `run(*arguments)` in every process of the job and return its exit status; `run` is a module's function.

    Under torchrun or srun the processes are there already. Otherwise one is started per GPU of this machine; on a
    machine with one GPU or none, this process is the job.
    """
    gpus = torch.cuda.device_count()
    if place() is not None or gpus < 2:
        return run(*arguments)
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=gpus,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))  # which reaches the processes
    try:
        elastic_launch(settings, _exit_with)(run, *arguments)
    except ChildFailedError as error:
        return max(1, error.get_first_failure()[1].exitcode)
    except SignalException:
        return STOPPED
    return 0


def _exit_with(run: Callable[..., int], *arguments: Any) -> None:
    """A process that ends with a status other than 0 ends the others too, which may be waiting for it."""
    status = run(*arguments)
    if status:
        sys.exit(status)


@contextmanager
def joined() -> Iterator[World]:
    """Join the other processes, for as long as the block lasts: nccl between GPUs, gloo without.

    An error that leaves the block in one process ends all of them.

    Raises:
        UserError: the environment is incomplete, or the other processes did not come.
    """
    found = place() or _ALONE
    device = _device(found)
    heartbeat = turns = None
    if found.size > 1:
        # torchrun's store outlives a run; the next one must not meet the addresses that the processes had before.
        job = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{next(_JOINS)}"
        timeout = ArrivalTimeout(found)
        store = PrefixStore(f"poolbench/{job}", connect(found, timeout))
        turns = _Turns(store, found.rank)
        heartbeat = Heartbeat(job, connect(found, timeout), found.rank, found.size)
    try:
        if heartbeat is not None:
            heartbeat.start()
            heartbeat.meet(timeout)
            _init(found, store, device)
        yield World(found.rank, found.size, found.local_size, device, turns)
    except RefusedError:
        raise
    except BaseException as error:
        if heartbeat is not None:
            heartbeat.fail(error)
        raise
    if heartbeat is not None:
        heartbeat.leave()
        dist.destroy_process_group()


def _device(found: Place) -> torch.device:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not gpus:
        return torch.device("cpu")
    if found.local_rank >= gpus:
        raise UserError(
            f"process {found.rank} is number {found.local_rank} of this machine, but sees {gpus} of its GPUs: start "
            "one process for each GPU, and let each see all of them (srun: --gpus-per-node, not --gpus-per-task)"
        )
    device = torch.device("cuda", found.local_rank)
    torch.cuda.set_device(device)
    return device


def _init(found: Place, store: Store, device: torch.device) -> None:
    # Names that torch 2.6 knows and torch 2.15 would have otherwise, told again by each process.
    warnings.filterwarnings("ignore", r".*(broadcast_buffers|torch\.distributed\.nn)", FutureWarning)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=found.rank, world_size=found.size)


def on_first(world: World, task: Callable[[], Value]) -> Value:
    """Do `task` on the first process alone, however long it takes, and give its result to all.

    Raises:
        UserError: on all processes alike, for a UserError or OSError of the first, so that none waits for the others.
    """
    outcome: list[Any] = [None, None]
    if world.first:
        try:
            outcome[0] = task()
        except UserError as error:
            outcome[1] = str(error)
        except OSError as error:
            what = f"{error.filename} cannot be written" if unwritable(error) else error.filename
            outcome[1] = f"{what}: {error.strerror}" if error.filename else str(error)
    if world.turns is not None:
        world.turns.wait()
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    result: Value = outcome[0]
    return result


def share(world: World, tensors: Iterable[torch.Tensor]) -> None:
    """Give all processes the values that the first one has in its `tensors`, in place."""
    if world.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def gather(world: World, value: Value) -> list[Value]:
    """`value` of every process, by rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values
