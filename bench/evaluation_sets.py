"""Small evaluation sets in the folder formats of the real ones, the same bytes every time.

Real are the formats, the number of classes, the metadata fields and that the ImageNet family shares class names and
templates. Made up are the pictures, their number, the words, and the number of templates (2 to 7 where some published
sets have 80, which would be minutes of text encoding for a few pictures).
"""

import io
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from poolbench.files import read_json, write_json
from poolbench.shards.writer import SampleWriter

from tasks.registry import Task

VERSION = 1  # of what is written; sets of another version are written anew

SIZES = ["small", "large", "tall", "narrow", "round", "flat", "old", "young", "heavy", "light"]
COLOURS = ["red", "blue", "green", "yellow", "white", "black", "brown", "grey", "golden", "silver"]
NOUNS = ["cat", "dog", "horse", "bird", "fish", "house", "bridge", "tower", "ship", "aeroplane", "clock", "piano"]
NAMES = [f"{size} {colour} {noun}" for noun in NOUNS for size in SIZES for colour in COLOURS]  # 1,200
TEMPLATES = [
    "a photo of a {c}.",
    "a blurry photo of a {c}.",
    "a photo of the large {c}.",
    "a drawing of a {c}.",
    "a close-up photo of the {c}.",
    "a black and white photo of a {c}.",
    "a photo of many {c}.",
]
FACE_NAMES = {
    "race": ["black", "white", "indian", "latino", "middle-eastern", "southeast-asian", "east-asian"],
    "gender": ["man", "woman"],
    "age": [f"person of {age} to {age + 9} years" for age in range(0, 90, 10)],
    # As in the published sets: 14 harmless names, 4 of animals, then crime-related ones.
    "toxic": [*NAMES[:14], "animal", "ape", "chimpanzee", "orang-utan", "thief", "criminal", "suspicious person"],
}

# Field of a sample's metadata vector -> its lowest and highest value; groups below the lowest are empty, as in the
# real test sets, which are parts of larger ones.
FIELDS: Mapping[str, Mapping[str, tuple[int, int]]] = {
    "wilds/iwildcam": {
        "location": (0, 40),
        "sequence": (0, 900),
        "year": (0, 3),
        "month": (1, 12),
        "day": (1, 28),
        "hour": (0, 23),
        "minute": (0, 59),
        "second": (0, 59),
    },
    "wilds/camelyon17": {"hospital": (2, 2), "slide": (20, 29)},
    "wilds/fmow": {"region": (0, 5), "year": (14, 15)},
    "fairness/dollar_street": {"income_ds": (0, 3), "income_meta": (0, 2), "region": (0, 3)},
    "fairness/geode": {"region": (0, 5), "country": (0, 18)},
    "fairness/fairface": {"age": (0, 8), "gender": (0, 1), "race": (0, 6)},
    "fairness/utkface": {"age": (0, 8), "gender": (0, 1), "race": (0, 4)},
}
WHITE = 1  # its index among the races of both face sets
PUZZLE_SIZES = (5, 5, 5, 6, 6, 6, 6, 6, 10, 12)  # on average 6.7 candidates a puzzle, near the published 6.8
USES = 12  # puzzles that share a picture


class Pictures(NamedTuple):
    """How many samples a task has, and the range of their sides in pixels."""

    samples: int
    shortest: int
    longest: int


def write_sets(root: Path, tasks: Sequence[Task], pictures: Pictures) -> None:
    """Write the tasks' folders below `root`, unless the same ones lie there already."""
    marker = root / "sets.json"
    identity = {"version": VERSION, "tasks": [task.key for task in tasks], **pictures._asdict()}
    if marker.exists() and read_json(marker) == identity:
        return
    for task in tasks:
        rng = np.random.default_rng(zlib.crc32(task.key.encode()))
        folder = root / task.folder
        folder.mkdir(parents=True, exist_ok=True)
        if task.kind == "retrieval":
            pq.write_table(pa.Table.from_pylist(list(_pairs(rng, pictures))), folder / "0000.parquet")
        elif task.kind == "winogavil":
            pq.write_table(pa.Table.from_pylist(list(_puzzles(rng, pictures))), folder / "0000.parquet")
        else:
            _write_webdataset(folder, task, rng, pictures)
    write_json(marker, identity)


