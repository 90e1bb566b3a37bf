"""Text in pictures: where it is found, and what it is painted over with."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from drawings import COLOURS, SHAPES, SIDE, box_of, drawn, encoded
from PIL import Image, ImageDraw, ImageFont
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from poolbench.models.transforms import WebPixels
from poolbench.shards.pictures import rgb

from curate.models.painting import painted
from curate.models.text_detection import DETECTOR, TextDetector, TextReader, legible, looked_at
from curate.scorers.text_masks import Look, TextMask

# --- painting ---


def by_hand(pixels: np.ndarray, masks: Sequence[np.ndarray], fill: str, ring: int) -> np.ndarray:
    """In double precision, pixel by pixel; masks are bool [h, w]."""
    any_ = np.any(masks, axis=0)
    made = pixels.astype(np.float64)
    for mask in masks:
        inside = np.argwhere(mask)
        near = [
            tuple(place)
            for place in np.argwhere(~any_)
            if fill == "ring" and (np.abs(inside - place).max(1) <= ring).any()
        ]
        free = near or ([tuple(place) for place in np.argwhere(~any_)] if fill == "ring" else [])
        colours = [pixels[place] for place in free] or pixels.reshape(-1, 3)
        made[mask] = np.round(np.mean(np.array(colours, np.float64), axis=0))
    return made.astype(np.uint8)


@pytest.mark.parametrize("seed", range(12))
def test_regions_get_the_mean_colour_around_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 24, 2))
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    corners, masks = [], []
    for _ in range(seed % 4):
        (left, right), (top, bottom) = (np.sort(rng.integers(0, side + 1, 2)) for side in (width, height))
        right, bottom = max(right, left + 1), max(bottom, top + 1)
        left, top = min(left, width - 1), min(top, height - 1)
        corners.append(np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32))
        masks.append(np.zeros((height, width), bool))
        masks[-1][top:bottom, left:right] = True
        # A border of a half pixel is rounded to the even one, so a box of whole pixels has these and its far edge.
        corners[-1] += [[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]]
    for fill, ring in (("ring", 1), ("ring", 3), ("picture", 1)):
        found = painted(pixels, corners, fill, ring)
        expected = by_hand(pixels, masks, fill, ring) if masks else pixels
        np.testing.assert_array_equal(found.pixels, expected)
        assert found.share == (np.any(masks, axis=0).mean() if masks else 0.0)


def test_a_region_that_is_all_there_is_gets_the_pictures_colour() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    found = painted(pixels, [np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float32)], "ring", 2)
    assert found.share == 1 and (found.pixels == np.round(pixels.reshape(-1, 3).mean(0))).all()


# --- where text is found ---


@pytest.fixture(scope="module")
def mask() -> TextMask:
    return TextMask(None, SIDE, 0.7, "ring", 6, True)


def overlap(corners: np.ndarray, box: tuple[float, ...]) -> float:
    """Of a box around the corners with another one, as a share of both together."""
    a, b = (*corners.min(0), *corners.max(0)), box
    shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))


def test_text_is_found_and_drawings_are_not(mask: TextMask) -> None:
    """What was measured with PP-OCRv6's small models; the detector alone takes most of the drawings for text."""
    texts = ["red apple", "SALE 50% OFF", "photo by Anna", "12:30 today", "Big Ben", "hello world"]
    for number, text in enumerate(texts):
        pixels = np.asarray(drawn(SHAPES[number % 4], list(COLOURS)[number % 4], text))
        (line,) = mask.lines(pixels, {})
        assert line.text.replace(" ", "").lower() == text.replace(" ", "").lower()
        assert overlap(line.corners, box_of(text)) > 0.45
    plain = [np.asarray(drawn(shape, colour)) for shape in SHAPES for colour in ("red", "black")]
    assert not any(mask.lines(pixels, {}) for pixels in plain)
    alone = TextDetector(None, SIDE)
    assert sum(bool(alone(pixels)) for pixels in plain) >= 4  # which is why the reader has a say


@pytest.mark.parametrize("side", [64, 320, 512])
def test_pictures_of_all_shapes_cost_alike(side: int) -> None:
    for height, width in ((300, 400), (8, 8), (4000, 3000), (20, 2000), (2000, 20), (1, 3000), (3000, 1), (1, 1)):
        high, wide = looked_at(height, width, side)
        assert high % 32 == wide % 32 == 0 and min(high, wide) >= 32 and max(high, wide) <= 4 * side + 16
        assert max(height, width) > 16 * min(height, width) or 0.6 < high * wide / side**2 < 1.7


