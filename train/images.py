"""Decode and crop one training picture to uint8; the device normalises it.

JPEGs are decoded by torchvision (bit-identical to Pillow) and resized by torch's antialiased bicubic filter on uint8,
in half of Pillow's time. Its integer weights round differently: on noisy pictures 4 % of the values differ by one
grey level and 5 in 100,000 by more (4 at most was seen), on photos fewer. A random crop moves every pixel by more
than that, so this is the only mode. Evaluation, whose numbers are compared, uses Pillow's own filter.
"""

import io
import math
import random
import warnings
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

PIXEL_LIMIT = 64 * 2**20  # pixels; a decoded picture above it (192 MB) would threaten the memory of a worker
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own warning about large pictures; PIXEL_LIMIT is stricter
            image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > PIXEL_LIMIT:
            raise ValueError(f"image of {width} x {height} pixels is larger than {PIXEL_LIMIT:,} pixels")
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
            rgb: torch.Tensor = decode_jpeg(encoded, mode=ImageReadMode.RGB)
            return rgb
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except (OSError, RuntimeError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image cannot be decoded: {str(error).splitlines()[0]}") from None


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
