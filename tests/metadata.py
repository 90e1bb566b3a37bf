"""Small pools' metadata for the tests: parquet files with every column, and an npz of embeddings beside each."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pools import uid_of

from curate.pool.files import File, read

CAPTIONS = (
    "a dog runs on the beach in the morning",
    "the old bridge over the river at night",
    "Ein Hund am Strand bei Sonnenaufgang",
    "una casa blanca en la ciudad vieja",
    "red car",
    "IMG_0001.JPG",
    "",
    "three\u00a0green apples",
    "one\u3000two\x1cthree and some more words",
    "x y z",
    "a picture\nof two lines, and a cat\ton a table",
    "犬が浜辺を走っている",
)
SIZES = ((640, 480), (199, 400), (200, 200), (600, 200), (601, 200), (1024, 300), (0, 0), (1200, 900))


def scores_of(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Scores with many ties, and with NaN, infinities and both zeros among them, float64 [rows]."""
    scores = np.round(rng.normal(0.22, 0.08, rows), 2)
    odd = rng.integers(0, 40, rows)
    for value, number in ((np.nan, 0), (np.inf, 1), (-np.inf, 2), (-0.0, 3), (0.0, 4)):
        scores[odd == number] = value
    return scores


def columns_of(rows: int, first: int = 0, dtype: Any = np.float32) -> dict[str, Any]:
    """The columns of `rows` samples, numbered from `first`."""
    rng = np.random.default_rng(first)
    sizes = [SIZES[number] for number in rng.integers(0, len(SIZES), rows)]
    return {
        "uid": [uid_of(first + row) for row in range(rows)],
        "url": [f"http://host{row % 7}.example/{first + row}.jpg" for row in range(rows)],
        "text": [CAPTIONS[number] for number in rng.integers(0, len(CAPTIONS), rows)],
        "original_width": [width for width, _ in sizes],
        "original_height": [height for _, height in sizes],
        "sha256": [f"{first + row:064x}" for row in range(rows)],
        "clip_b32_similarity_score": scores_of(rows, rng).astype(dtype),
        "clip_l14_similarity_score": scores_of(rows, rng).astype(dtype),
        "face_bboxes": [[] for _ in range(rows)],
    }


def embeddings_of(rows: int, first: int = 0, width: int = 8) -> dict[str, np.ndarray]:
    """The arrays of the npz: normalised, float16 [rows, width]."""
    rng = np.random.default_rng(first + 1)
    found = {}
    for name in ("b32_img", "b32_txt", "l14_img", "l14_txt"):
        vectors = rng.normal(size=(rows, width))
        found[name] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return found


def write_file(path: Path, columns: dict[str, Any], arrays: dict[str, np.ndarray] | None = None) -> Path:
    """One parquet file, in row groups of 100 rows, and its npz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    boxes = pa.array(columns["face_bboxes"], pa.list_(pa.list_(pa.float64()))) if "face_bboxes" in columns else None
    table = pa.table({**columns, "face_bboxes": boxes} if boxes is not None else columns)
    pq.write_table(table, path, row_group_size=100)
    if arrays is not None:
        np.savez(path.with_suffix(".npz"), **arrays)
    return path


def write_metadata(folder: Path, files: int = 4, rows: int = 250, dtype: Any = np.float32, npz: bool = True) -> Path:
    """A pool of `files` files with `rows` rows each."""
    for number in range(files):
        first = number * rows
        arrays = embeddings_of(rows, first) if npz else None
        write_file(folder / f"{number:04d}.parquet", columns_of(rows, first, dtype), arrays)
    return folder


def rows_or_death(file: File, marker: str) -> int:
    """Dies as the system kills for want of memory, the first time it comes to the third file."""
    if file.name == "0002" and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return sum(len(rows.table) for rows in read(file, ["text"]))
