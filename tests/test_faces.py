"""Blurred faces: what an independent computation in double precision gives, with SciPy's Gaussian and with OpenCV's."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.download import resize
from curate.pool.faces import Gaussian, blurred
from curate.reshard.faces import without_faces

Pixels = np.ndarray[Any, Any]
CASES: dict[str, tuple[tuple[int, ...], list[list[float]]]] = {
    "colour": ((90, 120, 3), [[0.3, 0.2, 0.6, 0.7]]),
    "two faces, of which the larger says how soft": ((80, 100, 3), [[0.1, 0.1, 0.2, 0.2], [0.6, 0.5, 0.9, 0.95]]),
    "at the edges, and beyond": ((60, 60, 3), [[-0.2, -0.1, 0.3, 0.4], [0.9, 0.8, 1.4, 1.1]]),
    "all of it": ((40, 50, 3), [[0.0, 0.0, 1.0, 1.0]]),
    "grey": ((70, 40), [[0.2, 0.3, 0.8, 0.6]]),
    "with alpha": ((64, 64, 4), [[0.25, 0.25, 0.5, 0.5]]),
    "smaller than the Gaussian": ((4, 9, 3), [[0.0, 0.0, 1.0, 1.0]]),
    "two rows": ((2, 30, 3), [[0.0, 0.0, 0.9, 1.0]]),
    "one row": ((1, 30, 3), [[0.0, 0.0, 0.9, 1.0]]),
    "a box whose edges are no floats of 32 bits": ((10, 10, 3), [[0.1, 0.3, 0.7, 0.9]]),
    "no extent": ((30, 30, 3), [[0.5, 0.5, 0.5, 0.5]]),
    "no face": ((30, 30, 3), []),
}
UNCHANGED = {"one row", "no extent", "no face"}


def exactly(pixels: Pixels, faces: Sequence[Sequence[float]]) -> Pixels:
    """In double precision: float64 of the shape of `pixels`, not yet cut off to whole numbers."""
    height, width = pixels.shape[:2]
    mask, sigma = np.zeros((height, width)), 0.0
    for box in faces:
        x0, y0, x1, y1 = int(box[0] * width), int(box[1] * height), int(box[2] * width), int(box[3] * height)
        side = max(x1 - x0, y1 - y0)
        sigma = max(sigma, side / 10)
        for y in range(height):
            for x in range(width):
                inside = int(x0 - side * 0.1) <= x < int(x1 + side * 0.1) and int(y0 - side * 0.1) <= y
                # The last row and column are never in a box: the published code clips to them, and ends before them.
                if inside and y < int(y1 + side * 0.1) and x < width - 1 and y < height - 1:
                    mask[y, x] = 1
    radius = math.ceil(4 * sigma)
    weights = np.array([math.exp(-((at / sigma) ** 2) / 2) if sigma else 1.0 for at in range(-radius, radius + 1)])
    weights /= weights.sum()

    def soft(values: Pixels) -> Pixels:
        for axis in (0, 1):
            padding = [(radius, radius) if axis == other else (0, 0) for other in range(values.ndim)]
            padded, length = np.pad(values, padding, mode="reflect"), values.shape[axis]
            moved = [np.take(padded, range(at, at + length), axis) for at in range(2 * radius + 1)]
            values = np.tensordot(weights, np.stack(moved), 1)
        return values

    share = soft(mask).reshape(height, width, *[1] * (pixels.ndim - 2))
    result: Pixels = pixels * (1 - share) + soft(pixels.astype(np.float64)) * share
    return result


def picture(shape: tuple[int, ...], seed: int = 0) -> Pixels:
    """Noise, and a flat part, in which a sum that is a little too small loses a level."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)
    pixels[: shape[0] // 3] = 255
    return pixels


@pytest.mark.parametrize("gaussian", [None, resize._gaussian], ids=["scipy", "opencv"])
@pytest.mark.parametrize("case", CASES)
def test_a_blur_is_what_double_precision_gives(case: str, gaussian: Gaussian | None) -> None:
    shape, faces = CASES[case]
    pixels = picture(shape)
    before, made, expected = pixels.copy(), blurred(pixels, faces, gaussian), exactly(pixels, faces)
    assert made.dtype == np.uint8 and made.shape == shape and np.array_equal(pixels, before)
    assert np.abs(made + 0.5 - expected).max() < 0.501  # cut off, as published; next to a whole number either way
    assert (made != pixels).any() == (case not in UNCHANGED)


def test_both_gaussians_agree_but_for_single_levels() -> None:
    pixels, faces = picture((300, 400, 3)), [[0.3, 0.3, 0.6, 0.8], [0.05, 0.1, 0.1, 0.2]]
    ours, theirs = (blurred(pixels, faces, one).astype(int) for one in (None, resize._gaussian))
    assert np.abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.01
    far = np.s_[:, 380:]
    assert np.array_equal(ours[far], pixels[far]) and np.array_equal(theirs[far], pixels[far])


def test_a_resharded_picture_has_the_faces_of_a_downloaded_one() -> None:
    """A profile of colours stays with it."""
    pixels, box = picture((100, 120, 3)), [0.1, 0.3, 0.7, 0.9]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", icc_profile=b"a profile")
    made = Image.open(io.BytesIO(without_faces(buffer.getvalue(), np.array([box]), 95)))
    assert made.info["icc_profile"] == b"a profile"
    assert np.array_equal(np.asarray(made), blurred(pixels, [box]))
    assert np.abs(np.asarray(made).astype(int) - blurred(pixels, [box], resize._gaussian)).max() <= 1
