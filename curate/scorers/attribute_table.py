"""A table of attributes by uid, for `attributes=` of an audit, of what was asked of pictures shard by shard."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError
from poolbench.files import atomic

from curate.pool.scored import Conditions, Record, ScoredShard, metadata_of
from curate.scorers.attributes import Attributes, Options
from curate.scorers.base import Part

if TYPE_CHECKING:  # see base.py
    from poolbench.shards.samples import Sample

KEY = b"poolbench.attributes"  # in the table's metadata: JSON of what made each attribute


def uid_and_faces(sample: "Sample") -> dict[str, Any]:
    """Of a sample with a picture what the table needs, whether it has a caption or not.

    Raises:
        ValueError: it lacks a uid.
    """
    record = sample.record()
    return {"uid": record["uid"], "face_bboxes": metadata_of(record)["face_bboxes"]}


class Tabled(Attributes):
    """Attributes that end in a table, as soon as every shard has been looked through, by whichever part is the last."""

    row_of = staticmethod(uid_and_faces)

    def __init__(self, options: Options, table: Path) -> None:
        super().__init__(options)
        self._table = table

    def finish(self, every: Sequence[Part], ours: Sequence[Part]) -> None:
        records = [self._records(part) for part in every]
        missing = sum(record is None for record in records)
        if missing:
            print(
                f"{self._table} is not written yet: {missing:,} of {len(every):,} shards are still to be looked through"
            )
            return
        self._write([_shard(part) for part in every], [record for record in records if record is not None])

    def _records(self, part: Part) -> list[Record] | None:
        """How a shard was looked through for each attribute; None where one is missing."""
        found = []
        for made, identity, *_ in self.products:
            record = part.files.record(made)
            if record is None or record.conditions != Conditions(**identity.model_dump(), size=part.shard.size):
                return None
            found.append(record)
        return found

    def _write(self, shards: Sequence[ScoredShard], records: Sequence[Sequence[Record]]) -> None:
        """Read the shards' columns twice: a column in which no row has a value would stop an audit.

        Raises:
            UserError: none has any.
        """
        values: dict[str, int] = {}
        for _, groups in self._groups(shards):
            for name, column in groups.items():
                values[name] = values.get(name, 0) + len(column) - column.null_count
        empty = [name for name, count in values.items() if not count]
        if len(empty) == len(values):
            raise UserError(
                f"{self._table} is not written: no picture has a value of {', '.join(empty)}; give other shards= or "
                "attributes="
            )
        kinds = {name: column.type for name, column in self._groups_of({}, 0).items() if name not in empty}
        schema = pa.schema(
            {"uid": pa.string(), **kinds}, metadata={KEY: json.dumps(self._told(records), sort_keys=True)}
        )
        with atomic(self._table, "wb") as file, pq.ParquetWriter(file, schema) as writer:
            for uids, groups in self._groups(shards):
                writer.write_table(pa.table({"uid": uids, **{name: groups[name] for name in kinds}}, schema=schema))
        for name in empty:
            print(f"no picture has a value of {name}, which is left out of the table")
        print(f"{self._table}: {sum(one[0].rows for one in records):,} pictures by {', '.join(kinds)}")

    def _groups(self, shards: Sequence[ScoredShard]) -> Iterator[tuple[pa.ChunkedArray, dict[str, pa.Array]]]:
        """The uids of each shard and the groups' columns."""
        wanted = [name for one in self.attributes for name in one.columns]
        for shard in shards:
            table = pq.read_table(shard.parquet, columns=["uid", *wanted])
            columns = {name: table[name].to_numpy(zero_copy_only=False) for name in wanted}
            yield table["uid"], self._groups_of(columns, len(table))

    def _groups_of(self, columns: Mapping[str, np.ndarray], rows: int) -> dict[str, pa.Array]:
        found: dict[str, pa.Array] = {}
        for one in self.attributes:
            none = {name: np.empty(rows, object if name in one.texts else np.float32) for name in one.columns}
            found |= one.groups({**none, **{name: columns[name] for name in one.columns if name in columns}})
        return found

    def _told(self, records: Sequence[Sequence[Record]]) -> dict[str, Any]:
        """What made the table."""
        made = {}
        for place, one in enumerate(self.attributes):
            said = {json.dumps(of[place].conventions, sort_keys=True) for of in records}
            made[one.name] = {**one.identity.model_dump(), "packages": [json.loads(text) for text in sorted(said)]}
        if "faces" in made:
            made["faces"]["gender_confidence"] = self.options.gender_confidence
        left_out = {(number, *bad) for number, of in enumerate(records) for one in of for bad in one.bad}
        return {"attributes": made, "rows": sum(of[0].rows for of in records), "left_out": len(left_out)}


def _shard(part: Part) -> ScoredShard:
    assert isinstance(part.files, ScoredShard)
    return part.files
