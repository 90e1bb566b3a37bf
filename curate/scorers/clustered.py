"""A row's cluster among those that k-means finds of the pool's own embeddings, and how far it lies from the centroid.

Embeddings count by their direction: k-means is faiss's spherical one, over a draw of the rows, and a row belongs to the
centroid with the largest cosine. The draw is that of the smallest hashes of uid and seed, so that it does not depend on
how the pool is cut into files. The centroids lie beside the columns, as the columns are of these alone.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError
from poolbench.files import atomic, cache, claimed, digest_file, digest_json

from curate.models.clusters import k_means, longest_of, nearest
from curate.pool.chosen import Chooser, Everything, bits_of, kept_bits
from curate.pool.files import PLACE, File, read
from curate.pool.hashes import hashed, nth_smallest
from curate.pool.members import STEP, Clusters
from curate.pool.passes import Pass, Passes, result
from curate.pool.places import is_remote
from curate.pool.quantile import column_of
from curate.pool.work import writing_results
from curate.scorers.embeddings import checked, pieces
from curate.scorers.rows import RowScorer, columns_folder, score_columns

PER_CLUSTER = 256  # embeddings that k-means sees of each, as faiss itself does where nothing else is said
ITERATIONS = 100  # as published
_ROWS = 2**12  # that are made of length 1 at a time, in double precision
_WAIT = 7 * 24 * 3600.0  # seconds for another part, which finds the centroids


class Clustering(NamedTuple):
    """How clusters are found: of which array of the npz, how many, and by which draw."""

    embedding: str
    clusters: int
    iterations: int = ITERATIONS
    sample: int = PER_CLUSTER
    seed: int = 0

    def check(self) -> None:
        """
        Raises:
            UserError: an option that cannot be.
        """
        for name in ("clusters", "iterations", "sample"):
            if getattr(self, name) < 1:
                raise UserError(f"filter.{name}={getattr(self, name)} must be positive")
        if self.clusters > 2**24:
            raise UserError(f"filter.clusters={self.clusters:,} is more than the {2**24:,} that a column can number")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"filter.seed={self.seed} must lie from 0 to {2**31 - 1:,}")

    def folder(self, of: Any) -> str:
        """The name of the columns' folder; `of` is what describes the rows that are clustered."""
        return f"clusters-{self.embedding}-{digest_json([self, of])[:6]}"


class Clustered(RowScorer):
    """`cluster`: the number of the nearest centroid; `distance`: 1 less the cosine to it, a multiple of 2^-26. NaN of
    an embedding that is no number or 0, which points nowhere."""

    makes = ("cluster", "distance")

    def __init__(self, name: str, how: Clustering, centroids: Path) -> None:
        self.name, self.how, self.arrays = name, how, (how.embedding,)
        self._path, self._digest = centroids, digest_file(centroids)

    @property
    def centroids(self) -> np.ndarray:
        """float32 [clusters, width], of length 1."""
        return _opened(self._path, self._digest)

    def identity(self) -> Any:
        return {**self.how._asdict(), "centroids": self._digest}

    def clusters(self, passes: Passes) -> Clusters:
        """The columns, once they are made, as an argument of passes."""
        return Clusters(*(column_of(passes.files, self.column(place)) for place in (0, 1)))

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        found: list[tuple[np.ndarray, np.ndarray]] = [(np.empty(0, np.float32), np.empty(0, np.float32))]
        width, longest = self.centroids.shape[1], longest_of(self.centroids)
        for (vectors,), finite in pieces(file, self.how.embedding, width=width, like="the centroids"):
            for start in range(0, len(finite), _ROWS):
                found.append(self._of_some(vectors[start : start + _ROWS], finite[start : start + _ROWS], longest))
        return {name: np.concatenate([one[place] for one in found]) for place, name in enumerate(self.makes)}

    def _of_some(self, vectors: np.ndarray, finite: np.ndarray, longest: float) -> tuple[np.ndarray, np.ndarray]:
        cluster, distance = (np.full(len(vectors), np.nan, np.float32) for _ in range(2))
        used = finite & vectors.any(axis=1)
        directions = directed(vectors[used])
        numbers = nearest(directions.astype(np.float32), self.centroids, longest)
        cosines = np.einsum("ij,ij->i", directions, directed(self.centroids[numbers]))
        cluster[used], distance[used] = numbers, apart(cosines)
        return cluster, distance


@functools.cache
def _opened(path: Path, digest: str) -> np.ndarray:
    """Centroids, memory-mapped; the digest tells them from others that had the name."""
    found: np.ndarray = np.load(path, mmap_mode="r")
    return found


def directed(vectors: np.ndarray) -> np.ndarray:
    """The vectors in length 1, float64 [n, width]; none of them is 0."""
    double = vectors.astype(np.float64)
    found: np.ndarray = double / np.sqrt(np.einsum("ij,ij->i", double, double))[:, None]
    return found


def apart(cosines: np.ndarray) -> np.ndarray:
    """1 less a cosine, float32 from 0 to 2, to the nearest multiple of 2^-26: equal directions are 0 apart."""
    found: np.ndarray = (np.clip(np.rint((1 - cosines) / STEP), 0, 2 / STEP) * STEP).astype(np.float32)
    return found


