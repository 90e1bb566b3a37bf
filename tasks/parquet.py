"""Parquet files of published retrieval sets: their columns under the names and in the types that such sets have."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line

# What published sets call their columns of pictures and of captions; the first that a file has counts.
IMAGES = ("image", "img", "picture", "jpg", "jpeg", "png", "webp")
_CAPTIONS = ("caption", "captions", "text", "texts", "txt", "sentence", "sentences")
_NUMBERED = re.compile(r"(?:caption|sentence|text)_?([0-9]+)")

_ROWS = 64  # held in memory at a time; a row holds a whole compressed picture


def schema_of(path: Path) -> pa.Schema:
    """The columns of a parquet file.

    Raises:
        UserError: it is not a parquet file.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a parquet file: {first_line(error)}") from None


def column(path: Path, schema: pa.Schema, names: Sequence[str], what: str) -> str:
    """The first of `names` that the file has.

    Raises:
        UserError: it has none of them, or has it twice.
    """
    found = next((name for name in names if name in schema.names), None)
    if found is None:
        wanted = repr(names[0]) if len(names) == 1 else f"of {what} ({', '.join(names)})"
        raise UserError(f"{path} has no column {wanted}; it has {', '.join(schema.names)}")
    if schema.names.count(found) > 1:
        raise UserError(f"{path} has several columns {found!r}")
    return found


def caption_columns(path: Path, schema: pa.Schema) -> list[str]:
    """The column of captions, or those numbered caption_0, caption_1, ..."""
    if not set(_CAPTIONS) & set(schema.names):
        numbered = {name: int(match[1]) for name in schema.names if (match := _NUMBERED.fullmatch(name))}
        if numbered:
            return sorted(numbered, key=lambda name: numbered[name])
    return [column(path, schema, _CAPTIONS, "captions")]


def check_type(path: Path, field: pa.Field, fits: Callable[[pa.DataType], bool], wanted: str) -> None:
    """Raise UserError, which tells the type of a column, where it does not fit."""
    if not fits(field.type):
        if _is_text(field.type) or (pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0):
            wanted += "; pictures that lie outside of the file have to be put into it"
        raise UserError(f"{path}: the column {field.name!r} is {field.type}, not {wanted}")


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    # What is null in all rows has a type of its own.
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind)
    )


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_dictionary(kind):
        return _is_binary(kind.value_type)
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_binary_view(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_null(kind)
    )


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    lists = (types.is_list, types.is_large_list, types.is_fixed_size_list, types.is_list_view, types.is_large_list_view)
    return any(is_one(kind) for is_one in lists)


def is_picture(kind: pa.DataType) -> bool:
    """Whether a value of the type can be one encoded picture: binary, or a struct that holds it as `bytes`."""
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_binary(kind.field(place).type)
    return _is_binary(kind)


def is_pictures(kind: pa.DataType) -> bool:
    """Whether a value of the type can be a list of pictures."""
    return _is_list(kind) and is_picture(kind.value_type)


def is_caption(kind: pa.DataType) -> bool:
    """Whether a value of the type can be a text or a list of them."""
    return _is_text(kind) or (_is_list(kind) and _is_text(kind.value_type))


def picture(value: Any) -> tuple[bytes, str | None]:
    """The bytes of a picture, empty where there are none, and what it is called, if it says."""
    if isinstance(value, dict):
        name = value.get("path")
        return value["bytes"] or b"", name if isinstance(name, str) and name else None
    return value or b"", None


def texts(value: Any, blank: bool = False) -> list[str]:
    """The texts of a value, which may be one, a list of them, or null; stripped and without blank ones unless told."""
    found = [value] if isinstance(value, str) else value or ()
    if blank:
        return [text or "" for text in found]
    return [text.strip() for text in found if text and text.strip()]


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file with their numbers, a few in memory at a time.

    Raises:
        UserError: it is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            row = 0
            for batch in file.iter_batches(_ROWS, columns=list(columns), use_threads=False):
                for record in batch.to_pylist():
                    yield row, record
                    row += 1
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {first_line(error)}") from None
