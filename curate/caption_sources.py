"""Captions that a captioner wrote, one or several a picture: of parquet, CSV, JSON lines, or the .json of shards."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line, nearest
from poolbench.files import digest_file, files_in, once
from poolbench.shards.samples import Problem, read_record, read_shard
from poolbench.shards.sources import resolve

from curate.pool.tables import kinds_of, rows_of_table

_ROWS = 2**16  # rows of a piece
_TABLES = ("*.parquet", "*.csv", "*.jsonl")
_SHOWN = 40  # characters of a value that is none
_BYTES = 200  # of a row, roughly, whatever it is kept in


class Captioned(NamedTuple):
    """Some rows: the uids or keys by which pictures are found, and the captions of each, None where it has none."""

    names: pa.ChunkedArray
    captions: list[list[str] | None]


class Source(NamedTuple):
    """Where captions are.

    Attributes:
        tables, shards: files of either kind.
        by: the column, or field, of the names; of shards `key` is the webdataset key.
        columns: those of the captions: of texts, or of lists of texts.
        digest: of tables their content's, of shards that of their names and sizes.
    """

    tables: list[Path]
    shards: list[str]
    by: str
    columns: list[str]
    digest: list[str]

    def rows(self) -> int:
        """About how many there are.

        Raises:
            UserError: a table cannot be read.
        """
        known = sum(_rows_in(path) for path in self.tables if path.suffix == ".parquet")
        others = [path for path in [*self.tables, *map(Path, self.shards)] if path.suffix != ".parquet"]
        return known + sum(path.stat().st_size // _BYTES for path in others if path.is_file())

    def pieces(self) -> Iterator[Captioned | Problem]:
        """The rows, and what of shards cannot be read.

        Raises:
            UserError: a table cannot be read, lacks a column, or holds something else.
        """
        readers = {".parquet": self._rows, ".csv": self._rows, ".jsonl": self._json_lines}
        for path in self.tables:
            try:
                yield from readers[path.suffix](path)
            except UserError:
                raise
            except (OSError, ValueError, pa.ArrowException) as error:
                raise UserError(f"{path} cannot be read: {first_line(error)}") from None
        for shard in self.shards:
            yield from self._shard(shard)

    def _rows(self, path: Path) -> Iterator[Captioned]:
        known, wanted = kinds_of(path), [self.by, *self.columns]
        for name in wanted:
            if name not in known:
                raise UserError(f"{path} has no column {name!r}; {nearest(name, known)}")
        for table in rows_of_table(path, wanted, dict.fromkeys(wanted, pa.string()), nulls=[""]):
            columns = [[_texts(value, name) for value in table[name].to_pylist()] for name in self.columns]
            yield Captioned(table[self.by], _together(columns))

    def _json_lines(self, path: Path) -> Iterator[Captioned]:
        with path.open("rb") as stream:
            numbered = enumerate(stream, 1)
            while lines := list(itertools.islice(numbered, _ROWS)):
                rows = []
                for number, line in lines:
                    if not line.strip():
                        continue
                    try:
                        rows.append(json.loads(line, object_pairs_hook=once))
                    except (ValueError, RecursionError) as error:
                        raise UserError(f"{path} cannot be read: line {number}: {first_line(error)}") from None
                    if not isinstance(rows[-1], dict) or self.by not in rows[-1]:
                        raise UserError(f"{path}, line {number}: no object with {self.by!r}")
                texts = (row[self.by] for row in rows)  # what is no text is no name, too
                names = pa.chunked_array(
                    [pa.array([one if isinstance(one, str) else None for one in texts], pa.string())]
                )
                columns = [[_texts(row.get(name), name) for row in rows] for name in self.columns]
                yield Captioned(names, _together(columns))

    def _shard(self, shard: str) -> Iterator[Captioned | Problem]:
        names: list[str] = []
        captions: list[list[str] | None] = []
        for sample in read_shard(shard):
            if isinstance(sample, Problem):
                yield sample
                continue
            try:
                record = read_record(sample.members.get("json"))
                found = [_texts(record.get(name), name) for name in self.columns]
            except ValueError as error:
                yield Problem(shard, sample.key, str(error))
                continue
            names.append(sample.key if self.by == "key" else record["uid"])
            captions.append(_together([[one] for one in found])[0])
        yield Captioned(pa.chunked_array([pa.array(names, pa.string())]), captions)


def source_of(path: str, by: str, columns: str | list[str]) -> Source:
    """The tables, or else the shards, that a path names.

    Raises:
        UserError: neither is there.
    """
    place, wanted = Path(path), [columns] if isinstance(columns, str) else columns
    tables = [file for pattern in _TABLES for file in files_in(place, pattern)] if place.is_dir() else []
    if place.is_file() and any(place.match(pattern) for pattern in _TABLES):
        tables = [place]
    if tables:
        return Source(sorted(tables), [], by, wanted, [digest_file(one) for one in sorted(tables)])
    try:
        found = resolve(path)
    except UserError as error:
        told = str(error).removeprefix(f"data={path}").lstrip(":").strip()
        raise UserError(f"import={path}: no parquet, CSV, .jsonl or .tar file there ({told})") from None
    return Source([], [shard.path for shard in found.shards], by, wanted, [found.digest])


def _rows_in(path: Path) -> int:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None


def _together(columns: Sequence[Sequence[list[str] | None]]) -> list[list[str] | None]:
    """Of each row the captions of all columns; None where no column has any."""
    rows = ([one for found in row if found for one in found] for row in zip(*columns, strict=True))
    return [row or None for row in rows]


def _texts(value: Any, name: str) -> list[str] | None:
    """A text or a list of texts as a list; what is missing in it is left out.

    Raises:
        ValueError: it is something else.
    """
    if value is None:
        return None
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(one is None or isinstance(one, str) for one in found):
        held = repr(value)
        held = held if len(held) <= _SHOWN else f"{held[:_SHOWN]}…"
        raise ValueError(f"{name!r} holds {held}, neither a text nor a list of texts")
    # JSON can spell a lone surrogate, which is no text that a model reads.
    return [one.encode("utf-8", "replace").decode() for one in found if one is not None]
