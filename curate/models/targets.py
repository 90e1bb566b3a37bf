"""The embeddings of pictures that a selection shall be like: ImageNet's, as published; a file of any; a folder that
`curate.score scorer=targets` made; or several of these together."""

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from poolbench.assets import fetched
from poolbench.errors import UserError
from poolbench.files import atomic, cache, claimed, digest_file, digest_json
from poolbench.text import some

from curate.models.assets import IMAGENET_TRAIN
from curate.models.forms import gram
from curate.models.matrices import as_npy, check_not_zero, load_matrix
from curate.pool.embedded import finished
from curate.pool.scored import Maker

IMAGENET = "imagenet"
EXPLAINED = "imagenet: the published embeddings of its training images; a file of such; a folder of curate.score "
EXPLAINED += "scorer=targets; or a list [a,b] of these"
_WHAT = "filter.targets"
_ROWS = 2**14  # that are looked at together
_WAIT = 24 * 3600.0  # seconds for another process that sums the same targets


class Named(NamedTuple):
    """What the option targets= names.

    Attributes:
        files: matrices; several, but for ImageNet's alone, in an order that depends on their contents and nothing else.
        maker: the model of all of them, None where no folder tells it.
        tests: sets whose evaluation pictures are among them.
    """

    files: list[Path]
    maker: Maker | None = None
    tests: tuple[str, ...] = ()

    def warned(self) -> dict[str, Any]:
        """What a filter's state says of evaluation pictures, which is told on stderr, too."""
        if not self.tests:
            return {}
        print(
            f"warning: {_WHAT}= has evaluation pictures ({some(self.tests)}), by which the filtering track forbids to "
            "select; the summary says so",
            file=sys.stderr,
        )
        return {"evaluation_pictures": list(self.tests)}


class Targets(NamedTuple):
    """Matrices of floats, an embedding a row, all finite.

    Attributes:
        name: by which folders call them.
        paths: their .npy.
        digest: of their contents.
        rows: of all together.
        maker: see Named.
    """

    name: str
    paths: tuple[Path, ...]
    digest: str
    rows: int
    width: int
    maker: Maker | None = None


def ordered(given: Any) -> Any:
    """The option targets=, the same in whichever order it lists several."""
    if not isinstance(given, list):
        return given
    if not given:
        raise UserError(f"{_WHAT}=[] is empty; name {IMAGENET}, a file or a folder")
    return given[0] if len(given) == 1 else sorted(given)


def named(given: Any) -> Named:
    """The files that the option targets=, as `ordered` gives it, means, fetched where need be.

    Raises:
        UserError: no such file, a folder that is not finished, or embeddings by different models.
    """
    if given == IMAGENET:
        return Named(_published())
    files: list[Path] = []
    makers: dict[str, Maker] = {}
    tests: set[str] = set()
    for one in given if isinstance(given, list) else [given]:
        path = Path(one)
        if path.is_dir():
            found = finished(path, _WHAT)
            files, tests = files + found.paths, tests | set(found.tests)
            makers[one] = found.maker
        elif one != IMAGENET and not path.is_file():
            raise UserError(f"{_WHAT}={one} is neither a file nor {IMAGENET!r}")
        else:
            files += _published() if one == IMAGENET else [path]
    doubled = [file for place, file in enumerate(files) if file.resolve() in {one.resolve() for one in files[:place]}]
    if doubled:
        raise UserError(f"{_WHAT}= names {doubled[0]} twice")
    first = next(iter(makers), "")
    for name, maker in makers.items():
        if maker.unlike(makers[first]):
            raise UserError(f"{_WHAT}: {name} was made by {maker}, {first} by {makers[first]}")
    in_order = sorted(files, key=digest_file) if len(files) > 1 else files
    return Named(in_order, makers.get(first), tuple(sorted(tests)))


def _published() -> list[Path]:
    return [fetched(part) for part in IMAGENET_TRAIN]


def name_of(given: Any) -> str:
    """What folders of what is made with these targets are called: by the option alone, before anything is read."""
    if given == IMAGENET:
        return IMAGENET
    if isinstance(given, list):
        places = sorted(one if one == IMAGENET else str(Path(one).resolve()) for one in given)
        return f"{len(given)}_sets-{digest_json(places)[:6]}"
    return f"{Path(given).stem}-{digest_json(str(Path(given).resolve()))[:6]}"


def targets_of(given: Any, found: Named) -> Targets:
    """The targets that the option means, each looked at once.

    Args:
        found: what `named` found of it.

    Raises:
        UserError: no embeddings in a file, one that is no numbers, or nothing but zeros.
    """
    paths = tuple(as_npy(path, _WHAT) for path in found.files)
    matrices = [load_matrix(path, _WHAT) for path in paths]
    for path, matrix in zip(found.files, matrices, strict=True):
        if matrix.dtype.itemsize > 4 and given != IMAGENET:
            raise UserError(f"{_WHAT}={path} holds {matrix.dtype}; embeddings are float16 or float32")
        if matrix.shape[1] != matrices[0].shape[1]:
            raise UserError(
                f"{_WHAT}={path} has {matrix.shape[1]} numbers a row, {found.files[0]} {matrices[0].shape[1]}"
            )
        for start in range(0, len(matrix), _ROWS):
            if not np.isfinite(matrix[start : start + _ROWS]).all():
                raise UserError(f"{_WHAT}={path} holds embeddings that are no numbers")
        check_not_zero(matrix, path, _WHAT)
    digest = digest_json([digest_file(path) for path in paths])
    return Targets(name_of(given), paths, digest, sum(map(len, matrices)), matrices[0].shape[1], found.maker)


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
