"""Where text is in a picture, and what it says: PP-OCR's two networks, as rapidocr carries them.

The detector is one of differentiable binarization (Liao et al., 2020): it gives each pixel the probability of lying in
the core of a line of text. The cores are cut out, and grown to the lines. It takes much for text that is none (a disc
is an O to it), so the reader, a network of sequences of characters, has a say in it.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from curate.models.onnx_models import Network, carried

DETECTOR, READER = "PP-OCRv6_det_small.onnx", "PP-OCRv6_rec_small.onnx"  # both in rapidocr 3.10
# Of PP-OCR's configuration: a pixel of a core has this probability, and a core as a mean that one.
_PIXEL, _CORE = 0.3, 0.5
_GROWN = 1.6  # times area by perimeter: how far a line reaches beyond its core
_LONGEST = 4  # times the side: no picture is longer when it is looked at
_HEIGHT, _NARROWEST, _WIDEST = 48, 96, 1600  # pixels of a line when it is read; a longer one is squeezed
_CHARACTERS = 2  # that a line has at least: what has one is mostly a thing that looks like a letter
RULE: dict[str, float] = {"pixel": _PIXEL, "core": _CORE, "grown": _GROWN, "characters": _CHARACTERS}


class Line(NamedTuple):
    """A line of text: its corners clockwise from the top left, float32 [4, 2] as x and y in the picture's own pixels;
    what it says, "" where it was not read, and the mean probability of its characters."""

    corners: np.ndarray
    text: str = ""
    legible: float = 0.0


class TextDetector:
    """Lines of text in pictures.

    Args:
        side: a picture is looked at as large as a square of this side, whatever its shape.

    Raises:
        UserError: rapidocr is needed and missing.
    """

    def __init__(self, path: Path | None, side: int) -> None:
        self.network, self.side = Network(carried(DETECTOR) if path is None else path), side

    def __call__(self, pixels: np.ndarray) -> list[Line]:
        """The lines in uint8 RGB [height, width, 3], from the top down, those beside each other from the left.

        Raises:
            UserError: see Network.opened.
            ValueError: the network gives no map of its input's size.
        """
        size = looked_at(pixels.shape[0], pixels.shape[1], self.side)
        found = np.asarray(self.network(_scaled(pixels, size)[None]))
        if found.shape != (1, 1, *size):
            raise ValueError(
                f"{self.network.path} gives {list(found.shape)} where a map [1, 1, height, width] should be"
            )
        scale = np.array([pixels.shape[1] / size[1], pixels.shape[0] / size[0]])
        limits = np.array([pixels.shape[1], pixels.shape[0]])
        every = [_clockwise(np.clip(box * scale, 0, limits)) for box in _boxes(found[0, 0])]
        return _in_order([Line(corners) for corners in every if min(_sides(corners)) > 3])


class TextReader:
    """What lines of text say.

    Raises:
        UserError: rapidocr is missing.
    """

    def __init__(self) -> None:
        self.network = Network(carried(READER))
        self._characters: list[str] = []

    def __call__(self, pixels: np.ndarray, line: Line) -> Line:
        """The line with its text; one that stands upright is read in both directions, and the better one taken."""
        straight = _straightened(pixels, line.corners)
        upright = straight.shape[0] >= 1.5 * straight.shape[1]
        every = [self._read(one) for one in ([np.rot90(straight), np.rot90(straight, 3)] if upright else [straight])]
        text, legible = max(every, key=lambda read: read[1])
        return line._replace(text=text, legible=legible)

    def _read(self, pixels: np.ndarray) -> tuple[str, float]:
        import cv2

        width = min(_WIDEST, max(1, math.ceil(_HEIGHT * pixels.shape[1] / pixels.shape[0])))
        values = np.zeros((1, 3, _HEIGHT, max(_NARROWEST, -(-width // 32) * 32)), np.float32)
        values[0, :, :, :width] = _normal(cv2.resize(pixels, (width, _HEIGHT)))
        found = self.network(values)[0]
        best, sure = found.argmax(1), found.max(1)
        # Connectionist temporal classification: repeats count once, and 0 is what stands between characters.
        kept = (best > 0) & np.concatenate([[True], best[1:] != best[:-1]])
        if not self._characters:
            self._characters = ["", *self.network.described("character").splitlines(), " "]
        text = "".join(self._characters[place] for place in best[kept])
        return text, float(sure[kept].mean()) if kept.any() else 0.0


def legible(lines: list[Line], least: float) -> list[Line]:
    """Those that are text: read with this mean probability, and as more than a character."""
    return [one for one in lines if one.legible >= least and sum(map(str.isalnum, one.text)) >= _CHARACTERS]


def looked_at(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width at which a picture is looked at: multiples of 32, which the network needs, about side² pixels,
    so that text in a wide one is as large as in a square one and each costs the same."""
    scale = min(side / math.sqrt(height * width), _LONGEST * side / max(height, width))
    return max(32, round(height * scale / 32) * 32), max(32, round(width * scale / 32) * 32)


