"""A row's nearest cluster: its number among the centroids of a file."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from poolbench.files import digest_file

from curate.models.clusters import longest_of, nearest
from curate.models.matrices import load_matrix
from curate.pool.files import BadFile


class NearestCluster:
    """Scores rows by the number of the centroid that is nearest to their embedding. Instances are sent to workers,
    which open the centroids once.

    Attributes:
        columns: of the parquet that it reads.
        arrays: of the npz.
        longest: length of the longest centroid.
        digest: SHA-256 of the centroids' file.
    """

    columns: tuple[str, ...] = ()
    version: ClassVar[int] = 1  # raised by a change that gives other numbers

    def __init__(self, centroids: Path, embedding: str) -> None:
        """
        Raises:
            UserError: the centroids cannot be read.
        """
        self.centroids, self.arrays = centroids, (embedding,)
        matrix = load_matrix(centroids, "filter.centroids")
        self.clusters, self.longest, self.digest = len(matrix), longest_of(matrix), digest_file(centroids)

    def score(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The number of each row's cluster, int64 [rows]; -1 where the embedding is no number.

        Raises:
            BadFile: embeddings of another width than the centroids'.
        """
        (embedding,) = self.arrays
        centroids, features = _opened(self.centroids, self.digest), arrays[embedding]
        if features.ndim != 2 or features.shape[1] != centroids.shape[1]:
            width, held = centroids.shape[1], list(features.shape[1:])
            raise BadFile(f"{embedding} has {held} numbers a row, the centroids have {width}")
        return nearest(features, centroids, self.longest)

    def identity(self) -> Any:
        """All that the numbers depend on besides the rows, JSON-able."""
        return [type(self).__name__, self.version, self.arrays[0], self.digest]


@functools.cache
def _opened(path: Path, digest: str) -> np.ndarray:
    """The centroids, memory-mapped, float32 [clusters, width]; the digest tells them from others that had the name."""
    return load_matrix(path, "filter.centroids").astype(np.float32, copy=False)
