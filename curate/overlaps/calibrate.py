"""From which distance on two pictures are taken for one: measured on the evaluation pictures themselves.

Edited copies of some say which share would be found. Pictures of other sets, taken for training pictures, say how
often one that shows no evaluation picture would be called a hit.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from poolbench.overlap_report import Edit
from poolbench.shards.pictures import opened, rgb
from poolbench.shards.samples import Sample, read_shard

from curate.overlaps import hashes
from curate.overlaps.pictures import Pictures
from curate.overlaps.search import MOST, Near

Edits = Mapping[str, Callable[[Image.Image], Image.Image]]


class Drawn(NamedTuple):
    """Evaluation pictures that calibration takes, int64 [n], and their own hashes, uint8 [n, BYTES]."""

    pictures: np.ndarray
    hashes: np.ndarray


class Threshold(NamedTuple):
    """The distance up to which two pictures are one, and the share of other pictures that lie within it, None where
    there is none to compare."""

    distance: int
    false_positives: float | None


def _encoded(image: Image.Image, form: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, form, quality=quality)
    return rgb(opened(file.getvalue()))


def _scaled(image: Image.Image, across: float, down: float) -> Image.Image:
    size = (max(1, round(image.width * across)), max(1, round(image.height * down)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _cropped(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Whole pixels, as many as the shares of the sides are."""
    width, height = image.size
    box = (round(width * left), round(height * top), width - round(width * right), height - round(height * bottom))
    return image.crop(box)


EDITS: Edits = {
    "JPEG, quality 75": lambda image: _encoded(image, "JPEG", 75),
    "JPEG, quality 40": lambda image: _encoded(image, "JPEG", 40),
    "WebP, quality 60": lambda image: _encoded(image, "WEBP", 60),
    "half as large": lambda image: _scaled(image, 0.5, 0.5),
    "three times as large": lambda image: _scaled(image, 3, 3),
    "squeezed to 4/5 of its height": lambda image: _scaled(image, 1, 0.8),
    "2 % cut off each side": lambda image: _cropped(image, 0.02, 0.02, 0.02, 0.02),
    "5 % cut off each side": lambda image: _cropped(image, 0.05, 0.05, 0.05, 0.05),
    "5 % cut off one side": lambda image: _cropped(image, 0.05, 0, 0, 0),
    "5 % cut off two sides": lambda image: _cropped(image, 0, 0.05, 0.05, 0),
    "mirrored": ImageOps.mirror,
    "mirrored, JPEG, 3 % cut off": lambda image: _encoded(
        ImageOps.mirror(_cropped(image, 0.03, 0.03, 0.03, 0.03)), "JPEG", 75
    ),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "brighter by a fifth": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "10 % cut off each side": lambda image: _cropped(image, 0.1, 0.1, 0.1, 0.1),
}


def draw(pictures: Pictures, count: int, seed: int) -> Drawn:
    """Pictures that are not blank, as many of each set where it has them; equal files once."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~pictures.blank))
    order = order[np.sort(np.unique(pictures.content[order], return_index=True)[1])]
    turn = np.zeros(len(order), np.int64)  # which of its set's it is
    for number in range(len(pictures.sets)):
        mine = pictures.set_of[order] == number
        turn[mine] = np.arange(mine.sum())
    chosen = order[np.argsort(turn, kind="stable")[:count]]
    return Drawn(chosen, pictures.probes[chosen, 0])


def nearest_others(pictures: Pictures, drawn: Drawn, near: Near) -> np.ndarray:
    """How far the nearest picture of another set is from each drawn one, int64 [n], MOST + 1 where none is nearer.

    Sets that have pictures in common count as one. Where all do, it is the nearest other picture of its own.
    """
    found = np.full(len(drawn.pictures), MOST + 1)
    own = drawn.pictures[near.row]
    if len(np.unique(pictures.family)) > 1:
        family = pictures.family[pictures.set_of]
        other = family[own] != family[near.picture]
    else:
        other = pictures.content[own] != pictures.content[near.picture]
    np.minimum.at(found, near.row[other], near.distance[other])
    return found


def threshold(others: np.ndarray, most_false: float, given: int | None) -> Threshold:
    """The largest distance within which no more than a share of other pictures lies; 0 where that is too many, too."""
    if not len(others):
        return Threshold(MOST if given is None else given, None)
    shares = [float((others <= distance).mean()) for distance in range(MOST + 1)]
    if given is None:
        given = max((distance for distance, share in enumerate(shares) if share <= most_false), default=0)
    return Threshold(given, shares[given])


def edited(pictures: Pictures, drawn: Drawn, most: int, edits: Edits = EDITS) -> list[Edit]:
    """What becomes of copies of the drawn pictures: which share is found within `most` bits of its picture's probes."""
    far: dict[str, list[int]] = {name: [] for name in edits}
    wanted: dict[int, list[int]] = {}
    for picture in drawn.pictures.tolist():
        wanted.setdefault(int(np.searchsorted(pictures.starts, picture, side="right")) - 1, []).append(picture)
    for shard, some in wanted.items():
        by_key = {pictures.names[picture]: picture for picture in some}
        for sample in read_shard(str(pictures.shards[shard])):
            if isinstance(sample, Sample) and sample.key in by_key:
                image = rgb(opened(sample.picture()))
                for name, distance in _distances(image, pictures.probes[by_key.pop(sample.key)], edits).items():
                    far[name].append(distance)
    return [Edit(name=name, recall=_within(all_, most), median=float(np.median(all_))) for name, all_ in far.items()]


def _within(distances: Sequence[int], most: int) -> float:
    return float((np.array(distances) <= most).mean())


def _distances(image: Image.Image, probes: np.ndarray, edits: Edits) -> dict[str, int]:
    """How far an edited copy of a picture is from the nearest of its probes, by edit."""
    return {
        name: int(hashes.distances(hashes.hash_of(edit(image).convert("L")), probes).min())
        for name, edit in edits.items()
    }
