"""A pool's metadata: its files, local or in a store, and their rows, read in pieces so that no file has to fit into
memory."""

import binascii
import bisect
import contextlib
import posixpath
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, absent, first_line, nearest
from poolbench.files import digest_file, digest_json
from poolbench.subset import Subset
from poolbench.uids import from_digits, is_uid

from curate.pool.columns import FOLDER, MadeColumn, UnusableColumn, locate, names_of
from curate.pool.places import is_remote, opened

ROWS = 2**16  # rows of one piece
PLACE = "place"  # asked for like an array: a number for each row of the pool, int64, in the order of files and rows
PLACES = 2**40  # of a file: the numbers of its rows begin at as many times its own
_TEXTS, _SIZES = ("uid", "url", "text"), ("original_width", "original_height")
SPAN = 2**22  # uids of subset files that are combined at a time
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class File(NamedTuple):
    """One parquet file of a pool and the npz beside it; or a span of the uids of subset files, see `spans`.

    Attributes:
        name: within the pool, without ".parquet".
        stamp: changes when the file or its npz does: from their sizes and times of writing.
        arrays: path of the npz, "" where there is none.
        subsets: of a span, the subset files.
        span: of a span, its number and of how many.
        number: its place among the pool's files.
        made: folders of columns that were made of the pool's rows; new ones go into the first.
    """

    name: str
    path: str
    size: int
    stamp: str
    arrays: str = ""
    arrays_size: int = 0
    subsets: tuple[str, ...] = ()
    span: tuple[int, int] = (0, 1)
    number: int = 0
    made: tuple[str, ...] = ()


class Rows(NamedTuple):
    """Some rows of a file, those with a good uid.

    Attributes:
        table: the columns asked for.
        arrays: the arrays asked for, and "uid" as u8,u8.
        malformed: the uids that are none, of rows that are left out.
        good: which rows of the piece these are, bool; it is False for those that are left out.
    """

    table: pa.Table
    arrays: dict[str, np.ndarray]
    malformed: list[str]
    good: np.ndarray


class BadFile(Exception):  # noqa: N818 (what is bad is the file)
    """A file that has to be left out. The message says why, in one line that names it."""


def list_pool(spec: str, columns: str | None = None) -> list[File]:
    """The metadata files in a folder (not below it), or one file, sorted by name.

    Args:
        columns: folder of the columns that are made of it, instead of the one in the pool, which is only read then.
            A pool in a store has one there.

    Raises:
        UserError: nothing there, or no parquet file in it.
    """
    entries = _remote_entries(spec) if is_remote(spec) else _local_entries(spec)
    found = {name: entry for name, entry in entries.items() if not name.startswith(".")}
    files: list[File] = []
    made = _made_folders(spec, columns)
    for name in sorted(found):
        if name.endswith(".parquet"):
            stem = name.removesuffix(".parquet")
            path, size, written = found[name]
            arrays, arrays_size, arrays_written = found.get(f"{stem}.npz", ("", 0, ""))
            stamp = digest_json([size, written, arrays_size, arrays_written])[:16]
            files.append(File(stem, path, size, stamp, arrays, arrays_size, number=len(files), made=made))
    if not files:
        raise UserError(f"pool={spec}: no .parquet in it; pool= is the folder in which the metadata lie")
    return files


def _made_folders(spec: str, columns: str | None) -> tuple[str, ...]:
    """Where columns that were made of a pool lie, those that `columns` names first."""
    named = () if columns is None else (str(Path(columns).expanduser()),)
    if is_remote(spec):
        pool = spec.rstrip("/")
        return (*named, f"{pool.rpartition('/')[0] if pool.endswith('.parquet') else pool}/{FOLDER}")
    path = Path(spec).expanduser()
    return (*named, str((path if path.is_dir() else path.parent) / FOLDER))


class _Entry(NamedTuple):
    path: str
    size: int
    written: str


