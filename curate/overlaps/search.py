"""Which training pictures lie near evaluation pictures: faiss's binary indexes of the evaluation pictures' probes, in
blocks of bounded memory, asked for the hashes of one shard after the other.

Both kinds of index find all that lies within MOST bits. A small block is compared hash by hash (`IndexBinaryFlat`). A
large one is parted into 11 tables by 23 bits each (`IndexBinaryMultiHash`): two hashes that differ in no more than 32
bits of 253 differ in no more than 2 of one part, and each part is looked up with all changes of 2 bits.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.files import atomic, digest_bytes, digest_json
from poolbench.progress import Progress

from curate.overlaps.hashes import BITS, PROBES
from curate.overlaps.hashing import HashedShard
from curate.overlaps.pictures import Pictures, probes_among

_PARTS, _PART, _FLIPS = 11, 23, 2
MOST = _PARTS * (_FLIPS + 1) - 1  # bits by which two pictures that are taken for one may differ
BLOCK = 2**22  # probes in memory at a time, in some 4 GB
FLAT = 2**19  # below so many a plain comparison is faster
_ROWS = 4096  # hashes that are asked for at a time


class Near(NamedTuple):
    """Pairs of a row and a picture with their distance in bits, int64 [n] each; of each pair the least."""

    row: np.ndarray
    picture: np.ndarray
    distance: np.ndarray


class Index:
    """An index of some pictures' probes.

    Args:
        flat: compare hash by hash; None: where that is faster.
    """

    def __init__(self, probes: np.ndarray, owners: np.ndarray, flat: bool | None = None) -> None:
        import faiss

        self._owners = owners
        small = len(probes) < FLAT if flat is None else flat
        self._index: Any = faiss.IndexBinaryFlat(BITS) if small else _parted()
        self._index.add(np.ascontiguousarray(probes))

    def near(self, hashes: np.ndarray, most: int = MOST) -> Near:
        """All pictures within so many bits of each of uint8 [n, BYTES].

        Of the row's probes of one picture the nearest counts.
        """
        parts = [self._near(hashes[start : start + _ROWS], most, start) for start in range(0, len(hashes), _ROWS)]
        return joined(parts)

    def _near(self, hashes: np.ndarray, most: int, first: int) -> Near:
        limits, distances, places = self._index.range_search(np.ascontiguousarray(hashes), most + 1)  # less than
        rows = np.repeat(np.arange(first, first + len(hashes)), np.diff(limits.astype(np.int64)))
        return least(Near(rows, self._owners[places].astype(np.int64), distances.astype(np.int64)))


def _parted() -> Any:
    import faiss

    index: Any = faiss.IndexBinaryMultiHash(BITS, _PARTS, _PART)
    index.nflip = _FLIPS
    return index


def least(near: Near) -> Near:
    """Each pair once, with its least distance, sorted by row and picture."""
    order = np.lexsort((near.distance, near.picture, near.row))
    row, picture, distance = (one[order] for one in near)
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (picture[1:] != picture[:-1])
    return Near(row[new], picture[new], distance[new])


def nearest_of_each_set(near: Near, set_of: np.ndarray) -> Near:
    """Of each row the nearest picture of each set."""
    sets = set_of[near.picture]
    order = np.lexsort((near.picture, near.distance, sets, near.row))
    row, kind = near.row[order], sets[order]
    new = np.ones(len(row), bool)
    new[1:] = (row[1:] != row[:-1]) | (kind[1:] != kind[:-1])
    chosen = order[new]
    return Near(near.row[chosen], near.picture[chosen], near.distance[chosen])


def joined(parts: Sequence[Near]) -> Near:
    if not parts:
        return Near(*(np.zeros(0, np.int64) for _ in range(3)))
    return Near(*(np.concatenate(some) for some in zip(*parts, strict=True)))


def blocks(pictures: Pictures, block: int = BLOCK) -> Iterator[np.ndarray]:
    """All pictures in order, as many at a time as a block has room for."""
    at_once = max(1, block // PROBES)
    for start in range(0, len(pictures.set_of), at_once):
        yield np.arange(start, min(start + at_once, len(pictures.set_of)))


def search(
    pictures: Pictures, asked: np.ndarray, shards: Sequence[HashedShard], work: Path, threads: int, block: int = BLOCK
) -> tuple[Near, list[Near]]:
    """The pictures near some hashes that are no training pictures', and near the rows of each shard.

    What is found of a shard is kept in `work`, and found again; of a row the nearest picture of each set.

    Args:
        asked: uint8 [n, BYTES].
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    of_asked: list[Near] = []
    found: list[list[Near]] = [[] for _ in shards]
    every = list(blocks(pictures, block))
    with Progress(len(every) * len(shards), "search", "shard") as bar:
        for chosen in every:
            probes, owners = probes_among(pictures, chosen)
            if not len(probes):
                continue
            name = digest_json([digest_bytes(probes.tobytes()), int(chosen[0]), BITS, MOST])[:16]
            index = Index(probes, owners)
            of_asked.append(index.near(asked))
            for place, shard in enumerate(shards):
                found[place].append(_of_shard(index, shard, pictures, work / f"{shard.name}.{name}.npz"))
                bar.update()
    return joined(of_asked), [nearest_of_each_set(joined(parts), pictures.set_of) for parts in found]


def _of_shard(index: Index, shard: HashedShard, pictures: Pictures, kept: Path) -> Near:
    """What is near a shard's rows, from a file that is no older than the shard's own."""
    if kept.is_file() and kept.stat().st_mtime_ns >= shard.path.stat().st_mtime_ns:
        with np.load(kept, allow_pickle=False) as stored:
            return Near(*(stored[name] for name in Near._fields))
    near = nearest_of_each_set(index.near(shard.read("hash")), pictures.set_of)
    with atomic(kept, "wb") as file:
        np.savez(file, **near._asdict())
    return near
