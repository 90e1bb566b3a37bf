"""A downloaded picture as the pool's pictures are: at most 512 pixels a side, faces blurred, a JPEG of quality 95.

The same bytes as img2dataset 1.40.0 makes, which the benchmark pins, where the version of OpenCV is the same. Its
version 1.47.0 blurs about three times less than the pool's faces are blurred (docs/download.md).
"""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(2**28))  # a file of 100 kB can ask for 3 GB; read at the import
import cv2

from curate.pool.faces import Box, Pixels, Region, blurred, reach

SIDE = 512  # pixels, of the longer side
QUALITY = 95  # of the JPEG


class Picture(NamedTuple):
    """A finished picture; sizes in pixels."""

    jpeg: bytes
    width: int
    height: int
    original_width: int
    original_height: int


def finished(data: bytes, faces: Sequence[Box]) -> Picture:
    """Decode, shrink the longer side to SIDE where it is longer, blur the faces, encode.

    Raises:
        ValueError: no picture that OpenCV decodes.
    """
    try:
        pixels = _decoded(data)
        height, width = pixels.shape[:2]
        if max(width, height) > SIDE:
            scale = SIDE / max(width, height)
            size = (round(width * scale), round(height * scale))
            pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        if len(faces):
            pixels = blurred(pixels, faces, _gaussian)
        jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    except cv2.error as error:  # a strip so thin that nothing is left of it, or too many pixels
        raise ValueError(str(error).strip().splitlines()[-1]) from None
    return Picture(jpeg, pixels.shape[1], pixels.shape[0], width, height)


def _gaussian(sharp: Pixels, mask: Pixels, sigma: float, region: Region) -> tuple[Pixels, Pixels]:
    """OpenCV's, as it made the published pictures."""
    size = 2 * reach(sigma) + 1
    soft, soft_mask = (cv2.GaussianBlur(one, (size, size), sigma)[region] for one in (sharp, mask))
    return soft, soft_mask


def _decoded(data: bytes) -> Any:
    """The pixels (height x width, or with 3 channels), those of a picture with an alpha channel on white."""
    cv2.setNumThreads(1)  # pictures are made in parallel, by the processes
    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if pixels is None:
        raise ValueError("not a picture")
    if pixels.dtype == np.uint16:  # which the encoder would cut off at 255
        pixels = (pixels >> 8).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise ValueError(f"a picture of {pixels.dtype}, of which nobody says what white is")
    if pixels.ndim == 3 and pixels.shape[-1] == 4:
        alpha = pixels[:, :, 3, np.newaxis]
        on_white = alpha / 255 * pixels[..., :3] + 255 - alpha
        pixels = np.rint(on_white.clip(min=0, max=255)).astype(np.uint8)
    return pixels