def _local_entries(spec: str) -> dict[str, _Entry]:
    path = Path(spec).expanduser()
    if not path.exists():
        raise UserError(f"pool={spec} {absent(path)}")
    paths = list(path.iterdir()) if path.is_dir() else [path, path.with_suffix(".npz")]
    entries = {one.name: _local_entry(one) for one in paths if one.is_file() or one.is_symlink()}
    return {name: entry for name, entry in entries.items() if entry is not None}


def _local_entry(path: Path) -> _Entry | None:
    """None for a folder. A link to nowhere is a file that will not be read, which is told then."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return _Entry(str(path), 0, "")
    return _Entry(str(path), status.st_size, str(status.st_mtime_ns)) if path.is_file() else None


def _remote_entries(spec: str) -> dict[str, _Entry]:
    """The files in a folder of a store, in one listing."""
    from poolbench.remote import StoreError, patiently  # see places.py

    try:
        system, found = patiently(lambda: _list_remote(spec))
    except StoreError as error:
        raise UserError(f"pool={spec} cannot be listed {error}") from None
    except OSError as error:
        raise UserError(f"pool={spec} cannot be listed: {error}") from None
    entries = {}
    for name, entry in found.items():
        written = next((str(entry[key]) for key in ("ETag", "etag", "LastModified", "mtime") if key in entry), "")
        size = int(entry.get("size") or 0)
        entries[posixpath.basename(name)] = _Entry(system.unstrip_protocol(name), size, written)
    return entries


def _list_remote(spec: str) -> tuple[Any, dict[str, dict[str, Any]]]:
    import fsspec

    from poolbench.remote import LISTING, call

    system, root = fsspec.core.url_to_fs(spec)
    return system, call(system, "find", root, maxdepth=1, detail=True, seconds=LISTING)


def read(file: File, columns: Sequence[str] = (), arrays: Sequence[str] = ()) -> Iterator[Rows]:
    """The rows of a file, ROWS at a time, with their uids.

    Raises:
        BadFile: it cannot be read, lacks a column or an array, or has other rows in its npz than in its parquet.
    """
    if file.subsets:
        yield from _read_span(file, [*columns, *arrays])
        return
    start = 0
    for table, pieces in read_columns(file, ["uid", *columns], arrays):
        uids, good, malformed = parse_uids(table["uid"], start)
        start += len(table)
        table = table.select(list(columns)) if columns else table
        if malformed:
            table = table.filter(pa.array(good))
            pieces = {name: piece[good] for name, piece in pieces.items()}
        yield Rows(table, {**pieces, "uid": uids}, malformed, good)


def read_columns(
    file: File, columns: Sequence[str], arrays: Sequence[str] = (), at_once: int | None = None
) -> Iterator[tuple[pa.Table, dict[str, np.ndarray]]]:
    """All rows of a file, whatever their uids, so many at a time, or ROWS; see `read`."""
    with _telling(file), contextlib.ExitStack() as stack:
        parquet = pq.ParquetFile(stack.enter_context(opened(file.path, file.size)))
        known, rows = parquet.schema_arrow.names, parquet.metadata.num_rows
        made = {name: _open_made(file, name, known, rows, stack) for name in columns if name not in known}
        own = [name for name in columns if name in known] or ([] if made else known[:1])
        if twice := next((name for name in own if known.count(name) > 1), None):
            raise BadFile(f"{file.path} has several columns {twice!r}; leave one of them")
        members = _open_arrays(file, [name for name in arrays if name != PLACE], rows, stack)
        start = file.number * PLACES
        for count, table in _pieces(parquet, own, rows, at_once or ROWS):
            if made:
                table = pa.table({name: made[name].read(count) if name in made else table[name] for name in columns})
            pieces = {name: member.read(count) for name, member in members.items()}
            if PLACE in arrays:
                pieces[PLACE] = np.arange(start, start + count)
            start += count
            yield table, pieces


def _pieces(parquet: pq.ParquetFile, own: Sequence[str], rows: int, at_once: int) -> Iterator[tuple[int, pa.Table]]:
    """Columns of a file piece by piece, each with how many rows it is of, which Arrow forgets of no columns."""
    if not own:
        for start in range(0, rows, at_once):
            yield min(at_once, rows - start), pa.table({})
        return
    for batch in parquet.iter_batches(at_once, columns=list(own), use_threads=False):
        yield len(batch), plain(pa.Table.from_batches([batch]))


def read_array(file: File, name: str, rows: int, at_once: int) -> Iterator[np.ndarray]:
    """An array of a file's npz, so many rows at a time, without a look at the parquet.

    Args:
        rows: of the parquet.

    Raises:
        BadFile: see `read`.
    """
    with _telling(file), contextlib.ExitStack() as stack:
        member = _open_arrays(file, [name], rows, stack)[name]
        for start in range(0, rows, at_once):
            yield member.read(min(at_once, rows - start))


@contextlib.contextmanager
def _telling(file: File) -> Iterator[None]:
    """Tell in a line why a file cannot be read.

    Raises:
        BadFile: as said.
    """
    try:
        yield
    except UnusableColumn as error:
        raise BadFile(str(error)) from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise BadFile(f"{file.arrays} cannot be read: {first_line(error)}") from error
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadFile(f"{file.path} cannot be read: {first_line(error)}") from error


def schema_of(file: File) -> pa.Schema:
    """A file's own columns with their types, and what is written beside them.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        with opened(file.path, file.size) as stream:
            return pq.ParquetFile(stream).schema_arrow
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadFile(f"{file.path} cannot be read: {first_line(error)}") from error


