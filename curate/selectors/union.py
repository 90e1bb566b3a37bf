"""What any of several filters keeps."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.options import option

from curate.selectors.base import Composite


@dataclass
class Options:
    """The options."""

    of: list[Any] = option("filters and subset files")


class Union(Composite):
    """Keeps a row as often as the one of its filters that keeps it most often."""

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        largest: np.ndarray = np.maximum.reduce(counts)
        return largest
