"""Sets of pictures as embeddings, the targets of a selection: a folder with `<shard>.npy`, [pictures, width], of each
shard, and `<shard>.npy.json` with what made it; and `targets.json`, which says of which shards there are to be some.

A shard's record is written last: one that has it is whole. `curate/scorers/targets.py` makes such a folder, selections
read it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from poolbench.errors import UserError
from poolbench.files import files_in, write_json

from curate.pool.recorded import RecordedShard, read_as
from curate.pool.scored import Conditions, Identity, Made, Maker, Record, Scores, differences

PLAN = "targets.json"
KINDS = ("float16", "float32")


class Plan(BaseModel):
    """What a folder is to hold.

    Attributes:
        made: what makes all of its embeddings; the option `dtype` is one of KINDS.
        shards: the size of each in bytes, by name.
        tests: sets of which they are evaluation pictures.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    made: Identity
    shards: dict[str, int]
    tests: list[str] = []


class Embedded(NamedTuple):
    """A finished folder: its matrices that have rows, what made them, and the sets whose evaluation pictures it has."""

    paths: list[Path]
    maker: Maker
    tests: list[str]


class EmbeddedShard(RecordedShard):
    """The embeddings of one shard, [pictures, width] of the option `dtype`."""

    suffix = ".npy"

    def _has(self, rows: int) -> bool:
        return len(np.load(self.path, mmap_mode="r" if rows else None, allow_pickle=False)) == rows

    def _save(self, file: IO[bytes], rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        (vectors,) = scores.arrays.values()
        np.save(file, vectors.astype(str(record.conditions.options["dtype"])))


def begin(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Write down what a folder is to hold. Shards may be added to what it has.

    Raises:
        UserError: it holds other embeddings, which would be lost or mixed up with these.
    """
    path = folder / PLAN
    before = read_as(Plan, path) if path.is_file() else None
    if before is None and (foreign := files_in(folder, "*.npy")):
        raise UserError(f"{foreign[0]} was not made by this command; choose another out=")
    if before is not None and not overwrite:
        differ = differences(before.made, plan.made)
        if differ:
            raise UserError(f"{folder} holds targets of another {differ}; choose another out=, or say overwrite=true")
        gone = [name for name, size in before.shards.items() if plan.shards.get(name) != size]
        if gone:
            raise UserError(
                f"{folder} holds targets of {gone[0]}, which shards= does not have, or with another content; choose "
                "another out=, or say overwrite=true"
            )
    if plan != before:
        write_json(path, plan.model_dump(mode="json"))


def finished(folder: Path, what: str) -> Embedded:
    """What is in a folder, all of it.

    Args:
        what: the option that names it.

    Raises:
        UserError: it is no such folder, lacks a shard, or has no picture.
    """
    path = folder / PLAN
    if not path.is_file():
        raise UserError(
            f"{what}={folder} has no {PLAN}; python -m curate.score scorer=targets makes such a folder, and a .npy is "
            "named by itself"
        )
    plan = read_as(Plan, path)
    shards = [EmbeddedShard(folder, name) for name in sorted(plan.shards)]
    made = Made("", (), ())
    records = [shard.record(made) for shard in shards]
    wanted = {name: Conditions(**plan.made.model_dump(), size=size) for name, size in plan.shards.items()}
    missing = [
        shard.name
        for shard, record in zip(shards, records, strict=True)
        if record is None or record.conditions != wanted[shard.name]
    ]
    if missing:
        raise UserError(
            f"{what}={folder} is not finished: {len(missing)} of {len(shards)} shards have no embeddings, the first is "
            f"{missing[0]}; the command that made it makes them"
        )
    whole = [(shard.path, record) for shard, record in zip(shards, records, strict=True) if record and record.rows]
    if not whole:
        raise UserError(f"{what}={folder} holds no embedding: no picture of its shards could be used")
    return Embedded([npy for npy, _ in whole], Maker.of(whole[0][1]), plan.tests)
