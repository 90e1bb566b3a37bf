"""The benchmark's image filter: pairs whose picture falls into a cluster in which ImageNet has pictures, too."""

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from poolbench.assets import fetched
from poolbench.errors import UserError, nearest
from poolbench.files import atomic, cache, claimed, digest_file, digest_json
from poolbench.options import option, source

from curate.models import clusters
from curate.models.assets import CENTROIDS
from curate.models.captions import usable_captions
from curate.models.languages import check_detector
from curate.models.matrices import as_npy, check_not_zero, load_matrix
from curate.models.points import KEY
from curate.models.targets import EXPLAINED, IMAGENET, named, ordered
from curate.pool.passes import Passes
from curate.scorers.clusters import NearestCluster
from curate.selectors.base import Filter

_WAIT = 24 * 3600.0  # seconds for another process that is finding the clusters of the same targets


@dataclass
class Options:
    """The options."""

    centroids: str = source("small | medium | large | xlarge: as published; or a file of curate.centroids")
    targets: Any = source(EXPLAINED, IMAGENET)
    clusters: str = source("instead of targets, a .npy of cluster numbers", "")
    language: str = option("what tells English, see curate/models/languages.py; as published: fasttext", "fasttext")
    embedding: str = option("array of the npz", KEY)


class ImageBased(Filter):
    """Keeps rows with a usable caption whose nearest centroid is also the nearest of a target embedding."""

    columns = ("text",)

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        options.targets = ordered(options.targets)
        self.arrays = (options.embedding,)
        self._scorer: NearestCluster | None = None

    def learn(self, passes: Passes) -> None:
        check_detector(self.options.language)
        scorer = NearestCluster(_centroids(self.options.centroids), self.options.embedding)
        given, said = self.options.clusters, {}
        if given:
            found = Path(given)
        else:
            targets = named(self.options.targets)
            found, said = _clusters_of(targets.files, scorer), targets.warned()
        wanted = _load_clusters(found, scorer.clusters)
        self._scorer = scorer
        self.state = {
            "centroids": str(scorer.centroids),
            "centroids_sha256": scorer.digest,
            "longest": scorer.longest,
            "clusters": str(found),
            "clusters_sha256": digest_file(found),
            "clusters_wanted": int(wanted.sum()),
            **said,
        }

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        assert self._scorer is not None
        wanted = _wanted(self.state["clusters"], self.state["clusters_sha256"], self._scorer.clusters)
        kept = usable_captions(rows["text"], self.options.language)
        # No picture is compared whose caption will not do.
        found = self._scorer.score(rows, {self.options.embedding: arrays[self.options.embedding][kept]})
        kept[kept] = wanted[found]
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        name = self.options.embedding
        finite = np.isfinite(arrays[name]).all(axis=1)
        return {"rows without a caption": rows["text"].null_count, f"{name} is NaN or infinite": int((~finite).sum())}


@functools.cache
def _wanted(path: str, digest: str, count: int) -> np.ndarray:
    """See `_load_clusters`; the digest tells a file from another that had its name."""
    return _load_clusters(Path(path), count)


def _load_clusters(path: Path, count: int) -> np.ndarray:
    """Which of `count` clusters a file names, bool [count + 1], the last one False: it is what a row without a cluster,
    -1, finds.

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
        return as_npy(fetched(CENTROIDS[given]), "filter.centroids")
    if not Path(given).is_file():
        raise UserError(f"filter.centroids={given} is neither a file nor a pool's name; {nearest(given, CENTROIDS)}")
    return as_npy(Path(given), "filter.centroids")


def _clusters_of(targets: list[Path], scorer: NearestCluster) -> Path:
    """A .npy with the numbers of the centroids that are nearest to a target, found once and kept in the cache."""
    folder = cache() / "clusters"
    path = folder / f"{digest_json([scorer.digest, [digest_file(target) for target in targets]])}.npy"
    with claimed(folder, wait=_WAIT):
        if not path.is_file():
            centroids = load_matrix(scorer.centroids, "filter.centroids").astype(np.float32, copy=False)
            found = [_nearest_ones(target, centroids, scorer.longest) for target in targets]
            with atomic(path, "wb") as file:
                np.save(file, np.unique(np.concatenate(found)))
    return path


def _nearest_ones(target: Path, centroids: np.ndarray, longest: float) -> np.ndarray:
    features = load_matrix(as_npy(target, "filter.targets"), "filter.targets")
    if features.shape[1] != centroids.shape[1]:
        raise UserError(
            f"filter.targets={target} has {features.shape[1]} numbers a row, the centroids {centroids.shape[1]}"
        )
    check_not_zero(features, target, "filter.targets")
    with tqdm(desc=f"clusters of {target.name}", total=len(features), disable=not sys.stderr.isatty()) as bar:
        found = np.unique(clusters.nearest(features, centroids, longest, bar.update))
    if found[0] < 0:
        raise UserError(f"filter.targets={target} holds embeddings that are no numbers")
    return found