def plain(table: pa.Table) -> pa.Table:
    """The table in the types that filters know, whatever a writer chose: text as string, not as a dictionary, a view or
    bytes; a column of nothing but nulls as nulls of its kind; numbers of 16 bits and decimals as floats that hold them.

    Raises:
        ValueError: a text is no text, or a size no number.
    """
    for place, name in enumerate(table.column_names):
        column = table.column(place)
        kind = _plain_type(name, column.type)
        if kind != column.type:
            try:
                table = table.set_column(place, name, column.cast(kind))
            except pa.ArrowException as error:
                raise ValueError(f"its column {name!r} is {column.type}, not {kind}: {first_line(error)}") from None
    return table


def _plain_type(name: str, kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(name, kind.value_type)
    textual = _any(kind, "string", "large_string", "string_view")
    if name in _TEXTS:
        # Bytes of a uid are not taken for its text; what is none is told with its value.
        readable = textual or pa.types.is_null(kind)
        known = readable or (name != "uid" and _any(kind, "binary", "large_binary", "binary_view"))
        return pa.string() if known else kind
    if (
        pa.types.is_null(kind)
        or pa.types.is_decimal(kind)
        or (name in _SIZES and not _any(kind, "integer", "floating"))
    ):
        return pa.float64()
    if pa.types.is_float16(kind):
        return pa.float32()
    return pa.string() if textual else kind


def _any(kind: pa.DataType, *names: str) -> bool:
    """Whether a type is one of these; older versions of Arrow do not know all of them."""
    return any(getattr(pa.types, f"is_{name}", lambda _: False)(kind) for name in names)


def spans(subsets: Sequence[str]) -> list[File]:
    """Subset files, instead of a pool, as files of which each has the uids that begin alike, from all of them."""
    total = sum(Subset(path, empty=True).size for path in subsets)
    count = max(1, -(-total // SPAN))
    digests = digest_json([digest_file(path) for path in subsets])[:16]
    return [
        File(
            f"span-{number:06d}",
            f"span {number} of the subset files",
            0,
            digests,
            "",
            0,
            tuple(subsets),
            (number, count),
            number,
        )
        for number in range(count)
    ]


def _read_span(file: File, needed: Sequence[str]) -> Iterator[Rows]:
    """The uids of a span, each once. Without a pool there are no columns."""
    if needed:
        raise BadFile(f"{', '.join(needed)} can only be read from a pool; give pool=")
    number, count = file.span
    start, stop = (np.uint64(min(2**64 * edge // count, 2**64 - 1)) for edge in (number, number + 1))
    parts = []
    for path in file.subsets:
        array = np.load(path, mmap_mode="r")
        # np.searchsorted would copy the whole file.
        first = bisect.bisect_left(array["f0"], start)
        last = bisect.bisect_left(array["f0"], stop) if number + 1 < count else len(array)
        parts.append(array[first:last])
    uids = np.unique(np.concatenate(parts))
    for row in range(0, len(uids), ROWS):
        piece = uids[row : row + ROWS]
        yield Rows(pa.table({}), {"uid": piece}, [], np.ones(len(piece), dtype=bool))


def parse_uids(column: pa.ChunkedArray, start: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The good uids as u8,u8; which rows have one, bool; and the others as text, each with its row counted on from
    `start`."""
    array = column.combine_chunks()
    data = _characters(array)
    if data is not None:
        with contextlib.suppress(binascii.Error):
            return from_digits(data), np.ones(len(array), dtype=bool), []
    uids = array.to_pylist()
    good = np.array([is_uid(uid) for uid in uids], dtype=bool)
    malformed = [f"row {start + row}: {uids[row]!r}" for row in np.flatnonzero(~good).tolist()]
    return from_digits("".join(uids[row] for row in np.flatnonzero(good).tolist()).encode()), good, malformed


def _characters(array: pa.Array) -> memoryview | None:
    """The characters of strings that are all 32 long, without a copy; None where one is not."""
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)) or array.null_count:
        return None
    kind = np.dtype("i4") if pa.types.is_string(array.type) else np.dtype("i8")
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, kind)[array.offset : array.offset + len(array) + 1]
    if (np.diff(ends) != 32).any():
        return None
    return memoryview(data)[int(ends[0]) : int(ends[-1])]


def _open_archive(file: File) -> IO[bytes] | pa.NativeFile:
    """A local one as Python's own, which zipfile reads in small pieces."""
    return opened(file.arrays, file.arrays_size) if is_remote(file.arrays) else Path(file.arrays).open("rb")


class _Member(NamedTuple):
    """An array within an npz, read from front to back: np.load would take all of it into memory."""

    file: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, rows: int) -> np.ndarray:
        shape = (rows, *self.shape[1:])
        data = self.file.read(int(np.prod(shape)) * self.dtype.itemsize)
        return np.frombuffer(data, self.dtype).reshape(shape)


def _open_made(file: File, column: str, known: Sequence[str], rows: int, stack: contextlib.ExitStack) -> MadeColumn:
    """A column that the file itself does not have.

    Raises:
        BadFile: it was not made, either.
        UnusableColumn: it was, but cannot be used.
    """
    found = locate(file.made, file.name, column)
    if found is None:
        every = [*known, *names_of(file.made, file.name)]
        raise BadFile(f"{file.path} has no column {column!r}; {nearest(column, every)}")
    opened = MadeColumn(found, file.path, file.stamp, rows)
    stack.callback(opened.close)
    return opened


def _open_arrays(file: File, names: Sequence[str], rows: int, stack: contextlib.ExitStack) -> Mapping[str, _Member]:
    """The members of a file's npz, at their first rows.

    Raises:
        BadFile: no npz, no such array, or another number of rows than the parquet has.
    """
    if not names:
        return {}
    if not file.arrays:
        raise BadFile(f"{file.path} has no .npz beside it, in which {', '.join(names)} would be")
    archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(_open_archive(file))))
    known = [name.removesuffix(".npy") for name in archive.namelist()]
    members = {}
    for name in names:
        if name not in known:
            raise BadFile(f"{file.arrays} has no array {name!r}; {nearest(name, known)}")
        member = stack.enter_context(archive.open(f"{name}.npy"))
        read_header = _HEADERS.get(np.lib.format.read_magic(member), np.lib.format.read_array_header_2_0)
        shape, fortran, dtype = read_header(member)
        if fortran or dtype.hasobject or not shape:
            raise BadFile(f"{file.arrays}: {name} is not stored row by row")
        if shape[0] != rows:
            raise BadFile(f"{file.arrays} has {shape[0]:,} rows of {name}, {file.path} has {rows:,}")
        members[name] = _Member(member, shape, dtype)
    return members
