"""A shard's scores as pool metadata: `<shard>.parquet` and, row for row, `<shard>.npz`.

This module writes the metadata of shards that were scored, columns.py the columns that are made of a pool's rows,
curate/pack/ the metadata of what it packs, and nothing else in curate writes any: scorers hand their numbers to a
runner (curate/scorers/run.py, rows.py), selectors only read. What a file was made with is written into the parquet
itself, last: one that has the record is whole.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from poolbench.arrow import FACES, OF_SAMPLES, SCORES
from poolbench.errors import UserError, first_line
from poolbench.files import atomic
from poolbench.validation import first_refusal

if TYPE_CHECKING:
    from poolbench.shards.samples import Sample

SCORE = re.compile(r"clip_([a-z0-9_]+)_similarity_score")
_RECORDS = b"poolbench.scores"  # in the parquet's metadata: JSON {name of the scorer's scores: Record}
_SAID = {
    "model": "model",
    "tag": "pretrained tag",
    "sha256": "checkpoint",
    "precision": "precision",
    "options": "options",
    "size": "content of the shard",
}


class Identity(BaseModel):
    """What a scorer's numbers depend on besides the samples.

    Attributes:
        sha256: of the weights.
        options: of the scorer, those that change its numbers; {} where it has none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    tag: str | None
    sha256: str
    precision: str
    options: dict[str, str | float | bool | None] = {}


class Conditions(Identity):
    """What the scores of a shard depend on; `size` is the shard's, in bytes."""

    size: int


