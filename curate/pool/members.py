"""The members of each cluster of a pool's rows, and the first so many of each, without ever holding all of them.

The order within a cluster is that of a key of bytes: the distance to the centroid, the largest first, then the uid and
the row's place. How many of each cluster begin with the same bytes is counted for one byte more in each turn.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from poolbench.uids import DTYPE

from curate.pool.chosen import bits_of
from curate.pool.files import PLACE, File, read, read_columns
from curate.pool.passes import Pass, Passes, result
from curate.pool.quantile import Column, scores

MEMBER = np.dtype([("cluster", "i4"), ("distance", "f4"), ("uid", DTYPE), ("place", "i8")])
STEP = 2**-26  # distances are its multiples, so that their sums are exact
ORDER = "S28"  # a row's place in the order of its cluster, bytes that are compared from the first
_BYTES = 28


class Clusters(NamedTuple):
    """The columns of a row's cluster and of its distance to the centroid, as an argument of passes."""

    cluster: Column
    distance: Column

    def identity(self) -> Any:
        return [column.identity() for column in self]

    @property
    def names(self) -> list[str]:
        return [column.name for column in self]


def members(file: File, clusters: Clusters, ranked: Pass) -> np.ndarray:
    """The rows of a file that `ranked`, a pass of kept_bits, has kept and that have a cluster: MEMBER [rows], sorted by
    cluster, in each as they stand in the file."""
    bits, start, found = result(ranked, file), 0, [np.zeros(0, MEMBER)]
    for rows in read(file, clusters.names, [PLACE]):
        cluster, distance = (scores(rows.table, name) for name in clusters.names)
        kept = bits_of(bits, start, start + len(rows.good))[rows.good] & ~np.isnan(cluster)
        start += len(rows.good)
        some = np.empty(int(kept.sum()), MEMBER)
        some["cluster"], some["distance"] = cluster[kept], distance[kept]
        some["uid"], some["place"] = rows.arrays["uid"][kept], rows.arrays[PLACE][kept]
        found.append(some)
    every = np.concatenate(found)
    return every[np.argsort(every["cluster"], kind="stable")]


def rows_in(file: File) -> int:
    """How many rows a file has, those with malformed uids too."""
    return sum(len(table) for table, _ in read_columns(file, ["uid"]))


class Totals(NamedTuple):
    """Of each cluster how many members it has, int64 [clusters], and the sum of their distances, float64."""

    sizes: np.ndarray
    distances: np.ndarray


def totals(passes: Passes, step: Pass, clusters: int) -> Totals:
    """Counted of a pass of `members`; exact, so that the pool's files make no difference."""
    sizes, steps = np.zeros(clusters, np.int64), np.zeros(clusters, np.int64)
    for file in passes.usable():
        some = np.asarray(result(step, file))
        sizes += np.bincount(some["cluster"], minlength=clusters)
        distances = some["distance"].astype(np.float64) / STEP
        steps += np.bincount(some["cluster"], distances, minlength=clusters).astype(np.int64)
    return Totals(sizes, steps * STEP)


def keys_of(distances: np.ndarray, uids: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The keys of rows, ORDER [rows]; none is nothing but zeros.

    Args:
        distances: float32, no less than 0.
    """
    if not len(distances):
        return np.zeros(0, ORDER)
    parts = (~distances.astype(np.float32).view(np.uint32), uids["f0"], uids["f1"], places.astype(np.uint64))
    digits = [part.astype(part.dtype.newbyteorder(">")).view(np.uint8).reshape(len(part), -1) for part in parts]
    found: np.ndarray = np.concatenate(digits, axis=1).view(ORDER).ravel()
    return found


def last_keys(arrays: Callable[[], Iterator[np.ndarray]], wanted: np.ndarray) -> np.ndarray:
    """Of each cluster a key that the first so many of its rows do not pass and all others do, ORDER [clusters].

    Args:
        arrays: gives all members, MEMBER, some at a time.
        wanted: how many, int64 [clusters]; no more than there are.
    """
    left, found = wanted.copy(), np.zeros((len(wanted), _BYTES), np.uint8)
    open_ = wanted > 0
    for level in range(_BYTES):
        counts = np.zeros((len(wanted), 256), np.int64)
        for some in arrays():
            some = some[open_[some["cluster"]]]
            digits = keys_of(some["distance"], some["uid"], some["place"]).view(np.uint8).reshape(len(some), _BYTES)
            same = (digits[:, :level] == found[some["cluster"], :level]).all(axis=1)
            numbers = some["cluster"][same].astype(np.int64) * 256 + digits[same, level]
            counts += np.bincount(numbers, minlength=counts.size).reshape(counts.shape)
        passed = np.cumsum(counts, axis=1)
        at = np.flatnonzero(open_)
        digit = (passed[at] >= left[at, None]).argmax(axis=1)
        found[at, level] = digit
        left[at] -= passed[at, digit] - counts[at, digit]
        whole = left[at] == counts[at, digit]  # all that begin so are among the first
        found[at[whole], level + 1 :] = 255
        open_[at[whole]] = False
        if not open_.any():
            break
    return found.view(ORDER).ravel()
