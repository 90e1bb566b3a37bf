"""Attributes that others know of a pool's rows: tables by uid, of any size, and tables by domain."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line, nearest
from poolbench.files import digest_file, digest_json, read_json, write_json
from poolbench.uids import Uids

from curate.audits.groups import Attribute, Masks, banded, domains_of, masks_of
from curate.pool.files import parse_uids, plain
from curate.pool.joined import Counts, kind_of, look_up, open_table, rows_of, scattered, write_table

YEAR, YEARS = 500, 1000  # rows of a year that is told of, and of one in the regression, as in the source
_CATEGORIES = 1000  # of a column of attributes, at most
_ROWS = 2**16


class Given(Attribute):
    """A column of a table by uid. Rows that the table does not have are of no group."""

    def __init__(self, name: str, table: Path, width: int, place: int, groups: Sequence[str], edges: Any) -> None:
        """
        Args:
            table: see curate.pool.joined; in its column `place` lie codes of `groups`, or numbers between `edges`. What
                is in it is known by its name.
        """
        self.name, self.table = name, table
        self._width, self._place, self._groups, self._edges = width, place, list(groups), edges
        if name == "year":
            self.minimum, self.regressed = YEAR, YEARS

    def identity(self) -> Any:
        return [*super().identity(), self.table.name, self._edges]

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        known = open_table(self.table, kind_of(self._width))
        places = look_up(known, scattered(uids))
        values = np.full(len(uids), np.nan)
        values[places >= 0] = known.rows["values"][places[places >= 0], self._place]
        if self._edges is not None:
            return banded(values, self._edges)
        return {group: values == code for code, group in enumerate(self._groups) if (values == code).any()}


class ByDomain(Attribute):
    """A column of a table by domain, such as the kind of a site or the year in which it was first seen."""

    columns = ("url",)

    def __init__(self, name: str, groups: Mapping[str, str]) -> None:
        self.name, self._groups = name, dict(groups)
        if name == "year":
            self.minimum, self.regressed = YEAR, YEARS

    def identity(self) -> Any:
        return [*super().identity(), digest_json(self._groups)]

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        domains = domains_of(table["url"].to_pylist())
        return masks_of([None if domain is None else self._groups.get(domain) for domain in domains])


def by_uid(path: str, bands: Mapping[str, Sequence[float]], folder: Path) -> tuple[list[Given], Counts]:
    """The attributes of a parquet or CSV file with a column `uid`, sorted into a file of `folder` for looking up.

    Columns of texts, truth values and whole numbers are categories; other numbers need `bands`. A table that is there,
    as another part has made it, is not made again.

    Raises:
        UserError: it cannot be read, has no such column, or one that parts rows into nothing.
    """
    names = _columns(Path(path), "uid")
    known = digest_json([digest_file(path), {name: bands[name] for name in names if name in bands}])[:16]
    table, mark = folder / f"attributes-{known}.table", folder / f"attributes-{known}.json"
    if not mark.exists():
        with TemporaryDirectory(dir=folder, prefix=f".{table.name}.") as scratch:
            told = _sorted(path, names, bands, Path(scratch, table.name))
            for made in Path(scratch).iterdir():
                made.replace(folder / made.name)
        write_json(mark, told)
    told = read_json(mark)
    columns = enumerate(names)
    given = [Given(name, table, len(names), at, told["groups"][name], bands.get(name)) for at, name in columns]
    return given, Counts(**told["counts"])


def _sorted(path: str, names: Sequence[str], bands: Mapping[str, Sequence[float]], table: Path) -> dict[str, Any]:
    """Write a file's rows as a table; its counts, and the groups of each column by their codes."""
    codes = _Codes(path, bands)
    expected = sum(len(batch) for batch in _batches(Path(path), ["uid"]))

    def pieces() -> Iterator[np.ndarray]:
        for batch in _batches(Path(path), ["uid", *names]):
            uids, good, _ = parse_uids(batch["uid"])
            values = np.stack([codes.of(name, batch[name]) for name in names], axis=1)
            yield rows_of(scattered(uids), values[good].astype(np.float32))

    counts = write_table(pieces(), kind_of(len(names)), table, expected)
    if not counts.names:
        raise UserError(f"attributes={path} has no row with a uid")
    return {"counts": counts._asdict(), "groups": {name: codes.groups(name) for name in names}}


def by_domain(path: str) -> list[ByDomain]:
    """The attributes of a parquet or CSV file with a column `domain`.

    Raises:
        UserError: it cannot be read, or has no such column.
    """
    names = _columns(Path(path), "domain")
    found: dict[str, dict[str, str]] = {}
    for batch in _batches(Path(path), ["domain", *names]):
        domains = [str(domain).lower().removeprefix("www.") for domain in batch["domain"].to_pylist()]
        for name in names:
            labels = zip(domains, batch[name].to_pylist(), strict=True)
            found.setdefault(name, {}).update({domain: str(label) for domain, label in labels if label is not None})
    return [ByDomain(name, groups) for name, groups in found.items()]


class _Codes:
    """Categories of columns as numbers, given out as they come."""

    def __init__(self, path: str, bands: Mapping[str, Sequence[float]]) -> None:
        self._path, self._bands = path, bands
        self._known: dict[str, dict[str, int]] = {}

    def of(self, name: str, column: pa.ChunkedArray) -> np.ndarray:
        """A number for each row, float64 [rows]; NaN where it has no value."""
        kind = column.type
        if column.null_count == len(column):
            return np.full(len(column), np.nan)
        if name in self._bands:
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise UserError(f"attributes={self._path}: bands are for numbers, and {name!r} is {kind}")
            numbers: np.ndarray = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
            return numbers
        if not (pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
            raise UserError(
                f"attributes={self._path}: {name!r} is {kind}, not categories; part it by bands='{{{name}: [0.5]}}'"
            )
        known = self._known.setdefault(name, {})
        labels = [None if label is None else str(label).strip() for label in column.to_pylist()]
        codes = [np.nan if not label else known.setdefault(label, len(known)) for label in labels]
        if len(known) > _CATEGORIES:
            raise UserError(
                f"attributes={self._path}: {name!r} has more than {_CATEGORIES:,} different values; leave it out"
            )
        return np.array(codes, np.float64)

    def groups(self, name: str) -> list[str]:
        return list(self._known.get(name, {}))


def _columns(path: Path, by: str) -> list[str]:
    try:
        if path.suffix == ".csv":
            with pyarrow.csv.open_csv(path) as stream:
                names = stream.schema.names
        else:
            names = pq.read_schema(path).names
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    if by not in names:
        raise UserError(f"{path} has no column {by!r}; {nearest(by, names)}")
    rest = [name for name in names if name != by]
    if not rest:
        raise UserError(f"{path} has no column besides {by!r}")
    return rest


def _batches(path: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of a file, some at a time."""
    try:
        if path.suffix == ".csv":
            options = pyarrow.csv.ConvertOptions(column_types={columns[0]: pa.string()}, include_columns=list(columns))
            with pyarrow.csv.open_csv(path, convert_options=options) as stream:
                for batch in stream:
                    yield plain(pa.Table.from_batches([batch]))
            return
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=list(columns), use_threads=False):
                yield plain(pa.Table.from_batches([batch]))
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
