"""Clusters of a pool's images, by which the filter image_based compares the pool with ImageNet.

    python -m curate.centroids pool=<folder or s3://…> out=centroids.npy [clusters=100000] [ratio=1]

As published: faiss's k-means (L2, 20 iterations, seed 0, no subsampling) over the L/14 image embeddings of the rows
whose caption passes `usable_captions`; `ratio` is 1 at small and medium, 0.3 at large, 0.03 at xlarge, drawn with
replacement. The filter then asks which centroid has the largest inner product with an embedding, the centroids being
as long as they are. What k-means itself keeps in memory is 4 bytes a number: 9 GB for the pool `small`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic, digest_json
from poolbench.machine import cores
from poolbench.options import option, output, source

from curate.models.clusters import k_means
from curate.models.languages import PUBLISHED, check_detector
from curate.models.points import KEY, drawn
from curate.pool.chosen import Needs, check_there
from curate.pool.files import File, list_pool
from curate.pool.passes import Passes
from curate.pool.work import work_folder


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
    workers: int | None = option("processes that read; null: one for each core", None)
    work: str | None = output("folder to continue an interrupted run from; null: <out>.work, removed at the end", None)


def centroids(config: CentroidsConfig) -> None:
    """Find the centroids and write them.

    Raises:
        UserError: wrong options, or a pool that cannot be read in full.
    """
    if not 0 < config.ratio <= 1 or config.clusters < 1 or config.iterations < 1:
        raise UserError("ratio= is above 0 and at most 1, clusters= and iterations= are at least 1")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"workers={config.workers} must be positive")
    files = list_pool(config.pool)
    check_there(files, Needs(("text",), (config.embedding,)))
    check_detector(config.language)
    with work_folder(Path(config.out), config.work) as work:
        points = sample(files, config, work.path)
        print(f"{len(points):,} embeddings of {len(files):,} files")
        found = k_means(points, config.clusters, config.iterations, config.seed)
        with atomic(config.out, "wb") as file:
            np.save(file, found)
        work.remove()
    print(f"wrote {config.out}: {len(found):,} centroids of {found.shape[1]} numbers")


def sample(files: list[File], config: CentroidsConfig, work: Path) -> np.ndarray:
    """The embeddings to cluster, float32 [points, width], in the order of the files. Those of each are kept in `work`.

    Raises:
        UserError: a file that cannot be read, as the centroids of what is left would be others; no embedding at all.
    """
    # A draw depends on the file's place among all, which its own name and stamp do not tell.
    order = "" if config.ratio == 1 else digest_json([file.name for file in files])
    how = (config.embedding, config.language, config.ratio, config.seed, order)
    with Passes(files, work, config.workers or cores(), whole=True) as passes:
        passes.tell_found(passes.prepared(drawn, *how))

        def parts() -> Iterator[np.ndarray]:  # mapped one at a time
            return (part for _, part in passes.map(drawn, *how) if len(part))

        shapes = [part.shape for part in parts()]
        if not shapes:
            raise UserError(f"pool={config.pool}: no row has a caption that the clustering looks at")
        points = np.empty((sum(rows for rows, _ in shapes), shapes[0][1]), dtype=np.float32)
        start = 0
        for part in parts():
            points[start : start + len(part)] = part
            start += len(part)
    return points


COMMAND = Command(CentroidsConfig, centroids)

if __name__ == "__main__":
    COMMAND.start()
