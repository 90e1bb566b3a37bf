"""What kind of source it is, and where its pictures and captions are: guessed where nobody says, and told."""

import csv
import glob
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import braceexpand
import pyarrow as pa

from poolbench.errors import UserError, absent, nearest
from poolbench.files import files_in
from poolbench.shards.parquet import CAPTIONS, IMAGES, caption_columns, is_picture, schema_of, splits_of
from poolbench.text import some

from curate.pack.layouts import Layout, delimiter_of, header_of, open_text
from curate.pack.options import COCO, PAIRS, PARQUET, TABLE, PackOptions
from curate.pack.rows import names_of

URL = "url"
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
# What tables call their columns of names of pictures, beside what published sets call those of pictures.
_NAMES = (
    *("file_name", "filename", "file", "file_path", "filepath", "image_path", "image_file", "image_name", "img_path"),
    *("path", *IMAGES, "key"),
)
_TEXTS = (*CAPTIONS, "title", "alt", "alt_text", "description", "prompt", "comment")
_FOLDERS = ("images", "image", "imgs", "img", "pictures", "photos", "data", "train")  # of pictures, beside a table
_COCO = re.compile(r"captions_(.+)\.json")
_UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")  # how it begins, read as UTF-8 with surrogates for what is none
_PEEKED = 100  # rows of a table that are looked at beforehand


def layout_of(options: PackOptions) -> Layout:
    """The layout of `from=`, as the options say or as it looks.

    Raises:
        UserError: nothing there, several things that it could be, or columns that nobody can guess.
    """
    path = Path(options.from_)
    if not path.is_dir():
        return _of_files(_listed(options.from_), options)
    if options.layout != PAIRS:
        found = _candidates(path, options.layout)
        if found:
            return _of_files(found, options)
        if options.layout is not None:
            raise UserError(f"from={path} holds nothing that layout={options.layout} is made of; name its file")
    for key in ("pictures", "image_column", "caption_column", "url_column"):
        if getattr(options, key) is not None:
            raise UserError(f"{key}= goes with a table, of which from={path} holds none; name its file by from=")
    return Layout(PAIRS, (), str(path))


def _listed(spec: str) -> list[Path]:
    """The files that a name or a pattern names."""
    if Path(spec).is_file():
        return [Path(spec)]
    try:
        names = [name for one in braceexpand.braceexpand(spec) for name in glob.glob(one, recursive=True)]  # noqa: PTH207
    except ValueError as error:
        raise UserError(f"from={spec} is no pattern: {error}") from None
    found = sorted({Path(name) for name in names if not Path(name).name.startswith(".") and Path(name).is_file()})
    if not found:
        raise UserError(f"from={spec} {absent(Path(spec))}")
    return found


def _candidates(folder: Path, kind: str | None) -> list[Path]:
    """The files of a folder that could name the pictures, or hold them.

    Raises:
        UserError: several that do not go together.
    """
    places = [folder, *(folder / name for name in ("data", "annotations") if (folder / name).is_dir())]
    every = [path for place in places for path in files_in(place, "*") if path.suffix.lower() in (".json", *_SUFFIXES)]
    coco = [path for path in every if _COCO.fullmatch(path.name)] if kind in (None, COCO) else []
    tables = [path for path in every if path.suffix.lower() != ".json"] if kind != COCO else []
    parquet = [path for path in tables if path.suffix.lower() == ".parquet"]
    if kind == PARQUET or (not coco and len(parquet) == len(tables)):
        _check_splits(folder, parquet)
        return parquet
    found = [*coco, *tables]
    if len(found) > 1:
        raise UserError(
            f"from={folder} holds {some([str(path.relative_to(folder)) for path in found])}: name one by from=, and "
            "the folder of its pictures by pictures="
        )
    return found


def _check_splits(folder: Path, paths: Sequence[Path]) -> None:
    """Refuse the splits of a data set of the Hub together: one of them may be what models are tested by."""
    splits = splits_of(paths)
    if len(splits) > 1:
        name, (path, *_) = next(iter(splits.items()))
        raise UserError(
            f"from={folder} holds the splits {', '.join(splits)}: name one by from='{path.parent / name}*.parquet'"
        )


def _of_files(paths: Sequence[Path], options: PackOptions) -> Layout:
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes == {".json"} and options.layout in (None, COCO):
        return _of_coco(paths, options)
    wrong = next((path for path in paths if path.suffix.lower() not in _SUFFIXES), None)
    if wrong is not None or len(suffixes) > 1:
        raise UserError(
            f"from={wrong or options.from_}: no folder, no captions_*.json, and no table, which ends in "
            f"{', '.join(_SUFFIXES)}"
        )
    if suffixes == {".parquet"}:
        return _of_parquet(paths, options)
    columns = list(dict.fromkeys(name for path in paths for name in _columns(path)))
    return _of_table(paths, columns, options)


