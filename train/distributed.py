"""Processes that train together: one on a CPU, one per local GPU, or as many as torchrun or srun started."""

import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from torch.distributed.rendezvous import rendezvous

from conf.errors import UserError
from train.stop import STOPPED
from train.watch import Watch

Value = TypeVar("Value")

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
    if _from_environment() is not None or gpus < 2:
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
    """
    found = _from_environment() or _Ranks(0, 1, 0, 1)
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", found.local_rank) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    turns = watch = None
    if found.size > 1:
        shared, _, _ = next(rendezvous("env://", found.rank, found.size))
        # torchrun's store outlives a run; the next one must not meet the addresses that the processes had before.
        job = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{next(_JOINS)}"
        store = PrefixStore(f"poolbench/{job}", shared)
        turns = _Turns(store, found.rank)
        watch = Watch(job, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), found.rank, found.size)
        # Names that torch 2.6 knows and torch 2.15 would have otherwise, told again by each process.
        warnings.filterwarnings("ignore", r".*(broadcast_buffers|torch\.distributed\.nn)", FutureWarning)
        backend = "nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=found.rank, world_size=found.size)
        watch.start()
    try:
        yield World(found.rank, found.size, found.local_size, device, turns)
    except BaseException as error:
        if watch is not None:
            watch.fail(error)
        raise
    if watch is not None:
        watch.leave()
        dist.destroy_process_group()


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
            outcome[1] = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    if world.turns is not None:
        world.turns.wait()
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise UserError(outcome[1])
    result: Value = outcome[0]
    return result


def gather(world: World, value: Value) -> list[Value]:
    """`value` of every process, by rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


class _Ranks(NamedTuple):
    rank: int
    size: int
    local_rank: int
    local_size: int


def _from_environment() -> _Ranks | None:
    """Our place as torchrun's or srun's variables tell it, None where neither started us."""
    environment = os.environ
    if "RANK" in environment and "WORLD_SIZE" in environment:
        local = int(environment.get("LOCAL_RANK", 0))
        return _Ranks(
            int(environment["RANK"]),
            int(environment["WORLD_SIZE"]),
            local,
            int(environment.get("LOCAL_WORLD_SIZE", 1)),
        )
    # Set by srun for each task of a step. sbatch's own script has SLURM_PROCID too, but is one process, not a job of
    # many.
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return None
    size = int(environment["SLURM_STEP_NUM_TASKS"])
    if size > 1:
        if "MASTER_ADDR" not in environment:
            environment["MASTER_ADDR"] = _first_host()
        environment.setdefault("MASTER_PORT", str(20000 + int(environment.get("SLURM_JOB_ID", 0)) % 20000))
    local_size = int(environment.get("SLURM_STEP_TASKS_PER_NODE", str(size)).split(",")[0].split("(")[0])
    return _Ranks(int(environment["SLURM_PROCID"]), size, int(environment["SLURM_LOCALID"]), local_size)


def _first_host() -> str:
    """The address of the step's first node, where rank 0 runs. Node names need not resolve; SLURM knows their
    address."""
    nodes = os.environ.get("SLURM_STEP_NODELIST") or os.environ.get("SLURM_JOB_NODELIST", "")
    try:
        node = _scontrol("show", "hostnames", nodes).split()[0]
        try:
            return socket.gethostbyname(node)
        except socket.gaierror:
            fields = dict(
                field.split("=", 1) for field in _scontrol("show", "node", node, "-o").split() if "=" in field
            )
            return fields["NodeAddr"]
    except (OSError, subprocess.CalledProcessError, IndexError, KeyError) as error:
        raise UserError(
            f"cannot tell the address of the first SLURM node of {nodes!r} ({error}); set MASTER_ADDR"
        ) from None


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True, timeout=60).stdout
