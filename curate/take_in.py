"""Columns that others made of a pool, as parquet or CSV: read in any order, written row for row with its files."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, nearest
from poolbench.files import cache, digest_file, digest_json, files_in
from poolbench.shards.samples import Problem
from poolbench.text import one_line
from poolbench.uids import DTYPE, Uids

from curate.caption_sources import Source, source_of
from curate.models.sentences import check_packages
from curate.pool.files import parse_uids
from curate.pool.joined import (
    Counts,
    Table,
    kind_of,
    look_up,
    names_of_texts,
    open_table,
    rows_of,
    scattered,
    write_table,
)
from curate.pool.joined_texts import write_texts
from curate.pool.passes import Passes
from curate.pool.places import is_remote
from curate.pool.tables import kinds_of, rows_of_table
from curate.pool.work import work_folder
from curate.scorers.captioned import CaptionSimilarity
from curate.scorers.imported import KEY, UID, Imported, matched
from curate.scorers.rows import columns_folder, score_columns

_LINE = 40  # bytes of a line of CSV, at least: it has a uid and a number
_ROWS = 2**16


class Taking(NamedTuple):
    """What is imported, as the options of curate.columns have it; of captions, `device` is cpu or cuda."""

    path: str
    name: str
    by: str
    keys: str | None
    take: str | list[str] | None
    command: str
    captions: str | list[str] | None = None
    device: str = "cpu"


class Read:
    """Counts of what an import's files hold, while they are read."""

    def __init__(self) -> None:
        self.rows = self.malformed = self.unknown = self.without = self.unreadable = self.too_large = 0
        self.example = self.problem = ""


# Writes a table into a folder, and gives what finds its rows, and what the table holds.
Writer = Callable[[Path, Read], tuple[Imported, Counts]]


def take_in(passes: Passes, taking: Taking) -> None:
    """Write an import as columns of the pool, and say what of both belongs together.

    Raises:
        UserError: wrong options, a file that cannot be read, or a column that holds no numbers.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", taking.name):
        raise UserError(f"name={taking.name}: name the folder of the new columns, in letters, digits, _ - and .")
    if taking.by not in (UID, KEY):
        raise UserError(f"by={taking.by} is not known; uid or key")
    write = _numbers(taking) if taking.captions is None else _captions(taking)
    folder, read = columns_folder(passes.files, taking.name), Read()
    local = cache() / "imports" / digest_json(folder)[:16] if is_remote(folder) else Path(folder)
    with work_folder(local.with_name(f".{local.name}{passes.suffix}"), None) as work:
        scorer, counts = write(work.path, read)
        _tell(passes, scorer, read, counts)
        score_columns(passes, scorer)
        work.remove()


def _numbers(taking: Taking) -> Writer:
    """What writes the table of the numbers that are imported."""
    paths = _files(taking.path)
    columns = _columns(paths, taking)
    digest = digest_json([[digest_file(path) for path in paths], columns, *_digest_of_keys(taking)])[:16]

    def write(work: Path, read: Read) -> tuple[Imported, Counts]:
        table = work / f"{digest}.table"
        pieces = _pieces(paths, columns, taking, _uids_by_key(taking, work), read)
        counts = write_table(pieces, kind_of(len(columns)), table, _expected(paths))
        return Imported(taking.name, tuple(columns), _by(taking), table, digest, taking.command), counts

    return write


def _captions(taking: Taking) -> Writer:
    """What writes the table of the captions with which the pool's are compared."""
    assert taking.captions is not None
    check_packages()
    source = source_of(taking.path, taking.by, taking.captions)
    digest = digest_json([source.digest, source.columns, *_digest_of_keys(taking)])[:16]

    def write(work: Path, read: Read) -> tuple[Imported, Counts]:
        table = work / f"{digest}.captions"
        counts = write_texts(_captioned(source, taking, _uids_by_key(taking, work), read), table, source.rows())
        if not counts.names:
            raise UserError(f"import={taking.path}: no row has {taking.by} and captions in {', '.join(source.columns)}")
        scorer = CaptionSimilarity(taking.name, _by(taking), table, digest, taking.command, taking.device)
        return scorer, counts

    return write


