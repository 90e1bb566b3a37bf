"""The pairs that a CLIP model finds most alike: by a threshold, or the best fraction of the pool, of all its pairs or
among those that another filter keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.pool.passes import Passes
from curate.pool.quantile import scores
from curate.selectors.base import AMONG, Filter, in_range
from poolbench.errors import UserError, nearest
from poolbench.options import option

COLUMNS = {"b32": "clip_b32_similarity_score", "l14": "clip_l14_similarity_score"}


@dataclass
class Options:
    """The options, of which one of fraction and threshold is needed."""

    arch: str = option("b32 | l14, or the name of a column of scores", "l14")
    fraction: float | None = option("of the pool, 0 to 1", None)
    threshold: float | None = option("the lowest score that is kept", None)
    of: Any = option(AMONG, None)


class ClipScore(Filter):
    """Keeps scores at or above the threshold. NaN never is, but counts as a row of the pool for a fraction."""

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if (options.fraction is None) == (options.threshold is None):
            raise UserError("filter=clip_score needs either filter.fraction= or filter.threshold=")
        if options.fraction is not None:
            in_range("fraction", options.fraction, 0, 1)
        elif not np.isfinite(options.threshold):
            raise UserError(f"filter.threshold={options.threshold} is no score; filter.fraction=1 keeps all")
        if options.arch not in COLUMNS and "score" not in options.arch:
            raise UserError(f"filter.arch={options.arch} is not known; {nearest(options.arch, COLUMNS)}")
        self.columns = (COLUMNS.get(options.arch, options.arch),)

    def learn(self, passes: Passes) -> None:
        threshold = self.options.threshold
        if threshold is None:
            threshold = self.nth_largest(passes, self.columns[0], self.options.fraction)
        self.state = {"threshold": str(threshold) if np.isinf(threshold) else threshold}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        # A Python float compares in the column's own precision: 0.3 keeps a float32 score of 0.3.
        kept: np.ndarray = scores(rows[self.columns[0]]) >= float(self.state["threshold"])
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {f"{self.columns[0]} is NaN": int(np.isnan(scores(rows[self.columns[0]])).sum())}
