"""Columns that were made of a pool's rows: `<columns>/<folder>/<file>.parquet`, row for row with the pool's file.

Each file has the uids, columns of float32, and in its schema's metadata (`poolbench.column`) an Origin: what made it of
which file. The pool's own files are never written. `<columns>` is the pool's own folder `columns/`, be it local or in a
store, or another one that `columns=` names; the first of several is where new ones go.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import first_line, nearest

from curate.pool.origins import Origin, read_origin
from curate.pool.places import State, folders_of, opened, state_of, writing

FOLDER = "columns"  # of a pool
_KEY = b"poolbench.column"  # in the schema's metadata


class UnusableColumn(Exception):  # noqa: N818 (what cannot be used is the column)
    """A made column that is missing, ambiguous, or of other rows. The message is one line that names it."""


class Found(NamedTuple):
    """Where a made column of one file lies, and what it is called there."""

    path: str
    column: str


def folders(made: Sequence[str]) -> dict[str, list[str]]:
    """The folders of columns by name, each in the places that have it, in their order.

    Raises:
        UnusableColumn: a place cannot be looked at.
    """
    found: dict[str, list[str]] = {}
    for place in made:
        try:
            names = folders_of(place)
        except OSError as error:
            raise UnusableColumn(f"{place} cannot be listed: {first_line(error)}") from None
        for name in names:
            found.setdefault(name, []).append(f"{place}/{name}")
    return found


def path_of(folder: str, file: str) -> str:
    """The columns of one of the pool's files."""
    return f"{folder}/{file}.parquet"


def files_of(places: Sequence[str], file: str) -> list[str]:
    """The columns of one of the pool's files in those places that have some.

    Raises:
        UnusableColumn: a place cannot be looked at.
    """
    return [path for path in (path_of(place, file) for place in places) if _state(path) is not None]


def locate(made: Sequence[str], file: str, column: str) -> Found | None:
    """Where a column of a file is: `<folder>/<column>`, or the one folder that has it; None where none has.

    Raises:
        UnusableColumn: several folders have it, or not the one that is named.
    """
    if "/" in column:
        folder, _, name = column.rpartition("/")
        found = _in_folder([f"{place}/{folder}" for place in made], file, name)
        known = folders(made) if found is None else {}
        if found is None and folder in known:
            raise UnusableColumn(f"{known[folder][0]} has no column {name!r} of {file}")
        if found is None:
            raise UnusableColumn(f"{column}: there is no such folder of columns; {nearest(folder, known)}")
        return found
    every = {name: _in_folder(paths, file, column) for name, paths in folders(made).items()}
    there = {name: found for name, found in every.items() if found is not None}
    if len(there) > 1:
        names = " or ".join(f"{name}/{column}" for name in there)
        raise UnusableColumn(f"column {column!r} was made several times; name {names}")
    return next(iter(there.values()), None)


def names_of(made: Sequence[str], file: str) -> list[str]:
    """The made columns of a file, for a message that guesses which one was meant."""
    found: list[str] = []
    for places in folders(made).values():
        for path in files_of(places, file)[:1]:
            found += [name for name in _schema(path).names if name != "uid"]
    return found


def origin_of(path: str | Path) -> Origin:
    """What made the columns in a file.

    Raises:
        UnusableColumn: it cannot be read, or does not say.
    """
    text = (_schema(str(path)).metadata or {}).get(_KEY)
    if text is None:
        raise UnusableColumn(
            f"{path} does not say what made it; python -m curate.columns import=<its folder> takes columns of others in"
        )
    try:
        return read_origin(text)
    except ValueError as error:
        raise UnusableColumn(f"{path}: its origin is of another version ({error})") from None


def origin_digest(made: Sequence[str], file: str, column: str) -> str | None:
    """The digest of what made a column of a file, None where there is none that can be used."""
    try:
        found = locate(made, file, column)
        return None if found is None else origin_of(found.path).digest()
    except UnusableColumn:
        return None