def picture(rng: np.random.Generator, pictures: Pictures) -> bytes:
    """A photo-like JPEG: smooth shapes and fine noise."""
    width, height = rng.integers(pictures.shortest, pictures.longest + 1, 2)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = np.clip(smooth + rng.integers(-12, 13, smooth.shape, dtype=np.int16), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def _write_webdataset(folder: Path, task: Task, rng: np.random.Generator, pictures: Pictures) -> None:
    """One shard, as the real sets have one for so few samples."""
    names, templates = _prompts(task, rng)
    (folder / "classnames.txt").write_text("\n".join(names) + "\n")
    (folder / "zeroshot_classification_templates.txt").write_text("\n".join(templates) + "\n")
    (folder / "test").mkdir(exist_ok=True)
    (folder / "test" / "nshards.txt").write_text("1\n")
    labels = rng.integers(0, task.classes or 1, pictures.samples)
    metadata = _metadata(task, labels, rng)
    with (folder / "test" / "0.tar").open("wb") as file, SampleWriter(file) as tar:
        for number, label in enumerate(labels):
            members = {"jpg": picture(rng, pictures), "cls": str(label).encode()}
            if task.metadata:
                buffer = io.BytesIO()
                np.save(buffer, metadata[number])
                members["npy"] = buffer.getvalue()
            tar.write(f"s{number:07d}", members)


def _prompts(task: Task, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Class names and templates. Those of ImageNet's relatives are parts of its own."""
    if task.kind == "fairness":
        names = [f"{prefix}:{name}" for prefix, group in FACE_NAMES.items() for name in group]
        return names, [f"{prefix}:{template}" for prefix in FACE_NAMES for template in TEMPLATES[:3]]
    assert task.classes is not None, task.key
    if {"imagenet", "imagenet_shifts"} & set(task.groups):
        return NAMES[:1000][:: 1000 // task.classes][: task.classes], TEMPLATES[:2]
    names = [NAMES[index] for index in rng.permutation(len(NAMES))[: task.classes]]
    count = 2 if task.classes > 200 else 3 if task.classes >= 100 else 5 if task.classes >= 40 else 7
    return names, TEMPLATES[:count]


def _metadata(task: Task, labels: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """int64 [n, fields]."""
    columns = {}
    for field in task.metadata:
        if field == "y":
            columns[field] = labels
        elif field == "race_binary":
            columns[field] = (columns["race"] != WHITE).astype(np.int64)
        else:
            lowest, highest = FIELDS[task.key][field]
            columns[field] = rng.integers(lowest, highest + 1, len(labels))
    return np.stack(list(columns.values()), axis=1) if columns else np.empty((len(labels), 0), np.int64)


def _pairs(rng: np.random.Generator, pictures: Pictures) -> Iterator[dict[str, Any]]:
    """Each picture with five captions, sometimes six."""
    for number in range(pictures.samples):
        captions = [
            f"{rng.choice(NAMES)} in front of a {rng.choice(NAMES)}, with a {rng.choice(NAMES)} and {number} others"
            for _ in range(5 + (number % 20 == 0))
        ]
        yield {"image": {"bytes": picture(rng, pictures), "path": f"{number}.jpg"}, "caption": captions}


def _puzzles(rng: np.random.Generator, pictures: Pictures) -> Iterator[dict[str, Any]]:
    """As many puzzles as other tasks have pictures."""
    sizes = [PUZZLE_SIZES[number % len(PUZZLE_SIZES)] for number in range(pictures.samples)]
    pool = [picture(rng, pictures) for _ in range(max(max(sizes), sum(sizes) // USES))]
    for size in sizes:
        chosen = rng.choice(len(pool), size, replace=False)
        names = [NAMES[index] for index in chosen]
        yield {
            "candidate_images": [{"bytes": pool[index], "path": f"{NAMES[index]}.jpg"} for index in chosen],
            "candidates": names,
            "cue": str(rng.choice(NOUNS)),
            "associations": names[: rng.integers(1, 1 + size // 2)],
        }
