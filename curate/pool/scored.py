"""A shard's scores as pool metadata: `<shard>.parquet` and, row for row, `<shard>.npz`.

What a file was made with is written into the parquet itself, which is written last: one that has the record is whole.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line
from poolbench.files import atomic

SCORE = re.compile(r"clip_([a-z0-9_]+)_similarity_score")
_PUBLISHED = ("clip_b32_similarity_score", "clip_l14_similarity_score")  # columns that every pool has
_RECORDS = b"poolbench.scores"  # in the parquet's metadata: JSON {arch: Record}
_FIELDS = [
    ("uid", pa.string()),
    ("url", pa.string()),
    ("text", pa.string()),
    ("original_width", pa.int64()),
    ("original_height", pa.int64()),
    ("sha256", pa.string()),
]
_SAID = {
    "model": "model",
    "tag": "pretrained tag",
    "sha256": "checkpoint",
    "precision": "precision",
    "size": "content of the shard",
}
_FACES = ("face_bboxes", pa.list_(pa.list_(pa.float64())))


class Conditions(NamedTuple):
    """What the scores of a shard depend on."""

    model: str
    tag: str | None
    sha256: str  # of the weights
    precision: str
    size: int  # bytes of the shard


class Record(NamedTuple):
    """How a shard was scored; `bad` holds (key, reason) of what has no row, an empty key for the shard itself.

    `conventions` are the fields of poolbench.models.conventions.Conventions, what the weights do not tell of their
    model; {} where it was scored before they were recorded.
    """

    conditions: Conditions
    rows: int
    bad: list[tuple[str, str]]
    conventions: Mapping[str, Any] = MappingProxyType({})


class Scores(NamedTuple):
    """Unit vectors of pictures and captions, float32 [n, d], row for row."""

    images: np.ndarray
    texts: np.ndarray

    @property
    def similarity(self) -> np.ndarray:
        """float32 [n]: the dot products of the float32 vectors, not of what the npz keeps of them."""
        products: np.ndarray = np.einsum("nd,nd->n", self.images, self.texts, dtype=np.float32)
        return products


class ScoredShard:
    """The two files of one shard.

    Raises:
        UserError: the parquet cannot be read.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.parquet = folder / f"{name}.parquet"
        self.npz = folder / f"{name}.npz"

    def record(self, arch: str) -> Record | None:
        """How the shard was scored before, None where it was not, or where the npz is gone or cut short."""
        found = _records(self.parquet).get(arch)
        if found is None or not {f"{arch}_img", f"{arch}_txt"} <= _names(self.npz):
            return None
        bad = [(key, why) for key, why in found["bad"]]
        return Record(Conditions(**found["conditions"]), found["rows"], bad, found.get("conventions", {}))

    def in_the_way(self, arch: str, conditions: Conditions) -> str:
        """What other scores of `arch` the files hold, "" where there are none that writing would replace."""
        found = _records(self.parquet).get(arch)
        if found is not None:
            before = Conditions(**found["conditions"])
            differ = [name for name in before._fields if getattr(before, name) != getattr(conditions, name)]
            return f"scores of another {' and '.join(_SAID[name] for name in differ)}" if differ else ""
        column = _column(arch)
        if self.parquet.exists() and column in _schema(self.parquet).names:
            stored = pq.read_table(self.parquet, columns=[column])[column]
            if stored.null_count < len(stored):
                return f"a column {column} that was not made here"
        return f"an array {arch}_img that was not made here" if self._has_foreign(arch) else ""

    def same_rows(self, uids: Sequence[str]) -> bool:
        """Whether the files that are there, if any, are of these samples in this order."""
        if not self.parquet.exists():
            return True
        if "uid" not in _schema(self.parquet).names:
            return False
        return bool(pq.read_table(self.parquet, columns=["uid"])["uid"].to_pylist() == list(uids))

    def write(self, arch: str, rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        """Write both files; columns and arrays of other architectures stay where they are of the same samples."""
        kept = self.parquet.exists() and self.same_rows([row["uid"] for row in rows])
        if arch in _records(self.parquet):
            self._forget(arch)
        records = _records(self.parquet) if kept else {}
        arrays = self._arrays() if kept else {}
        arrays[f"{arch}_img"], arrays[f"{arch}_txt"] = (part.astype(np.float16) for part in scores)
        with atomic(self.npz, "wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy types the flag allow_pickle as any keyword
        table = _with_scores(pq.read_table(self.parquet) if kept else _table(rows), arch, scores.similarity)
        self._replace(table, {**records, arch: _plain(record)})

    def _has_foreign(self, arch: str) -> bool:
        """Whether the npz has vectors of `arch` that no crash of ours explains: with a parquet that is not ours."""
        return self.parquet.exists() and not is_scored(self.parquet) and f"{arch}_img" in _names(self.npz)

    def _arrays(self) -> dict[str, np.ndarray]:
        if not _names(self.npz):
            return {}
        with np.load(self.npz, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}

    def _forget(self, arch: str) -> None:
        """Take scores and record out before the npz changes: a crash between the two must not leave old scores beside
        new vectors."""
        records = {name: record for name, record in _records(self.parquet).items() if name != arch}
        table = pq.read_table(self.parquet)
        column = pa.nulls(len(table), pa.float32())
        self._replace(table.set_column(table.column_names.index(_column(arch)), _column(arch), column), records)

    def _replace(self, table: pa.Table, records: Mapping[str, Any]) -> None:
        metadata = {**(table.schema.metadata or {}), _RECORDS: json.dumps(records, sort_keys=True).encode()}
        with atomic(self.parquet, "wb") as file:
            pq.write_table(table.replace_schema_metadata(metadata), file)


def _plain(record: Record) -> dict[str, Any]:
    return {
        **record._asdict(),
        "conditions": record.conditions._asdict(),
        "conventions": dict(record.conventions),
    }


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
    carried = sorted({name for row in rows for name in row if SCORE.fullmatch(name)} | set(_PUBLISHED))
    schema = pa.schema([*_FIELDS, *((name, pa.float32()) for name in carried), _FACES])
    return pa.table({name: [row.get(name) for row in rows] for name in schema.names}, schema=schema)


def _with_scores(table: pa.Table, arch: str, similarity: np.ndarray) -> pa.Table:
    """The table with the scores in their column, a new one before the faces where there is none."""
    names, values = table.column_names, pa.array(similarity, pa.float32())
    if _column(arch) in names:
        return table.set_column(names.index(_column(arch)), _column(arch), values)
    return table.add_column(names.index(_FACES[0]) if _FACES[0] in names else len(names), _column(arch), values)


def _column(arch: str) -> str:
    return f"clip_{arch}_similarity_score"


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
