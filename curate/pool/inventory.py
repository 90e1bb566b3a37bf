"""What columns of scores a pool has, and where they come from."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from curate.pool.columns import UnusableColumn, files_of, folders, origin_of
from curate.pool.files import File, read_columns, schema_of
from curate.pool.passes import Passes
from curate.pool.quantile import scores

_OWN = "the pool's own"
_LONG = 60  # characters of what a column was made with that are shown


def inventory(passes: Passes) -> list[tuple[str, ...]]:
    """A table: a line for each column and origin, with files that have it of all files, rows, and rows without a
    number; columns that cannot be used as they are with the reason.

    Raises:
        UserError: no file can be read.
    """
    files: Counter[tuple[str, str]] = Counter()
    rows: Counter[tuple[str, str]] = Counter()
    empty: Counter[tuple[str, str]] = Counter()
    for _, found in passes.map(tally):
        for one in found:
            column = (one["column"], one["origin"])
            files[column] += 1
            rows[column] += one["rows"]
            empty[column] += one["nan"]
    lines = [
        (one[0], f"{files[one]} of {len(passes.files)}", f"{rows[one]:,}", f"{empty[one]:,}", one[1])
        for one in sorted(files, key=lambda one: (one[1] != _OWN, one))
    ]
    return [("column", "files", "rows", "NaN", "made by"), *lines]


def tally(file: File) -> list[dict[str, Any]]:
    """Each column of floating-point numbers of a file: name, origin, rows and how many are NaN or missing."""
    fields = schema_of(file)
    found = [_counted(file, field.name, _OWN) for field in fields if pa.types.is_floating(field.type)]
    for folder, places in folders(file.made).items():
        path = next(iter(files_of(places, file.name)), None)
        if path is None:
            continue
        try:
            origin = origin_of(path)
        except UnusableColumn as error:
            found.append({"column": f"{folder}/", "origin": f"cannot be used: {error}", "rows": 0, "nan": 0})
            continue
        made = f"{origin.scorer} v{origin.version} {_short(origin.identity)} [{origin.digest()}]"
        for name in origin.makes:
            if origin.stamp != file.stamp:
                stale = f"of another file than the pool's now; make it anew: {origin.remake}"
                found.append({"column": f"{folder}/{name}", "origin": stale, "rows": 0, "nan": 0})
            else:
                found.append(_counted(file, f"{folder}/{name}", made))
    return found


def _counted(file: File, column: str, origin: str) -> dict[str, Any]:
    rows = nan = 0
    for table, _ in read_columns(file, [column]):
        values = scores(table, column)
        rows, nan = rows + len(values), nan + int(np.isnan(values).sum())
    return {"column": column, "origin": origin, "rows": rows, "nan": nan}


def _short(identity: Any) -> str:
    text = json.dumps(identity, sort_keys=True)
    return text if len(text) <= _LONG else f"{text[: _LONG - 1]}…"
