"""What another filter keeps, several times."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.errors import UserError
from poolbench.options import option

from curate.selectors.base import Composite, Filter

MOST = 1000  # more is a mistake: a subset of that size would not be written either


@dataclass
class Options:
    """The options."""

    of: Any = option("a filter, or a subset file")
    times: int = option("how often each of its uids stands in the subset")


class Repeat(Composite):
    """Keeps what its filter keeps, `times` times."""

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if not 1 <= options.times <= MOST:
            raise UserError(f"filter.times={options.times} must lie from 1 to {MOST}")

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        repeated: np.ndarray = counts[0] * self.options.times
        return repeated
