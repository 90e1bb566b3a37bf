"""Opening pictures of strangers: known formats and a bounded size, without torch."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, UnidentifiedImageError

from poolbench.errors import first_line

PIXEL_LIMIT = 64 * 2**20  # pixels; a decoded picture above it (192 MB) would threaten the memory of a worker
# What the web shows. Pillow knows many more; one starts a program, others have no limits.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# Those of shards, by Pillow's names, with the extensions of their members.
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


def opened(data: bytes, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The picture, not decoded yet.

    Raises:
        ValueError: it has too many pixels.
        Exception: whatever Pillow raises for bytes that are no picture of these formats.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's own warning about large pictures; PIXEL_LIMIT is stricter
        image = Image.open(io.BytesIO(data), formats=formats)
    if image.width * image.height > PIXEL_LIMIT:
        raise ValueError(f"{image.width} x {image.height} pixels are more than {PIXEL_LIMIT:,}")
    return image


def rgb(image: Image.Image) -> Image.Image:
    """The picture decoded to 8 bits of red, green and blue: alpha is dropped, a palette expanded, and of a grey of 16
    bits the high byte kept, as Pillow itself does with 16-bit colours, and OpenCV with both.

    Raises:
        ValueError: its pixels are numbers of which nobody says what white is.
        Exception: whatever Pillow raises for bytes that are not a whole picture.
    """
    if image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG"):  # which Pillow cuts off at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are numbers of 32 bits, of which nobody says what white is; save it with 8 bits")
    return image.convert("RGB")


@contextlib.contextmanager
def decoding() -> Iterator[None]:
    """Opening and decoding a picture; whatever goes wrong becomes one line.

    Raises:
        ValueError: as said.
    """
    try:
        yield
        return
    except UnidentifiedImageError:
        reason = f"it is none of {', '.join(FORMATS)}"
    except Exception as error:  # what a decoder raises on foreign bytes is not documented
        reason = first_line(error).partition(" <_io.BytesIO")[0]
    raise ValueError(f"image cannot be decoded: {reason}")
