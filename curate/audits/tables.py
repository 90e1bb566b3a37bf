"""Attributes that others know of a pool's rows: tables by uid, of any size, and tables by domain."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError, nearest
from poolbench.files import digest_file, digest_json, read_json, write_json
from poolbench.uids import Uids, malformed

from curate.audits.groups import Attribute, Masks, band_names, domains_of, masks_of
from curate.pool.files import parse_uids
from curate.pool.joined import kind_of, look_up, open_table, rows_of, scattered, write_table
from curate.pool.tables import kinds_of, rows_of_table

YEAR, YEARS = 500, 1000  # rows of a year that is told of, and of one in the regression, as in the source
_VERSION = 2  # of what a table holds, which a work folder of before may have otherwise
_CATEGORIES = 1000  # of a column of attributes, at most
_UIDS = {"uid": pa.string()}  # what digits alone are in CSV, too


class Given(Attribute):
    """A column of a table by uid. Rows that the table does not have are of no group."""

    def __init__(self, name: str, table: Path, width: int, place: int, groups: Sequence[str]) -> None:
        """
        Args:
            table: see curate.pool.joined; in its column `place` lie codes of `groups`.
        """
        self.name, self.table = name, table
        self._width, self._place, self._groups = width, place, list(groups)
        if name == "year":
            self.minimum, self.regressed = YEAR, YEARS

    def identity(self) -> Any:
        return [*super().identity(), self.table.name, self._groups]

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        known = open_table(self.table, kind_of(self._width))
        places = look_up(known, scattered(uids))
        values = np.full(len(uids), np.nan)
        values[places >= 0] = known.rows["values"][places[places >= 0], self._place]
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


def by_uid(path: str, bands: Mapping[str, Sequence[float]], folder: Path) -> tuple[list[Given], list[str]]:
    """The attributes of a parquet or CSV file with a column `uid`, sorted into a file of `folder` for looking up, and
    what is to be said of its rows.

    Columns of texts, truth values and whole numbers are categories; other numbers need `bands`. A table that is there,
    as another part has made it, is not made again.

    Raises:
        UserError: it cannot be read, has no such column, or one that parts rows into nothing.
    """
    names = _columns(Path(path), "uid")
    known = digest_json([_VERSION, digest_file(path), {name: bands[name] for name in names if name in bands}])[:16]
    table, mark = folder / f"attributes-{known}.table", folder / f"attributes-{known}.json"
    if not mark.exists():
        with TemporaryDirectory(dir=folder, prefix=f".{table.name}.") as scratch:
            told = _sorted(path, names, bands, Path(scratch, table.name))
            for made in Path(scratch).iterdir():
                made.replace(folder / made.name)
        write_json(mark, told)
    told = read_json(mark)
    given = [Given(name, table, len(names), at, told["groups"][name]) for at, name in enumerate(names)]
    return given, told["notes"]


def _sorted(path: str, names: Sequence[str], bands: Mapping[str, Sequence[float]], table: Path) -> dict[str, Any]:
    """Write a file's rows as a table; its counts, and the groups of each column by their codes."""
    codes, wrong = _Codes(path, bands), _Wrong()
    expected = sum(len(batch) for batch in rows_of_table(Path(path), ["uid"], _UIDS))

    def pieces() -> Iterator[np.ndarray]:
        for batch in rows_of_table(Path(path), ["uid", *names], _UIDS):
            uids, good = wrong.parted(batch["uid"])
            values = np.stack([codes.of(name, batch[name]) for name in names], axis=1)
            yield rows_of(scattered(uids), values[good].astype(np.float32))

    counts = write_table(pieces(), kind_of(len(names)), table, expected)
    if not counts.names:
        raise UserError(f"attributes={path} has no row with a uid")
    notes = [f"{path}: {malformed(wrong.count, wrong.example)}"] if wrong.count else []
    if counts.repeated:
        notes.append(f"{path}: {counts.repeated:,} rows repeat an earlier one's uid; the first one counts")
    return {"notes": notes, "groups": {name: codes.groups(name) for name in names}}


def by_domain(path: str) -> list[ByDomain]:
    """The attributes of a parquet or CSV file with a column `domain`.

    Raises:
        UserError: it cannot be read, or has no such column.
    """
    names = _columns(Path(path), "domain")
    found: dict[str, dict[str, str]] = {}
    for batch in rows_of_table(Path(path), ["domain", *names], {"domain": pa.string()}):
        domains = [str(domain).lower().removeprefix("www.") for domain in batch["domain"].to_pylist()]
        for name in names:
            labels = zip(domains, batch[name].to_pylist(), strict=True)
            found.setdefault(name, {}).update({domain: str(label) for domain, label in labels if label is not None})
    return [ByDomain(name, groups) for name, groups in found.items()]


class _Wrong:
    """Counts the rows whose uid is none, while they are read."""

    def __init__(self) -> None:
        self._rows = self.count = 0
        self.example = ""

    def parted(self, column: pa.ChunkedArray) -> tuple[Uids, np.ndarray]:
        """The good uids of further rows, and which rows have one."""
        uids, good, others = parse_uids(column, self._rows)
        self._rows += len(good)
        self.count += len(others)
        self.example = self.example or next(iter(others), "")
        return uids, good


class _Codes:
    """Categories of columns as numbers: bands by their place, others given out as they come."""

    def __init__(self, path: str, bands: Mapping[str, Sequence[float]]) -> None:
        self._path, self._bands = path, bands
        self._known: dict[str, dict[str, int]] = {}

    def of(self, name: str, column: pa.ChunkedArray) -> np.ndarray:
        """A number for each row, float64 [rows]; NaN where it has no value."""
        kind = column.type
        if column.null_count == len(column):
            return np.full(len(column), np.nan)
        if name in self._bands:
            if not _numeric(kind):
                raise UserError(f"attributes={self._path}: bands are for numbers, and {name!r} is {kind}")
            return _places(column, self._bands[name])
        if not (pa.types.is_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)):
            cure = f"part it by bands='{{{name}: [0.5]}}'" if _numeric(kind) else "leave it out"
            raise UserError(f"attributes={self._path}: {name!r} is {kind}, not categories; {cure}")
        known = self._known.setdefault(name, {})
        labels = [None if label is None else str(label).strip() for label in column.to_pylist()]
        codes = [np.nan if not label else known.setdefault(label, len(known)) for label in labels]
        if len(known) > _CATEGORIES:
            raise UserError(
                f"attributes={self._path}: {name!r} has more than {_CATEGORIES:,} different values; leave it out"
            )
        return np.array(codes, np.float64)

    def groups(self, name: str) -> list[str]:
        return band_names(self._bands[name]) if name in self._bands else list(self._known.get(name, {}))


def _numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _places(column: pa.ChunkedArray, edges: Sequence[float]) -> np.ndarray:
    """Of each number its place among the bands, float64 [rows], NaN where it is none.

    Edges are compared in the column's own precision, so that .7 is the edge of a float32 .7, too.
    """
    numbers: np.ndarray = column.to_numpy(zero_copy_only=False)
    at = np.asarray(edges, numbers.dtype if numbers.dtype.kind == "f" else np.float64)
    return np.where(np.isnan(numbers), np.nan, np.searchsorted(at, numbers, side="right").astype(np.float64))


def _columns(path: Path, by: str) -> list[str]:
    names = list(kinds_of(path))
    if by not in names:
        raise UserError(f"{path} has no column {by!r}; {nearest(by, names)}")
    rest = [name for name in names if name != by]
    if not rest:
        raise UserError(f"{path} has no column besides {by!r}")
    return rest
