"""Evaluation sets in parquet files, as the Hub has them: captions, choices, several labels, pairs, puzzles."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from poolbench.errors import UserError
from poolbench.files import digest_bytes
from poolbench.shards import parquet

from tasks.examples import Bad, Example, Puzzle, checked_choices
from tasks.labels import reading

_PICTURE = "binary, or a struct with binary 'bytes'"


def read_captioned(path: Path, choices: bool = False) -> Iterator[Example | Bad]:
    """Image-text pairs: a column of pictures, and one of captions or of lists of them, under the names and in the types
    that published sets have; the Hub's own conversion has `image` {bytes, path} and `caption`.

    Args:
        choices: the captions are to be chosen among, and that of the first column is right.
    """
    schema = parquet.schema_of(path)
    pictures = parquet.column(path, schema, parquet.IMAGES, "pictures")
    captions = (parquet.choice_columns if choices else parquet.caption_columns)(path, schema)
    parquet.check_type(path, schema.field(pictures), parquet.is_picture, _PICTURE)
    for name in captions:
        parquet.check_type(path, schema.field(name), parquet.is_caption, "text, or a list of text")
    for row, record in parquet.rows(path, (pictures, *captions)):
        key, image = _pictured(path, row, pictures, record[pictures])
        values = (record[column] or "" for column in captions)  # a null among choices is a blank one
        texts = tuple(text.strip() for value in values for text in parquet.texts(value, blank=choices))
        if choices:
            checked_choices(f"{path}, row {row}", list(texts), 0)
        elif not texts:
            raise UserError(f"{path}, row {row}, holds no caption")
        if isinstance(image, Bad):
            yield image
        else:
            yield Example(key, image, 0 if choices else -1, texts, np.empty(0, np.int64))


def read_labelled(path: Path, classnames: Sequence[str]) -> Iterator[Example | Bad]:
    """Pictures with several labels: a column of pictures, and one of lists of labels, see `tasks.labels.reading`."""
    schema = parquet.schema_of(path)
    pictures = parquet.column(path, schema, parquet.IMAGES, "pictures")
    labels = parquet.column(path, schema, parquet.LABELS, "labels")
    parquet.check_type(path, schema.field(pictures), parquet.is_picture, _PICTURE)
    wanted = "a list of numbers or names of classes, or of 1 and 0 for each"
    parquet.check_type(path, schema.field(labels), parquet.is_labels, wanted)
    read = reading(path, schema, labels, classnames)
    for row, record in parquet.rows(path, (pictures, labels)):
        if record[labels] is None:
            raise UserError(f"{path}, row {row}, has no list of labels; an empty one says that it has none")
        try:
            vector = read(record[labels])
        except ValueError as error:
            raise UserError(f"{path}, row {row}: {error}") from None
        key, image = _pictured(path, row, pictures, record[pictures])
        yield image if isinstance(image, Bad) else Example(key, image, -1, (), vector)


def _pictured(path: Path, row: int, column: str, value: Any) -> tuple[str, bytes | Bad]:
    """The key of a row and its picture, or that it has none."""
    image, called = parquet.picture(value)
    key = called or f"{path.stem}-{row}"
    named = f", only the path {called}" if called else ""
    return key, image or Bad(path.name, key, f"no picture in the column {column!r}{named}")


def read_pairs(path: Path) -> Iterator[Example | Bad]:
    """Winoground as the Hub has it: `image_0`, `image_1`, `caption_0` and `caption_1`."""
    pictures, captions = parquet.PAIR, ("caption_0", "caption_1")
    schema = parquet.schema_of(path)
    for name in (*pictures, *captions):
        parquet.column(path, schema, (name,), "pairs")
        fits, wanted = (parquet.is_picture, _PICTURE) if name in pictures else (parquet.is_caption, "text")
        parquet.check_type(path, schema.field(name), fits, wanted)
    for row, record in parquet.rows(path, (*pictures, *captions)):
        key = f"{path.stem}-{row}"
        texts = tuple(" ".join(parquet.texts(record[name])) for name in captions)
        if not all(texts):
            raise UserError(f"{path}, row {row}, has a blank caption")
        images = [parquet.picture(record[name])[0] for name in pictures]
        if not all(images):
            yield Bad(path.name, key, f"no picture in the column {pictures[images.index(b'')]!r}")
            continue
        for place, image in enumerate(images):
            yield Example(f"{key}/{place}", image, place, texts, np.empty(0, np.int64))


def read_puzzles(path: Path, seen: dict[str, str]) -> Iterator[Example | Puzzle | Bad]:
    """WinoGAViL of the Hub's parquet conversion: `cue`, `candidates` and `associations` (lists of names, the second a
    part of the first) and `candidate_images`, a list of {bytes, path} or of binary."""
    columns = ("candidate_images", "candidates", "cue", "associations")
    schema = parquet.schema_of(path)
    for name in columns:
        parquet.column(path, schema, (name,), "puzzles")
    wanted = "a list of binary or of structs with binary 'bytes'"
    parquet.check_type(path, schema.field(columns[0]), parquet.is_pictures, wanted)
    for name in columns[1:]:
        parquet.check_type(path, schema.field(name), parquet.is_caption, "text, or a list of text")
    for row, record in parquet.rows(path, columns):
        key = f"{path.stem}-{row}"
        names = tuple(parquet.texts(record["candidates"], blank=True))
        images = [parquet.picture(image)[0] for image in record["candidate_images"] or ()]
        associations = set(parquet.texts(record["associations"], blank=True))
        right = tuple(name in associations for name in names)
        cue = " ".join(parquet.texts(record["cue"], blank=True))
        if len(images) != len(names) or not all(images):
            yield Bad(path.name, key, f"{sum(map(bool, images))} pictures for {len(names)} candidates")
        elif not cue.strip() or not any(right):
            yield Bad(path.name, key, "no cue, or no candidate that goes with it")
        else:
            digests = [digest_bytes(image) for image in images]
            for name, digest, image in zip(names, digests, images, strict=True):
                if digest not in seen:
                    seen[digest] = f"{name}-{digest[:16]}"
                    yield Example(seen[digest], image, -1, (), np.empty(0, np.int64))
            yield Puzzle(key, cue, tuple(seen[digest] for digest in digests), names, right)
