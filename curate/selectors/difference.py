"""What one filter keeps and no other does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.options import option

from curate.selectors.base import Composite, Filter
from curate.selectors.subset import subsets


@dataclass
class Options:
    """The options."""

    of: list[Any] = option("filters and subset files; what the first keeps, less what the others do")


class Difference(Composite):
    """Keeps what the first of its filters keeps, less what the others keep, which may be nothing."""

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        for leaf in (leaf for one in self.of[1:] for leaf in subsets(one)):
            leaf.subtracted = True

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        return np.where(np.maximum.reduce(counts[1:], initial=0) > 0, 0, counts[0])
