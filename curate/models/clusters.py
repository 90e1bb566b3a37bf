"""Clusters of embeddings: faiss's k-means, and the cluster that is nearest to each of others."""

import sys
from collections.abc import Callable, Iterator

import numpy as np

from poolbench.errors import UserError

_AT_ONCE = 2**25  # inner products in memory, 128 MB


def k_means(points: np.ndarray, clusters: int, iterations: int, seed: int, spherical: bool = False) -> np.ndarray:
    """faiss's centroids, float32 [clusters, width], made on all GPUs where faiss has some.

    Args:
        spherical: of points of length 1: nearest by the angle, and the centroids of length 1, too.

    Raises:
        UserError: faiss is missing, or there are fewer points than clusters.
    """
    try:
        import faiss
    except ModuleNotFoundError:
        raise UserError("clustering needs the package faiss-cpu: pip install -e '.[curate]'") from None
    if len(points) < clusters:
        raise UserError(f"clusters={clusters:,} is more than the {len(points):,} embeddings that there are")
    clustering = faiss.Clustering(points.shape[1], clusters)
    clustering.niter, clustering.seed, clustering.spherical = iterations, seed, spherical
    clustering.verbose = sys.stderr.isatty()
    clustering.max_points_per_centroid = 10**7  # else it takes a sample
    clustering.min_points_per_centroid = 1  # only a warning hangs on it
    index: faiss.Index = (faiss.IndexFlatIP if spherical else faiss.IndexFlatL2)(points.shape[1])
    if faiss.get_num_gpus():
        index = faiss.index_cpu_to_all_gpus(index)
    clustering.train(np.ascontiguousarray(points), index)
    centroids: np.ndarray = faiss.vector_to_array(clustering.centroids).reshape(clusters, -1)
    return centroids


def nearest(
    features: np.ndarray, centroids: np.ndarray, longest: float, tell: Callable[[int], object] = lambda _: None
) -> np.ndarray:
    """For each row the centroid with the largest inner product, the first of equals; -1 where that is no number.

    Products in single precision only choose who comes into question; those are compared in double precision. So the
    answer does not depend on how many rows come at once, on the number of threads or on the machine.

    Args:
        features: [rows, width].
        centroids: float32 [clusters, width].
        longest: the length of the longest centroid.
        tell: called with the number of rows done.
    """
    found = np.full(len(features), -1, dtype=np.int64)
    step = max(1, _AT_ONCE // len(centroids))
    for start in range(0, len(features), step):
        part = features[start : start + step].astype(np.float32)
        finite = np.flatnonzero(np.isfinite(part).all(axis=1))
        found[start + finite] = _nearest(part[finite], centroids, longest)
        tell(len(part))
    return found


def _nearest(features: np.ndarray, centroids: np.ndarray, longest: float) -> np.ndarray:
    products = features @ centroids.T
    # Twice the largest error that a sum of so many products in single precision can have.
    error = 2 * features.shape[1] * np.finfo(np.float32).eps * longest * np.linalg.norm(features, axis=1)
    rows, clusters = np.nonzero(products >= (products.max(axis=1) - error)[:, None])
    exact = np.concatenate(
        [
            np.einsum("ij,ij->i", features[rows[at]].astype(np.float64), centroids[clusters[at]].astype(np.float64))
            for at in (slice(start, start + 2**16) for start in range(0, len(rows), 2**16))
        ]
        or [np.empty(0)]
    )
    best = np.full(len(features), -np.inf)
    np.maximum.at(best, rows, exact)
    winners = np.flatnonzero(exact == best[rows])
    _, first = np.unique(rows[winners], return_index=True)
    nearest_clusters: np.ndarray = clusters[winners[first]]
    return nearest_clusters


def longest_of(centroids: np.ndarray) -> float:
    """The length of the longest, for `nearest`."""
    return float(np.sqrt(max(float(np.square(part, dtype=np.float64).sum(axis=1).max()) for part in _parts(centroids))))


def _parts(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + 2**14] for start in range(0, len(array), 2**14))
