"""The hits: which training sample shows which evaluation picture, and how near the two are."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.files import atomic
from poolbench.uids import DTYPE, Uids, find, uid_text

from curate.overlaps.embedded import Alike
from curate.overlaps.hashing import HashedShard
from curate.overlaps.pictures import Pictures
from curate.overlaps.search import Near
from curate.report.members import Members


class Hit(NamedTuple):
    """A line of hits.csv: bits between the hashes, and the cosine of the embeddings, where it is one by these."""

    uid: str
    shard: str
    set: str
    evaluation_shard: str
    key: str
    distance: int | None
    cosine: float | None

    @property
    def far(self) -> tuple[float, float]:
        """By which hits are ordered: those by hashes first."""
        return (np.inf if self.distance is None else self.distance, -(self.cosine or 0.0))


class Looked(NamedTuple):
    """How many training samples were looked at, and the hits among them."""

    samples: int
    hits: list[Hit]


def hits_of(
    pictures: Pictures,
    shards: Sequence[HashedShard],
    near: Sequence[Near],
    most: int,
    alike: Alike | None,
    subset: Members | None,
) -> Looked:
    """The hits within `most` bits, or by embeddings, among the samples of a subset, or all. What of the subset was met
    is noted there.

    A uid that several samples have counts once for each.
    """
    found: dict[tuple[str, str, int], Hit] = {}
    samples = 0
    order = None if alike is None else np.argsort(alike.uid, order=("f0", "f1"))
    for shard, some in zip(shards, near, strict=True):
        uids = shard.read("uid")
        kept = np.ones(len(uids), bool)
        if subset is not None:
            first, times = subset.find(uids)
            kept = times > 0
            subset.note(first[kept])
        samples += int(kept.sum())
        good = (some.distance <= most) & kept[some.row]
        for row, picture, distance in zip(*(one[good].tolist() for one in some), strict=True):
            _add(found, pictures, uid_text(uids[row]), shard.name, picture, distance=distance)
        if alike is not None and order is not None:
            for row, number in _rows_of(alike, order, uids, kept):
                cosine = float(alike.cosine[number])
                _add(found, pictures, uid_text(uids[row]), shard.name, int(alike.picture[number]), cosine=cosine)
    return Looked(samples, [found[key] for key in sorted(found)])


def _rows_of(alike: Alike, order: np.ndarray, uids: Uids, kept: np.ndarray) -> list[tuple[int, int]]:
    """Which rows of a shard are in which pairs."""
    first, times = find(alike.uid[order], uids)
    rows = np.flatnonzero((times > 0) & kept)
    return [(row, int(order[at])) for row in rows.tolist() for at in range(first[row], first[row] + times[row])]


def _add(
    found: dict[tuple[str, str, int], Hit],
    pictures: Pictures,
    uid: str,
    shard: str,
    picture: int,
    distance: int | None = None,
    cosine: float | None = None,
) -> None:
    """Note a hit; one by both, or of a uid that is there twice, stands once with the nearer of each."""
    before = found.get((uid, shard, picture))
    if before is None:
        set_, tar, key = pictures.place(picture)
        found[uid, shard, picture] = Hit(uid, shard, set_, called(tar), key, distance, cosine)
        return
    distances = [one for one in (before.distance, distance) if one is not None]
    cosines = [one for one in (before.cosine, cosine) if one is not None]
    found[uid, shard, picture] = before._replace(
        distance=min(distances, default=None), cosine=max(cosines, default=None)
    )


def called(tar: Path) -> str:
    """An evaluation set's tar within the folder of sets."""
    return "/".join(tar.parts[-3:])


def tars_by_name(pictures: Pictures) -> Mapping[str, Path]:
    return {called(tar): tar for tar in pictures.shards}


def write_hits(path: Path, hits: Sequence[Hit]) -> None:
    """Write hits.csv. Names that are not UTF-8 are written with JSON's escapes."""
    with atomic(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(Hit._fields)
        for hit in hits:
            table.writerow([_cell(value) for value in hit])


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    return "" if value is None else value


def write_uids(path: Path, hits: Sequence[Hit]) -> int:
    """Write the subset file of the uids that show an evaluation picture, each once, and say how many they are."""
    uids = sorted({hit.uid for hit in hits})
    array = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], DTYPE)
    with atomic(path, "wb") as file:
        np.save(file, array)
    return len(uids)
