"""Files of vectors, one a row: .npy, and what torch wrote, read without running what is in it."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from poolbench.errors import UserError, first_line
from poolbench.files import atomic, cache, digest_file

_ROWS = 2**10  # that are looked at together, mostly the first ones alone


def load_matrix(path: Path, what: str) -> np.ndarray:
    """The vectors of a .npy, memory-mapped, one a row.

    Raises:
        UserError: it cannot be read or is no matrix of numbers; `what` is the option that names it.
    """
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{what}={path} cannot be read: {error}") from None
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not len(matrix):
        shape = list(matrix.shape)
        raise UserError(f"{what}={path} holds {matrix.dtype} {shape}; it is a matrix of floats, a vector a row")
    return matrix


def check_not_zero(matrix: np.ndarray, path: Path, what: str) -> None:
    """Refuse vectors of which none has a direction. One among others is like nothing, which its scores say.

    Raises:
        UserError: all of them are zero.
    """
    if not any(matrix[start : start + _ROWS].any() for start in range(0, len(matrix), _ROWS)):
        raise UserError(f"{what}={path} holds nothing but zeros, which nothing is like; make it anew")


def as_npy(path: Path, what: str) -> Path:
    """The file itself; of a .pt, in which torch wrote a matrix, alone or as "image_features", a .npy in the cache.

    Raises:
        UserError: torch cannot read it without running what is in it.
    """
    if path.suffix != ".pt":
        return path
    converted = cache() / "converted" / f"{digest_file(path)}.npy"
    if not converted.is_file():
        matrix = _read_torch(path, what)
        with atomic(converted, "wb") as file:
            np.save(file, matrix)
    return converted


def _read_torch(path: Path, what: str) -> np.ndarray:
    import torch  # for this once; what selects has no need of it

    try:
        # The published files are of a kind that weights_only=True cannot read.
        loaded = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Arrays)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{what}={path} cannot be read: {first_line(error)}") from None
    return np.asarray(loaded["image_features"] if isinstance(loaded, dict) and "image_features" in loaded else loaded)


class _Arrays:
    """What torch takes for the module pickle: it makes arrays and tensors and refuses everything else."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" not in _MAKERS:
                raise pickle.UnpicklingError(f"{module}.{name} in it is neither an array nor a tensor")
            return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


_MAKERS = (
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    "numpy.ndarray",
    "numpy.dtype",
    "torch._utils._rebuild_tensor_v2",
    "collections.OrderedDict",
)
