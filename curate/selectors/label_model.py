"""The rows that are most likely good by the votes of several columns, as EcoDatum selects; see
curate/models/label_model.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.options import check_finite, option

from curate.models.label_model import Training
from curate.pool.files import PLACE
from curate.pool.passes import Passes
from curate.scorers.rows import score_columns
from curate.scorers.votes import Votes
from curate.selectors.base import AMONG, Filter, in_best, in_range


@dataclass
class Options:
    """The options."""

    votes: dict[str, Any] = option("{column: [no at, yes at], ...}; between the two a column abstains")
    fraction: float = option("of the pool, 0 to 1: exactly so many rows")
    epochs: int = option("steps in which the label model is fitted", 200)
    learning_rate: float = option("of these", 0.01)
    l2: float = option("how strongly they are held to where they began", 0.001)
    seed: int = option("of where they begin", 123)
    of: Any = option(AMONG, None)


class LabelModel(Filter):
    """Keeps the rows of the highest probability, of which many are equal: ties by uid."""

    arrays = (PLACE,)

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        in_range("fraction", options.fraction, 0, 1)
        in_range("epochs", options.epochs, 1, 10**6)
        check_finite(options, "filter.")  # before anything is known by them
        training = Training(options.epochs, options.learning_rate, options.l2, options.seed)
        self._scorer = Votes(options.votes, training)
        self.columns = (self._scorer.column(),)

    def learn(self, passes: Passes) -> None:
        self._scorer.measure(passes)
        score_columns(passes, self._scorer)
        best = self.best(passes, self.columns[0], self.options.fraction)
        self.state = {"best": best, "fitted": self._scorer.identity()}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return in_best(self.state["best"], rows, self.columns[0], arrays)
