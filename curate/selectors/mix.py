"""The rows with the highest weighted sums of several columns, which become a column of their own; a filter counts as
a column, too."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.errors import UserError
from poolbench.files import digest_json
from poolbench.options import option

from curate.pool.chosen import Needs, joined
from curate.pool.passes import Passes
from curate.scorers.membership import Membership
from curate.scorers.mixed import WeightedSum
from curate.scorers.rows import score_columns
from curate.selectors.base import AMONG, AtLeast, Filter
from curate.selectors.registry import build, described


@dataclass
class Options:
    """The options, of which one of fraction and threshold is needed."""

    weights: dict[str, float] = option("{column: weight, ...}, of the pool or made of it, or of `members`")
    members: dict[str, Any] | None = option(
        "{name: filter, ...}: columns of 1 where the filter keeps a row, else 0", None
    )
    standardize: bool = option("true: each column less its mean over the pool, by its standard deviation", False)
    min_max: bool = option("true: each column less its least number, by its range", False)
    fraction: float | None = option("of the pool, 0 to 1", None)
    threshold: float | None = option("the lowest sum that is kept", None)
    of: Any = option(AMONG, None)


class Mix(AtLeast):
    """Keeps the rows whose sum of weight times column is highest. A row that lacks one of the columns has no sum."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        members = options.members or {}
        for name in members:
            if name not in options.weights:
                raise UserError(f"filter.members has {name!r}, to which filter.weights= gives no weight")
        self._filters = {name: build(spec, f"filter.members.{name}") for name, spec in members.items()}
        # Folders are called after what is asked, since that is known before anything of the pool is.
        self._members = {name: Membership(digest_json(described(one)), one) for name, one in self._filters.items()}
        columns = {name: one.column() for name, one in self._members.items()}
        weights = {columns.get(name, name): weight for name, weight in options.weights.items()}
        self._scorer = WeightedSum(weights, options.standardize, options.min_max)
        self.columns = (self._scorer.column(),)

    @property
    def sources(self) -> Needs:
        members = [needs for one in self._filters.values() for needs in (one.needs, one.sources)]
        return joined([super().sources, Needs(self._scorer.columns, ()), *members])

    def learn(self, passes: Passes) -> None:
        for name, one in self._filters.items():
            one.prepare(passes)
            score_columns(passes, self._members[name])
        self._scorer.measure(passes)
        score_columns(passes, self._scorer)
        super().learn(passes)
        self.state["mixed"] = self._scorer.identity()
        if self._filters:
            self.state["members"] = {name: one.state for name, one in self._filters.items()}
