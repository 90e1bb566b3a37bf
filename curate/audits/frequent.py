"""Which words or domains are frequent, in bounded memory: a first pass counts buckets of them, a second one those of
full buckets.

A bucket holds all items of one hash, so an item is at most as frequent as its bucket: none that is frequent is missed.
"""

import zlib
from collections import Counter
from collections.abc import Iterable

import numpy as np

_BUCKETS = 2**20


class Buckets:
    """Counts of items by their hashes, in one or several channels (of the two genders, say)."""

    def __init__(self, channels: int) -> None:
        self.counts = np.zeros((channels, _BUCKETS), np.int64)

    def filled(self) -> tuple[np.ndarray, np.ndarray]:
        """The gaps between buckets that are not empty, which of one file are few, and their counts; u4 and u8 [n]."""
        places = np.flatnonzero(self.counts)
        return np.diff(places, prepend=0).astype("u4"), self.counts.flat[places].astype("u8")

    def fill(self, gaps: np.ndarray, counts: np.ndarray) -> None:
        """Take what `filled` gave of buckets of as many channels."""
        self.counts.flat[np.cumsum(gaps, dtype=np.int64)] = counts

    def add(self, channel: int, items: Iterable[str]) -> None:
        for item, times in Counter(items).items():
            self.counts[channel, bucket(item)] += times

    def merge(self, other: "Buckets") -> None:
        self.counts += other.counts

    def full(self, least: int) -> np.ndarray:
        """The buckets in which every channel has so many, bool [buckets]."""
        return np.asarray((self.counts >= least).all(axis=0))


def bucket(item: str) -> int:
    """The same in every process, which Python's hash is not."""
    return zlib.crc32(item.encode(errors="surrogatepass")) % _BUCKETS
