"""What one filter keeps and no other does."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.options import option

from curate.selectors.base import Composite


@dataclass
class Options:
    """The options."""

    of: list[Any] = option("filters and subset files; what the first keeps, less what the others do")


class Difference(Composite):
    """Keeps what the first of its filters keeps, less what the others keep."""

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        return np.where(np.maximum.reduce(counts[1:], initial=0) > 0, 0, counts[0])
