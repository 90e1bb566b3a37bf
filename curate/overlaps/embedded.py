"""Which rows of a pool lie near evaluation pictures by their embeddings: all that have a cosine above a threshold.

The search is exact (faiss's `IndexFlatIP`), a block of targets in memory at a time, the pool read once for each block.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from poolbench.errors import UserError

from curate.overlaps.calibrate import Drawn
from curate.overlaps.pictures import Pictures
from curate.pool.embedded import EmbeddedShard, finished
from curate.pool.files import BadFile, File, list_pool, read, schema_of
from curate.pool.scored import Made, Maker, maker_of

_BLOCK = 2**19  # targets in memory at a time, 1 GB of 512 numbers
_ROWS = 2**13  # of the pool that are compared at a time
_ROUNDING, _EQUAL = 1e-6, 0.9995  # float16 leaves two embeddings of one picture more than this
_AT_ONCE = 2**14  # targets that drawn pictures are compared with at a time


class Alike(NamedTuple):
    """Pairs of a uid of the pool, u8,u8, and a picture, int64, with their cosine, float32; [n] each."""

    uid: np.ndarray
    picture: np.ndarray
    cosine: np.ndarray


class Compared(NamedTuple):
    """What the search found.

    Attributes:
        targets: how many evaluation pictures have an embedding.
        rows: of the pool that were compared.
        cosine: from which on two are alike.
        false_positives: the share of drawn pictures that have a picture of another set so near, see calibrate; None
            where none of them has an embedding.
        left_out: why files of the pool, or uids, were left out.
    """

    alike: Alike
    maker: Maker
    targets: int
    rows: int
    cosine: float
    false_positives: float | None
    left_out: list[str]


def compare(
    folder: Path,
    pool: str,
    array: str,
    cosine: float | None,
    most_false: float,
    pictures: Pictures,
    drawn: Drawn,
    threads: int,
) -> Compared:
    """Compare a pool's embeddings with those of evaluation pictures.

    Args:
        cosine: from which on two are alike; None: the least that no more than a share `most_false` of the drawn
            pictures has with one of another set, as far as it can be told from that of equal pictures.

    Raises:
        UserError: embeddings of other pictures than `pictures`, or by another model than the pool's.
    """
    import faiss

    faiss.omp_set_num_threads(threads)
    targets, of_picture, maker = _targets(folder, pictures)
    others = _nearest_others(targets, of_picture, pictures, drawn)
    if cosine is None:
        cosine = least_cosine(others, most_false)
    files = list_pool(pool)
    parts: list[Alike] = []
    wrong: dict[str, str] = {}
    rows = 0
    for start in range(0, len(targets), _BLOCK):
        block, owners = _unit(targets[start : start + _BLOCK]), of_picture[start : start + _BLOCK]
        index = faiss.IndexFlatIP(block.shape[1])
        index.add(block)
        rows = 0
        for uids, vectors in _vectors(files, array, maker, block.shape[1], wrong):
            rows += len(uids)
            limits, found, places = index.range_search(vectors, cosine)
            counts: np.ndarray = np.diff(np.asarray(limits, np.int64))
            row = np.repeat(np.arange(len(uids)), counts)
            parts.append(Alike(uids[row], owners[places], found))
    if not rows:
        raise UserError(f"pool={pool} has no row with {array}: {next(iter(wrong.values()), 'it is empty')}")
    alike = Alike(*(np.concatenate(some) for some in zip(*parts, strict=True)))
    share = float((others >= cosine).mean()) if len(others) else None
    return Compared(alike, maker, len(targets), rows, cosine, share, list(wrong.values()))


def least_cosine(others: np.ndarray, most_false: float) -> float:
    """The least that no more than a share of `others`, float64 [n], reaches; never more than rounding leaves of that of
    equal pictures."""
    if not len(others):
        return _EQUAL
    more = int(most_false * len(others))
    return float(min(np.sort(others)[::-1][more] + _ROUNDING, _EQUAL))


def _targets(folder: Path, pictures: Pictures) -> tuple[np.ndarray, np.ndarray, Maker]:
    """All embeddings of a folder, float16 or float32 [n, width], and which picture each is of, int64 [n]."""
    found = finished(folder, "embeddings")
    starts = {_called(tar): int(start) for tar, start in zip(pictures.shards, pictures.starts, strict=True)}
    ends = dict(zip(starts, [*pictures.starts[1:].tolist(), len(pictures.names)], strict=True))
    matrices, owners = [], []
    for path in found.paths:
        name = path.name.removesuffix(".npy")
        if name not in starts:
            raise UserError(f"embeddings={folder} has {name}, which is no test/ of a set of data=")
        record = EmbeddedShard(folder, name).record(Made("", (), ()))
        assert record is not None
        bad = {key for key, _ in record.bad}
        mine = [place for place in range(starts[name], ends[name]) if pictures.names[place] not in bad]
        if len(mine) != record.rows:
            raise UserError(f"embeddings={folder}: {name} has {record.rows:,} rows, and data= {len(mine):,} pictures")
        matrices.append(np.load(path, mmap_mode="r"))
        owners.append(np.array(mine, np.int64))
    return np.concatenate(matrices), np.concatenate(owners), found.maker


def _called(tar: Path) -> str:
    """How `curate.score scorer=targets` calls a shard's files."""
    return "_".join(tar.absolute().parts[-3:]).removesuffix(".tar")


def _vectors(
    files: Sequence[File], array: str, maker: Maker, width: int, wrong: dict[str, str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The uids and unit vectors of the pool, some at a time; files that cannot be used are noted.

    Raises:
        UserError: another model made them.
    """
    for file in files:
        try:
            made = maker_of(schema_of(file), array)
            if made is not None and made.unlike(maker):
                raise UserError(f"{file.path}: {array} was made by {made}, embeddings= by {maker}")
            for rows in read(file, (), [array]):
                if rows.malformed:
                    wrong[f"{file.name} uid"] = f"{file.path}: {rows.malformed[0]} is no uid"
                vectors = rows.arrays[array]
                if vectors.ndim != 2 or vectors.shape[1] != width:
                    raise UserError(f"{file.arrays}: {array} is {list(vectors.shape)}, embeddings= has {width} columns")
                for start in range(0, len(vectors), _ROWS):
                    yield rows.arrays["uid"][start : start + _ROWS], _unit(vectors[start : start + _ROWS])
        except BadFile as error:
            wrong[file.name] = str(error)


def _nearest_others(targets: np.ndarray, of_picture: np.ndarray, pictures: Pictures, drawn: Drawn) -> np.ndarray:
    """The largest cosine of each drawn picture's embedding to one of another set, float64 [m]; of those that have an
    embedding. What another set is, see calibrate.nearest_others."""
    place = np.full(len(pictures.names), -1)
    place[of_picture] = np.arange(len(of_picture))
    asked = drawn.pictures[place[drawn.pictures] >= 0]
    vectors = _unit(targets[place[asked]])
    several = len(np.unique(pictures.family)) > 1
    kind = pictures.family[pictures.set_of] if several else pictures.content
    best = np.full(len(asked), -1.0)
    for start in range(0, len(targets), _AT_ONCE):
        same = kind[asked][:, None] == kind[of_picture[start : start + _AT_ONCE]][None]
        cosines = np.where(same, -1.0, vectors @ _unit(targets[start : start + _AT_ONCE]).T)
        best = np.maximum(best, cosines.max(axis=1))
    return best


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Of length 1, float32; those of no length stay so."""
    found = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: np.ndarray = np.ascontiguousarray(found / np.where(lengths > 0, lengths, 1))
    return unit
