"""Which place among the processes of a job is ours, as the variables of torchrun or srun tell it."""

import os
import socket
import subprocess
from typing import NamedTuple

from poolbench.errors import UserError

_TORCHRUNS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_ADDRESS = ("MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """A process among `size`; `told_by` are the variables that say so."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    told_by: tuple[str, ...] = ()

    @property
    def advice(self) -> str:
        """What to do where the other processes are not there."""
        names = " ".join(self.told_by)
        if self.told_by[0].startswith("SLURM"):
            return f"start all of them with srun, or unset {names} for a process alone"
        return f"start the others with the same MASTER_ADDR and MASTER_PORT, or unset {names} for a process alone"


def place() -> Place | None:
    """Our place as torchrun's or srun's variables tell it, None where neither started us.

    Raises:
        UserError: variables that are missing, no numbers, or at odds.
    """
    environment = os.environ
    if environment.get("RANK"):
        return _torchruns()
    # Set by srun for each task of a step. sbatch's own script has SLURM_PROCID too, but is one process, not a job of
    # many.
    if environment.get("SLURM_STEP_NUM_TASKS"):
        return _sruns()
    return _torchruns() if any(environment.get(name) for name in _TORCHRUNS) else None


def _torchruns() -> Place:
    _demand("RANK", "WORLD_SIZE", given=_TORCHRUNS)
    size = _number("WORLD_SIZE", 1)
    rank = _number("RANK", 0, size - 1)
    local_size = _number("LOCAL_WORLD_SIZE", 1, size, default=1)
    local_rank = _number("LOCAL_RANK", 0, default=0)
    if size > 1:
        _demand(*_ADDRESS, given=_TORCHRUNS)
        _number("MASTER_PORT", 1, 65535)
    return Place(rank, size, local_rank, local_size, tuple(name for name in _TORCHRUNS if os.environ.get(name)))


def _sruns() -> Place | None:
    count = ("SLURM_STEP_NUM_TASKS",)
    size = _number(*count, 1)
    if size > 1:
        _demand("SLURM_PROCID", "SLURM_LOCALID", given=count)
    elif not os.environ.get("SLURM_PROCID"):
        return None
    rank = _number("SLURM_PROCID", 0, size - 1)
    local_rank = _number("SLURM_LOCALID", 0, size - 1, default=0)
    if size > 1:
        if not os.environ.get("MASTER_ADDR"):
            os.environ["MASTER_ADDR"] = _first_host()
        if not os.environ.get("MASTER_PORT"):
            os.environ["MASTER_PORT"] = str(20000 + _number("SLURM_JOB_ID", 0, default=0) % 20000)
        _number("MASTER_PORT", 1, 65535)
    tasks = os.environ.get("SLURM_STEP_TASKS_PER_NODE", str(size)).split(",")[0].split("(")[0]
    return Place(rank, size, local_rank, int(tasks) if tasks.isdecimal() else size, count)


def _demand(*names: str, given: tuple[str, ...]) -> None:
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        there = [name for name in given if os.environ.get(name)]
        raise UserError(
            f"{', '.join(there)} set, but not {', '.join(missing)}: torchrun or srun set them all for each process; "
            f"for a process alone unset {' '.join(there)}"
        )


def _number(name: str, least: int, most: int | None = None, default: int | None = None) -> int:
    text = os.environ.get(name, "")
    if not text and default is not None:
        return default
    value = int(text) if text.isdecimal() else -1
    if value < least or (most is not None and value > most):
        span = f"from {least} on" if most is None else f"from {least} to {most}"
        raise UserError(f"{name}={text} in the environment has to be a number {span}; for a process alone unset {name}")
    return value


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
    except (OSError, subprocess.SubprocessError, IndexError, KeyError) as error:
        raise UserError(
            f"cannot tell the address of the first SLURM node of {nodes!r} ({error}); set MASTER_ADDR, or unset "
            "SLURM_STEP_NUM_TASKS for a process alone"
        ) from None


def _scontrol(*words: str) -> str:
    return subprocess.run(["scontrol", *words], capture_output=True, text=True, check=True, timeout=60).stdout
