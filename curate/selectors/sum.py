"""What several filters keep, one after the other: a row that two keep stands twice."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.options import option

from curate.selectors.base import Composite


@dataclass
class Options:
    """The options."""

    of: list[Any] = option("filters and subset files")


class Sum(Composite):
    """Keeps a row as often as all its filters together."""

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        total: np.ndarray = np.add.reduce(counts)
        return total
