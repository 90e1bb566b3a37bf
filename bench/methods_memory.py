"""Selections of a pool and of one of four times its rows: peak memory of all processes, which is to be the same, and
seconds of the processor, which are to be four times as many.

    python bench/methods_memory.py [--rows 2000000] [--method NAME ...] [--scratch FOLDER] [--out FILE.md]

Embeddings have 16 numbers, so that a pool of millions of rows is small: how memory grows with rows shows in them as in
longer ones. Runs on Linux.
"""

import argparse
import datetime
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from evaluation_report import table
from machine import machine
from pools import WORDS
from processes import measured

from poolbench.files import atomic

ROOT = Path(__file__).resolve().parent.parent
PER_FILE, TIMES = 250_000, 4  # rows of a file, and how many times as many the larger pool has
WIDTH, TARGETS, DRAWS = 16, 1000, 500_000
ALLOWED = 1.15  # times as much memory that still counts as the same: a look at it misses some peaks
L14, B32 = "clip_l14_similarity_score", "clip_b32_similarity_score"
METHODS = {
    "top": [f"filter.column={L14}", "filter.fraction=0.3"],
    "mix": [f"filter.weights={{{L14}: 1, {B32}: 0.5}}", "filter.standardize=true", "filter.fraction=0.3"],
    "label_model": [
        f"filter.votes={{{L14}: [0.2, 0.3], {B32}: [0.2, 0.25], original_width: [200, 400]}}",
        "filter.fraction=0.3",
    ],
    "soft_cap": [f"filter.column={L14}", "filter.alpha=0.15", f"filter.size={DRAWS}"],
    "vas": ["filter.targets={folder}/targets.npy", "filter.clip_fraction=0.45", "filter.fraction=0.3"],
    "norm_sim": ["filter.targets={folder}/targets.npy", "filter.p=2", "filter.fraction=0.3"],
    "neg_clip_loss": ["filter.batch=64", "filter.partitions=1", "filter.fraction=0.3"],
    "vas_d": ["filter.rounds=3", "filter.clip_fraction=0.45", "filter.fraction=0.3"],
    "metaclip": ["filter.metadata={folder}/entries.json"],
}


class Spent(NamedTuple):
    """What a selection took: bytes at the peak, seconds of the processor, and the uids that it kept."""

    memory: int
    seconds: float
    kept: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000, help="of the smaller pool")
    parser.add_argument("--method", choices=METHODS, action="append", help="default: all")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        larger = write(folder, options.rows)
        found = {}
        for method in options.method or METHODS:
            found[method] = [select(method, folder, pool, options.workers) for pool in ("small", "large")]
            print(method, *found[method], file=sys.stderr)
    page = "\n".join(report(options, larger, found))
    print(page)
    if options.out:
        with atomic(options.out) as file:
            file.write(page)


def write(folder: Path, rows: int) -> int:
    """Both pools, of which the smaller one's files are the larger one's first; how many bytes that has."""
    rng = np.random.default_rng(0)
    np.save(folder / "targets.npy", unit(rng.normal(size=(TARGETS, WIDTH))))
    entries = [*WORDS, *(f"{left} {right}" for left in WORDS for right in WORDS)]
    (folder / "entries.json").write_text(json.dumps(entries))
    texts = captions(per_file := min(PER_FILE, rows), rng)
    for pool in ("small", "large"):
        (folder / pool).mkdir()
    for number, start in enumerate(range(0, TIMES * rows, per_file)):
        names = [folder / "large" / f"{number:06d}.{kind}" for kind in ("parquet", "npz")]
        write_file(names, texts[: TIMES * rows - start], rng)
        for path in names if start < rows else []:
            os.link(path, folder / "small" / path.name)
    return sum(path.stat().st_size for path in (folder / "large").iterdir())


