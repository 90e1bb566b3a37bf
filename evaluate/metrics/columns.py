"""Columns of a table of predictions, which may be anybody's: what no evaluator writes is refused."""

import math

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Metrics = dict[str, float | None]  # by name, None where a metric is not defined
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

MOST_GROUPS = 3000  # a higher number of a group is taken for damage; each costs time, whether it occurs or not
_MOST_CLASSES = 100_000  # a higher number of a class would only take memory


def integers(predictions: pa.Table, column: str, below: float = math.inf) -> Ints:
    """A column of whole numbers, int64 [n], with `below` those from 0 to below it.

    Raises:
        KeyError: there is no such column.
        ValueError: numbers are missing, or out of range.
    """
    values = predictions.column(column)
    if values.null_count:
        raise ValueError(f"{column} is missing for some samples")
    numbers: Ints = values.to_numpy().astype(np.int64)
    if below < math.inf and len(numbers) and not 0 <= numbers.min() <= numbers.max() < below:
        raise ValueError(f"{column} holds numbers from {numbers.min()} to {numbers.max()}")
    return numbers


def flags(predictions: pa.Table, column: str) -> Bools:
    """A column of truth values, bool [n].

    Raises:
        KeyError: there is no such column.
        ValueError: it is something else, or some are missing.
    """
    values = predictions.column(column)
    if values.null_count or not pa.types.is_boolean(values.type):
        raise ValueError(f"{column} is not true or false for every sample")
    found: Bools = values.to_numpy().astype(np.bool_)
    return found


def clusters(predictions: pa.Table, column: str) -> Ints:
    """Numbers from 0 for the different values of a column, int64 [n]."""
    found: Ints = np.unique(np.array(predictions.column(column).to_pylist(), dtype=str), return_inverse=True)[1]
    return found.astype(np.int64)


def classes(predictions: pa.Table, column: str) -> Ints:
    """A column of numbers of classes, int64 [n]; raises as `integers` does."""
    return integers(predictions, column, _MOST_CLASSES)


def groups(predictions: pa.Table, column: str) -> Ints:
    """A column of numbers of groups, int64 [n]; raises as `integers` does."""
    return integers(predictions, column, MOST_GROUPS)


def hits(predictions: pa.Table) -> Bools:
    """Whether the best class of each sample is the right one, bool [n]."""
    return np.equal(classes(predictions, "label"), classes(predictions, "prediction"))


def top5(predictions: pa.Table) -> Bools | None:
    """Whether the right class of each sample is among the best five, bool [n]; None for fewer than five classes.

    Raises:
        ValueError: it is told of some samples only.
    """
    column = predictions.column("top5")
    if not column.null_count:
        among: Bools = column.to_numpy().astype(np.bool_)
        return among
    if column.null_count < len(column):
        raise ValueError("top5 is missing for some samples")
    return None
