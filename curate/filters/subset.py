"""The uids of a subset file, made by anything."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from conf.files import digest_file
from curate.filters.base import Filter, Passes
from train.subset import Subset as SubsetFile


@dataclass
class Options:
    """path: the subset file."""

    path: str


class Subset(Filter):
    """Keeps the rows whose uids stand in a subset file: once each in a pool, which has repeats of its own; without a
    pool, as often as they stand in the file."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.files = SubsetFile(options.path)
        self.repeats = False  # set where there is no pool

    def prepare(self, passes: Passes) -> None:
        self.files.check_sorted()
        self.state = {"sha256": digest_file(self.options.path), "uids": self.files.size, "repeats": self.repeats}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = self._found(arrays["uid"]) > 0
        return kept

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        if not self.repeats:
            return super().count(rows, arrays)
        counts: np.ndarray = self._found(arrays["uid"])
        return counts

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {f"rows in {self.options.path}": int(self.keep(rows, arrays).sum())}

    def _found(self, uids: np.ndarray) -> np.ndarray:
        """How often each uid stands in the file."""
        halves = _halves(self.options.path)
        often: np.ndarray = _places(halves, uids, after=True) - _places(halves, uids, after=False)
        return often


@functools.cache
def _halves(path: str) -> np.ndarray:
    """A subset file as u8 [uids, 2], memory-mapped."""
    halves: np.ndarray = np.load(path, mmap_mode="r").view("u8").reshape(-1, 2)
    return halves


def _places(halves: np.ndarray, uids: np.ndarray, after: bool) -> np.ndarray:
    """Where each uid would be put in, before or after its equals: np.searchsorted, which would copy the file."""
    low, high = np.zeros(len(uids), np.int64), np.full(len(uids), len(halves), np.int64)
    while (open_ := np.flatnonzero(low < high)).size:
        middle = (low[open_] + high[open_]) // 2
        at, wanted = halves[middle], uids[open_]
        further = (at[:, 0] < wanted["f0"]) | ((at[:, 0] == wanted["f0"]) & (at[:, 1] < wanted["f1"]))
        if after:
            further |= (at[:, 0] == wanted["f0"]) & (at[:, 1] == wanted["f1"])
        low[open_[further]] = middle[further] + 1
        high[open_[~further]] = middle[~further]
    return low
