"""Selections by clusters of embeddings, dbp and semdedup: rows a second and peak memory on pools of two sizes.

    python bench/methods_clusters.py [--scratch FOLDER] [--out FILE.md]

Each is measured in a process of its own, on one core, in seconds of the processor, from the pool's files to the subset:
k-means, columns, and what is found by them.
"""

import argparse
import datetime
import multiprocessing
import os
import re
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from evaluation_report import table

from poolbench.files import atomic

from curate.command import run

WIDTH, FILE, SIZES = 512, 10_000, (20_000, 80_000)
TITLES = {
    "`dbp`, 100 clusters": ("dbp", 100, SIZES),
    "`semdedup`, 100 clusters": ("semdedup", 100, SIZES),
    "`semdedup`, one cluster": ("semdedup", 1, (10_000, 20_000)),
}


class Spent(NamedTuple):
    """What one measurement took: seconds of the processor, and the peak in bytes before and after."""

    seconds: float
    before: int
    memory: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder, rows = Path(scratch), []
        for size in sorted({size for *_, sizes in TITLES.values() for size in sizes}):
            write_pool(folder / str(size), size)
        for title, (name, clusters, sizes) in TITLES.items():
            for size in sizes:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    one = pool.apply(measure, (folder / str(size), name, clusters))
                mega = [f"{value / 1e6:,.0f} MB" for value in (one.memory, one.memory - one.before)]
                rows.append([title, f"{size:,}", f"{one.seconds:.1f}", f"{size / one.seconds:,.0f}", *mega])
    page = "\n".join([*head(), *table(["method", "rows", "seconds", "rows/s", "peak memory", "of it used"], rows), ""])
    print(page)
    if options.out:
        with atomic(options.out) as file:
            file.write(page)


def write_pool(folder: Path, rows: int) -> None:
    """Files of FILE rows with random embeddings, of which a tenth are nearly those of others."""
    folder.mkdir()
    rng = np.random.default_rng(rows)
    for number in range(rows // FILE):
        uids = [f"{value:032x}" for value in rng.permutation(FILE) + 2**40 * number]
        pq.write_table(pa.table({"uid": uids}), folder / f"{number:04d}.parquet")
        found = rng.normal(size=(FILE, WIDTH)).astype(np.float32)
        found[: FILE // 10] = found[FILE // 2 : FILE // 2 + FILE // 10] + 0.1 * found[: FILE // 10]
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        np.savez(folder / f"{number:04d}.npz", l14_img=found.astype(np.float16))


def measure(pool: Path, name: str, clusters: int) -> Spent:
    before, began = peak(), time.process_time()
    rule = "filter.fraction=0.3" if name == "dbp" else "filter.epsilon=0.1"
    out = f"{pool}.{name}-{clusters}.npy"
    places: list[Any] = [f"pool={pool}", f"out={out}", f"columns={out}.columns", "workers=1"]
    assert run([f"filter={name}", rule, f"filter.clusters={clusters}", *places]) == 0
    return Spent(time.process_time() - began, before, peak())


def peak() -> int:
    """Not what getrusage says, which begins with the size of the process that started this one."""
    return 1024 * int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0])


def head() -> list[str]:
    from machine import machine  # which imports torch, and so would stand in the memory that is measured

    mine = ", ".join(f"{name} {version(name)}" for name in ("numpy", "faiss-cpu", "clarabel"))
    return [
        "# Selections by clusters of embeddings",
        "",
        f"`python bench/methods_clusters.py`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. One core, seconds of the "
        "processor from the pool's files to the subset, with k-means; the machine was shared with other work.",
        "",
        f"Machine: {machine()}. {mine}.",
        "",
    ]


if __name__ == "__main__":
    main()
