"""The uids of a subset file, made by anything."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.files import digest_file
from poolbench.options import source
from poolbench.subset import Subset as SubsetFile
from poolbench.uids import Uids, find, mapped, pieces

from curate.pool.passes import Passes
from curate.selectors.base import Filter


@dataclass
class Options:
    """The options."""

    path: str = source("subset file")


class Subset(Filter):
    """Keeps the rows whose uids stand in a subset file: once each in a pool, which has repeats of its own; without a
    pool, as often as they stand in the file."""

    numeric = True

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        self.files = SubsetFile(options.path, empty=True)
        self.repeats = False  # set where there is no pool
        self.subtracted = False  # set where its rows are taken away: then it may be empty
        self.found = f"rows in {options.path}"  # a tally

    def check_filled(self) -> None:
        """
        Raises:
            UserError: the file holds no uid, and is not to be taken away from something.
        """
        SubsetFile(self.options.path, self.subtracted)

    def learn(self, passes: Passes) -> None:
        self.check_filled()
        self.files.check_sorted()
        digest = digest_file(self.options.path)
        self.state = {
            "sha256": digest,
            "uids": self.files.size,
            "different_uids": sum(int(new.sum()) for _, _, new in pieces(mapped(self.options.path, empty=True))),
            "repeats": self.repeats,
        }

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = self._found(arrays["uid"]) > 0
        return kept

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if not self.repeats:
            return super().count(rows, arrays)
        counts: np.ndarray = self._found(arrays["uid"])
        return counts

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {self.found: int(self.keep(rows, arrays).sum())}

    def _found(self, uids: np.ndarray) -> np.ndarray:
        """How often each uid stands in the file."""
        return find(_uids(self.options.path, self.state["sha256"]), uids)[1]


def subsets(chosen: Filter) -> list[Subset]:
    """The subset files within a filter."""
    own = [chosen] if isinstance(chosen, Subset) else []
    return [*own, *(leaf for child in chosen.children for leaf in subsets(child))]


@functools.cache
def _uids(path: str, digest: str) -> Uids:
    """A subset file, memory-mapped; the digest tells one from another that had its name."""
    return mapped(path, empty=True)
