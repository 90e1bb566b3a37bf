"""The perceptual hash of a picture, and the probes of one that is looked for.

The hash is imagehash's `phash` of 16 x 16 bits: the signs of the lowest frequencies of a cosine transform of the grey
picture at 64 x 64, about their median. Re-encoding and resizing change few of its bits, cropping and mirroring many. So
an evaluation picture is looked for by several probes: the hashes of itself and of its crops, each mirrored, too; a
training picture is hashed once.
"""

import importlib.metadata
from collections.abc import Set
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from poolbench.errors import UserError
from poolbench.shards.pictures import decoding, opened, rgb

from curate.scorers.views import Seen

NAME = "phash"
SIDE = 16  # of the square of bits
BITS = SIDE * SIDE
BYTES = BITS // 8
_SMALL = 4 * SIDE  # pixels of a side that imagehash transforms
_DRAFT = 4 * _SMALL  # a JPEG is decoded no smaller than this: at 2 * _SMALL single hashes change by 18 bits
_BLANK = 3.0  # standard deviation of the grey levels, of 255, below which bits are those of noise

_SYMMETRIC, _ASIDE = (0.02, 0.045), 0.04
# Shares that are cut off at the left, top, right and bottom.
CROPS = (
    (0.0, 0.0, 0.0, 0.0),
    *((cut, cut, cut, cut) for cut in _SYMMETRIC),
    *((_ASIDE, 0.0, 0.0, 0.0), (0.0, _ASIDE, 0.0, 0.0), (0.0, 0.0, _ASIDE, 0.0), (0.0, 0.0, 0.0, _ASIDE)),
    *((_ASIDE, _ASIDE, 0.0, 0.0), (_ASIDE, 0.0, 0.0, _ASIDE), (0.0, _ASIDE, _ASIDE, 0.0), (0.0, 0.0, _ASIDE, _ASIDE)),
    *((_ASIDE, 0.0, _ASIDE, 0.0), (0.0, _ASIDE, 0.0, _ASIDE)),
)
PROBES = 2 * len(CROPS)  # of a picture that is looked for; the first is its hash


def check_installed() -> None:
    """
    Raises:
        UserError: imagehash or faiss is missing.
    """
    try:
        import faiss  # noqa: F401
        import imagehash  # noqa: F401
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} is missing; pip install 'poolbench[overlap]'") from None


def version() -> str:
    """What a hash depends on besides the picture."""
    return f"{NAME} {BITS} imagehash {importlib.metadata.version('imagehash')}"


def grey(data: bytes) -> Image.Image:
    """The picture of a file in grey, decoded as scorers see it; a JPEG no larger than is of use.

    Raises:
        ValueError: it cannot be decoded.
    """
    with decoding():
        image = opened(data)
        image.draft("RGB", (_DRAFT, _DRAFT))
        return rgb(image).convert("L")


def hash_of(image: Image.Image) -> np.ndarray:
    """The hash of a grey picture, uint8 [BYTES]."""
    return _hashed(_small(image, CROPS[0]))


def probes_of(image: Image.Image) -> np.ndarray:
    """The probes of a grey picture, uint8 [PROBES, BYTES]: each crop, then each mirrored."""
    every = [_small(image, crop) for crop in CROPS]
    return np.stack([_hashed(one) for one in [*every, *map(ImageOps.mirror, every)]])


def is_blank(image: Image.Image) -> bool:
    """Whether a grey picture is so even that its hash says nothing of it."""
    return bool(np.asarray(_small(image, CROPS[0]), np.float32).std() < _BLANK)


def look(data: bytes, wanted: Set[str]) -> Seen:
    """The hash of a training picture's file, as hexadecimal digits.

    Raises:
        ValueError: it cannot be decoded.
    """
    return Seen({}, {"hash": hash_of(grey(data)).tobytes().hex()})


def look_for(data: bytes, wanted: Set[str]) -> Seen:
    """The probes of an evaluation picture's file, as hexadecimal digits; none of a blank one.

    Raises:
        ValueError: it cannot be decoded.
    """
    image = grey(data)
    return Seen({}, {"probes": "" if is_blank(image) else probes_of(image).tobytes().hex(), "file": _short(data)})


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """In how many bits a hash uint8 [BYTES] differs from each of [..., BYTES]."""
    differing: np.ndarray = np.bitwise_count(np.bitwise_xor(others, one)).sum(axis=-1, dtype=np.int64)
    return differing


def _small(image: Image.Image, crop: tuple[float, float, float, float]) -> Image.Image:
    """What is left of a crop at the size of the transform, which imagehash resizes no more; edges may lie within
    pixels."""
    left, top, right, bottom = crop
    box = (image.width * left, image.height * top, image.width * (1 - right), image.height * (1 - bottom))
    return image.resize((_SMALL, _SMALL), Image.Resampling.LANCZOS, box)


def _hashed(small: Image.Image) -> np.ndarray:
    import imagehash  # with scipy, which help and a mistake in the options need not wait for

    found: Any = imagehash.phash(small, SIDE)
    return np.packbits(found.hash)


def _short(data: bytes) -> str:
    """By which equal files of two sets are known: 64 bits of their SHA-256."""
    from poolbench.files import digest_bytes

    return digest_bytes(data)[:16]
