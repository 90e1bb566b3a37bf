"""Samples that an earlier shard has, too: found among all uids, in bounded memory, and taken out."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line
from poolbench.files import atomic
from poolbench.shards.members import read_members
from poolbench.shards.samples import split_name
from poolbench.uids import Uids, find, from_texts, mapped, pieces, uid_text

from curate.pack.embedded import where_of
from curate.pack.options import PARQUET
from curate.pack.plan import Plan, rows_from
from curate.pack.rows import Rejected
from curate.pack.shard import Done, done_of, duplicate_of, paths_of, write_done, write_rows, write_sample
from curate.pool.merge import RunWriter, merge, runs_in
from curate.reshard.tars import END

_MEMORY = 2**28  # bytes, for the uids that are sorted at a time


class Repeats(NamedTuple):
    """What a shard has that earlier ones have: uid -> the key of the first sample that has it."""

    shard: int
    first: dict[str, str]


def write_uids(plan: Plan, path: Path) -> int:
    """Write the uids of all shards as a subset file; how many they are."""
    runs = path.with_name(f".{path.name}.runs")
    try:
        with runs.open("wb") as file:
            writer = RunWriter(file)
            for _, uids, _ in _samples(plan):
                writer.add(uids)
            writer.end()
        return merge(runs_in(runs, writer.lengths), path, _MEMORY)
    finally:
        runs.unlink(missing_ok=True)


def repeats(plan: Plan, path: Path) -> list[Repeats]:
    """What has to be taken out of which shards.

    Args:
        path: the uids, see `write_uids`.
    """
    twice = _twice(path)
    if not len(twice):
        return []
    first: dict[str, str] = {}
    found = []
    for shard, uids, keys in _samples(plan):
        _, times = find(twice, uids)
        here: dict[str, str] = {}
        for place in np.flatnonzero(times).tolist():
            uid = uid_text(uids[place])
            if uid in first:
                here[uid] = first[uid]
            else:
                first[uid] = keys[place]
        if here:
            found.append(Repeats(shard, here))
    return found


def take_out(some: Repeats, plan: Plan) -> None:
    """Write a shard anew without the samples that earlier ones have. Killed in the middle, it is made anew.

    Raises:
        UserError: the shard cannot be read.
    """
    tar, parquet = paths_of(plan, some.shard)
    done = done_of(plan, some.shard)
    assert done is not None
    table = pq.read_table(parquet)
    kept = [uid not in some.first for uid in table["uid"].to_pylist()]
    dropped = table.filter(pa.array([not one for one in kept])).select(["key", "uid"]).to_pylist()
    rejected = [_rejected(plan, one["key"], some.first[one["uid"]]) for one in dropped]
    plan.done(some.shard).unlink()
    samples = sum(kept)
    if samples:
        _copy_without(tar, {one["key"] for one in dropped})
        write_rows(parquet, table.filter(pa.array(kept)))
    else:
        tar.unlink()
        parquet.unlink()
    size = tar.stat().st_size if samples else 0
    write_done(plan, some.shard, Done(samples, size, [*done.rejected, *rejected]))


def _copy_without(tar: Path, keys: set[str]) -> None:
    try:
        with tar.open("rb") as source, atomic(tar, "wb") as target:
            for name, data in read_members(source):
                key, extension = split_name(name)
                if key not in keys:
                    write_sample(target, key, {extension: data or b""})
            target.write(END)
    except tarfile.TarError as error:
        raise UserError(f"{tar} is damaged: {first_line(error)}; delete it, and it is made anew") from None


def _rejected(plan: Plan, key: str, first: str) -> Rejected:
    """How a sample that is left out is told."""
    row, before = (int(one.partition("-")[0]) for one in (key, first))
    if plan.layout.kind == PARQUET:
        return Rejected(row, where_of(plan, row), "", duplicate_of(where_of(plan, before)))
    own, other = (next(rows_from(plan, one, one + 1))[1] for one in (row, before))
    name = os.fsencode(own.file).decode(errors="backslashreplace")
    return Rejected(row, own.where, name, duplicate_of(other.where))


def _samples(plan: Plan) -> Iterator[tuple[int, Uids, list[str]]]:
    """Of each shard that has samples its uids and keys, in the order of the rows.

    Raises:
        UserError: its metadata cannot be read.
    """
    for shard in range(plan.shards):
        parquet = paths_of(plan, shard)[1]
        if not parquet.exists():
            continue
        try:
            table = pq.read_table(parquet, columns=["uid", "key"])
            yield shard, from_texts(table["uid"].to_pylist()), table["key"].to_pylist()
        except (OSError, ValueError, pa.ArrowException) as error:
            raise UserError(f"{parquet} cannot be read: {first_line(error)}; delete it, and it is made anew") from None


def _twice(path: Path) -> Uids:
    """The uids that a subset file holds more than once, sorted, each once."""
    found = [piece.uids[~piece.new] for piece in pieces(mapped(path))]
    every: Uids = np.unique(np.concatenate(found))
    return every
