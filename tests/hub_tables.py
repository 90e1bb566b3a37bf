"""Small evaluation sets as the Hub has them, in parquet files: the rows of samples that shards hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from evalsets import Samples

# Task -> the columns of its published files: the pictures, the right caption, the others.
CHOICES = {
    "sugarcrepe/add_att": ("images", "caption", "negative_caption"),
    "aro/relation": ("image", "true_caption", "false_caption"),
    "aro/attribution": ("image", "true_caption", "false_caption"),
    "aro/coco_order": ("images", "correct_caption", *(f"hard_text_{number}" for number in range(1, 5))),
    "aro/flickr_order": ("images", "correct_caption", *(f"hard_text_{number}" for number in range(1, 5))),
}
WHOLE = "test-00000-of-00001.parquet"


def image_of(members: dict[str, bytes], start: str = "") -> dict[str, Any]:
    """The picture of a sample as the Hub's type Image has it; of a pair the one whose member begins with `start`."""
    return {
        "bytes": next(data for name, data in members.items() if name not in ("txt", "npy") and name.startswith(start)),
        "path": None,
    }


def write_rows(folder: Path, rows: list[dict[str, Any]], name: str = WHOLE) -> Path:
    """A parquet file of a folder that need not be there."""
    return write_table(folder, pa.Table.from_pylist(rows), name)


def write_table(folder: Path, table: pa.Table, name: str = WHOLE) -> Path:
    """The same of a table."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, row_group_size=5)
    return folder / name


def choices(samples: Samples, columns: tuple[str, ...]) -> tuple[Samples, list[dict[str, Any]]]:
    """Samples with as many captions as there are columns, and the same as rows."""
    picture, *captions = columns
    kept, rows = [], []
    for key, members in samples:
        texts = [f"{members['txt'].decode().splitlines()[0]} {number}" for number in range(len(captions))]
        kept.append((key, {**members, "txt": "\n".join(texts).encode()}))
        rows.append({picture: image_of(members), "id": 7, **dict(zip(captions, texts, strict=True))})
    return kept, rows


def pairs(samples: Samples) -> list[dict[str, Any]]:
    """Winoground's rows."""
    rows = []
    for _, members in samples:
        first, second = members["txt"].decode().splitlines()
        images = {f"image_{place}": image_of(members, f"{place}.") for place in range(2)}
        rows.append({**images, "caption_0": first, "caption_1": second, "tag": "Object"})
    return rows


def labelled(samples: Samples, labels: pa.Array, name: str = "labels", classes: list[str] | None = None) -> pa.Table:
    """A table of pictures and a column of labels, which the file says to be numbers of `classes`, as the Hub's do."""
    table = pa.table({"image": pa.array([image_of(members) for _, members in samples]), name: labels})
    if classes is None:
        return table
    features = {name: {"feature": {"names": classes, "_type": "ClassLabel"}, "_type": "Sequence"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def numbers(truth: Any) -> list[list[int]]:
    """The numbers of the classes that are 1, a list a row."""
    return [np.flatnonzero(row).tolist() for row in truth]
