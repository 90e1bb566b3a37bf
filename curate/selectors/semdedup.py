"""Near-duplicates by their pictures' embeddings left out, but for one of each group; see curate/scorers/semdedup.py."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError, nearest
from poolbench.options import option

from curate.models.points import KEY
from curate.pool.files import PLACE
from curate.pool.passes import Passes
from curate.pool.quantile import scores
from curate.scorers.clustered import ITERATIONS, PER_CLUSTER, Clustering
from curate.scorers.semdedup import WHICH, SemDeDup
from curate.selectors.base import AMONG, Filter, in_best, in_range, unscored


@dataclass
class Options:
    """The options, of which one of epsilon and fraction is needed."""

    epsilon: float | None = option("rows whose cosine to one before them is above 1 - epsilon are left out", None)
    fraction: float | None = option("of the pool, 0 to 1: exactly so many rows, those least like others", None)
    which: str = option(
        "hard | easy | random: of a group, the row farthest from its centroid, the nearest, any", "hard"
    )
    embedding: str = option("array of the npz", KEY)
    clusters: int = option("of k-means, within which rows are compared; published: 50,000 of 440 million rows", 1000)
    iterations: int = option("of k-means", ITERATIONS)
    sample: int = option("embeddings for each cluster that k-means sees, drawn by uid", PER_CLUSTER)
    seed: int = option("of what is drawn", 0)
    of: Any = option(AMONG, None)


class WithoutDuplicates(Filter):
    """Keeps rows that are novel enough, or the most novel ones."""

    arrays = (PLACE,)

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if (options.epsilon is None) == (options.fraction is None):
            raise UserError("filter=semdedup needs either filter.epsilon= or filter.fraction=")
        name, value = ("fraction", options.fraction) if options.epsilon is None else ("epsilon", options.epsilon)
        in_range(name, value if value is not None else np.nan, 0, 1)
        if options.which not in WHICH:
            raise UserError(f"filter.which={options.which} is not known; {nearest(options.which, WHICH)}")
        how = Clustering(options.embedding, options.clusters, options.iterations, options.sample, options.seed)
        how.check()
        self._scorer = SemDeDup(how, options.which, options.of)
        self.columns = (self._scorer.column(),)

    def learn(self, passes: Passes) -> None:
        self._scorer.make(passes, self.among)
        if self.options.fraction is not None:
            self.state = {"best": self.best(passes, self.columns[0], self.options.fraction)}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if self.options.fraction is not None:
            return in_best(self.state["best"], rows, self.columns[0], arrays)
        # A Python float compares in the column's own precision.
        kept: np.ndarray = scores(rows, self.columns[0]) >= self.options.epsilon
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return unscored(rows, self.columns[0])
