"""`python -m curate.score` in this process for the tests, a small pool for it, and what it wrote."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from evalsets import MODEL, write_checkpoint
from holding import holding
from pools import sample, write_tar

from curate import score

REAL = "ViT-Ti-32-64"  # a model that processes of their own know, too
# `python -m curate.score` that writes three shards, and no other.
HOLDING = holding("curate.score", "curate.scorers.run.Writer._write")


def varied(number: int) -> dict[str, bytes]:
    """The members of a sample of one of three kinds of picture, whose caption has one of four lengths."""
    members = sample(number, ("PNG", "JPEG", "WEBP")[number % 3])
    return members | {"txt": b", ".join([members["txt"]] * (4 - number % 4))}


def write_varied(root: Path) -> Path:
    """A folder with pool/, 3 shards of 14 such samples, and model.pt."""
    for shard in range(3):
        numbers = range(14 * shard, 14 * (shard + 1))
        write_tar(root / "pool" / f"{shard:05d}.tar", ((f"{number:08d}", varied(number)) for number in numbers))
    write_checkpoint(root / "model.pt")
    return root


def run(pool: Path | str, checkpoint: Path | str | None, out: Path, **options: Any) -> int:
    """`python -m curate.score` in this process; mistakes raise."""
    known = {"checkpoint": checkpoint, "shards": pool, "out": out, "model": MODEL, "arch": "b32", "workers": 0}
    words = [f"{key}={value}" for key, value in {**known, **options}.items() if value is not None]
    before, sys.argv = sys.argv, ["score", *words]
    try:
        return score.main()
    finally:
        sys.argv = before


def table_of(folder: Path) -> dict[str, Any]:
    """Every row of a scored folder by uid: its columns, and its vectors."""
    rows = {}
    for path in sorted(folder.glob("*.parquet")):
        arrays = np.load(path.with_suffix(".npz"))
        for number, row in enumerate(pq.read_table(path).to_pylist()):
            rows[row["uid"]] = row | {name: arrays[name][number] for name in arrays.files}
    return rows


def scores_of(folder: Path) -> dict[str, float]:
    return {uid: row["clip_b32_similarity_score"] for uid, row in table_of(folder).items()}
