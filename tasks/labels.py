"""Several labels of a picture as columns of parquet files hold them: numbers of classes, names, or 1 and 0 for each.

read = reading(path, schema, "labels", ("cat", "dog", "owl"))
read(["owl", "cat"])                    # [1, 0, 1], as int64; also of [2, 0], [1, 0, 1] or [True, False, True]
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from poolbench.errors import UserError, nearest
from poolbench.shards import parquet

Labels = npt.NDArray[np.int64]  # 1 at the classes that a picture shows and 0 at the others


def reading(path: Path, schema: pa.Schema, column: str, classnames: Sequence[str]) -> Callable[[Sequence[Any]], Labels]:
    """What makes labels of a value of the column; it raises a ValueError that says what is wrong with one.

    Lists of text name classes, lists of truth values or fractions tell of each class, and whole numbers are either of
    the two: places in the names that the file itself gives to the column, as the Hub's files do, else what
    `_tell_of_each` finds, and else places in `classnames`.

    Raises:
        UserError: the file names other classes.
    """
    kind = schema.field(column).type.value_type
    own = parquet.class_names(schema, column)
    if parquet.is_text(kind):
        return partial(_of_names, classnames)
    if own is not None and own != tuple(classnames):
        unknown = next((name for name in own if classnames.count(name) != 1), None)
        if unknown is not None:
            raise UserError(f"{path}: the column {column!r} is of classes of which {_unknown(unknown, classnames)}")
        return partial(_of_numbers, len(classnames), [classnames.index(name) for name in own])
    if own is None and (not pa.types.is_integer(kind) or _tell_of_each(path, column, len(classnames))):
        return partial(_of_vector, len(classnames))
    return partial(_of_numbers, len(classnames), range(len(classnames)))


def _tell_of_each(path: Path, column: str, classes: int) -> bool:
    """Whether lists of whole numbers are 1 or 0 for each class and not numbers of classes: none holds another number,
    and all are as long as there are classes, or one holds a number twice."""
    full, repeated = True, False
    for _, record in parquet.rows(path, (column,)):
        labels = record[column] or []
        if not set(labels) <= {0, 1}:
            return False
        full &= len(labels) == classes
        repeated |= len(set(labels)) < len(labels)
    return full or repeated


def _of_names(classnames: Sequence[str], value: Sequence[str | None]) -> Labels:
    found = np.zeros(len(classnames), np.int64)
    for name in value:
        if name is None:
            raise ValueError("the name of a class is missing")
        if classnames.count(name.strip()) != 1:
            raise ValueError(_unknown(name, classnames))
        found[classnames.index(name.strip())] = 1
    return found


def _of_numbers(classes: int, places: Sequence[int], value: Sequence[int | None]) -> Labels:
    found = np.zeros(classes, np.int64)
    for number in value:
        if number is None:
            raise ValueError("the number of a class is missing")
        if not 0 <= number < len(places):
            raise ValueError(f"the label {number} is none of 0 .. {len(places) - 1}, the numbers of the classes")
        found[places[number]] = 1
    return found


def _of_vector(classes: int, value: Sequence[float | None]) -> Labels:
    if len(value) != classes:
        raise ValueError(f"{len(value)} values of 1 and 0, but there are {classes} class names")
    if not set(value) <= {0, 1}:
        raise ValueError("something else than 1 and 0 for the classes that a picture shows and does not")
    return np.array(value, np.int64)


def _unknown(name: str, classnames: Sequence[str]) -> str:
    if name.strip() in classnames:
        return f"several have the name {name!r}: number them"
    return f"none has the name {name!r}; {nearest(name, classnames)}"
