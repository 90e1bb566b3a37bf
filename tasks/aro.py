"""ARO's relations and attributes as its authors publish them, for `python -m tasks export dataset=aro/relation`.

`visual_genome_relation.json` (or `..._attribution.json`) is a list of samples: a box of a picture in `images/`, a
caption that is true of what it shows, and one that is not.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.files import read_json
from poolbench.shards.pictures import decoding, opened, rgb

from tasks.datasets import Dataset, DatasetSample, Opened, Picture, check_split, encoded

IMAGES = "images"
_TEXTS = ("image_path", "true_caption", "false_caption")
_BOX = ("bbox_x", "bbox_y", "bbox_w", "bbox_h")


def build(name: str, root: Path, split: str) -> Dataset:
    """The data set `aro/relation` or `aro/attribution` from its authors' files.

    Raises:
        UserError: its file is missing or is another one, or it has no such split.
    """
    check_split(name, split)
    file = root / f"visual_genome_{name.partition('/')[2]}.json"
    if not file.is_file():
        raise UserError(f"{file} is missing; ARO's authors publish it, and the pictures in {IMAGES}/")
    samples = read_json(file)
    if not isinstance(samples, list):
        raise UserError(f"{file} is not a list of samples")
    return Dataset(name, split, (), (), "caption_selection", len(samples), partial(_samples, file, samples))


def _samples(file: Path, samples: Sequence[Any]) -> Iterator[DatasetSample]:
    for number, sample in enumerate(samples):
        wrong = _wrong(sample)
        if wrong is not None:
            raise UserError(f"{file}, sample {number}: {wrong}")
        try:
            picture = _cut_out(file.parent / IMAGES / sample["image_path"], sample)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}, sample {number}: {sample['image_path']} cannot be read: {error}") from None
        yield DatasetSample((picture,), [sample["true_caption"], sample["false_caption"]])


def _wrong(sample: Any) -> str | None:
    """What is wrong with an entry of the list, None where nothing is."""
    if not isinstance(sample, Mapping):
        return "it is no mapping"
    texts = [key for key in _TEXTS if not isinstance(sample.get(key), str)]
    numbers = [key for key in _BOX if not isinstance(sample.get(key), int | float)]
    if texts or numbers:
        return f"{(texts + numbers)[0]!r} is missing, or not {'a text' if texts else 'a number'}"
    if min(sample["bbox_w"], sample["bbox_h"]) < 1:
        return f"its box is of {sample['bbox_w']} x {sample['bbox_h']} pixels"
    return None


def _cut_out(path: Path, sample: Mapping[str, Any]) -> Picture:
    """The box of the picture; what lies beyond its edge is black, as with the authors."""
    data = path.read_bytes()
    left, top, width, height = (sample[key] for key in _BOX)
    with decoding():
        image = opened(data)
        return encoded(rgb(image).crop((left, top, left + width, top + height)), [Opened(image, lambda: data)])
