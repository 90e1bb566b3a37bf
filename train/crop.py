"""Decode and crop one training picture to uint8; the device normalises it.

JPEGs are decoded by torchvision (bit-identical to Pillow) and resized by torch's antialiased bicubic filter on uint8,
in a fifth of Pillow's time. Its integer weights round differently: half a percent of the values differ by one grey
level from Pillow's, and on pure noise one in 100,000 by two. This is the only mode: a random crop moves every pixel by
more than that, and the order of its two passes (rows, then columns) is the same everywhere, while Pillow 13 turned its
own around for tall pictures, where overshoots are cut off in between. Evaluation, whose numbers are compared, uses
Pillow's filter.
"""

import math
import random
from typing import NamedTuple

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg

from poolbench.shards.pictures import decoding, opened, rgb

_RATIO = (math.log(3 / 4), math.log(4 / 3))  # of width to height: torchvision's and open_clip's default


class Box(NamedTuple):
    """A crop in pixels."""

    top: int
    left: int
    height: int
    width: int


def decode(data: bytes) -> torch.Tensor:
    """Decode an image file to RGB, uint8 [3, height, width]. Alpha is dropped, EXIF orientation not applied.

    Raises:
        ValueError: `data` is no image, is damaged or truncated, or has too many pixels.
    """
    with decoding():
        image = opened(data)
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            decoded: torch.Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
            return decoded
        return torch.from_numpy(np.array(rgb(image))).permute(2, 0, 1)


def draw_box(height: int, width: int, scale: tuple[float, float], rng: random.Random) -> Box:
    """A random crop as torchvision's RandomResizedCrop.get_params draws it, from `rng.random()` alone.

    `random.random` is the one generator whose numbers Python promises never to change, so the crops of a seed are the
    same on every machine and version.
    """
    for _ in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(_RATIO[0] + (_RATIO[1] - _RATIO[0]) * rng.random())
        wide, high = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < wide <= width and 0 < high <= height:
            top, left = int(rng.random() * (height - high + 1)), int(rng.random() * (width - wide + 1))
            return Box(top, left, high, wide)
    # No crop of the wanted shape fits: take the largest one within the limits of the ratio, from the centre.
    ratio = width / height
    wide, high = width, height
    if ratio < math.exp(_RATIO[0]):
        high = round(width / math.exp(_RATIO[0]))
    elif ratio > math.exp(_RATIO[1]):
        wide = round(height * math.exp(_RATIO[1]))
    return Box((height - high) // 2, (width - wide) // 2, high, wide)


def resized_crop(image: torch.Tensor, box: Box, size: int) -> torch.Tensor:
    """Cut `box` out of a uint8 image [3, h, w] and resize it to uint8 [3, size, size], bicubic with antialiasing."""
    part = image[:, box.top : box.top + box.height, box.left : box.left + box.width]
    return torch.nn.functional.interpolate(part[None], (size, size), mode="bicubic", antialias=True)[0]
