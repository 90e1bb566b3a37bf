"""What soft_cap and hard_cap share: rows are drawn by a softmax of their scores, and may stand several times."""

import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.files import digest_bytes

from curate.pool.chosen import Everything, kept_bits
from curate.pool.draws import Rule, candidates, drawn, times_of, write_counts
from curate.pool.files import PLACE
from curate.pool.passes import Passes
from curate.pool.quantile import column_of
from curate.scorers.mixed import WeightedSum
from curate.scorers.rows import score_columns
from curate.selectors.base import Filter

COLUMN = "name of a column of scores, taken as logits; <made>/<column> where several have it"
WEIGHTS = "instead of a column, a weighted sum: {column: weight, ...}"
BATCH = 100_000  # draws of a round, as published


class Drawn(Filter):
    """Keeps each row as often as it is drawn. A row without a finite score is not. With `of`, one that it keeps."""

    arrays = (PLACE,)

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if (options.column is None) == (options.weights is None):
            raise UserError("either filter.column= or filter.weights= says what rows are drawn by")
        if options.size < 1 or options.batch < 1:
            raise UserError("filter.size= and filter.batch= must be positive")
        self._scorer = WeightedSum(options.weights) if options.weights is not None else None
        self.columns = (options.column if self._scorer is None else self._scorer.column(),)
        self._counts: tuple[str, str] | None = None

    @abstractmethod
    def rule(self) -> Rule:
        """How rows are drawn."""

    def learn(self, passes: Passes) -> None:
        if self._scorer is not None:
            score_columns(passes, self._scorer)
        rule, column = self.rule(), column_of(passes.files, self.columns[0])
        ranked = passes.made(kept_bits, self.among or Everything())

        def pieces() -> Iterator[np.ndarray]:
            return (piece for _, piece in passes.map(candidates, column, rule.seed, ranked))

        highest = max((float(piece["logit"].max()) for piece in pieces() if len(piece)), default=0.0)
        counts = drawn(pieces(), highest, rule)
        digest = digest_bytes(counts.tobytes())
        path = passes.folder("drawn") / f"{digest[:16]}.npy"
        write_counts(path, counts)
        self._counts = (str(path), digest)
        self.state = {
            "draws": int(counts["times"].sum()),
            "rows": len(counts),
            "most_often": int(counts["times"].max()),
            "sha256": digest,
        }

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = self.count(rows, arrays) > 0
        return kept

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        assert self._counts is not None
        return times_of(_opened(*self._counts), arrays[PLACE])


@functools.cache
def _opened(path: str, digest: str) -> np.ndarray:
    """What was drawn, memory-mapped; the digest tells it from what had the name before."""
    found: np.ndarray = np.load(Path(path), mmap_mode="r")
    return found
