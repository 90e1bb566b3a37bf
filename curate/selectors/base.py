"""What a filter is: which columns it reads, what it must know of the whole pool first, and which rows it keeps.

A filter is one module of this package, found by its name. It has a dataclass `Options` (`filter.<option>=` on the
command line) and one subclass of `Filter`. Docs: docs/curate.md.

One whose options have `of: Any = option(AMONG, None)` chooses among what another filter keeps, and needs no further
code: a row is kept as often as that filter keeps it, and `nth_largest` ranks only rows that it keeps.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.options import efficiency_of

from curate.pool import quantile
from curate.pool.chosen import Needs, joined
from curate.pool.passes import Passes

AMONG = "a filter, or a subset file: choose among what it keeps; a fraction is still one of the whole pool"


class Filter(ABC):
    """One criterion. Instances are pickled to workers, after `prepare`.

    Attributes:
        columns: of the parquet, besides uid, that it reads itself.
        arrays: of the npz, row-aligned.
        options: an instance of the module's `Options`.
        of: the filters that the option `of` describes; none where it is not given.
        children: those that it asks, most often these.
        state: what `learn` found out, JSON-able (thresholds, paths and digests of files). All that `keep` depends on
            besides the options has to be in it: results that are kept for a later run are told apart by it. It is
            written into the summary beside the subset, too.
        origins: of each of `columns` that was made of the pool, a digest of what made it. Known after `prepare`.
    """

    columns: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    numeric: ClassVar[bool] = False  # whether Arrow and numpy do all the work of `keep`, or `combine`, but a few calls
    version: ClassVar[int] = 1  # raised by a change that keeps other rows, so that older results are not found again

    def __init__(self, options: Any, of: Sequence["Filter"] = ()) -> None:
        self.options = options
        self.of = self.children = list(of)
        self.state: dict[str, Any] = {}
        self.origins: dict[str, str] = {}

    def learn(self, passes: Passes) -> None:  # noqa: B027 (most filters judge a row by itself)
        """Learn what takes whole passes over the pool, into `state`. The children know theirs."""

    @abstractmethod
    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows are kept by its own rule, whatever `of` keeps, bool [rows].

        Args:
            rows: some rows of one file, with `columns`, never empty.
            arrays: `arrays` of the same rows, and "uid", their uids as u8,u8.
        """

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Counts of these rows for the summary, such as scores that are NaN."""
        return {}

    def prepare(self, passes: Passes) -> None:
        """Let the children, and then itself, learn what `count` needs."""
        for child in self.children:
            child.prepare(passes)
        self.learn(passes)
        columns = [quantile.column_of(passes.files, name) for name in self.columns]
        self.origins = {column.name: column.origin for column in columns if column.origin}

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """How often each row is kept, int64 [rows]; more than once only where repeats are asked for."""
        kept = self.keep(rows, arrays)
        return kept.astype(np.int64) if self.among is None else counted(self.among, kept, rows, arrays)

    @property
    def among(self) -> "Filter | None":
        """The filter among whose rows this one chooses."""
        return self.of[0] if self.of else None

    @property
    def needs(self) -> Needs:
        """All columns and arrays that `count` and `tallied` read, each once."""
        return joined([Needs(self.columns, self.arrays), *(child.needs for child in self.children)])

    @property
    def sources(self) -> Needs:
        """What columns are made of on the way, by whichever filter makes some of something that may not be there."""
        return joined(child.sources for child in self.children)

    @property
    def wanted(self) -> Needs:
        """What of all that has to be there before anything is learnt: what has a folder's name, or is called like it,
        may be made on the way."""
        columns, arrays = joined([self.needs, self.sources])
        made = {name.rpartition("/")[2] for name in columns if "/" in name}
        return Needs(tuple(name for name in columns if "/" not in name and name not in made), arrays)

    @property
    def light(self) -> bool:
        """Whether it, and all that it asks, is numeric: then threads judge rows, see curate.pool.passes.light."""
        return self.numeric and all(child.light for child in self.children)

    @property
    def slow(self) -> bool:
        """Whether it, or any that it asks, takes microseconds a row, see curate.pool.passes.light."""
        return any(child.slow for child in self.children)

    def effective(self) -> dict[str, Any]:
        """The options as they were given, but for those that change no row, which stand at their defaults: what older
        versions kept by these is found, and is found on any device."""
        options = asdict(self.options) | efficiency_of(type(self.options))
        if options.get("of") is not None:
            options["of"] = _effective(options["of"], self.of)
        return options

    def identity(self) -> Any:
        """All that the kept rows depend on, JSON-able."""
        options = self.effective()
        if not self.of:
            options.pop("of", None)  # so that what older versions kept is found
        own = [type(self).__module__, self.version, options, self.state, *([self.origins] if self.origins else [])]
        return [own, [child.identity() for child in self.children]] if self.children else own

    def nth_largest(self, passes: Passes, column: str, fraction: float) -> float:
        """The score that the best `fraction` of the pool's rows reaches, among the rows that `of` keeps; see
        curate.pool.quantile."""
        return quantile.nth_largest(passes, column, fraction, self.among)

    def best(
        self, passes: Passes, column: str, fraction: float | None = None, count: int | None = None
    ) -> dict[str, Any]:
        """For `state`: exactly so many rows with the largest scores, among those that `of` keeps; see
        curate.pool.quantile.best. The filter has PLACE among its arrays, and `in_best` tells its rows."""
        found = quantile.best(passes, column, fraction, count, self.among)
        if found.rows < found.asked:
            print(f"{column}: {found.asked:,} rows are asked for, {found.rows:,} have a score", file=sys.stderr)
        return found.state()


class AtLeast(Filter):
    """Keeps scores of one column, which a subclass names, at or above a threshold: the one that `fraction` of the pool
    reaches, with all its ties, or the option's. NaN never is, but counts as a row of the pool for a fraction."""

    numeric = True

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if (options.fraction is None) == (options.threshold is None):
            name = type(self).__module__.rpartition(".")[2]
            raise UserError(f"filter={name} needs either filter.fraction= or filter.threshold=")
        if options.fraction is not None:
            in_range("fraction", options.fraction, 0, 1)
        elif not np.isfinite(options.threshold):
            raise UserError(f"filter.threshold={options.threshold} is no score; filter.fraction=1 keeps all")

    def learn(self, passes: Passes) -> None:
        threshold = self.options.threshold
        if threshold is None:
            threshold = self.nth_largest(passes, self.columns[0], self.options.fraction)
        self.state = {"threshold": str(threshold) if np.isinf(threshold) else threshold}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        # A Python float compares in the column's own precision: 0.3 keeps a float32 score of 0.3.
        kept: np.ndarray = quantile.scores(rows, self.columns[0]) >= float(self.state["threshold"])
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return unscored(rows, self.columns[0])


