"""Parquet files of published evaluation sets: their columns under the names and in the types that such sets have."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line
from poolbench.text import some

# What published sets call their columns of pictures and of captions; the first that a file has counts.
IMAGES = ("image", "images", "img", "picture", "jpg", "jpeg", "png", "webp")
# Captions to choose among: the right one's column, and those of the others. Of SugarCrepe, of ARO's relations and
# attributes, and of its orders, as the Hub has them.
CHOICES = (
    ("caption", ("negative_caption",)),
    ("true_caption", ("false_caption",)),
    ("correct_caption", ("hard_text_1", "hard_text_2", "hard_text_3", "hard_text_4")),
)
CAPTIONS = ("caption", "captions", "text", "texts", "txt", "sentence", "sentences")
PAIR = ("image_0", "image_1")  # of pictures, where a sample has two
LABELS = ("labels", "label", "classes", "categories")
_NUMBERED = re.compile(r"(?:caption|sentence|text)_?([0-9]+)")
# The second form is what the package `datasets` wrote before 2023.
_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})(-[0-9a-f]{16})?\.parquet")
_SPLITS = ("train", "validation", "val", "dev", "test")  # which the name of a whole file may be
_FEATURES = b"huggingface"  # where the Hub's files describe their columns

_ROWS = 64  # held in memory at a time; a row holds a whole compressed picture


def schema_of(path: Path) -> pa.Schema:
    """The columns of a parquet file.

    Raises:
        UserError: it is not a parquet file.
    """
    return _footer(path).schema.to_arrow_schema()


def row_count(path: Path) -> int:
    """How many rows a parquet file has.

    Raises:
        UserError: it is not a parquet file.
    """
    return int(_footer(path).num_rows)


def _footer(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is not a parquet file: {first_line(error)}") from None


def splits_of(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """The files whose names tell their split (`test-00000-of-00002.parquet`, as the Hub's do, or `test.parquet`), by
    that split."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        split = _split_of(path)
        if split is not None:
            found.setdefault(split, []).append(path)
    return found


def _split_of(path: Path) -> str | None:
    match = _SPLIT.fullmatch(path.name)
    return match[1] if match else path.stem if path.stem in _SPLITS else None


def of_split(folder: Path, paths: Sequence[Path], split: str) -> tuple[Path, ...]:
    """Those of a folder's files that hold a split: all of them where no name tells a split.

    Raises:
        UserError: there are other splits alone, a file that tells none beside others that do, one that is missing, or
            one twice.
    """
    named = splits_of(paths)
    if not named:
        return tuple(paths)
    if split not in named:
        raise UserError(f"{folder} holds no split {split}, only {', '.join(named)}")
    silent = next((path for path in paths if _split_of(path) is None), None)
    if silent is not None:
        raise UserError(f"{silent} does not tell its split, as {named[split][0].name} beside it does; take one away")
    _check_whole(named[split])
    return tuple(named[split])


def _check_whole(paths: Sequence[Path]) -> None:
    """Raise UserError unless the files of a split are a whole one, or one of each number up to the count that they
    tell."""
    matches = [match for path in paths if (match := _SPLIT.fullmatch(path.name))]
    if not matches:
        return
    split, count, mark = matches[0].group(1, 3, 4)
    numbers, wanted = [match[2] for match in matches], [f"{number:05d}" for number in range(int(count))]
    one_version = len({match[3] for match in matches}) == 1 and {*numbers} <= {*wanted}
    if not one_version or len({*numbers}) < len(paths):
        names = some([path.name for path in paths])
        raise UserError(f"{paths[0].parent} holds files of two versions of the split {split}: {names}; take one away")
    missing = next((number for number in wanted if number not in numbers), None)
    if missing is not None:
        path = paths[0].with_name(f"{split}-{missing}-of-{count}{'-*' if mark else ''}.parquet")
        raise UserError(f"{path} is missing: {paths[0].name} is one of {len(wanted)} files")


def of_test(folder: Path, paths: Sequence[Path]) -> tuple[Path, ...]:
    """Those of a folder's files that an evaluation reads: of the split `test`, or the only one that there is.

    Raises:
        UserError: as `of_split`.
    """
    splits = list(splits_of(paths))
    return of_split(folder, paths, splits[0] if len(splits) == 1 else "test")


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
    if not set(CAPTIONS) & set(schema.names):
        numbered = {name: int(match[1]) for name in schema.names if (match := _NUMBERED.fullmatch(name))}
        if numbered:
            return sorted(numbered, key=lambda name: numbered[name])
    return [column(path, schema, CAPTIONS, "captions")]


def choice_columns(path: Path, schema: pa.Schema) -> tuple[str, ...]:
    """The columns of captions to choose among, the right one's first.

    Raises:
        UserError: the file has none of CHOICES.
    """
    for right, others in CHOICES:
        if {right, *others} <= set(schema.names):
            return (right, *others)
    wanted = "; ".join(", ".join((right, *others)) for right, others in CHOICES)
    raise UserError(f"{path} has no columns of captions to choose among ({wanted}); it has {', '.join(schema.names)}")


def check_type(path: Path, field: pa.Field, fits: Callable[[pa.DataType], bool], wanted: str) -> None:
    """Raise UserError, which tells the type of a column, where it does not fit."""
    if not fits(field.type):
        named = is_text(field.type) or (pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0)
        if named and fits is is_picture:
            wanted += "; pictures that lie outside of the file have to be put into it"
        raise UserError(f"{path}: the column {field.name!r} is {field.type}, not {wanted}")


def is_text(kind: pa.DataType) -> bool:
    """Whether a value of the type can be a text."""
    types = pa.types
    if types.is_dictionary(kind):
        return is_text(kind.value_type)
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
    return is_text(kind) or (_is_list(kind) and is_text(kind.value_type))


def is_labels(kind: pa.DataType) -> bool:
    """Whether a value of the type can be a list of numbers, truth values or texts."""
    if not _is_list(kind):
        return False
    one = kind.value_type
    return is_text(one) or any(fits(one) for fits in (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating))


def class_names(schema: pa.Schema, name: str) -> tuple[str, ...] | None:
    """The names of the classes whose numbers a column holds lists of, where the file has them as the Hub's files do."""
    try:
        feature = json.loads((schema.metadata or {})[_FEATURES])["info"]["features"][name]
        (inner,) = feature if isinstance(feature, list) else (feature["feature"],)
        return tuple(map(str, inner["names"]))
    except (KeyError, TypeError, ValueError):  # which is no fault: other programs describe nothing, or otherwise
        return None


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