def _of_parquet(paths: Sequence[Path], options: PackOptions) -> Layout:
    """Parquet files, which hold pictures or name them."""
    schema = schema_of(paths[0])
    image = _chosen(paths[0], schema.names, options.image_column, _by_type(schema), "pictures", "image_column")
    held = is_picture(schema.field(image).type)
    if options.layout == PARQUET and not held:
        raise UserError(
            f"{paths[0]}: the column {image!r} is {schema.field(image).type}, no pictures; say image_column="
        )
    if not held or options.layout == TABLE:
        return _of_table(paths, schema.names, options)
    captions, url = _captions(paths[0], schema, options), _url(schema.names, options, paths[0])
    for path in paths[1:]:
        for name in (image, *captions, *([url] if url else [])):
            if name not in (names := schema_of(path).names):
                raise UserError(f"{path} has no column {name!r}, as {paths[0].name} has; {nearest(name, names)}")
    return Layout(PARQUET, tuple(map(str, paths)), str(paths[0].parent), image, captions, url)


def _by_type(schema: pa.Schema) -> tuple[str, ...]:
    """Names that pictures may have: first of columns that hold some."""
    held = [field.name for field in schema if is_picture(field.type) and not pa.types.is_null(field.type)]
    named = [name for name in held if name in IMAGES]
    return (*named, *(held if len(held) == 1 else ()), *_NAMES)


def _captions(path: Path, schema: pa.Schema, options: PackOptions) -> tuple[str, ...]:
    if options.caption_column is None and set(schema.names) & set(_TEXTS) <= set(CAPTIONS):
        return tuple(caption_columns(path, schema))
    return (_chosen(path, schema.names, options.caption_column, _TEXTS, "captions", "caption_column"),)


def _of_table(paths: Sequence[Path], columns: Sequence[str], options: PackOptions) -> Layout:
    image = _chosen(paths[0], columns, options.image_column, _NAMES, "names of pictures", "image_column")
    others = [name for name in _TEXTS if name != image]
    caption = _chosen(paths[0], columns, options.caption_column, others, "captions", "caption_column")
    layout = Layout(TABLE, tuple(map(str, paths)), "", image, (caption,), _url(columns, options, paths[0]))
    return layout._replace(pictures=_folder_of_table(layout, options))


def _chosen(path: Path, columns: Sequence[str], given: str | None, known: Iterable[str], what: str, option: str) -> str:
    """The column that an option names, else the first of those that are known."""
    if given is not None:
        if given not in columns:
            raise UserError(f"{path} has no column {given!r}; {nearest(given, columns)}")
        return given
    lower = {name.strip().lower(): name for name in reversed(columns)}
    found = next((lower[name] for name in known if name in lower), None)
    if found is None:
        raise UserError(f"{path}: which column is that of the {what}? say {option}=; it has {', '.join(columns)}")
    return found


def _url(columns: Sequence[str], options: PackOptions, path: Path) -> str:
    if options.url_column is None:
        return URL if URL in columns else ""
    return _chosen(path, columns, options.url_column, (), "urls", "url_column")


def _columns(path: Path) -> list[str]:
    """The columns of a table of text."""
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        with open_text(str(path)) as file:
            lines = [_json(line) for line in itertools.islice(file, _PEEKED)]
        names = list(dict.fromkeys(name for line in lines if isinstance(line, dict) for name in line))
        if not names:
            raise UserError(f"{path}: none of its first lines is a JSON object")
        return names
    with open_text(str(path)) as file:
        names = header_of(csv.reader(file, delimiter=delimiter_of(str(path))))
    if names and names[0].startswith(_UTF_16):
        raise UserError(f"{path} is UTF-16; save it as UTF-8")
    twice = next((name for name in names if names.count(name) > 1), None)
    if not names or twice is not None:
        raise UserError(f"{path}: its first line must name its columns" + (f", {twice!r} once" if names else ""))
    return names


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _folder_of_table(layout: Layout, options: PackOptions) -> str:
    """The folder in which the pictures of a table lie: the one that is named, or the first where one of them is.

    Raises:
        UserError: none of the first ones lies where pictures usually do.
    """
    if options.pictures is not None:
        return options.pictures
    names = [name for name in itertools.islice(names_of(layout), _PEEKED) if name]
    table = Path(layout.files[0]).parent
    return _first_with(
        names, [table, *(table / name for name in _FOLDERS), table.parent, *_below(table.parent)], layout
    )


def _below(folder: Path) -> list[Path]:
    return [folder / name for name in _FOLDERS]


def _first_with(names: Sequence[str], places: Sequence[Path], layout: Layout) -> str:
    for place in places:
        if any(_is_file(place / name) for name in names):
            return str(place)
    said = (
        f"none of its first {len(names)} pictures, such as {names[0]!r}, is" if names else "it names no picture that is"
    )
    raise UserError(f"{layout.files[0]}: {said} in {places[0]} or beside it; say pictures=, the folder they lie in")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero in it
        return False


def _of_coco(paths: Sequence[Path], options: PackOptions) -> Layout:
    if len(paths) > 1:
        raise UserError(f"from={options.from_} names {some([path.name for path in paths])}: pack one after the other")
    path = paths[0]
    layout = Layout(COCO, (str(path),), "", "file_name", ("caption",), "coco_url")
    if options.pictures is not None:
        return layout._replace(pictures=options.pictures)
    found = _COCO.fullmatch(path.name)
    split = [found[1]] if found else []
    above = (path.parent, path.parent.parent)
    places = [
        *(place / name for place in above for name in split),
        *(place / "images" / name for place in above for name in split),
        *(place / name for place in above for name in ("images", "")),
    ]
    names = list(itertools.islice(names_of(layout), _PEEKED))
    return layout._replace(pictures=_first_with(names, places, layout))