class Record(BaseModel):
    """How a shard was scored; `bad` holds (key, reason) of what has no row, an empty key for the shard itself.

    `conventions` are the fields of poolbench.models.conventions.Conventions, what the weights do not tell of their
    model; {} where it was scored before they were recorded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    conditions: Conditions
    rows: int
    bad: list[tuple[str, str]]
    conventions: dict[str, Any] = {}


class Maker(NamedTuple):
    """The model that made embeddings: those of different ones cannot be compared.

    Attributes:
        sha256: of its weights.
        conventions: what the weights do not tell, as JSON; "" where that was not recorded.
    """

    model: str
    sha256: str
    conventions: str

    @classmethod
    def of(cls, record: Record) -> "Maker":
        conventions = json.dumps(record.conventions, sort_keys=True) if record.conventions else ""
        return cls(record.conditions.model, record.conditions.sha256, conventions)

    def __str__(self) -> str:
        return f"{self.model} with weights {self.sha256[:8]}"

    def unlike(self, other: "Maker") -> bool:
        """Whether it is known to be another one."""
        both = {self.conventions, other.conventions} - {""}
        return self.sha256 != other.sha256 or len(both) > 1


class Made(NamedTuple):
    """What is made and recorded at once: columns of the parquet, arrays of the npz, and the name of the record.

    Columns are of float32, but for those that are in `texts`, too.
    """

    name: str
    columns: tuple[str, ...]
    arrays: tuple[str, ...]
    texts: tuple[str, ...] = ()

    def kind(self, column: str) -> pa.DataType:
        """Of the values of a column."""
        return pa.string() if column in self.texts else pa.float32()


class Scores(NamedTuple):
    """What there is of some rows: columns float32 or str [n], arrays float32 [n, d], by name, row for row."""

    columns: dict[str, np.ndarray]
    arrays: dict[str, np.ndarray]


class ScoredShard:
    """The two files of one shard.

    Raises:
        UserError: the parquet cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.parquet = folder / f"{name}.parquet"
        self.npz = folder / f"{name}.npz"

    def __str__(self) -> str:
        return str(self.parquet)

    def record(self, made: Made) -> Record | None:
        """How the shard was scored before, None where it was not, or where the npz is gone or cut short."""
        found = self._recorded(made.name)
        return found if found is not None and set(made.arrays) <= _names(self.npz) else None

    def in_the_way(self, made: Made, conditions: Conditions) -> str:
        """What other scores of this name the files hold, "" where there are none that writing would replace."""
        found = self._recorded(made.name)
        if found is not None:
            differ = differences(found.conditions, conditions)
            return f"scores of another {differ}" if differ else ""
        if not self.parquet.exists():
            return ""
        for column in made.columns:
            if column in _schema(self.parquet).names:
                stored = pq.read_table(self.parquet, columns=[column])[column]
                if stored.null_count < len(stored):
                    return f"a column {column} that was not made here"
        foreign = () if is_scored(self.parquet) else made.arrays  # no crash of ours explains them beside such a parquet
        held = [array for array in foreign if array in _names(self.npz)]
        return f"an array {held[0]} that was not made here" if held else ""

    def same_rows(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the files that are there, if any, are of these samples in this order."""
        if not self.parquet.exists():
            return True
        if "uid" not in _schema(self.parquet).names:
            return False
        return bool(pq.read_table(self.parquet, columns=["uid"])["uid"].to_pylist() == [row["uid"] for row in rows])

    def write(self, made: Made, rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        """Write both files; columns and arrays of other scorers stay where they are of the same samples."""
        kept = self.parquet.exists() and self.same_rows(rows)
        if made.name in _records(self.parquet):
            self._forget(made)
        records = _records(self.parquet) if kept else {}
        if made.arrays or not kept or not self.npz.exists():
            arrays = self._arrays() if kept else {}
            arrays |= {name: scores.arrays[name].astype(np.float16) for name in made.arrays}
            with atomic(self.npz, "wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types the flag allow_pickle as any keyword
        table = pq.read_table(self.parquet) if kept else _table(rows)
        for name in made.columns:
            table = _with_column(table, name, pa.array(scores.columns[name], made.kind(name)))
        plain = record.model_dump(mode="json", exclude_defaults=True)
        self._replace(table, {**records, made.name: plain})

    def _recorded(self, name: str) -> Record | None:
        """
        Raises:
            UserError: a record that this version does not know.
        """
        found = _records(self.parquet).get(name)
        try:
            return None if found is None else Record.model_validate(found)
        except ValidationError as error:
            raise UserError(
                f"{self.parquet}: its record of the scores {name} is of another version ({first_refusal(error)}); "
                "choose another out=, or move it away and the shard is scored again"
            ) from None

    def _arrays(self) -> dict[str, np.ndarray]:
        if not _names(self.npz):
            return {}
        with np.load(self.npz, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def _forget(self, made: Made) -> None:
        """Take scores and record out before the npz changes: a crash between the two must not leave old scores beside
        new vectors."""
        records = {name: record for name, record in _records(self.parquet).items() if name != made.name}
        table = pq.read_table(self.parquet)
        for name in made.columns:
            table = _with_column(table, name, pa.nulls(len(table), made.kind(name)))
        self._replace(table, records)

    def _replace(self, table: pa.Table, records: Mapping[str, Any]) -> None:
        metadata = {**(table.schema.metadata or {}), _RECORDS: json.dumps(records, sort_keys=True).encode()}
        with atomic(self.parquet, "wb") as file:
            pq.write_table(table.replace_schema_metadata(metadata), file)


def differences(found: Identity, wanted: Identity) -> str:
    """In what two differ, as a message says it; "" where they do not."""
    kinds = [said for key, said in _SAID.items() if getattr(found, key, None) != getattr(wanted, key, None)]
    return " and ".join(kinds)


def maker_of(schema: pa.Schema, array: str) -> Maker | None:
    """What made an array of the npz beside a parquet of this schema, None where that is not recorded."""
    records = json.loads((schema.metadata or {}).get(_RECORDS, b"{}"))
    found = records.get(array.removesuffix("_img").removesuffix("_txt"))
    try:
        return None if found is None else Maker.of(Record.model_validate(found))
    except ValidationError:
        return None


def _schema(path: Path) -> pa.Schema:
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path} cannot be read: {first_line(error)}; move it away and the shard is scored again"
        ) from None


def _records(path: Path) -> dict[str, Any]:
    """The records of a parquet, {} where it has none or is not there."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads((_schema(path).metadata or {}).get(_RECORDS, b"{}"))
    return found


def is_scored(path: Path) -> bool:
    """Whether a parquet is one that scoring wrote."""
    return _RECORDS in (_schema(path).metadata or {})


def _names(path: Path) -> set[str]:
    """The arrays of an npz, none where it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return set()


def _table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """The samples' own columns; scores that a pool's .json carry are kept."""
    carried = sorted({name for row in rows for name in row if SCORE.fullmatch(name)} | set(SCORES))
    schema = pa.schema([*OF_SAMPLES, *((name, pa.float32()) for name in carried), FACES])
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def _with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """The table with the values in their column, a new one before the faces where there is none."""
    names = table.column_names
    if name in names:
        return table.set_column(names.index(name), name, values)
    return table.add_column(names.index(FACES[0]) if FACES[0] in names else len(names), name, values)


def row_of(sample: "Sample") -> dict[str, Any]:
    """What pool metadata say of a sample with a picture.

    Raises:
        ValueError: it lacks a uid, a picture or a caption.
    """
    record, _, text = sample.record(), sample.picture(), sample.caption()
    return {**metadata_of(record), "uid": record["uid"], "text": text}


def metadata_of(sample_json: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a sample's .json that pool metadata have; None where a value is of another kind."""
    fields: dict[str, Any] = {name: _text(sample_json.get(name)) for name in ("url", "sha256")}
    fields |= {name: _whole(sample_json.get(name)) for name in ("original_width", "original_height")}
    fields["face_bboxes"] = _boxes(sample_json.get("face_bboxes"))
    for name, value in sample_json.items():
        if SCORE.fullmatch(name):
            fields[name] = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    return fields


def _text(value: Any) -> str | None:
    # JSON can spell a lone surrogate, which is no text that a file can hold.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1
    return int(value) if whole and abs(value) < 2**53 else None


def _boxes(value: Any) -> list[list[float]] | None:
    try:
        return None if value is None else [[float(number) for number in box] for box in value]
    except (TypeError, ValueError):
        return None