def clustered(passes: Passes, name: str, how: Clustering, among: Chooser | None) -> tuple[Clustered, Pass]:
    """The scorer whose columns are made now, and the pass of kept_bits of the rows that were clustered.

    The centroids are found once, by one of the parts; the others wait for it.

    Args:
        name: of the columns' folder, see Clustering.folder.
        among: the rows that are clustered, each once; None: all. The others have their nearest of these clusters, too.

    Raises:
        UserError: fewer rows than clusters, files whose embeddings differ in width, or nowhere to write.
    """
    ranked = passes.made(kept_bits, among or Everything())
    columns = columns_folder(passes.files, name)
    # Every worker maps the file, which a store does not let it do.
    folder = cache() / "centroids" / name if is_remote(columns) else Path(columns)
    pool = [[file.name, file.stamp] for file in passes.usable()]
    path = folder / f"centroids-{digest_json([how, ranked.identity(), pool])[:16]}.npy"
    if not path.is_file():
        with claimed(folder, wait=_WAIT):
            _find(passes, how, ranked, path)
    scorer = Clustered(name, how, path)
    score_columns(passes, scorer)
    return scorer, ranked


def _find(passes: Passes, how: Clustering, ranked: Pass, path: Path) -> None:
    """Find the centroids and keep them, in the place of those of the pool as it was, unless another part just has."""
    if path.is_file():
        return
    found = _centroids(passes, how, ranked)
    with writing_results(path.parent, "name another folder by columns="):
        for old in path.parent.glob("centroids-*.npy"):
            old.unlink()
        with atomic(path, "wb") as stream:
            np.save(stream, found)


def _centroids(passes: Passes, how: Clustering, ranked: Pass) -> np.ndarray:
    """k-means's centroids, float32 [clusters, width]."""

    def hashes() -> Iterator[np.ndarray]:
        return (found for _, found in passes.map(hashes_of, how.seed, ranked))

    most, rows = how.clusters * how.sample, sum(map(len, hashes()))
    largest = nth_smallest(hashes, most - 1) if rows > most else 2**64 - 1
    drawn = passes.map(points_of, how.embedding, how.seed, largest, ranked)
    by_file = {file: found for file, found in drawn if len(found)}
    some, count = list(by_file.values()), sum(map(len, by_file.values()))
    if count < how.clusters:
        raise UserError(f"filter.clusters={how.clusters:,} is more than the {count:,} embeddings that there are")
    for file, found in by_file.items():
        if found.dtype != some[0].dtype:
            raise UserError(f"{file.arrays} has embeddings of another width than {next(iter(by_file)).arrays}")
    points = np.empty((count, *some[0].dtype["vector"].shape), np.float32)
    order = np.lexsort([np.concatenate([found[key] for found in some]) for key in ("place", "hash")])
    at = np.empty(count, np.int64)
    at[order] = np.arange(count)
    start = 0
    for found in some:
        points[at[start : start + len(found)]] = found["vector"]
        start += len(found)
    return k_means(points, how.clusters, how.iterations, how.seed, spherical=True)


def hashes_of(file: File, seed: int, ranked: Pass) -> np.ndarray:
    """The hash of each row of a file that `ranked`, a pass of kept_bits, has kept, u8."""
    return np.concatenate([np.zeros(0, np.uint64), *(hashed(uids, seed) for uids, _ in _kept(file, (), ranked))])


def points_of(file: File, embedding: str, seed: int, largest: int, ranked: Pass) -> np.ndarray:
    """Those of a file's rows with a direction whose hash is not above `largest`: their hashes, places, and vectors of
    length 1 in single precision."""
    found = [np.zeros(0, [("hash", "u8"), ("place", "i8"), ("vector", "f4", (0,))])]
    for uids, arrays in _kept(file, (embedding, PLACE), ranked):
        hashes, vectors = hashed(uids, seed), checked(file, embedding, arrays[embedding])
        used = (hashes <= np.uint64(largest)) & np.isfinite(vectors).all(axis=1) & vectors.any(axis=1)
        some = np.empty(int(used.sum()), [("hash", "u8"), ("place", "i8"), ("vector", "f4", (vectors.shape[1],))])
        some["hash"], some["place"] = hashes[used], arrays[PLACE][used]
        for start in range(0, len(some), _ROWS):
            own = slice(start, start + _ROWS)
            some["vector"][own] = directed(vectors[np.flatnonzero(used)[own]])
        found.append(some)
    return np.concatenate(found[1:] or found)


def _kept(file: File, arrays: tuple[str, ...], ranked: Pass) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """The uids, and arrays, of a file's rows that a pass has kept, some at a time."""
    bits, start = result(ranked, file), 0
    for rows in read(file, (), arrays):
        kept = bits_of(bits, start, start + len(rows.good))[rows.good]
        start += len(rows.good)
        yield rows.arrays["uid"][kept], {name: rows.arrays[name][kept] for name in arrays}
