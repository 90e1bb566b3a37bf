"""Clusters of a pool's images, by which the filter image_based compares the pool with ImageNet.

    python -m curate.centroids pool=<folder or s3://…> out=centroids.npy [clusters=100000] [ratio=1]

As published: faiss's k-means (L2, 20 iterations, seed 0, no subsampling) over the L/14 image embeddings of the rows
whose caption passes `usable_captions`; `ratio` is 1 at small and medium, 0.3 at large, 0.03 at xlarge, drawn with
replacement. The filter then asks which centroid has the largest inner product with an embedding, the centroids being
as long as they are. What k-means itself keeps in memory is 4 bytes a number: 9 GB for the pool `small`.
"""

import pickle
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from curate.models.languages import PUBLISHED, check_detector, token_counts
from curate.pool.files import BadFile, File, list_pool, read
from curate.selectors.basic import is_english
from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error, first_line
from poolbench.files import atomic, cache, digest_file
from poolbench.options import option, output, source

KEY = "l14_img"
_AT_ONCE = 2**25  # inner products in memory, 128 MB


@dataclass
class CentroidsConfig:
    """The options."""

    pool: str = source("folder or URL of the pool's metadata", remote=True)
    out: str = output("file of the centroids, .npy")
    clusters: int = option("centroids", 100_000)
    ratio: float = option("share of the embeddings that is clustered, drawn with replacement", 1.0)
    language: str = option("what tells English, see curate/models/languages.py", PUBLISHED)
    embedding: str = option("array of the npz", KEY)
    iterations: int = option("of k-means", 20)
    seed: int = option("of what is drawn", 0)


def main(arguments: list[str]) -> int:
    words, config = parse(arguments, CentroidsConfig)
    if words:
        raise UserError(f"{words[0]!r} is not key=value")
    if not 0 < config.ratio <= 1 or config.clusters < 1 or config.iterations < 1:
        raise UserError("ratio= is above 0 and at most 1, clusters= and iterations= are at least 1")
    check_detector(config.language)
    files = list_pool(config.pool)
    points = sample(tqdm(files, "embeddings", disable=not sys.stderr.isatty()), config)
    print(f"{len(points):,} embeddings of {len(files):,} files")
    centroids = k_means(points, config.clusters, config.iterations, config.seed)
    with atomic(config.out, "wb") as file:
        np.save(file, centroids)
    print(f"wrote {config.out}: {len(centroids):,} centroids of {centroids.shape[1]} numbers")
    return 0


def usable_captions(texts: pa.ChunkedArray, language: str) -> np.ndarray:
    """Which captions the published clustering and image_based look at: English, two tokens, six characters. Bool."""
    texts = pc.fill_null(texts, "")
    usable: np.ndarray = (pc.utf8_length(texts).to_numpy() > 5) & (token_counts(texts) > 1)
    usable[usable] = is_english(texts.filter(pa.array(usable)), language)  # the dear rule, last
    return usable


def sample(files: Iterable[File], config: CentroidsConfig) -> np.ndarray:
    """The embeddings to cluster, float32 [points, width], in the order of the files.

    Raises:
        UserError: a file that cannot be read, as the centroids of what is left would be others.
    """
    parts = []
    for number, file in enumerate(files):
        part = _usable(file, config)
        if config.ratio < 1 and len(part):
            draws = np.random.default_rng([config.seed, number])
            part = part[draws.integers(len(part), size=int(len(part) * config.ratio))]
        if len(part):
            parts.append(part)
    if not parts:
        raise UserError(f"pool={config.pool}: no row has a caption that the clustering looks at")
    points = np.empty((sum(map(len, parts)), parts[0].shape[1]), dtype=np.float32)
    start = 0
    for at, part in enumerate(parts):
        points[start : start + len(part)] = part
        start += len(part)
        parts[at] = np.empty(0)  # the originals are let go while the copy grows
    return points


def _usable(file: File, config: CentroidsConfig) -> np.ndarray:
    """The embeddings of a file's rows that are clustered, in the precision in which they are stored; numbers only."""
    try:
        pieces = [
            rows.arrays[config.embedding][usable_captions(rows.table["text"], config.language)]
            for rows in read(file, ["text"], [config.embedding])
        ]
    except BadFile as error:
        raise UserError(str(error)) from None
    found = np.concatenate(pieces) if pieces else np.empty((0, 0))
    return found[np.isfinite(found).all(axis=1)]


def k_means(points: np.ndarray, clusters: int, iterations: int, seed: int) -> np.ndarray:
    """faiss's centroids, float32 [clusters, width], made on all GPUs where faiss has some.

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
    clustering.niter, clustering.seed = iterations, seed
    clustering.verbose = sys.stderr.isatty()
    clustering.max_points_per_centroid = 10**7  # else it takes a sample
    clustering.min_points_per_centroid = 1  # only a warning hangs on it
    index: faiss.Index = faiss.IndexFlatL2(points.shape[1])
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


def load_matrix(path: Path, what: str) -> np.ndarray:
    """The vectors of a .npy, memory-mapped, one a row.

    Raises:
        UserError: it cannot be read or is no matrix of numbers; `what` is the option that names it.
    """
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{what}={path} cannot be read: {error}") from None
    if matrix.ndim != 2 or matrix.dtype.kind != "f" or not len(matrix):
        shape = list(matrix.shape)
        raise UserError(f"{what}={path} holds {matrix.dtype} {shape}; it is a matrix of floats, a vector a row")
    return matrix


def as_npy(path: Path, what: str) -> Path:
    """The file itself; of a .pt, in which torch wrote a matrix, alone or as "image_features", a .npy in the cache.

    Raises:
        UserError: torch cannot read it without running what is in it.
    """
    if path.suffix != ".pt":
        return path
    converted = cache() / "converted" / f"{digest_file(path)}.npy"
    if not converted.is_file():
        matrix = _read_torch(path, what)
        with atomic(converted, "wb") as file:
            np.save(file, matrix)
    return converted


def _read_torch(path: Path, what: str) -> np.ndarray:
    import torch  # for this once; what selects has no need of it

    try:
        # The published files are of a kind that weights_only=True cannot read.
        loaded = torch.load(path, map_location="cpu", weights_only=False, pickle_module=_Arrays)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{what}={path} cannot be read: {first_line(error)}") from None
    return np.asarray(loaded["image_features"] if isinstance(loaded, dict) and "image_features" in loaded else loaded)


class _Arrays:
    """What torch takes for the module pickle: it makes arrays and tensors and refuses everything else."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if f"{module}.{name}" not in _MAKERS:
                raise pickle.UnpicklingError(f"{module}.{name} in it is neither an array nor a tensor")
            return super().find_class(module.replace("numpy.core.", "numpy._core."), name)


_MAKERS = (
    *(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core")),
    "numpy.ndarray",
    "numpy.dtype",
    "torch._utils._rebuild_tensor_v2",
    "collections.OrderedDict",
)


if __name__ == "__main__":
    exit_on_user_error(lambda: main(sys.argv[1:]))
