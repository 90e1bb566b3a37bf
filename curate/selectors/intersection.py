"""What all of several filters keep."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.options import option

from curate.selectors.base import Composite


@dataclass
class Options:
    """The options."""

    of: list[Any] = option("filters and subset files")


class Intersection(Composite):
    """Keeps a row as often as the one of its filters that keeps it least often."""

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        smallest: np.ndarray = np.minimum.reduce(counts)
        return smallest
