"""The rows with the highest weighted sums of several columns, which become a column of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.options import option

from curate.pool.passes import Passes
from curate.scorers.mixed import WeightedSum
from curate.scorers.rows import score_columns
from curate.selectors.base import AMONG, AtLeast, Filter


@dataclass
class Options:
    """The options, of which one of fraction and threshold is needed."""

    weights: dict[str, float] = option("{column: weight, ...}, of the pool or made of it")
    standardize: bool = option("true: each column less its mean over the pool, by its standard deviation", False)
    fraction: float | None = option("of the pool, 0 to 1", None)
    threshold: float | None = option("the lowest sum that is kept", None)
    of: Any = option(AMONG, None)


class Mix(AtLeast):
    """Keeps the rows whose sum of weight times column is highest. A row that lacks one of the columns has no sum."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        self._scorer = WeightedSum(options.weights, options.standardize)
        self.columns = (self._scorer.column(),)

    def learn(self, passes: Passes) -> None:
        self._scorer.measure(passes)
        score_columns(passes, self._scorer)
        super().learn(passes)
        self.state["mixed"] = self._scorer.identity()