def _scaled(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import cv2

    way = cv2.INTER_AREA if size[0] * size[1] < pixels.shape[0] * pixels.shape[1] else cv2.INTER_LINEAR
    return _normal(cv2.resize(pixels, size[::-1], interpolation=way))


def _normal(pixels: np.ndarray) -> np.ndarray:
    """uint8 RGB [h, w, 3] -> float32 [3, h, w] from -1 to 1, blue first, as the networks were trained."""
    return np.ascontiguousarray(((pixels[:, :, ::-1].astype(np.float32) / 255 - 0.5) / 0.5).transpose(2, 0, 1))


def _boxes(probability: np.ndarray) -> list[np.ndarray]:
    """The corners of the lines in a map of probabilities, float32 [4, 2] each in its pixels."""
    import cv2

    cores = cv2.dilate((probability > _PIXEL).astype(np.uint8), np.ones((2, 2), np.uint8))
    found = []
    for contour in cv2.findContours(cores, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)[0]:
        middle, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < 3 or _mean_within(probability, cv2.boxPoints((middle, (width, height), angle))) < _CORE:
            continue
        more = 2 * _GROWN * width * height / (2 * (width + height))
        if min(width, height) + more >= 5:
            found.append(cv2.boxPoints((middle, (width + more, height + more), angle)))
    return found


def _mean_within(values: np.ndarray, corners: np.ndarray) -> float:
    import cv2

    limits = np.array(values.shape[::-1]) - 1
    low = np.clip(np.floor(corners.min(0)), 0, limits).astype(int)
    high = np.clip(np.ceil(corners.max(0)), 0, limits).astype(int)
    part = values[low[1] : high[1] + 1, low[0] : high[0] + 1]
    mask = np.zeros(part.shape, np.uint8)
    cv2.fillPoly(mask, [(corners - low).astype(np.int32)], 1)
    return float(part[mask > 0].mean()) if mask.any() else 0.0


def _clockwise(corners: np.ndarray) -> np.ndarray:
    """Corners from the top left on: of the two on the left the upper one, and so on."""
    left, right = np.split(corners[np.argsort(corners[:, 0], kind="stable")], 2)
    (first, last), (second, third) = left[np.argsort(left[:, 1])], right[np.argsort(right[:, 1])]
    return np.array([first, second, third, last], np.float32)


def _sides(corners: np.ndarray) -> tuple[float, float]:
    """Width and height, of corners clockwise."""
    return float(np.linalg.norm(corners[1] - corners[0])), float(np.linalg.norm(corners[3] - corners[0]))


def _in_order(lines: list[Line]) -> list[Line]:
    """Lines in the order of reading: one is beside another where its middle lies within that one's height."""
    rows: list[list[Line]] = []
    for one in sorted(lines, key=lambda line: float(line.corners[:, 1].mean())):
        first = rows[-1][0].corners if rows else None
        beside = first is not None and one.corners[:, 1].mean() < first[:, 1].mean() + _sides(first)[1] / 2
        if beside:
            rows[-1].append(one)
        else:
            rows.append([one])
    return [one for row in rows for one in sorted(row, key=lambda line: float(line.corners[:, 0].min()))]


def _straightened(pixels: np.ndarray, corners: np.ndarray) -> Any:
    """The picture within the corners as an upright one."""
    import cv2

    width, height = (max(1, int(side)) for side in _sides(corners))
    there = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    turned = cv2.getPerspectiveTransform(corners, there)
    size = (width, height)
    return cv2.warpPerspective(pixels, turned, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
