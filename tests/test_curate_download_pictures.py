"""Pictures as a download stores them: made smaller, with faces blurred, and what is no picture."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pools import picture
from scipy.ndimage import gaussian_filter

from curate.download.resize import SIDE, finished


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, form, **options)
    return buffer.getvalue()


def test_a_large_picture_becomes_the_mean_of_its_areas() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 210, (32, 64, 3)).repeat(16, 0).repeat(16, 1)
    fine = np.clip(coarse.repeat(2, 0).repeat(2, 1) + rng.integers(-30, 30, (1024, 2048, 1)), 0, 255)
    made = finished(encoded(fine[:, :1024]), [])
    assert (made.width, made.height, made.original_width, made.original_height) == (SIDE, SIDE, 1024, 1024)
    means = fine[:, :1024].reshape(512, 2, 512, 2, 3).mean((1, 3))
    assert np.abs(pixels_of(made.jpeg) - means).mean() < 6  # one pixel of four would be off by more than ten
    wide = finished(encoded(fine[:333]), [])
    assert (wide.width, wide.height) == (512, 83)
    assert (
        Image.open(io.BytesIO(made.jpeg)).quantization
        == Image.open(io.BytesIO(encoded(fine[:8], "JPEG", quality=95))).quantization
    )


def test_a_small_picture_keeps_its_size_and_a_transparent_one_gets_a_white_ground() -> None:
    small = finished(picture(3, 100), [])
    assert (small.width, small.height) == (103, 100)
    clear = np.zeros((64, 64, 4))
    clear[:, 32:] = (200, 30, 30, 255)
    made = pixels_of(finished(encoded(clear), []).jpeg)
    assert (made[:, :24] > 250).all() and np.abs(made[:, 40:] - (200, 30, 30)).max() < 6
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright: the pool's pictures are not turned
    assert finished(encoded(np.zeros((20, 60, 3)), "JPEG", exif=turned.tobytes()), []).width == 60


def test_faces_are_blurred_and_the_rest_is_not() -> None:
    checks = (np.indices((400, 400)).sum(0) // 8 % 2 * 255)[..., None].repeat(3, 2)
    made = pixels_of(finished(encoded(checks), [[0.25, 0.25, 0.5, 0.5]]).jpeg)
    face, far = made[125:175, 125:175], made[300:, 300:]
    assert face.std() < 3 and abs(face.mean() - 127) < 4
    assert np.abs(far - checks[300:, 300:]).mean() < 4
    coarse = (
        np.sin(np.arange(400) / 400 * 2 * np.pi * 10) * 100 + 127
    )  # a wave of 40 pixels, sigma 10 is a tenth of 100
    stripes = np.broadcast_to(coarse, (400, 400))
    made = pixels_of(finished(encoded(stripes), [[0.25, 0.25, 0.5, 0.5]]).jpeg)[..., 0]
    expected = gaussian_filter(stripes, 10)[140:160, 140:160]
    assert np.abs(made[140:160, 140:160] - expected).max() < 5
    grey = finished(encoded(checks[..., 0]), [[0.0, 0.0, 1.0, 1.0]])
    assert pixels_of(grey.jpeg)[150:250, 150:250].std() < 3


def test_what_is_no_picture() -> None:
    thin = encoded(np.zeros((1, 5000, 3)))
    for data in (b"", b"<html>", picture(1)[:30], thin):
        with pytest.raises(ValueError, match=r"."):
            finished(data, [])
