"""The embeddings of a file's rows, for scorers of them: all rows in their order, and which of them are numbers."""

from collections.abc import Callable, Iterator

import numpy as np

from curate.models.targets import Targets
from curate.pool.files import BadFile, File, read_columns, schema_of
from curate.pool.scored import maker_of

KINDS = (np.dtype(np.float16), np.dtype(np.float32))
AT_ONCE = 2**12  # rows of a piece: as its memory is used again for the next one, it need not be had anew
_LOOKED_AT = 2**9  # rows whose bits fit the cache


def pieces(
    file: File, *names: str, width: int | None = None, like: str = "the targets", at_once: int = AT_ONCE
) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Some rows after the others: the embeddings of each array, [rows, width], and which rows are finite in all, bool.

    Args:
        width: that they must have, as `like` has; None: any, if all have the same.
        at_once: rows of a piece.

    Raises:
        BadFile: the file cannot be read, has no such array, or one of another type or width.
    """
    for table, arrays in read_columns(file, ["uid"], names, at_once):
        found = [arrays[name] for name in names]
        for name, array in zip(names, found, strict=True):
            checked(file, name, array)
            wanted, whose = (found[0].shape[1], names[0]) if width is None else (width, like)
            if array.shape[1] != wanted:
                raise BadFile(f"{file.arrays}: {name} has {array.shape[1]} numbers a row, {whose} {wanted}")
        finite = np.ones(len(table), bool)
        for array in found:
            finite &= finite_rows(array)
        yield found, finite


def checked(file: File, name: str, array: np.ndarray) -> np.ndarray:
    """The array, if it is one of embeddings.

    Raises:
        BadFile: as `pieces`.
    """
    if array.ndim != 2 or array.dtype not in KINDS:
        raise BadFile(
            f"{file.arrays}: {name} holds {array.dtype} {list(array.shape[1:])} a row; embeddings are vectors of "
            "float16 or float32"
        )
    return array


def finite_rows(array: np.ndarray) -> np.ndarray:
    """Which vectors are numbers throughout, bool [rows]; by their bits, a fifth of the time that np.isfinite takes.

    Args:
        array: [rows, width], of KINDS.
    """
    bits, infinity = array.view(f"u{array.itemsize}"), np.array(np.inf, array.dtype).view(f"u{array.itemsize}")
    parts = [np.empty(0, bool)]
    for start in range(0, len(bits), _LOOKED_AT):
        exponents = bits[start : start + _LOOKED_AT] & infinity  # whose bits are all set where there is no number
        parts.append(exponents.max(axis=1, initial=0) < infinity)
    return np.concatenate(parts)


def scored(
    file: File, name: str, targets: Targets, score: Callable[[np.ndarray], np.ndarray], at_once: int = AT_ONCE
) -> np.ndarray:
    """A score of each row's embedding, float32 [rows], NaN where that is no number.

    Args:
        targets: that they are compared with.
        score: of embeddings that are finite, [n, width], float32 [n]; each by itself.
        at_once: embeddings that it is given at a time.

    Raises:
        BadFile: see `pieces`; or they were made by another model than the targets, as far as both are known.
    """
    maker = maker_of(schema_of(file), name) if targets.maker is not None else None
    if maker is not None and targets.maker is not None and maker.unlike(targets.maker):
        raise BadFile(f"{file.path}: {name} was made by {maker}, the targets by {targets.maker}")
    parts = [np.empty(0, np.float32)]
    for (vectors,), finite in pieces(file, name, width=targets.width, at_once=at_once):
        part = np.full(len(finite), np.nan, np.float32)
        part[finite] = score(vectors if finite.all() else vectors[finite])
        parts.append(part)
    return np.concatenate(parts)
