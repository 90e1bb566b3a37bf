"""The samples on which two models differ most: one is right, the other wrong, and both are sure of it."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from poolbench.text import aligned

from evaluate.metrics.columns import Bools, classes, hits

_HEADINGS = ("sample", "label", "A says", "sure", "B says", "sure", "right")


class Said(NamedTuple):
    """A class that a model chose, and its probability; None where the predictions were stored without."""

    prediction: int
    confidence: float | None


class Disagreement(NamedTuple):
    """A sample that one of two models has right."""

    key: str
    label: int
    a: Said
    b: Said

    @property
    def right(self) -> str:
        return "A" if self.a.prediction == self.label else "B"


class Disagreements(NamedTuple):
    """How many samples only A and only B has right, and the first of them, the surest first."""

    only_a: int
    only_b: int
    samples: list[Disagreement]


def disagreements(a: pa.Table, b: pa.Table, count: int) -> Disagreements:
    """The `count` samples on which two models differ most, of tables with the same sample in the same row.

    Those come first of which the less sure of the two models is surest; equal ones, and all where a table has no
    confidence, in the order of the data.

    Raises:
        KeyError, ValueError: the tables are not of a task of classification.
    """
    right_a, right_b = hits(a), hits(b)
    rows = np.flatnonzero(right_a != right_b)
    sure = [confidence_of(table) for table in (a, b)]
    if all(values is not None for values in sure):
        less = np.minimum(*(np.nan_to_num(values[rows]) for values in sure if values is not None))
        rows = rows[np.argsort(-less, kind="stable")]
    said = [_said(table, values, rows[:count]) for table, values in zip((a, b), sure, strict=True)]
    keys = a.column("key").take(rows[:count]).to_pylist()
    labels = classes(a, "label")[rows[:count]].tolist()
    samples = [Disagreement(*one) for one in zip(keys, labels, *said, strict=True)]
    return Disagreements(_count(right_a & ~right_b), _count(right_b & ~right_a), samples)


def confidence_of(predictions: pa.Table) -> npt.NDArray[np.float64] | None:
    """The column `confidence`, float64 [n]; None in predictions of before there was one."""
    if "confidence" not in predictions.column_names:
        return None
    values: npt.NDArray[np.float64] = predictions.column("confidence").to_numpy().astype(np.float64)
    return values


def report(found: Disagreements, key: str) -> str:
    """The samples as a table, below how many there are."""
    rows = [(one.key, str(one.label), *_cells(one.a), *_cells(one.b), one.right) for one in found.samples]
    head = f"{key}: {found.only_a:,} samples that only A has right, {found.only_b:,} that only B has right"
    return "\n\n".join([head, *([aligned([_HEADINGS, *rows], range(1, 6))] if rows else [])])


def as_json(found: Disagreements, key: str) -> dict[str, Any]:
    """The same in JSON's types."""
    samples = [
        {**one._asdict(), "a": one.a._asdict(), "b": one.b._asdict(), "right": one.right} for one in found.samples
    ]
    return {"key": key, "only_a": found.only_a, "only_b": found.only_b, "samples": samples}


def _said(table: pa.Table, sure: npt.NDArray[np.float64] | None, rows: npt.NDArray[np.int64]) -> list[Said]:
    chosen = classes(table, "prediction")[rows].tolist()
    confidences = [None] * len(rows) if sure is None else sure[rows].tolist()
    return [Said(*pair) for pair in zip(chosen, confidences, strict=True)]


def _cells(said: Said) -> tuple[str, str]:
    return str(said.prediction), "" if said.confidence is None else f"{said.confidence:.3f}"


def _count(rows: Bools) -> int:
    return int(np.sum(rows))
