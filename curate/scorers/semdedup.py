"""How unlike a row's picture is to those that stand before it in its cluster: near-duplicates are alike.

Abbas et al., 2023, "SemDeDup: Data-efficient learning at web-scale through semantic deduplication",
https://arxiv.org/abs/2303.09540. A row's novelty is 1 less the largest cosine to a row that stands before it, whether
that one is itself kept or not; so one of each group of duplicates, its first, is novel, and each threshold is a choice
among the same numbers.

The embeddings are first written cluster by cluster, file by file, into the work folder. Then each task has some of the
clusters and reads their rows, wherever they lie, a block at a time. The products of two blocks are all of them that is
in memory, of a cluster as large as the pool, too.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from poolbench.files import digest_json

from curate.pool.chosen import Chooser
from curate.pool.files import PLACES, File, read_columns
from curate.pool.hashes import hashed
from curate.pool.members import MEMBER, members
from curate.pool.passes import Pass, Passes, result
from curate.pool.quantile import scores
from curate.scorers.clustered import Clustering, apart, clustered, directed
from curate.scorers.embeddings import pieces
from curate.scorers.rows import RowScorer, is_made, score_columns

WHICH = ("hard", "easy", "random")
_BLOCK = 2**11  # rows that are multiplied with so many others
_NOVEL = np.dtype([("place", "i8"), ("novelty", "f4")])
_DOUBLE = float(np.finfo(np.float64).eps)


class SemDeDup(RowScorer):
    """`novelty`: 0 to 1, NaN of an embedding that points nowhere, -1 of rows that are not looked at."""

    makes = ("novelty",)

    def __init__(self, how: Clustering, which: str, of: Any) -> None:
        """
        Args:
            which: row of a group stands before the others: hard, the farthest from its centroid; easy, the nearest; or
                random, by `how.seed`. Of equals that with the smallest uid.
            of: what describes the rows that are looked at.
        """
        self.how, self.which, self._clusters = how, which, how.folder(of)
        self.name = f"semdedup-{how.embedding}-{digest_json([how, which, of])[:6]}"
        self.columns = tuple(f"{self._clusters}/{name}" for name in ("cluster", "distance"))
        self._rows: Any = None  # what tells those that are looked at
        self._found: tuple[Pass, list[File]] | None = None

    def identity(self) -> Any:
        return {**self.how._asdict(), "which": self.which, "rows": self._rows}

    def make(self, passes: Passes, among: Chooser | None) -> None:
        """Make the clusters, and the column, unless they are there.

        Args:
            among: the rows that are looked at; None: all.

        Raises:
            UserError: as `clustered`.
        """
        scorer, ranked = clustered(passes, self._clusters, self.how, among)
        files = passes.usable()
        self._rows = digest_json([ranked.identity(), [[file.name, file.stamp] for file in files]])
        if not all(is_made(file, self) for file in files):
            rows = passes.made(members, scorer.clusters(passes), ranked)
            vectors = passes.made(vectors_by_cluster, self.how.embedding, rows)
            files = passes.usable()
            sources = _Sources(files, rows._replace(arguments=()), vectors._replace(arguments=()))
            found = passes.made(novelties, self.how.clusters, self.which, self.how.seed, sources)
            self._found = found._replace(arguments=()), files
        score_columns(passes, self)
        self._found = None  # which goes to the workers with each file

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        assert self._found is not None
        step, files = self._found
        parts = [np.empty(0, np.float32)]
        for table, _ in read_columns(file, self.columns[:1]):
            nowhere = np.isnan(scores(table, self.columns[0]))
            parts.append(np.where(nowhere, np.float32(np.nan), np.float32(-1)))
        every, first = np.concatenate(parts), file.number * PLACES
        for other in files:
            found = result(step, other)
            start, stop = (bisect.bisect_left(found["place"], place) for place in (first, first + PLACES))
            every[found["place"][start:stop] - first] = found["novelty"][start:stop]
        return {"novelty": every}


class _Sources(NamedTuple):
    """The files that can be used, and the passes that have their rows and vectors, cluster by cluster."""

    files: list[File]
    rows: Pass
    vectors: Pass

    def identity(self) -> Any:
        return [self.rows.identity(), self.vectors.identity()]


def vectors_by_cluster(file: File, embedding: str, rows: Pass) -> np.ndarray:
    """The embeddings of the rows that a pass of `members` has found of a file, in its order and as they are stored."""
    wanted = result(rows, file)["place"] - file.number * PLACES
    order, start, found = np.argsort(wanted), 0, np.zeros((0, 0), np.float16)
    ascending = wanted[order]
    for (vectors,), finite in pieces(file, embedding):
        if not start:
            found = np.empty((len(wanted), vectors.shape[1]), vectors.dtype)
        low, high = np.searchsorted(ascending, [start, start + len(finite)])
        found[order[low:high]] = vectors[ascending[low:high] - start]
        start += len(finite)
    return found


def novelties(file: File, clusters: int, which: str, seed: int, sources: _Sources) -> np.ndarray:
    """The novelty of all rows of some clusters, _NOVEL sorted by place. Which clusters, the file's number says: each
    has its part of them, whatever its own rows."""
    task, tasks = [one.name for one in sources.files].index(file.name), len(sources.files)
    rows = _Rows(sources, clusters * task // tasks, clusters * (task + 1) // tasks)
    order = rows.order(which, seed)
    found = np.empty(len(order), _NOVEL)
    ends = np.flatnonzero(np.diff(rows.members["cluster"][order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        own = order[start:end]

        def vectors(some: slice, own: np.ndarray = own) -> np.ndarray:
            return rows.vectors(own[some])

        found["novelty"][own] = novelty(vectors, end - start)
        start = end
    found["place"] = rows.members["place"]
    return np.sort(found, order="place")


class _Rows:
    """The rows of all clusters from one number to before another, from all files.

    Attributes:
        members: MEMBER, in the order of the files.
    """

    def __init__(self, sources: _Sources, first: int, stop: int) -> None:
        parts, places = [np.zeros(0, MEMBER)], [np.zeros((0, 2), np.int64)]
        self._stored: list[np.ndarray] = []
        for file in sources.files:
            rows = result(sources.rows, file)
            low, high = (bisect.bisect_left(rows["cluster"], number) for number in (first, stop))
            if low < high:
                parts.append(np.array(rows[low:high]))
                places.append(np.stack([np.full(high - low, len(self._stored)), np.arange(low, high)], axis=1))
                self._stored.append(result(sources.vectors, file))
        self.members, self._where = np.concatenate(parts), np.concatenate(places)

    def order(self, which: str, seed: int) -> np.ndarray:
        """The rows cluster by cluster, in each the one first that is kept before the others, int64 [rows]."""
        rows, uids = self.members, self.members["uid"]
        first = {"hard": -rows["distance"], "easy": rows["distance"], "random": hashed(uids, seed)}[which]
        return np.lexsort((rows["place"], uids["f1"], uids["f0"], first, rows["cluster"]))

    def vectors(self, rows: np.ndarray) -> np.ndarray:
        """Their embeddings, in length 1, float64 [rows, width]."""
        files, places = self._where[rows].T
        stored = {number: self._stored[number][places[files == number]] for number in np.unique(files).tolist()}
        some = next(iter(stored.values()))
        found = np.empty((len(rows), some.shape[1]), some.dtype)
        for number, vectors in stored.items():
            found[files == number] = vectors
        return directed(found)


def novelty(vectors: Callable[[slice], np.ndarray], rows: int) -> np.ndarray:
    """1 less the largest cosine of each row to one before it, or to none, as if that were 0; float32 [rows].

    The same for any blocks and threads: where the rounding of a sum decides, it is summed again in an order of its own.

    Args:
        vectors: gives those of some rows, float64 [n, width], of length 1.
    """
    blocks = [slice(start, min(start + _BLOCK, rows)) for start in range(0, rows, _BLOCK)]
    found = np.empty(rows, np.float32)
    for place, block in enumerate(blocks):
        own = vectors(block)
        largest = np.tril(own @ own.T, -1).max(axis=1, initial=0)
        for before in blocks[:place]:
            np.maximum(largest, (own @ vectors(before).T).max(axis=1), out=largest)
        error = (own.shape[1] + 8) * _DOUBLE
        found[block] = apart(largest)
        for row in np.flatnonzero(apart(largest - error) != apart(largest + error)).tolist():
            earlier = itertools.chain(map(vectors, blocks[:place]), [own[:row]])
            found[block.start + row] = apart(np.array([_largest(own[row], earlier)]))[0]
    return found


def _largest(one: np.ndarray, others: Iterable[np.ndarray]) -> float:
    """The largest product of a vector with others, or 0, each summed by itself."""
    return max((float(np.einsum("ij,j->i", some, one).max(initial=0)) for some in others), default=0.0)