def _by(taking: Taking) -> str:
    """By what the rows of a table are known, whose keys are uids where keys= says which."""
    return UID if taking.keys else taking.by


def _tell(passes: Passes, scorer: Imported, read: Read, counts: Counts) -> None:
    """Say what of the pool and of the import belongs together.

    Raises:
        UserError: nothing does; no column is written then.
    """
    rows = found = 0
    used = np.zeros(counts.names, bool)
    for _, one in passes.map(matched, scorer):
        rows, found = rows + one.rows, found + one.matched
        used[one.found] = True
    print(f"{', '.join(scorer.makes)}: {found:,} of the pool's {rows:,} rows have a value, {rows - found:,} have none")
    print(f"of {read.rows:,} imported rows, {counts.names - int(used.sum()):,} are not in the pool")
    if counts.repeated:
        differ = f", {counts.contradictory:,} of them with another value" if counts.contradictory else ""
        print(f"{counts.repeated:,} rows repeat an earlier one's {scorer.by}{differ}; the first one counts")
    if read.malformed:
        print(
            f"left out: {read.malformed:,} rows whose {scorer.by} is none, the first is {read.example}", file=sys.stderr
        )
    if read.unknown:
        print(f"left out: {read.unknown:,} rows whose key is not in keys=", file=sys.stderr)
    if read.without:
        print(f"left out: {read.without:,} rows without captions", file=sys.stderr)
    if read.too_large:
        print(f"left out: {read.too_large:,} numbers that are too large for float32", file=sys.stderr)
    if read.unreadable:
        first = one_line(read.problem)
        print(f"left out: {read.unreadable:,} samples or shards, the first is {first}", file=sys.stderr)
    if not found:
        raise UserError(f"no row of the pool has a value: is it the {scorer.by} by which the import knows its rows?")


def _files(path: str) -> list[Path]:
    """
    Raises:
        UserError: nothing there.
    """
    place = Path(path)
    paths = sorted([*files_in(place, "*.parquet"), *files_in(place, "*.csv")]) if place.is_dir() else [place]
    if not paths or not paths[0].is_file():
        raise UserError(f"import={path}: no parquet or CSV file there")
    return paths


def _columns(paths: Sequence[Path], taking: Taking) -> list[str]:
    """The columns to import, all of them numbers.

    Raises:
        UserError: one is missing, or of another type.
    """
    kinds = kinds_of(paths[0])
    if taking.by not in kinds:
        raise UserError(f"{paths[0]} has no column {taking.by!r}, by which rows are found; {nearest(taking.by, kinds)}")
    given = [taking.take] if isinstance(taking.take, str) else taking.take
    columns = given or [name for name in kinds if name not in (UID, KEY)]
    for path in paths:
        kinds = kinds_of(path)
        for name in [taking.by, *columns]:
            if name not in kinds:
                raise UserError(f"{path} has no column {name!r}; {nearest(name, kinds)}")
            kind = kinds[name]
            if name != taking.by and kind is not None and not _numeric(kind):
                raise UserError(f"{path}: column {name!r} is {kind}, not numbers; choose others by take=[...]")
    if not columns:
        raise UserError(f"{paths[0]} has no column besides {', '.join(kinds)}")
    return columns


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))


def _pieces(
    paths: Sequence[Path], columns: Sequence[str], taking: Taking, keys: Table | None, read: Read
) -> Iterator[np.ndarray]:
    """The rows of a table, see curate.pool.joined."""
    for path in paths:
        kinds = {taking.by: pa.string(), **dict.fromkeys(columns, pa.float64())}
        for table in rows_of_table(path, [taking.by, *columns], kinds):
            names, good = _known(table[taking.by], taking.by, keys, read)
            values = np.stack([_numbers_of(table[name], read) for name in columns], axis=1)
            yield rows_of(names, values[good])


