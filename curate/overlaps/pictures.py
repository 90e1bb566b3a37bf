"""The evaluation pictures that are looked for: their probes, their names, and which sets have pictures in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poolbench.errors import UserError

from curate.overlaps.hashes import PROBES
from curate.overlaps.hashing import Hashed, Probes, hashed
from curate.overlaps.sets import EvaluationSet, as_tars


class Pictures(NamedTuple):
    """Evaluation pictures, those of a set behind each other.

    Attributes:
        sets: names of the sets.
        set_of: int32 [n], a place in `sets`.
        family: int32 [sets]; sets that have a picture in common, as equal files, are of one family.
        content: u8 [n], by which equal files are known.
        probes: uint8 [n, PROBES, BYTES], memory of 832 bytes a picture.
        blank: bool [n], pictures without probes.
        shards: the tars, in order, and the first picture of each, int64.
        left_out: of each set, how many samples could not be looked at.
        names: keys, in order, those of a tar behind each other.
    """

    sets: list[str]
    set_of: np.ndarray
    family: np.ndarray
    content: np.ndarray
    probes: np.ndarray
    blank: np.ndarray
    shards: list[Path]
    starts: np.ndarray
    left_out: list[int]
    names: list[str]

    def place(self, picture: int) -> tuple[str, Path, str]:
        """Set, tar and key of a picture."""
        shard = int(np.searchsorted(self.starts, picture, side="right")) - 1
        return self.sets[int(self.set_of[picture])], self.shards[shard], self.names[picture]


def pictures_of(sets: Sequence[EvaluationSet], work: Path, workers: int | None) -> tuple[Pictures, Hashed]:
    """The pictures of some sets, hashed where they are not yet, and the files of their hashes.

    Raises:
        UserError: a set cannot be read, or no picture can be used.
    """
    tars = [as_tars(one, work / "converted") for one in sets]
    every = [str(tar) for some in tars for tar in some]
    found = hashed(Probes, every, work / "evaluation", workers)
    of_tar = np.repeat(np.arange(len(sets)), [len(some) for some in tars])
    rows = [_rows(shard, found) for shard in found.shards]
    with_rows = [shard for shard, count in zip(found.shards, rows, strict=True) if count]
    if not with_rows:
        raise UserError("data= holds no picture that can be looked for; see above")
    file = np.concatenate([shard.read("content") for shard in with_rows])
    probes = np.concatenate([shard.read("probes") for shard in with_rows])
    set_of = np.repeat(of_tar, rows).astype(np.int32)
    left = np.bincount(of_tar, [len(shard.left_out(found.made)) for shard in found.shards], len(sets))
    return Pictures(
        sets=[one.name for one in sets],
        set_of=set_of,
        family=_families(set_of, file, len(sets)),
        content=file,
        probes=probes,
        blank=np.logical_not(probes.any(axis=(1, 2))),
        shards=[Path(tar) for tar in every],
        starts=np.cumsum([0, *rows[:-1]]),
        left_out=left.astype(int).tolist(),
        names=[str(key) for shard in with_rows for key in shard.read("key")],
    ), found


def probes_among(pictures: Pictures, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The probes of chosen pictures that are not blank, uint8 [n, BYTES], and the picture of each, int32 [n]."""
    good = chosen[~pictures.blank[chosen]]
    probes = pictures.probes[good]
    return probes.reshape(-1, probes.shape[-1]), np.repeat(good.astype(np.int32), PROBES)


def _rows(shard: object, found: Hashed) -> int:
    record = shard.record(found.made)  # type: ignore[attr-defined]
    return int(record.rows) if record is not None else 0


def _families(set_of: np.ndarray, file: np.ndarray, sets: int) -> np.ndarray:
    """The least set that each can be reached from by pictures in common, int32 [sets]."""
    family = np.arange(sets, dtype=np.int32)
    order = np.lexsort((set_of, file))
    same = file[order][1:] == file[order][:-1]
    pairs = np.unique(np.stack([set_of[order][:-1][same], set_of[order][1:][same]], axis=1), axis=0)
    for _ in range(sets):
        for one, other in pairs:
            family[[one, other]] = min(family[one], family[other])
    return family