class Composite(Filter):
    """A filter made of others. A subclass says how their counts combine; columns and passes are the children's."""

    numeric = True

    @abstractmethod
    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        """How often each row is kept, from how often each child keeps it."""

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.combine([child.count(rows, arrays) for child in self.children])

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = self.count(rows, arrays) > 0
        return kept


def _effective(spec: Any, chosen: Sequence[Filter]) -> Any:
    """What describes filters, as it was given, without the options that change no row."""
    if isinstance(spec, list):
        return [_effective(one, [filter_]) for one, filter_ in zip(spec, chosen, strict=True)]
    if not isinstance(spec, Mapping):
        return spec
    kept = {name: value for name, value in spec.items() if name not in efficiency_of(type(chosen[0].options))}
    return kept | ({"of": _effective(kept["of"], chosen[0].of)} if chosen[0].of else {})


def counted(chosen: Filter, kept: np.ndarray, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """How often a filter keeps the rows of a mask, bool [rows]; 0 for the others, about which it is not asked."""
    counts = np.zeros(len(kept), np.int64)
    if kept.any():
        table = rows.filter(pa.array(kept)) if rows.num_columns else rows
        counts[kept] = chosen.count(table, {name: array[kept] for name, array in arrays.items()})
    return counts


def tallied(chosen: Filter, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """What a filter and all below it count of these rows."""
    below = [tallied(child, rows, arrays) for child in chosen.children]
    return {name: value for one in (*below, chosen.tallies(rows, arrays)) for name, value in one.items()}


def in_best(state: Mapping[str, Any], rows: pa.Table, name: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which of some rows `Filter.best` has found, bool [rows]."""
    return quantile.Best.of(state).keep(quantile.scores(rows, name), arrays)


def unscored(rows: pa.Table, column: str) -> dict[str, int]:
    """How many rows have no score, as `Filter.tallies` tells it."""
    return {f"{column} is NaN": int(np.isnan(quantile.scores(rows, column)).sum())}


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse an option outside [low, high].

    Raises:
        UserError: as said; NaN too.
    """
    if not low <= value <= high:
        raise UserError(f"filter.{name}={value} must lie from {low:g} to {high:g}")