def _numbers_of(column: pa.ChunkedArray, read: Read) -> np.ndarray:
    """Numbers as float32; those that are too large for it are none."""
    wide: np.ndarray = column.to_numpy(zero_copy_only=False).astype(np.float64)
    with np.errstate(over="ignore"):
        values: np.ndarray = wide.astype(np.float32)
    too_large = np.isinf(values) & np.isfinite(wide)
    read.too_large += int(too_large.sum())
    values[too_large] = np.nan
    return values


def _captioned(
    source: Source, taking: Taking, keys: Table | None, read: Read
) -> Iterator[tuple[Uids, list[list[str]]]]:
    """Names and captions, see curate.pool.joined_texts, of the rows that have both."""
    for piece in source.pieces():
        if isinstance(piece, Problem):
            read.unreadable += 1
            read.problem = read.problem or f"{piece.shard} {piece.key}: {piece.reason}"
            continue
        names, good = _known(piece.names, taking.by, keys, read)
        kept = [piece.captions[row] for row in np.flatnonzero(good).tolist()]
        there = np.array([captions is not None for captions in kept], bool)
        read.without += int((~there).sum())
        yield names[there], [captions for captions in kept if captions is not None]


def _known(column: pa.ChunkedArray, by: str, keys: Table | None, read: Read) -> tuple[Uids, np.ndarray]:
    """The names by which rows are kept, of those that have one, and which these are, bool [rows]."""
    names, good = _named(column, by, read)
    if keys is None:
        return names, good
    places = look_up(keys, names)
    read.unknown += int((places < 0).sum())
    good = good.copy()
    good[np.flatnonzero(good)[places < 0]] = False
    return _uids_at(keys, places[places >= 0]), good


def _named(column: pa.ChunkedArray, by: str, read: Read) -> tuple[Uids, np.ndarray]:
    """The names of those rows that have one, and which these are."""
    if by == UID:
        uids, good, malformed = parse_uids(column, read.rows)
        names, wrong = scattered(uids), malformed[:1]
    else:
        texts = column.cast(pa.string()).to_pylist()
        good = np.array([text is not None for text in texts], bool)
        names, wrong = names_of_texts([text for text in texts if text is not None]), ["a missing one"]
    read.rows += len(good)
    if not good.all():
        read.example = read.example or wrong[0]
        read.malformed += int((~good).sum())
    return names, good


def _uids_by_key(taking: Taking, work: Path) -> Table | None:
    """A table from keys to uids, where keys= names the files that know them. A uid is kept as the bits of four values.

    Raises:
        UserError: they cannot be read.
    """
    if taking.keys is None:
        return None
    if taking.by != KEY:
        raise UserError("keys= is for by=key")
    paths, read = _files(taking.keys), Read()
    for path in paths:
        known = kinds_of(path)
        if lacking := next((name for name in (KEY, UID) if name not in known), None):
            raise UserError(f"keys={path} has no column {lacking!r}; {nearest(lacking, known)}")

    def pieces() -> Iterator[np.ndarray]:
        for path in paths:
            for table in rows_of_table(path, [KEY, UID], {KEY: pa.string(), UID: pa.string()}):
                uids, good, _ = parse_uids(table[UID])
                names, named = _named(table[KEY].filter(pa.array(good)), KEY, read)
                yield rows_of(names, uids[named].view("f4").reshape(-1, 4))

    path = work / "keys.table"
    write_table(pieces(), kind_of(4), path, _expected(paths))
    return open_table(path, kind_of(4))


def _uids_at(keys: Table, places: np.ndarray) -> Uids:
    return scattered(np.ascontiguousarray(keys.rows["values"][places]).view(DTYPE).ravel())


def _digest_of_keys(taking: Taking) -> list[str]:
    return [] if taking.keys is None else [digest_file(path) for path in _files(taking.keys)]


def _expected(paths: Sequence[Path]) -> int:
    """About how many rows some files have."""
    return sum(
        path.stat().st_size // _LINE if path.suffix == ".csv" else pq.read_metadata(path).num_rows for path in paths
    )
