"""A weighted sum of columns, as a column."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from poolbench.errors import UserError
from poolbench.files import digest_json

from curate.pool.files import File, read_columns
from curate.pool.passes import Passes, light
from curate.pool.quantile import Column, column_of, scores
from curate.scorers.rows import RowScorer


class WeightedSum(RowScorer):
    """`mix`: the sum of weight times column over all columns, in float64; NaN where one of them is.

    Its folder is named after columns and weights, so that mixes of several weights stand side by side.
    """

    makes = ("mix",)
    light = True

    def __init__(self, weights: Mapping[str, float], standardize: bool = False, min_max: bool = False) -> None:
        """
        Args:
            standardize: take from each column its mean over the pool first, and divide by its standard deviation;
                `measure` has to be called then.
            min_max: take its least number and divide by the distance of that to the greatest; likewise. A number that
                is not finite is none then.

        Raises:
            UserError: no weight, one that is no number, or both ways at once.
        """
        if not weights or not np.isfinite(list(weights.values())).all():
            raise UserError(f"filter.weights={dict(weights)}: name columns and their weights, {{column: weight, ...}}")
        if standardize and min_max:
            raise UserError("either filter.standardize= or filter.min_max=")
        # In an order that does not depend on how they were written down: the sum is rounded in it.
        self.weights = {name: float(weights[name]) for name in sorted(weights)}
        self.columns = tuple(self.weights)
        self.name = f"mix-{digest_json([self.weights, 'min_max' if min_max else standardize])[:8]}"
        self._standardize, self._min_max = standardize, min_max
        self._shift = dict.fromkeys(self.columns, 0.0)
        self._scale = dict.fromkeys(self.columns, 1.0)

    def measure(self, passes: Passes) -> None:
        """Find mean and standard deviation of each column, or its least number and the distance to its greatest, of
        the rows that have finite numbers.

        Raises:
            UserError: a column that is the same in every row.
        """
        for name in self.columns if self._min_max else ():
            ends = [end for _, found in passes.map(extremes, column_of(passes.files, name)) for end in found]
            self._shift[name] = min(ends, default=0.0)
            self._scale[name] = max(ends, default=0.0) - self._shift[name]
            if not self._scale[name] > 0:
                raise UserError(f"filter.weights: column {name} is the same in every row, so it has no range")
        for name in self.columns if self._standardize else ():
            column = column_of(passes.files, name)
            found = [one for _, one in passes.map(sums, column, 0.0)]
            count = max(sum(one["count"] for one in found), 1)
            mean = sum(one["sum"] for one in found) / count
            squares = sum(one["squares"] for _, one in passes.map(sums, column, mean))
            self._shift[name], self._scale[name] = mean, float(np.sqrt(squares / count))
            if not self._scale[name] > 0:
                raise UserError(f"filter.weights: column {name} is the same in every row, it cannot be standardized")

    def identity(self) -> Any:
        return {"weights": self.weights, "shift": self._shift, "scale": self._scale}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        return {"mix": np.concatenate([*self._sums(file), np.zeros(0, np.float32)])}

    def _sums(self, file: File) -> Iterator[np.ndarray]:
        for table, _ in read_columns(file, self.columns):
            total = np.zeros(len(table))
            for name, weight in self.weights.items():
                values = scores(table, name).astype(np.float64)
                if self._min_max:
                    values[~np.isfinite(values)] = np.nan
                with np.errstate(invalid="ignore"):  # 0 times infinity, or infinity less infinity, is NaN
                    total += weight * ((values - self._shift[name]) / self._scale[name])
            yield total.astype(np.float32)


@light
def sums(file: File, column: Column, mean: float) -> dict[str, float]:
    """How many finite numbers a column of a file has, their sum, and that of their squared distances from `mean`."""
    count, total, squares = 0, 0.0, 0.0
    for table, _ in read_columns(file, [column.name]):
        values = scores(table, column.name).astype(np.float64)
        values = values[np.isfinite(values)]
        count, total = count + len(values), total + float(values.sum())
        squares += float(np.square(values - mean).sum())
    return {"count": count, "sum": total, "squares": squares}


@light
def extremes(file: File, column: Column) -> list[float]:
    """The least and the greatest finite number of each piece of a file's column; none where it has none."""
    found: list[float] = []
    for table, _ in read_columns(file, [column.name]):
        values = scores(table, column.name)
        values = values[np.isfinite(values)]
        found += [float(values.min()), float(values.max())] if len(values) else []
    return found
