"""What is counted of a pool's rows: groups of them, distributions of their numbers, samples of their texts."""

import operator
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

import numpy as np
import pyarrow as pa

KEPT, DROPPED, OTHER = "kept", "dropped", "other"  # groups of rows; OTHER is what the second subset keeps
ONLY, ONLY_OTHER = "only", "only other"
SCORE_EDGES = np.round(np.arange(-1, 1.0025, 0.005), 3)


class Measure(NamedTuple):
    """A number that each row has: what it is called, its bins, and whether an axis of it is logarithmic."""

    title: str
    edges: np.ndarray
    logarithmic: bool = False


MEASURES = {
    "words": Measure("Words of a caption", np.arange(0, 61, dtype=float)),
    "side": Measure("Shorter side, pixels", np.round(np.geomspace(16, 8192, 55), 3), logarithmic=True),
    "ratio": Measure("Longer side / shorter side", np.round(np.arange(1, 5.05, 0.1), 2)),
}


@dataclass
class Histogram:
    """Counts of one group's numbers; what lies beyond the first or last edge is counted in the first or last bin."""

    edges: np.ndarray
    counts: np.ndarray
    totals: list[float] = field(default_factory=list)  # of some numbers each, in their order
    missing: int = 0  # null or NaN

    @classmethod
    def of(cls, edges: np.ndarray) -> "Histogram":
        return cls(edges, np.zeros(len(edges) - 1, np.int64))

    def add(self, values: np.ndarray) -> None:
        """float64 [n], NaN where a row has none."""
        known = values[np.isfinite(values)]
        places = np.clip(np.searchsorted(self.edges, known, side="right") - 1, 0, len(self.counts) - 1)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.totals.append(float(known.sum()))
        self.missing += len(values) - len(known)

    def merge(self, other: "Histogram") -> None:
        """Take in the numbers of rows that come after these, as if they had been added one after the other."""
        self.counts += other.counts
        self.totals = [reduce(operator.add, other.totals, self.total)]
        self.missing += other.missing

    @property
    def total(self) -> float:
        return reduce(operator.add, self.totals, 0.0)

    @property
    def size(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        return self.total / self.size if self.size else None

    def quantile(self, share: float) -> float | None:
        """The lower edge of the bin in which that share of the numbers is reached, None where there are none."""
        if not self.size:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.size, side="left"))
        return float(self.edges[place])


@dataclass
class Sample:
    """The rows of one group with the least hashes, at most `limit`."""

    limit: int
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    texts: pa.Table | None = None
    of: int = 0  # rows of the group

    def add(self, chosen: np.ndarray, hashes: np.ndarray, table: pa.Table) -> None:
        """Take in the chosen ones of some rows, bool [n] and uint64 [n], with their texts."""
        self.of += int(chosen.sum())
        near = chosen & (hashes < self.hashes[-1]) if len(self.hashes) == self.limit else chosen
        if near.any():
            self._take(hashes[near], table.filter(pa.array(near)))

    def merge(self, other: "Sample") -> None:
        """Take in the sample of rows that come after these."""
        self.of += other.of
        if other.texts is not None:
            self._take(other.hashes, other.texts)

    def _take(self, hashes: np.ndarray, new: pa.Table) -> None:
        hashes = np.concatenate([self.hashes, hashes])
        joined = new if self.texts is None else pa.concat_tables([self.texts, new])
        order = np.argsort(hashes, kind="stable")[: self.limit]
        # Combined, as a chunk from which a single row is left would keep all of its memory.
        self.hashes, self.texts = hashes[order], joined.take(pa.array(order)).combine_chunks()

    def column(self, name: str) -> list[str | None]:
        """The texts, or the addresses, of the sampled rows."""
        values: list[str | None] = [] if self.texts is None else self.texts[name].to_pylist()
        return values
