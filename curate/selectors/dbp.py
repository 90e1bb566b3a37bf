"""Density-based pruning: of each cluster of pictures so many as its variety asks for, those farthest from the centroid;
see curate/models/shares.py."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.options import option

from curate.models.points import KEY
from curate.models.shares import complexities, divided, softmax
from curate.pool.files import PLACE
from curate.pool.members import ORDER, keys_of, last_keys, members, rows_in, totals
from curate.pool.passes import Passes, result
from curate.pool.quantile import scores
from curate.scorers.clustered import ITERATIONS, PER_CLUSTER, Clustering, clustered
from curate.selectors.base import AMONG, Filter, in_range, unscored


@dataclass
class Options:
    """The options."""

    fraction: float = option("of the pool, 0 to 1: exactly so many rows")
    embedding: str = option("array of the npz that is clustered; published with DINOv2 L/14's", KEY)
    clusters: int = option("of k-means", 100)
    temperature: float = option("of the softmax of the clusters' variety: higher makes their shares more alike", 0.5)
    balance: float = option("of an equal division that each cluster keeps at least, 0 to 1", 0.5)
    iterations: int = option("of k-means", ITERATIONS)
    sample: int = option("embeddings for each cluster that k-means sees, drawn by uid", PER_CLUSTER)
    seed: int = option("of what is drawn", 0)
    of: Any = option(AMONG, None)


class DensityBased(Filter):
    """Keeps the rows farthest from the centroid, of each cluster its number."""

    arrays = (PLACE,)

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        in_range("fraction", options.fraction, 0, 1)
        in_range("balance", options.balance, 0, 1)
        if not 0 < options.temperature < np.inf:
            raise UserError(f"filter.temperature={options.temperature} must be positive")
        self._how = Clustering(options.embedding, options.clusters, options.iterations, options.sample, options.seed)
        self._how.check()
        self._folder = self._how.folder(options.of)
        self.columns = (f"{self._folder}/cluster", f"{self._folder}/distance")

    def learn(self, passes: Passes) -> None:
        scorer, ranked = clustered(passes, self._folder, self._how, self.among)
        step = passes.made(members, scorer.clusters(passes), ranked)

        def every() -> Iterator[np.ndarray]:
            return (result(step, file) for file in passes.usable())

        rows = sum(count for _, count in passes.map(rows_in))
        sizes, distances = totals(passes, step, self._how.clusters)
        asked, there = int(rows * self.options.fraction), int(sizes.sum())
        if there < asked:
            print(f"dbp: {asked:,} rows are asked for, {there:,} have an embedding", file=sys.stderr)
        varied = complexities(scorer.centroids, sizes, distances)
        shares = softmax(varied, self.options.temperature)
        kept = divided(shares, sizes, min(asked, there), self.options.balance)
        self.state = {
            "centroids_sha256": scorer.identity()["centroids"],
            "rows": int(kept.sum()),
            "complexity": [round(value, 6) for value in varied.tolist()],
            "sizes": sizes.tolist(),
            "kept": kept.tolist(),
            "last": [bytes(key).hex() for key in last_keys(every, kept).view(np.uint8).reshape(len(kept), -1)],
        }

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        cluster, distance = (scores(rows, name) for name in self.columns)
        kept: np.ndarray = ~np.isnan(cluster)
        last = np.frombuffer(bytes.fromhex("".join(self.state["last"])), ORDER)
        keys = keys_of(distance[kept], arrays["uid"][kept], arrays[PLACE][kept])
        kept[kept] = keys <= last[cluster[kept].astype(np.int64)]
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return unscored(rows, self.columns[1])
