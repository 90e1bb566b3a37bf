"""What a filter is: which columns it reads, what it must know of the whole pool first, and which rows it keeps.

A filter is one module of this package, found by its name. It has a dataclass `Options` (`filter.<option>=` on the
command line) and one subclass of `Filter`. Docs: docs/curate.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow as pa

from curate.pool.files import File, Rows, read
from poolbench.errors import UserError


class Passes(Protocol):
    """Whole passes over a pool, for what a filter has to know before it can judge a single row."""

    def map(self, function: Callable[..., Any], *arguments: Any) -> Iterator[tuple[File, Any]]:
        """`function(file, *arguments)` of every readable file, in parallel; results come in the order of the files.

        A result is kept in the work folder and found again by a later run and by the other parts of an array, as long
        as the function's name, the arguments and the file are the same.

        Args:
            function: of a module, picklable; raises BadFile for a file that has to be left out. Returns an array,
                which comes back memory-mapped, or something that JSON can hold.
            arguments: JSON-able values and filters.
        """
        ...


class Filter(ABC):
    """One criterion. Instances are pickled to workers, after `prepare`.

    Attributes:
        columns: of the parquet, besides uid.
        arrays: of the npz, row-aligned.
        options: an instance of the module's `Options`.
        state: what `prepare` found out, JSON-able (thresholds, paths and digests of files). All that `keep` depends on
            besides the options has to be in it: results that are kept for a later run are told apart by it. It is
            written into the summary beside the subset, too.
    """

    columns: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    version: ClassVar[int] = 1  # raised by a change that keeps other rows, so that older results are not found again

    def __init__(self, options: Any) -> None:
        self.options = options
        self.state: dict[str, Any] = {}

    def prepare(self, passes: Passes) -> None:  # noqa: B027 (most filters judge a row by itself)
        """Learn what takes whole passes over the pool, into `state`."""

    @abstractmethod
    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which rows are kept, bool [rows].

        Args:
            rows: some rows of one file, with `columns`, never empty.
            arrays: `arrays` of the same rows, and "uid", their uids as u8,u8.
        """

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """How often each row is kept, int64 [rows]; more than once only where repeats are asked for."""
        return self.keep(rows, arrays).astype(np.int64)

    def identity(self) -> Any:
        """All that the kept rows depend on, JSON-able."""
        return [type(self).__module__, self.version, asdict(self.options), self.state]

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        """Counts of these rows for the summary, such as scores that are NaN."""
        return {}


class Composite(Filter):
    """A filter made of others. A subclass says how their counts combine; columns and passes are the children's."""

    def __init__(self, options: Any, children: list[Filter] | None = None) -> None:
        """`children` are by default what the option `of` describes, one filter or a list of them."""
        super().__init__(options)
        self.children: list[Filter] = self._described() if children is None else children
        self.columns = tuple(dict.fromkeys(column for child in self.children for column in child.columns))
        self.arrays = tuple(dict.fromkeys(array for child in self.children for array in child.arrays))

    def prepare(self, passes: Passes) -> None:
        for child in self.children:
            child.prepare(passes)

    def _described(self) -> list[Filter]:
        from curate.selectors import build  # which needs this module

        of = self.options.of
        if not isinstance(of, list):
            return [build(of, "filter.of")]
        if not of:
            raise UserError("filter.of=[] is empty; name at least one filter or subset file")
        return [build(spec, f"filter.of.{place}") for place, spec in enumerate(of)]

    @abstractmethod
    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        """How often each row is kept, from how often each child keeps it."""

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.combine([child.count(rows, arrays) for child in self.children])

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = self.count(rows, arrays) > 0
        return kept

    def identity(self) -> Any:
        own = [type(self).__module__, self.version, asdict(self.options), self.state]
        return [own, [child.identity() for child in self.children]]

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {name: value for child in self.children for name, value in child.tallies(rows, arrays).items()}


def judged(file: File, chosen: Filter) -> Iterator[tuple[Rows, np.ndarray]]:
    """The rows of a file piece by piece, with how often each is kept.

    Raises:
        BadFile: it cannot be read, or lacks what the filter needs.
    """
    for rows in read(file, chosen.columns, chosen.arrays):
        if len(rows.arrays["uid"]):
            yield rows, chosen.count(rows.table, rows.arrays)
        else:
            yield rows, np.zeros(0, np.int64)


def in_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse an option outside [low, high].

    Raises:
        UserError: as said; NaN too.
    """
    if not low <= value <= high:
        raise UserError(f"filter.{name}={value} must lie from {low:g} to {high:g}")
