"""A random part of what another filter keeps, of a given size."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.options import option

from curate.pool.chosen import Chooser, judged
from curate.pool.files import File
from curate.pool.hashes import hashed, nth_smallest
from curate.pool.passes import Passes
from curate.selectors.base import Filter


@dataclass
class Options:
    """The options."""

    of: Any = option("a filter, or a subset file")
    size: int = option("uids")
    seed: int = option("another one gives another sample", 0)


class Sample(Filter):
    """Keeps the `size` uids whose hashes are the smallest, without replacement.

    A hash depends on the uid and the seed alone, so the sample does not depend on how the pool is cut into files, and a
    smaller one is part of a larger one. All rows of one uid are kept or none is, so that a uid that stands several
    times can make the sample larger by its repeats.
    """

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if options.size < 1:
            raise UserError(f"filter.size={options.size} must be positive")

    def learn(self, passes: Passes) -> None:
        def found() -> Iterator[np.ndarray]:
            return (hashes for _, hashes in passes.map(kept_hashes, self.among, self.options.seed))

        total = sum(map(len, found()))
        if total < self.options.size:
            raise UserError(f"filter.size={self.options.size:,} is more than the {total:,} there are to sample from")
        self.state = {"largest_hash": nth_smallest(found, self.options.size - 1)}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = hashed(arrays["uid"], self.options.seed) <= np.uint64(self.state["largest_hash"])
        return kept


def kept_hashes(file: File, chosen: Chooser, seed: int) -> np.ndarray:
    """The hashes of the uids that a filter keeps of a file, as often as it keeps them."""
    found = [np.repeat(hashed(rows.arrays["uid"], seed), counts) for rows, counts in judged(file, chosen)]
    return np.concatenate(found) if found else np.zeros(0, np.uint64)
