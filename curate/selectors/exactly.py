"""What filters have in common that keep an exact number of rows, the best by one column, ties by uid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from curate.pool.files import PLACE
from curate.pool.passes import Passes
from curate.scorers.rows import RowScorer, score_columns
from curate.selectors.base import Filter, in_best, in_range, unscored
from curate.selectors.clip_score import column_of


class Exactly(Filter):
    """Keeps exactly int(fraction N) of the N rows of the pool, those with the largest scores; all where fewer have one.

    A subclass sets `columns` to the name of the scores, and makes them in `scorer`.
    """

    arrays = (PLACE,)
    numeric = True

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        in_range("fraction", options.fraction, 0, 1)

    def scorer(self) -> RowScorer | None:
        """What makes the column; None where the pool has it."""
        return None

    def learn(self, passes: Passes) -> None:
        scorer = self.scorer()
        if scorer is not None:
            score_columns(passes, scorer)
        self.state = {**self.state, "best": self.best(passes, self.columns[0], self.options.fraction)}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return in_best(self.state["best"], rows, self.columns[0], arrays)

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return unscored(rows, self.columns[0])


@dataclass
class FirstOptions:
    """A column and a fraction of the pool."""

    column: str
    fraction: float


class First(Exactly):
    """The first of two stages: the pairs that CLIP finds most alike. The second one chooses among them; its fraction is
    one of the whole pool, too."""

    def __init__(self, options: FirstOptions, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        self.columns = (options.column,)


def first_stage(arch: str, fraction: float | None, of: Sequence[Filter]) -> list[Filter]:
    """The children of a filter with a first stage by CLIP score, or without one, among what `of` keeps.

    Raises:
        UserError: no such score, or no fraction.
    """
    column = column_of(arch)
    if fraction is None:
        return list(of)
    in_range("clip_fraction", fraction, 0, 1)
    return [First(FirstOptions(column, fraction), of)]