def captions(rows: int, rng: np.random.Generator) -> pa.Array:
    """Of one to twelve words."""
    words, lengths = rng.integers(0, len(WORDS), (rows, 12)).tolist(), rng.integers(1, 13, rows).tolist()
    return pa.array(
        [" ".join([WORDS[word] for word in some[:length]]) for some, length in zip(words, lengths, strict=True)]
    )


def write_file(names: list[Path], texts: pa.Array, rng: np.random.Generator) -> None:
    rows = len(texts)
    digits = rng.bytes(16 * rows).hex().encode()
    uids = pa.StringArray.from_buffers(
        rows, pa.py_buffer(np.arange(0, 32 * rows + 1, 32, dtype=np.int32)), pa.py_buffer(digits)
    )
    columns: dict[str, Any] = {"uid": uids, "text": texts, "original_width": rng.integers(80, 1600, rows)}
    columns |= {name: rng.normal(0.22, 0.06, rows).astype(np.float32) for name in (L14, B32)}
    pq.write_table(pa.table(columns), names[0])
    left = rng.normal(size=(rows, WIDTH))
    np.savez(names[1], l14_img=unit(left), l14_txt=unit(left + 0.5 * rng.normal(size=left.shape)))


def unit(vectors: np.ndarray) -> np.ndarray:
    found: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return found


def select(method: str, folder: Path, pool: str, workers: int) -> Spent:
    """Run the command, and take away what it leaves."""
    out = folder / f"{pool}.npy"
    words = [word.replace("{folder}", str(folder)) for word in METHODS[method]]
    command = [sys.executable, "-m", "curate", f"filter={method}", *words]
    command += [f"pool={folder / pool}", f"out={out}", f"workers={workers}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "POOLBENCH_CACHE": str(folder / "cache")}
    before = spent()
    ran = measured(command, ROOT, folder / "log", environment)
    seconds, kept = spent() - before, len(np.load(out, mmap_mode="r"))
    for path in (out, Path(f"{out}.json")):
        path.unlink()
    shutil.rmtree(folder / pool / "columns", ignore_errors=True)
    return Spent(ran.memory, seconds, kept)


def spent() -> float:
    """Seconds of the processor of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(options: argparse.Namespace, bytes_: int, found: dict[str, list[Spent]]) -> Iterator[str]:
    mine = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow"))
    few, many = options.rows, TIMES * options.rows
    cells = []
    for method, (small, large) in found.items():
        same = "yes" if large.memory <= ALLOWED * small.memory else "**no**"
        memory = (f"{small.memory / 1e6:,.0f} MB", f"{large.memory / 1e6:,.0f} MB", same)
        each = 1e6 * (large.seconds - small.seconds) / (many - few)
        hours = [f"{each * rows / 1e6 / 3600:,.2f}" for rows in (128e6, 12.8e9)]
        cells.append((f"`{method}`", f"{large.kept:,}", *memory, f"{large.seconds:.0f}", f"{each:.2f}", *hours))
    yield from [
        "# Memory of selections",
        "",
        f"`python bench/methods_memory.py --rows {few}`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. Machine: "
        f"{machine()}. {mine}. {options.workers} workers.",
        "",
        f"Pools of {few:,} and {many:,} rows in files of {min(PER_FILE, few):,}, the larger one of "
        f"{bytes_ / 1e6:,.0f} MB, with embeddings of {WIDTH} numbers. Memory is the peak of all processes together; "
        f"flat means at most {ALLOWED - 1:.0%} more. Seconds are of the processor, with the start of the command; "
        "those of a row are of the rows that the larger pool has more.",
        "",
        *table(
            (
                "method",
                f"kept of {many:,}",
                f"memory, {few:,} rows",
                f"memory, {many:,} rows",
                "flat",
                "seconds",
                "µs a row",
                "128 M rows, core hours",
                "12.8 B rows, core hours",
            ),
            cells,
        ),
        "",
    ]


if __name__ == "__main__":
    main()
