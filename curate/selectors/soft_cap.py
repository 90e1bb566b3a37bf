"""Rows drawn by a softmax of their scores, of which each draw lowers a row's own (soft-cap sampling of FLYT)."""

from dataclasses import dataclass
from typing import Any

from poolbench.options import option

from curate.pool.draws import Rule
from curate.selectors.base import AMONG
from curate.selectors.drawn import BATCH, COLUMN, WEIGHTS, Drawn


@dataclass
class Options:
    """The options, of which one of column and weights is needed."""

    alpha: float = option("what a row's score loses by each draw")
    size: int = option("draws in all; a row that is drawn m times stands m times")
    column: str | None = option(COLUMN, None)
    weights: dict[str, float] | None = option(WEIGHTS, None)
    seed: int = option("another one draws others", 0)
    batch: int = option("draws without replacement, after which scores are lowered", BATCH)
    of: Any = option(AMONG, None)


class SoftCap(Drawn):
    """Draws batches without replacement, by a softmax of the scores, and takes alpha from each score that was drawn."""

    def rule(self) -> Rule:
        return Rule(self.options.size, self.options.alpha, 0, self.options.batch, self.options.seed)
