"""Sets of pictures as embeddings, the targets of a selection: a folder with `<shard>.npy`, [pictures, width], of each
shard, and `<shard>.npy.json` with what made it; and `targets.json`, which says of which shards there are to be some.

A shard's record is written last: one that has it is whole. `curate/scorers/targets.py` makes such a folder, selections
read it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from poolbench.errors import UserError
from poolbench.files import atomic, files_in, read_json, write_json
from poolbench.validation import first_refusal

from curate.pool.scored import Conditions, Identity, Made, Maker, Record, Scores, differences

PLAN = "targets.json"
KINDS = ("float16", "float32")

Model = TypeVar("Model", bound=BaseModel)


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


class EmbeddedShard:
    """The two files of one shard.

    Attributes:
        name: of the shard.
        made: how many rows it has and what made them.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.npy = folder / f"{name}.npy"
        self._record = folder / f"{name}.npy.json"

    def __str__(self) -> str:
        return str(self.npy)

    def record(self, made: Made) -> Record | None:
        """How the shard was embedded, None where it was not, or where its rows are gone or cut short."""
        if not self._record.is_file():
            return None
        found = _read(self._record, Record)
        try:
            whole = len(np.load(self.npy, mmap_mode="r" if found.rows else None, allow_pickle=False)) == found.rows
        except (OSError, ValueError, EOFError):
            whole = False
        return found if whole else None

    def in_the_way(self, made: Made, conditions: Conditions) -> str:
        """Nothing: `begin` has looked at the whole folder."""
        return ""

    def same_rows(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Nobody else has put rows there."""
        return True

    def write(self, made: Made, rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        """Write both files. An old record goes first: it must not stand beside new embeddings."""
        self._record.unlink(missing_ok=True)
        (vectors,) = scores.arrays.values()
        with atomic(self.npy, "wb") as file:
            np.save(file, vectors.astype(str(record.conditions.options["dtype"])))
        write_json(self._record, record.model_dump(mode="json"))


def begin(folder: Path, plan: Plan, overwrite: bool) -> None:
    """Write down what a folder is to hold. Shards may be added to what it has.

    Raises:
        UserError: it holds other embeddings, which would be lost or mixed up with these.
    """
    path = folder / PLAN
    before = _read(path, Plan) if path.is_file() else None
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
    plan = _read(path, Plan)
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
    whole = [(shard.npy, record) for shard, record in zip(shards, records, strict=True) if record and record.rows]
    if not whole:
        raise UserError(f"{what}={folder} holds no embedding: no picture of its shards could be used")
    return Embedded([npy for npy, _ in whole], Maker.of(whole[0][1]), plan.tests)


def _read(path: Path, kind: type[Model]) -> Model:
    """
    Raises:
        UserError: it is no JSON, or of another version.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(
            f"{path} is of another version ({first_refusal(error)}); choose another out=, or move the folder away"
        ) from None
