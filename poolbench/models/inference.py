"""The options of everything that runs a finished model, checked: precision, device, batch size, workers."""

from typing import TYPE_CHECKING

from poolbench.errors import UserError, nearest
from poolbench.machine import default_workers
from poolbench.recipes import EVALUATION_PRECISIONS

if TYPE_CHECKING:
    import torch


def check_options(precision: str, batch_size: int | None, workers: int | None) -> None:
    """Raise UserError for what cannot be right."""
    if precision not in EVALUATION_PRECISIONS:
        raise UserError(f"unknown precision {precision!r}; {nearest(precision, EVALUATION_PRECISIONS)}")
    if batch_size is not None and batch_size < 1:
        raise UserError(f"batch_size={batch_size}: at least 1")
    if workers is not None and workers < 0:
        raise UserError(f"workers={workers}: 0 or more")


def device_of(name: str) -> "torch.device":
    """The torch device of that name.

    Raises:
        UserError: no such device on this machine.
    """
    import torch  # here, as the options are checked before it is needed

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device={name} is not there; try device=cpu") from None
    return device


def batch_size_of(batch_size: int | None, device: "torch.device") -> int:
    """`batch_size=`, or 256 on a GPU and 32 on a CPU, whose caches a larger batch does not fit."""
    return batch_size or (256 if device.type == "cuda" else 32)


def worker_count(workers: int | None, processes: int) -> int:
    """`workers=`, or what the cores of this machine allow each of its `processes`."""
    return default_workers(processes) if workers is None else workers