def test_the_detector_is_rapidocrs(mask: TextMask) -> None:
    """Of the same map of probabilities, boxes as rapidocr's own code cuts them out."""
    theirs = pytest.importorskip("rapidocr.ch_ppocr_det.utils")
    after = theirs.DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)
    detector = TextDetector(None, SIDE)
    maps: list[np.ndarray] = []
    network = detector.network.__class__(detector.network.path)
    detector.network = lambda values: maps.append(network(values)) or maps[-1]  # type: ignore[assignment,return-value]
    detector_path = network.path
    assert detector_path.name == DETECTOR
    for number, text in enumerate(("one line", "two words here", "x", "")):
        image = drawn(SHAPES[number], "blue", text).rotate(3 * number, expand=True, fillcolor=(225, 225, 210))
        pixels = np.asarray(image)
        ours = detector(pixels)
        boxes, _ = after(maps[-1], pixels.shape[:2])
        assert len(ours) == len(boxes) == (2, 2, 1, 0)[number]
        for box in boxes:
            assert min(np.abs(line.corners - box).max() for line in ours) <= 2.5  # theirs are cut to whole pixels


def variants() -> dict[str, tuple[Image.Image, tuple[float, ...] | None]]:
    """Pictures of many shapes and modes, and where their text is."""
    text, grey = drawn("disc", "red", "fresh bread"), drawn("disc", "red", "fresh bread").convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    box = box_of("fresh bread")
    tall, wide = (Image.new("RGB", size, (225, 225, 210)) for size in ((120, 900), (1600, 90)))
    ImageDraw.Draw(tall).text((10, 700), "tall", fill=(0, 0, 0), font=ImageFont.load_default(40))
    ImageDraw.Draw(wide).text((900, 20), "a wide banner", fill=(0, 0, 0), font=ImageFont.load_default(40))
    return {
        "plain": (text, box),
        "grey": (grey, box),
        "alpha": (text.convert("RGBA"), box),
        "palette": (text.quantize(64), box),
        "16 bit": (deep, box),
        "large": (text.resize((960, 800), Image.Resampling.BICUBIC), tuple(4 * side for side in box)),
        "tall": (tall, box_of("tall", 40, (10, 700))),
        "wide": (wide, box_of("a wide banner", 40, (900, 20))),
        "tiny": (Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)), None),
        "one pixel high": (Image.new("RGB", (300, 1), (9, 99, 200)), None),
        "one pixel wide": (Image.new("L", (1, 300), 77), None),
        "one pixel": (Image.new("1", (1, 1)), None),
    }


@pytest.mark.parametrize("name", variants())
def test_corners_are_in_the_pictures_own_pixels(mask: TextMask, name: str) -> None:
    image, box = variants()[name]
    transform = Compose([Resize(32), CenterCrop(32), ToTensor(), Normalize([0] * 3, [1] * 3)])
    seen = Look(WebPixels(transform), mask, {"p"}, {"m"}, {"f"})(encoded(image), {"p", "m", "f"})
    assert seen.problem == "" and {view.shape for view in seen.views.values()} == {(3, 32, 32)}
    pixels = np.asarray(rgb(Image.open(io.BytesIO(encoded(image)))))
    lines = mask.lines(pixels, {})
    assert seen.facts["text_regions"] == len(lines) == (box is not None)
    if box is None:
        assert seen.facts["text_share"] == 0 and torch.equal(seen.views["plain"], seen.views["masked"])
        return
    assert overlap(lines[0].corners, box) > 0.45
    made = mask(pixels, {})
    x, y = lines[0].corners.T.astype(np.float64)
    area = abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2  # Gauss's formula
    assert made.share == seen.facts["text_share"] == pytest.approx(area / pixels[:, :, 0].size, rel=0.1)
    left, top, right, bottom = (int(side) for side in box)
    assert pixels[top:bottom, left:right].std() > 20 > made.pixels[top:bottom, left:right].std()


def test_lines_are_read_from_the_top_down_and_turned_ones_too() -> None:
    detector, reader = TextDetector(None, 512), TextReader()
    image = Image.new("RGB", (400, 300), "white")
    draw = ImageDraw.Draw(image)
    for text, at in (("third line", (20, 220)), ("second", (230, 30)), ("first", (20, 32))):
        draw.text(at, text, fill="black", font=ImageFont.load_default(36))
    for quarter in (0, 1, 3):
        pixels = np.rot90(np.asarray(image), quarter).copy()
        lines = legible([reader(pixels, line) for line in detector(pixels)], 0.7)
        texts = [line.text for line in lines]
        assert sorted(texts) == ["first", "second", "third line"]
        assert quarter or texts == ["first", "second", "third line"]
