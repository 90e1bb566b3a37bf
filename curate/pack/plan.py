"""What is packed, decided once and written down: the rows of the source, and which of them are whose shard."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line
from poolbench.files import atomic, claimed, json_line, read_json, read_lines, write_json
from poolbench.text import one_line

from curate.pack.guess import layout_of
from curate.pack.layouts import Layout, told
from curate.pack.options import PARQUET, PackOptions
from curate.pack.rows import Passed, Rejected, Row, rows_of

WORK = ".pack"  # in the folder of the output
_GROUP = 2_000  # rows of a row group of the plan
_ROWS = pa.schema(
    [
        ("where", pa.string()),
        ("file", pa.binary()),  # names need not be UTF-8
        ("caption", pa.string()),
        ("caption_file", pa.binary()),
        ("url", pa.string()),
    ]
)
_DIFFERENT = ("part", "merge", "workers", "out")  # options that a packing which goes on may have others of


class Held(NamedTuple):
    """A parquet file that holds pictures: its rows, and those of each of its row groups."""

    path: str
    rows: int
    groups: list[int]


class Task(NamedTuple):
    """Consecutive shards that one process makes: those from `first` up to `last`."""

    first: int
    last: int


class Plan(NamedTuple):
    """A packing.

    Attributes:
        work: folder of what is known so far.
        rows: of the source, in all.
        shards: how many there are to be; some may come out empty.
        held: the parquet files, where the source is such.
        captions, decode: as the options say.
        passed: what was passed over, as sentences.
    """

    work: Path
    layout: Layout
    rows: int
    shards: int
    held: list[Held]
    captions: str
    decode: bool
    passed: list[str]

    def bounds(self, shard: int) -> tuple[int, int]:
        """The first row of a shard, and the one behind its last."""
        return self.rows * shard // self.shards, self.rows * (shard + 1) // self.shards

    def shard_of(self, row: int) -> int:
        """The shard of a row."""
        return ((row + 1) * self.shards - 1) // self.rows

    def done(self, shard: int) -> Path:
        """What is known of a finished shard."""
        return self.work / "done" / f"{shard:08d}.json"

    def tasks(self) -> list[Task]:
        """All shards. One that begins within a long row group is made by who makes the one before: a row group can only
        be read from its start."""
        inside = set()
        first = 0
        for held in self.held:
            for rows in held.groups:
                if rows * self.shards > 2 * self.rows:  # longer than two shards
                    inside |= set(range(self.shard_of(first) + 1, self.shard_of(first + rows - 1) + 1))
                first += rows
        firsts = [shard for shard in range(self.shards) if shard not in inside]
        return [Task(*pair) for pair in pairwise([*firsts, self.shards])]


def planned(options: PackOptions, out: Path) -> Plan:
    """The plan of a packing, made where there is none, by one of those that want it.

    Raises:
        UserError: nothing to pack, or the folder is of another packing.
    """
    work = out / WORK
    path = work / "plan.json"
    if options.merge is not None and not path.exists():
        raise UserError(f"out={out}: no packing was begun there; start its parts, or leave merge= out")
    with claimed(work / "planning", wait=24 * 3600):
        if not path.exists():
            _check_empty(out)
            write_json(path, _made(options, work))
        found = read_json(path)
    before = found["options"]
    for key, value in _described(options).items():
        if before.get(key) != value:
            raise UserError(f"out={out} was begun with {key}={before.get(key)}, not {value}; choose another folder")
    for file, stamp in found["stamps"].items():
        if stamp != _stamp(file):
            raise UserError(f"{file} has changed since out={out} was begun; choose another folder")
    layout = Layout(**{**found["layout"], "files": tuple(found["layout"]["files"])})
    held = [Held(*one) for one in found["held"]]
    rows, shards = found["rows"], found["shards"]
    return Plan(work, layout, rows, shards, held, options.captions, options.decode, found["passed"])


def rejected_in(plan: Plan) -> list[Rejected]:
    """What did not become a row."""
    return [Rejected(*one) for one in read_lines(plan.work / "rejected.jsonl")]


def rows_from(plan: Plan, start: int, stop: int) -> Iterator[tuple[int, Row]]:
    """Rows of the plan with their numbers; of a plan of pictures in files of their own."""
    with pq.ParquetFile(plan.work / "rows.parquet") as file:
        groups = range(start // _GROUP, -(-stop // _GROUP))
        number = groups.start * _GROUP
        for batch in file.iter_batches(_GROUP, row_groups=list(groups), use_threads=False):
            for record in batch.to_pylist():
                if start <= number < stop:
                    yield number, _row(record)
                number += 1


def _row(record: Mapping[str, Any]) -> Row:
    files = {name: record[name] and os.fsdecode(record[name]) for name in ("file", "caption_file")}
    return Row(**{**record, **files})


def _described(options: PackOptions) -> dict[str, Any]:
    """The options on which the output depends."""
    every = asdict(options)
    return {key.removesuffix("_"): value for key, value in every.items() if key not in _DIFFERENT}


def _check_empty(out: Path) -> None:
    found = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if found:
        raise UserError(f"out={out} holds {found[0]}, and no packing was begun there; choose another folder")


def _made(options: PackOptions, work: Path) -> dict[str, Any]:
    """What plan.json holds; the rows and what did not become one are written beside it."""
    layout = layout_of(options)
    print(told(layout), flush=True)
    passed = Passed()
    stamps = {file: _stamp(file) for file in layout.files}
    if layout.kind == PARQUET:
        held, rejected = [_held(path) for path in layout.files], 0
        rows = sum(one.rows for one in held)
    else:
        held, (rows, rejected) = [], _write_rows(rows_of(layout, options.captions, passed), work)
    if not rows:
        raise UserError(f"from={options.from_}: none of its {rejected:,} rows can be used" + _why(work))
    said = (
        [f"{passed.captions:,} further captions of pictures are not used (captions=first)"] if passed.captions else []
    )
    if passed.files:
        kinds = ", ".join(f"{one_line(suffix)} {count:,}" for suffix, count in passed.files.most_common())
        said.append(f"{passed.files.total():,} files are neither pictures nor .txt: {kinds}")
    return {
        "options": _described(options),
        "layout": layout._asdict(),
        "stamps": stamps,
        "rows": rows,
        "shards": -(-rows // options.shard_size),
        "held": held,
        "passed": said,
    }


def _why(work: Path) -> str:
    first = next(iter(read_lines(work / "rejected.jsonl")), None)
    return f"; the first is {Rejected(*first).where}: {Rejected(*first).reason}" if first else ""


def _write_rows(found: Iterator[Row | Rejected], work: Path) -> tuple[int, int]:
    """Write the rows and what was rejected; how many of both there are."""
    rows = rejected = 0
    group: list[Row] = []
    with (
        atomic(work / "rows.parquet", "wb") as file,
        atomic(work / "rejected.jsonl") as refused,
        pq.ParquetWriter(file, _ROWS) as writer,
    ):
        for one in found:
            if isinstance(one, Rejected):
                refused.write(json_line(one))
                rejected += 1
                continue
            group.append(one)
            rows += 1
            if len(group) == _GROUP:
                writer.write_table(_table(group))
                group = []
        if group:
            writer.write_table(_table(group))
    return rows, rejected


def _table(group: Sequence[Row]) -> pa.Table:
    records = []
    for row in group:
        files = {
            name: value and os.fsencode(value) for name in ("file", "caption_file") for value in [getattr(row, name)]
        }
        records.append({**row._asdict(), **files})
    return pa.Table.from_pylist(records, _ROWS)


def _held(path: str) -> Held:
    try:
        with pq.ParquetFile(path) as file:
            meta = file.metadata
            groups = [meta.row_group(group).num_rows for group in range(meta.num_row_groups)]
            return Held(path, meta.num_rows, groups)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a parquet file: {first_line(error)}") from None


def _stamp(file: str) -> list[int]:
    try:
        status = Path(file).stat()
    except FileNotFoundError:
        raise UserError(f"{file} is not there any more, and is not packed yet; bring it back") from None
    return [status.st_size, status.st_mtime_ns]
