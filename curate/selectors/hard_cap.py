"""Rows drawn by a softmax of their scores, each at most so many times (hard-cap sampling of FLYT; Gumbel top-k)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.errors import UserError
from poolbench.options import option

from curate.pool.draws import Rule
from curate.selectors.base import AMONG, Filter
from curate.selectors.drawn import BATCH, COLUMN, WEIGHTS, Drawn


@dataclass
class Options:
    """The options, of which one of column and weights is needed."""

    size: int = option("draws in all; a row that is drawn m times stands m times")
    cap: int = option("draws of one row at most; 1: a sample without replacement", 1)
    column: str | None = option(COLUMN, None)
    weights: dict[str, float] | None = option(WEIGHTS, None)
    seed: int = option("another one draws others", 0)
    batch: int = option("draws without replacement, after which a row may be drawn again", BATCH)
    of: Any = option(AMONG, None)


class HardCap(Drawn):
    """Draws batches without replacement, by a softmax of the scores, until a row was drawn `cap` times."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if options.cap < 1:
            raise UserError(f"filter.cap={options.cap} must be positive")

    def rule(self) -> Rule:
        return Rule(self.options.size, 0.0, self.options.cap, self.options.batch, self.options.seed)
