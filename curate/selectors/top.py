"""The rows with the highest scores, of any column: the pool's own, or one that was made of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.options import option

from curate.selectors.base import AMONG, AtLeast, Filter


@dataclass
class Options:
    """The options, of which one of fraction and threshold is needed."""

    column: str = option("name of a column of scores, the more the better; <made>/<column> where several have it")
    fraction: float | None = option("of the pool, 0 to 1", None)
    threshold: float | None = option("the lowest score that is kept", None)
    of: Any = option(AMONG, None)


class Top(AtLeast):
    """Keeps the rows with the highest scores of a column."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        self.columns = (options.column,)
