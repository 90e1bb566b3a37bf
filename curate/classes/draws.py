"""Which pictures are drawn: of each set those whose uids have the least hashes, no picture and no uid twice.

The order in which a set's samples come depends on the seed, the draw, the set's name and their uids, and on nothing
else: not on shards, not on workers. A sample without a uid is known by its key.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import digest_json
from poolbench.shards.samples import Problem, Reasons, Sample, read_shard
from poolbench.shards.sources import Shard
from poolbench.uids import DTYPE, from_digits, is_uid, split_uid

from curate.classes.sets import DataSet
from curate.pool.files import File, read, schema_of
from curate.pool.hashes import hashed
from curate.pool.passes import Passes

CANDIDATE = np.dtype([("uid", DTYPE), ("digest", DTYPE)])  # of a sample, and of its picture's bytes
_ORDERED = np.dtype([("hash", "u8"), ("row", CANDIDATE)])
MORE = 4  # times as many candidates are looked at where they do not suffice


class Found(NamedTuple):
    """The candidates of one shard or file.

    Attributes:
        rows: CANDIDATE [n].
        by_key: how many of them have no uid.
        bad: what is wrong with samples that are none.
        whole: whether it could be read to its end.
    """

    rows: np.ndarray
    by_key: int
    bad: Reasons
    whole: bool


class Listing(NamedTuple):
    """The candidates of a set.

    Attributes:
        samples: how many it has.
        orders: for each draw the first of them in its order, CANDIDATE [n].
        whole: whether these are all that there are.
        by_key: how many have no uid.
        notes: what had to be left out.
    """

    samples: int
    orders: list[np.ndarray]
    whole: bool
    by_key: int
    notes: list[str]


def seed_of(*words: str | int) -> int:
    """A seed that looks random, of words and numbers."""
    return int(digest_json(list(words))[:16], 16)


def listing(passes: Passes, of: DataSet, seed: int, draws: int, limit: int) -> Listing:
    """Read a whole set once; of each draw no more than the first `limit` candidates are kept.

    Raises:
        UserError: it has none.
    """
    seeds = [seed_of(seed, draw, of.name) for draw in range(draws)]
    kept = [np.empty(0, _ORDERED) for _ in seeds]
    samples, by_key, bad, cut = 0, 0, Reasons(), 0
    made = passes.gathered(candidates, of.items, of._replace(items=()))
    for found in tqdm(made, f"listing {of.name}", len(of.items), unit="file", disable=None, leave=False):
        samples, by_key, cut = samples + len(found.rows), by_key + found.by_key, cut + (not found.whole)
        bad.update(found.bad)
        kept = [_first(before, found.rows, one, limit, slack=limit) for before, one in zip(kept, seeds, strict=True)]
    notes = [f"left out of {of.name}{bad.commonest()}"] if bad else []
    if cut:
        notes.append(f"{cut:,} of {len(of.items):,} files of {of.name} could not be read to their end")
    if not samples:
        narrowed = " that its subset files leave" if of.subset or of.without else ""
        raise UserError(f"the set {of.name!r} has no sample{narrowed}{bad.commonest()}")
    orders = [_first(one, np.empty(0, CANDIDATE), 0, limit)["row"] for one in kept]
    return Listing(samples, orders, samples <= limit, by_key, notes)


def _first(before: np.ndarray, rows: np.ndarray, seed: int, limit: int, slack: int = 0) -> np.ndarray:
    """The first `limit` of some ordered rows and others, in order; up to `slack` more in any order."""
    new = np.empty(len(rows), _ORDERED)
    new["hash"], new["row"] = hashed(rows["uid"], seed), rows
    joined = np.concatenate([before, new])
    if slack and len(joined) <= limit + slack:
        return joined
    order = np.lexsort((joined["row"]["digest"]["f1"], joined["row"]["digest"]["f0"], joined["hash"]))
    return joined[order[:limit]]


def fresh(order: np.ndarray, taken: Sequence[np.ndarray]) -> np.ndarray:
    """The candidates of an order that repeat neither an earlier one nor one that was taken, be it by uid or picture.

    They are compared by hashes of 64 bits: of six million candidates two of different uids are taken for the same once
    in a million times, and one of them is passed over then.
    """
    good = np.ones(len(order), bool)
    for name in ("uid", "digest"):
        keys = hashed(order[name], 0)
        first = np.zeros(len(order), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        good &= first
        for other in taken:
            good &= ~np.isin(keys, hashed(other[name], 0))
    return order[good]


def candidates(item: Shard | File, of: DataSet) -> Found:
    """The candidates in a shard or in a file of metadata, those that the set's subset files leave.

    Raises:
        BadFile: a file of metadata cannot be read.
    """
    return _in_file(item, of) if isinstance(item, File) else _in_shard(item, of)


def _in_shard(shard: Shard, of: DataSet) -> Found:
    rows, by_key, bad, whole = [], [], Reasons(), True
    for sample in read_shard(shard.path, shard.size):
        try:
            if isinstance(sample, Problem):
                bad.add(sample)
                whole = whole and bool(sample.key)
                continue
            uid, has_uid = identity(sample)
            if not has_uid and (of.subset or of.without):
                raise ValueError("no uid, by which a subset file would name it")
            rows.append((uid, digest_of(sample.picture())))
            by_key.append(not has_uid)
        except ValueError as error:
            bad.add(Problem(shard.name, sample.key, str(error)))
    found = np.array(rows, CANDIDATE) if rows else np.empty(0, CANDIDATE)
    kept = _belonging(found["uid"], of)
    return Found(found[kept], int(np.array(by_key, bool)[kept].sum()), bad, whole)


def _in_file(file: File, of: DataSet) -> Found:
    """Pictures are told apart by the column sha256, where there is one."""
    columns = [name for name in ("sha256",) if name in schema_of(file).names]
    pieces, bad = [np.empty(0, CANDIDATE)], Reasons()
    for rows in read(file, columns):
        for wrong in rows.malformed:
            bad.add(Problem(file.name, "", f"malformed uid: {wrong}"))
        found = np.empty(len(rows.arrays["uid"]), CANDIDATE)
        found["uid"] = found["digest"] = rows.arrays["uid"]
        if columns:
            digests: list[str | None] = rows.table["sha256"].cast(pa.string()).to_pylist()
            texts = [(digest or "")[:32] for digest in digests]
            usable = np.array([is_uid(text) for text in texts], bool)
            found["digest"][usable] = from_digits("".join(text for text in texts if is_uid(text)))
        pieces.append(found[_belonging(found["uid"], of)])
    return Found(np.concatenate(pieces), 0, bad, True)


def _belonging(uids: np.ndarray, of: DataSet) -> np.ndarray:
    """Which uids are of the set, bool [n]."""
    kept = np.ones(len(uids), bool)
    if of.subset is not None and len(uids):
        kept &= of.subset.find(uids)[1] > 0
    if of.without is not None and len(uids):
        kept &= of.without.find(uids)[1] == 0
    return kept


def identity(sample: Sample) -> tuple[tuple[int, int], bool]:
    """The halves of a sample's uid, or of a digest of its key; and whether it is a uid."""
    try:
        return split_uid(sample.record()["uid"]), True
    except ValueError:
        return digest_of(sample.key.encode(errors="surrogateescape")), False


def digest_of(data: bytes) -> tuple[int, int]:
    """Two halves of 128 bits of BLAKE2b."""
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:], "big")
