"""What a resharding is to do, and the folder that it keeps its place in."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poolbench.files import read_json
from poolbench.uids import DTYPE

# Where a copy of a chosen sample is and what it is. `row` is its place in the subset: a uid that stands there m times
# has m rows, and `repeat` counts them from 0. `number` is that of the sample within its shard.
ROW = np.dtype(
    [
        ("row", "u8"),
        ("offset", "u8"),
        ("span", "u8"),
        ("size", "u8"),
        ("repeat", "u4"),
        ("shard", "u4"),
        ("number", "u4"),
    ]
)


@dataclass(frozen=True)
class Job:
    """One resharding, as its workers need it.

    Attributes:
        work: folder of what is known so far: the indexes of the shards, the plan, which shards are written.
        out: folder or URL.
        subset: path of the subset.
        shuffle: seed of the order of the output, None for the order of the input.
        quality: of blurred JPEG and WebP pictures.
        index: folder of the indexes of the shards, None for one in `work`.
        plan_folder: within `work`, of what is planned.
    """

    work: Path
    out: str
    subset: str
    shuffle: int | None
    quality: int
    index: str | None = None
    plan_folder: str = "plan"

    @property
    def indexes(self) -> Path:
        """Folder of the indexes that are made; see stored.index_paths."""
        return Path(self.index) if self.index else self.work / "index"

    @property
    def planning(self) -> Path:
        """Folder of the plan."""
        return self.work / self.plan_folder

    @property
    def plan(self) -> Path:
        """Rows of dtype ROW, every sample of the output in the order of the input. It has no header: it is read while
        it grows."""
        return self.planning / "plan.rows"

    @property
    def pins(self) -> Path:
        """Of each shard of the input in the plan, by what its index was known: u8, without a header."""
        return self.planning / "pins"

    @property
    def ends(self) -> Path:
        """The place behind the last sample of each shard of the output, with 0 before them."""
        return self.planning / "ends.npy"

    @property
    def counts(self) -> Path:
        """What the input held; there once the plan has ended."""
        return self.planning / "counts.json"

    @property
    def problems(self) -> Path:
        """What was bad in the input, a line each."""
        return self.planning / "problems.jsonl"

    @property
    def lost(self) -> Path:
        """What could not be used though it was planned, a line each."""
        return self.work / "lost.jsonl"

    @property
    def missing(self) -> Path:
        """The chosen uids that the input lacks, as a subset."""
        return self.planning / "missing_uids.npy"

    @property
    def faces(self) -> Path:
        """Folder of what faces.collect found."""
        return self.work / "faces"

    @property
    def staging(self) -> Path:
        """Folder where shards of the output are written: their own, or one from which they go to a store."""
        return self.work / "upload" if "://" in self.out else Path(self.out)

    @property
    def has_faces(self) -> bool:
        """Whether faces are to be blurred, and all metadata were read."""
        return (self.faces / "entries.npy").exists()

    def done(self, shard: int) -> Path:
        """What is known of a written shard."""
        return self.work / "done" / f"{shard:08d}.json"


def shards_of(job: Job) -> list[tuple[str, str, int]]:
    """(path, name, bytes) of the shards of the input, kept by each process once it has read them."""
    return _shards(str(job.work))


@functools.lru_cache(1)
def _shards(work: str) -> list[tuple[str, str, int]]:
    found: list[Any] = read_json(Path(work) / "shards.json")
    return [(path, name, size) for path, name, size in found]


def planned(job: Job) -> np.ndarray[Any, Any]:
    """The rows of the plan that are there, of which only what is used is read. The last one may be half written."""
    return np.memmap(job.plan, ROW, "r", shape=(job.plan.stat().st_size // ROW.itemsize,))


def pinned(job: Job) -> np.ndarray[Any, Any]:
    """The pins that are there, u8; none where nothing was planned."""
    try:
        return np.fromfile(job.pins, np.uint64)
    except FileNotFoundError:
        return np.zeros(0, np.uint64)


def pairs(uids: list[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """Halves of uids as rows of a subset."""
    return np.array(uids, dtype=DTYPE)
