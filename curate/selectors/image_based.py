"""The benchmark's image filter: pairs whose picture falls into a cluster in which ImageNet has pictures, too."""

import functools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from curate import centroids as clustering
from curate.models.assets import CENTROIDS, IMAGENET_TRAIN, fetched
from curate.models.languages import check_detector
from curate.pool.files import BadFile
from curate.selectors.base import Filter, Passes
from poolbench.errors import UserError, nearest
from poolbench.files import atomic, cache, claimed, digest_file, digest_json
from poolbench.options import option, source

IMAGENET = "imagenet"
_WAIT = 24 * 3600.0  # seconds for another process that is finding the clusters of the same targets


@dataclass
class Options:
    """The options."""

    centroids: str = source("small | medium | large | xlarge: as published; or a file of curate.centroids")
    targets: str = source("imagenet: the published embeddings of its training images; or a file of such", IMAGENET)
    clusters: str = source("instead of targets, a .npy of cluster numbers", "")
    language: str = option("what tells English, see curate/models/languages.py; as published: fasttext", "fasttext")
    embedding: str = option("array of the npz", clustering.KEY)


class ImageBased(Filter):
    """Keeps rows with a usable caption whose nearest centroid is also the nearest of a target embedding."""

    columns = ("text",)

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.arrays = (options.embedding,)

    def prepare(self, passes: Passes) -> None:
        check_detector(self.options.language)
        path = _centroids(self.options.centroids)
        centroids = clustering.load_matrix(path, "filter.centroids")
        longest = clustering.longest_of(centroids)
        digest = digest_file(path)
        if self.options.clusters:
            found = Path(self.options.clusters)
        else:
            found = _clusters_of(_targets(self.options.targets), centroids, longest, digest)
        wanted = _load_clusters(found, len(centroids))
        self.state = {
            "centroids": str(path),
            "centroids_sha256": digest,
            "longest": longest,
            "clusters": str(found),
            "clusters_sha256": digest_file(found),
            "clusters_wanted": int(wanted.sum()),
        }

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        clusters = _clusters(self.state["centroids"], self.state["clusters"])
        features = arrays[self.options.embedding]
        if features.ndim != 2 or features.shape[1] != clusters.centroids.shape[1]:
            width, held = clusters.centroids.shape[1], list(features.shape[1:])
            raise BadFile(f"{self.options.embedding} has {held} numbers a row, the centroids have {width}")
        kept = clustering.usable_captions(rows["text"], self.options.language)
        found = clustering.nearest(features[kept], clusters.centroids, self.state["longest"])
        kept[kept] = clusters.wanted[found]
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        name = self.options.embedding
        finite = np.isfinite(arrays[name]).all(axis=1)
        return {"rows without a caption": rows["text"].null_count, f"{name} is NaN or infinite": int((~finite).sum())}


class _Clusters(NamedTuple):
    """What a worker keeps: the centroids, memory-mapped, and which of them are wanted, with False for "none" at -1."""

    centroids: np.ndarray
    wanted: np.ndarray


@functools.cache
def _clusters(centroids: str, clusters: str) -> _Clusters:
    matrix = clustering.load_matrix(Path(centroids), "filter.centroids")
    return _Clusters(matrix.astype(np.float32, copy=False), _load_clusters(Path(clusters), len(matrix)))


def _load_clusters(path: Path, count: int) -> np.ndarray:
    """Which of `count` clusters a file names, bool [count + 1].

    Raises:
        UserError: it cannot be read, or names others.
    """
    try:
        numbers = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"filter.clusters={path} cannot be read: {error}") from None
    if numbers.dtype.kind not in "iu" or not numbers.size or numbers.min() < 0 or numbers.max() >= count:
        raise UserError(f"filter.clusters={path} does not hold numbers from 0 to {count - 1:,}, those of the centroids")
    wanted = np.zeros(count + 1, dtype=bool)
    wanted[numbers] = True
    return wanted


def _centroids(given: str) -> Path:
    """The .npy of the centroids, fetched and converted where need be."""
    if given in CENTROIDS:
        return clustering.as_npy(fetched(CENTROIDS[given]), "filter.centroids")
    if not Path(given).is_file():
        raise UserError(f"filter.centroids={given} is neither a file nor a pool's name; {nearest(given, CENTROIDS)}")
    return clustering.as_npy(Path(given), "filter.centroids")


def _targets(given: str) -> list[Path]:
    if given == IMAGENET:
        return [fetched(part) for part in IMAGENET_TRAIN]
    if not Path(given).is_file():
        raise UserError(f"filter.targets={given} is neither a file nor {IMAGENET!r}")
    return [Path(given)]


def _clusters_of(targets: list[Path], centroids: np.ndarray, longest: float, digest: str) -> Path:
    """A .npy with the numbers of the centroids that are nearest to a target, found once and kept in the cache."""
    folder = cache() / "clusters"
    path = folder / f"{digest_json([digest, [digest_file(target) for target in targets]])}.npy"
    with claimed(folder, wait=_WAIT):
        if not path.is_file():
            found = [_nearest_ones(target, centroids, longest) for target in targets]
            with atomic(path, "wb") as file:
                np.save(file, np.unique(np.concatenate(found)))
    return path


def _nearest_ones(target: Path, centroids: np.ndarray, longest: float) -> np.ndarray:
    features = clustering.load_matrix(clustering.as_npy(target, "filter.targets"), "filter.targets")
    if features.shape[1] != centroids.shape[1]:
        raise UserError(
            f"filter.targets={target} has {features.shape[1]} numbers a row, the centroids {centroids.shape[1]}"
        )
    with tqdm(desc=f"clusters of {target.name}", total=len(features), disable=not sys.stderr.isatty()) as bar:
        found = np.unique(clustering.nearest(features, centroids.astype(np.float32, copy=False), longest, bar.update))
    if found[0] < 0:
        raise UserError(f"filter.targets={target} holds embeddings that are no numbers")
    return found