class MadeColumn:
    """A made column of one file, read from front to back.

    Raises:
        UnusableColumn: it is of another file than this one, or cannot be read.
    """

    def __init__(self, found: Found, path: str, stamp: str, rows: int) -> None:
        """
        Args:
            path, stamp, rows: the pool's file, as it is.
        """
        self._found = found
        origin = origin_of(found.path)
        if origin.stamp != stamp:
            raise UnusableColumn(
                f"{found.path} was made of another {path}, whose size or time of writing was not this one's; "
                f"make it anew: {origin.remake}"
            )
        self._file = opened(found.path, _found_state(found.path).size)
        self._parquet = pq.ParquetFile(self._file)
        if self._parquet.metadata.num_rows != rows:
            raise UnusableColumn(
                f"{found.path} has {self._parquet.metadata.num_rows:,} rows, {path} has {rows:,}; "
                f"make it anew: {origin.remake}"
            )
        self._batches = self._parquet.iter_batches(columns=[found.column], use_threads=False)
        self._left: list[pa.Array] = []

    def read(self, rows: int) -> pa.ChunkedArray:
        """The next so many rows."""
        try:
            while sum(map(len, self._left)) < rows:
                self._left.append(next(self._batches).column(0))
        except OSError as error:
            raise UnusableColumn(f"{self._found.path} cannot be read: {first_line(error)}") from None
        whole = pa.chunked_array(self._left)
        self._left = [chunk for chunk in whole.slice(rows).chunks if len(chunk)]
        return whole.slice(0, rows)

    def close(self) -> None:
        self._parquet.close()
        self._file.close()


def write(path: str | Path, uids: Iterator[pa.ChunkedArray], columns: Mapping[str, np.ndarray], origin: Origin) -> None:
    """Write the columns of a file, whole or not at all.

    Args:
        uids: those of the pool's file piece by piece, as they stand there.
        columns: float32 [rows].

    Raises:
        OSError: it cannot be written.
        ValueError: a column of another dtype, or of other rows than there are uids.
    """
    fields = [("uid", pa.string()), *((name, pa.float32()) for name in origin.makes)]
    schema = pa.schema(fields, metadata={_KEY: origin.text()})
    rows = 0
    # Uids are all different: a dictionary of them would be made, and given up, of each piece, and nobody asks for the
    # least of them. With the length before each, zstd would look for what repeats, in vain, for half of the time.
    how = {
        "compression": "zstd",
        "use_dictionary": False,
        "column_encoding": {"uid": "DELTA_LENGTH_BYTE_ARRAY"},
        "write_statistics": list(origin.makes),
    }
    with writing(str(path)) as stream, pq.ParquetWriter(stream, schema, **how) as writer:
        for uid in uids:
            values = [_float32(columns[name][rows : rows + len(uid)]) for name in origin.makes]
            # Casting loads Arrow's functions, a twentieth of a second, for what nearly always is a text already.
            texts = uid if uid.type == pa.string() else uid.cast(pa.string())
            writer.write_table(pa.table([texts, *values], schema=schema))
            rows += len(uid)
        for name in origin.makes:
            if columns[name].dtype != np.float32 or columns[name].shape != (rows,):
                given = f"{columns[name].dtype} {list(columns[name].shape)}"
                raise ValueError(f"column {name} of {origin.scorer} is {given}, not float32 [{rows}]")


def _float32(values: np.ndarray) -> pa.Array:
    """As pa.array gives it, which loads numpy's masked arrays for a look whether it is one."""
    data = np.ascontiguousarray(values, np.float32)
    return pa.Array.from_buffers(pa.float32(), len(data), [None, pa.py_buffer(data)])


def _in_folder(places: Sequence[str], file: str, column: str) -> Found | None:
    for path in files_of(places, file):
        if column != "uid" and column in _schema(path).names:  # uids are the pool's own
            return Found(path, column)
    return None


def _state(path: str) -> State | None:
    try:
        return state_of(path)
    except OSError as error:
        raise UnusableColumn(f"{path} cannot be read: {first_line(error)}") from None


def _found_state(path: str) -> State:
    state = _state(path)
    if state is None:
        raise UnusableColumn(f"{path} does not exist; make it anew")
    return state


def _schema(path: str) -> pa.Schema:
    try:
        return _schema_of(path, _found_state(path))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UnusableColumn(f"{path} cannot be read: {first_line(error)}; delete it and make it anew") from None


@functools.lru_cache(maxsize=4096)  # a column's origin is asked for by every pass
def _schema_of(path: str, state: State) -> pa.Schema:
    with opened(path, state.size) as stream:
        return pq.read_schema(stream)
