"""The embeddings of pictures that a selection shall be like: ImageNet's, as published, or a file of any."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import atomic, cache, claimed, digest_file, digest_json

from curate.models.assets import IMAGENET_TRAIN, fetched
from curate.models.forms import gram
from curate.models.matrices import as_npy, load_matrix

IMAGENET = "imagenet"
EXPLAINED = "imagenet: the published embeddings of its training images; or a file of such"
_WHAT = "filter.targets"
_ROWS = 2**14  # that are looked at together
_WAIT = 24 * 3600.0  # seconds for another process that sums the same targets


class Targets(NamedTuple):
    """Matrices of floats, an embedding a row, all finite.

    Attributes:
        name: by which folders call them.
        paths: their .npy.
        digest: of their contents.
        rows: of all together.
    """

    name: str
    paths: tuple[Path, ...]
    digest: str
    rows: int
    width: int


def files_of(given: str) -> list[Path]:
    """The files that the option targets= means, fetched where need be.

    Raises:
        UserError: no such file.
    """
    if given == IMAGENET:
        return [fetched(part) for part in IMAGENET_TRAIN]
    if not Path(given).is_file():
        raise UserError(f"{_WHAT}={given} is neither a file nor {IMAGENET!r}")
    return [Path(given)]


def name_of(given: str) -> str:
    """What folders of what is made with these targets are called: by the option alone, before anything is read."""
    return given if given == IMAGENET else f"{Path(given).stem}-{digest_json(str(Path(given).resolve()))[:6]}"


def targets_of(given: str) -> Targets:
    """The targets that the option means, each looked at once.

    Raises:
        UserError: no such file, no embeddings in it, or one that is no numbers.
    """
    files = files_of(given)
    paths = tuple(as_npy(path, _WHAT) for path in files)
    matrices = [load_matrix(path, _WHAT) for path in paths]
    for path, matrix in zip(files, matrices, strict=True):
        if matrix.dtype.itemsize > 4 and given != IMAGENET:
            raise UserError(f"{_WHAT}={path} holds {matrix.dtype}; embeddings are float16 or float32")
        if matrix.shape[1] != matrices[0].shape[1]:
            raise UserError(f"{_WHAT}={path} has {matrix.shape[1]} numbers a row, {files[0]} {matrices[0].shape[1]}")
        for start in range(0, len(matrix), _ROWS):
            if not np.isfinite(matrix[start : start + _ROWS]).all():
                raise UserError(f"{_WHAT}={path} holds embeddings that are no numbers")
    digest = digest_json([digest_file(path) for path in paths])
    return Targets(name_of(given), paths, digest, sum(map(len, matrices)), matrices[0].shape[1])


@functools.lru_cache(2)
def opened(targets: Targets) -> Sequence[np.ndarray]:
    """The matrices, memory-mapped."""
    return [load_matrix(path, _WHAT) for path in targets.paths]


@functools.lru_cache(2)
def gram_of(targets: Targets) -> np.ndarray:
    """The sum of each target's product with itself, float64 [width, width], found once and kept in the cache.

    A command therefore asks once before it starts its workers.
    """
    folder = cache() / "grams"
    path = folder / f"{targets.digest}.npy"
    if not path.is_file():
        with claimed(folder, wait=_WAIT):
            total = np.zeros((targets.width, targets.width))
            for matrix in opened(targets):
                steps = range(0, len(matrix), _ROWS)
                for start in tqdm(steps, desc="targets", disable=not sys.stderr.isatty()):
                    total += gram(matrix[start : start + _ROWS])
            with atomic(path, "wb") as file:
                np.save(file, total)
    found: np.ndarray = np.load(path)
    return found
