"""Where products of matrices are made: numpy on the CPU, torch on a GPU, by one name for what both can do."""

import multiprocessing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError, nearest

NAMES = ("auto", "cpu", "cuda")
EXPLAINED = "auto | cpu | cuda: every GPU, a worker on each in turn; makes no difference to what is kept"


class Device(NamedTuple):
    """The functions of arrays (`exp`, `log`, `amax`, ... with `axis`, as numpy and torch both have them), and the way
    there and back.

    Attributes:
        functions: numpy, or torch.
        where: None for numpy, else a device of torch.
        side: rows and columns of a block of products: what fits a core's cache, or fills a GPU.
        strip: columns of a strip of a matrix of which only half is multiplied.
    """

    functions: Any
    where: str | None
    side: int
    strip: int

    def put(self, array: np.ndarray, kind: type[np.floating[Any]]) -> Any:
        """The array in this precision, there."""
        if self.where is None:
            return array.astype(kind)
        there = self.functions.from_numpy(np.array(array)).to(self.where)  # in its own precision, which is less to send
        return there.to(getattr(self.functions, np.dtype(kind).name))

    def zeros(self, size: int) -> Any:
        """float64 [size], there."""
        return self.put(np.zeros(size), np.float64)

    def get(self, array: Any) -> np.ndarray:
        found: np.ndarray = array if self.where is None else array.cpu().numpy()
        return found


CPU = Device(np, None, 1024, 128)


def checked(name: str, key: str = "filter.device") -> str:
    """`cpu` or `cuda`, whichever the option `key` means on this machine.

    Raises:
        UserError: another name, or a GPU that is not there.
    """
    if name not in NAMES:
        raise UserError(f"{key}={name} is not known; {nearest(name, NAMES)}")
    if name == "cpu" or (name == "auto" and not Path("/dev/nvidiactl").exists()):  # torch takes seconds to say so
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if name == "auto":
        return "cpu"
    raise UserError(f"{key}=cuda is not there; try {key}=cpu")


def opened(name: str) -> Device:
    """The device of this process: of the GPUs the one whose turn it is among the workers."""
    if name == "cpu":
        return CPU
    import torch

    worker = (multiprocessing.current_process()._identity or (1,))[0] - 1
    return on_torch(f"cuda:{worker % torch.cuda.device_count()}")


def on_torch(where: str) -> Device:
    """A device of torch by its name."""
    import torch

    return Device(torch, where, 8192, 1024)
