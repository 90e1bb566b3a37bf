"""What a worker makes of a picture where text is to be painted over: the picture without it, and how much it was."""

import time
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from poolbench.errors import UserError, first_line
from poolbench.files import digest_file
from poolbench.shards.pictures import decoding, opened, rgb

from curate.models.onnx_models import versions
from curate.models.painting import painted
from curate.models.text_detection import RULE, Line, TextDetector, TextReader, legible
from curate.pool.scored import Identity
from curate.scorers.views import PLAIN, Seen

if TYPE_CHECKING:
    from poolbench.models.transforms import WebPixels

MASKED = "masked"  # the view of a picture with its text painted over
SHARE, REGIONS, TEXT = "text_share", "text_regions", "recognized_text"  # facts, and columns


class Masked(NamedTuple):
    """A picture with its text painted over, and the text."""

    pixels: np.ndarray
    share: float
    lines: list[Line]


class TextMask:
    """Finds the text of pictures and paints it over.

    Args:
        detector: an ONNX file, None for PP-OCR's.
        least: the mean probability from which on what was read is text; 0 for all that was detected.
        read: whether it is read even if nothing depends on it.

    Raises:
        UserError: a network is missing.
    """

    def __init__(self, detector: str | None, side: int, least: float, fill: str, ring: int, read: bool) -> None:
        self._detect = TextDetector(None if detector is None else Path(detector), side)
        self._read = TextReader() if least > 0 or read else None
        self._least, self._fill, self._ring = least, fill, ring
        found: dict[str, Any] = {
            "side": side,
            "legible": least,
            **{f"rule_{name}": value for name, value in RULE.items()},
        }
        if least > 0:
            found["reader"] = self.reader
        self.found = found  # what the text that is found depends on, besides the detector

    @property
    def identity(self) -> Identity:
        """What the text that is found depends on."""
        path = self._detect.network.path
        return Identity(model=path.name, tag=None, sha256=digest_file(path), precision="fp32", options=self.found)

    @property
    def reader(self) -> str:
        """The digest of what reads, "" where nothing does."""
        return "" if self._read is None else digest_file(self._read.network.path)

    @property
    def painting(self) -> dict[str, Any]:
        """What the colours depend on."""
        return {"fill": self._fill, "ring": self._ring if self._fill == "ring" else None}

    @property
    def conventions(self) -> dict[str, Any]:
        """What there is to record besides: the packages by their versions."""
        return versions()

    def open(self) -> None:
        """Try the networks, before they are sent to the workers.

        Raises:
            UserError: one cannot be opened, or a package is missing.
        """
        try:
            import cv2  # noqa: F401 (resizes and paints)
        except ImportError as error:
            raise UserError(f"{error.name} is missing; pip install 'poolbench[text]'") from None
        try:
            self._detect(np.zeros((32, 32, 3), np.uint8))
        except UserError:
            raise
        except Exception as error:  # see Network
            raise UserError(f"{self._detect.network.path} finds no text in pictures: {first_line(error)}") from None
        if self._read is not None:
            self._read.network.opened()

    def lines(self, pixels: np.ndarray, seconds: dict[str, float]) -> list[Line]:
        """The lines of text in uint8 RGB [h, w, 3]; the seconds that it takes are added to `seconds`."""
        began = time.perf_counter()
        lines = self._detect(pixels)
        seconds["detecting text"] = time.perf_counter() - began
        if self._read is not None:
            began = time.perf_counter()
            lines = [self._read(pixels, line) for line in lines]
            seconds["reading text"] = time.perf_counter() - began
        return legible(lines, self._least) if self._least > 0 else lines

    def __call__(self, pixels: np.ndarray, seconds: dict[str, float]) -> Masked:
        """A picture uint8 RGB [h, w, 3] with its text painted over."""
        lines = self.lines(pixels, seconds)
        made = painted(pixels, [line.corners for line in lines], self._fill, self._ring)
        return Masked(made.pixels, made.share, lines)


class Look:
    """A picture file to the views and facts of it that are wanted; sent to the workers.

    Args:
        plain, masked, facts: names of the products that need the picture as it is, without its text, and the facts.
    """

    def __init__(self, pixels: "WebPixels", mask: TextMask, plain: Set[str], masked: Set[str], facts: Set[str]) -> None:
        self._pixels, self._mask = pixels, mask
        self._plain, self._masked, self._facts = plain, masked, facts

    def __call__(self, data: bytes, wanted: Set[str]) -> Seen:
        """
        Raises:
            ValueError: `data` is no whole picture, or has too many pixels.
        """
        with decoding():
            image = rgb(opened(data))
            plain = self._pixels.of(image)  # where this fails there is no row, whatever is wanted of it
        views = {PLAIN: plain} if wanted & self._plain else {}
        if not wanted & (self._masked | self._facts):
            return Seen(views)
        seconds: dict[str, float] = {}
        try:
            found = self._mask(np.asarray(image), seconds)
        except Exception as error:  # of onnxruntime and OpenCV, whose have no class in common
            why = f"no masked score: its text cannot be found: {first_line(error)}"
            views |= {MASKED: plain} if wanted & self._masked else {}
            return Seen(views, {SHARE: float("nan"), REGIONS: float("nan"), TEXT: ""}, why)
        if wanted & self._masked:
            views[MASKED] = self._pixels.of(Image.fromarray(found.pixels)) if found.lines else plain
        text = "\n".join(line.text for line in found.lines)
        return Seen(views, {SHARE: found.share, REGIONS: float(len(found.lines)), TEXT: text}, "", seconds)
