"""Tables that others give, parquet or CSV: their columns, and their rows some at a time."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line

from curate.pool.files import plain

_ROWS = 2**16
_INDEX = re.compile(r"__index_level_\d+__|")  # in parquet, and without a name in CSV


def kinds_of(path: Path) -> dict[str, pa.DataType | None]:
    """The columns of a table with their types, None where only reading tells it, as of CSV. The numbers of the rows
    that pandas writes beside them are none.

    Raises:
        UserError: it cannot be read, or has two columns of one name.
    """
    try:
        if path.suffix == ".csv":
            with pyarrow.csv.open_csv(path) as stream:
                names = stream.schema.names
            types = [None] * len(names)
        else:
            schema = pq.read_schema(path)
            names, types = schema.names, schema.types
    except UnicodeDecodeError:
        raise UserError(f"{path} names its columns in other letters than UTF-8's; save it as UTF-8") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None
    kinds = [(name, kind) for name, kind in zip(names, types, strict=True) if not _INDEX.fullmatch(name)]
    names = [name for name, _ in kinds]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"{path} has several columns {twice!r}; leave one of them")
    return dict(kinds)


def rows_of_table(
    path: Path, columns: Sequence[str], kinds: Mapping[str, pa.DataType], nulls: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a table, some at a time, of the columns that are named.

    Args:
        kinds: of CSV, which is read so; the types of other columns are guessed.
        nulls: what of CSV is a missing value, of a text too; by default what is read as no number.

    Raises:
        UserError: it cannot be read, or a text of it is not UTF-8.
    """
    try:
        if path.suffix == ".csv":
            yield from _csv(path, columns, kinds, nulls)
            return
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_ROWS, columns=list(columns), use_threads=False):
                yield plain(pa.Table.from_batches([batch])).select(list(columns))
    except UserError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}") from None


def _csv(
    path: Path, columns: Sequence[str], kinds: Mapping[str, pa.DataType], nulls: Sequence[str] | None
) -> Iterator[pa.Table]:
    missing = {} if nulls is None else {"null_values": list(nulls), "strings_can_be_null": True}
    options = pyarrow.csv.ConvertOptions(column_types=dict(kinds), include_columns=list(columns), **missing)
    lines = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(path, parse_options=lines, convert_options=options) as stream:
        for batch in stream:
            if wrong := next((field.name for field in batch.schema if pa.types.is_binary(field.type)), None):
                raise UserError(f"{path}: column {wrong!r} holds other letters than UTF-8's; save it as UTF-8")
            yield plain(pa.Table.from_batches([batch]))
