"""Decoding and cropping against Pillow and torchvision."""

import io
import random

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop

from poolbench.models.clip import create
from poolbench.models.transforms import Pixels, WebPixels, evaluation_transform
from poolbench.shards.pictures import PIXEL_LIMIT

from curate.download.resize import finished
from curate.reshard.faces import without_faces
from train.crop import Box, decode, draw_box, resized_crop


def smooth(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """A picture with structure, as photos have it."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    image = Image.fromarray(small[..., 0] if channels == 1 else small)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def encode(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def encoded_pictures() -> list[tuple[str, bytes]]:
    rgb = Image.fromarray(smooth(90, 120, 3, 1))
    turned = Image.Exif()
    turned[0x0112] = 6  # shown rotated by viewers that heed it
    return [
        ("jpeg", encode(rgb, "JPEG", quality=90)),
        ("jpeg 4:4:4 progressive", encode(rgb, "JPEG", subsampling=0, progressive=True)),
        ("jpeg gray", encode(rgb.convert("L"), "JPEG")),
        ("jpeg cmyk", encode(rgb.convert("CMYK"), "JPEG")),
        ("jpeg rotated by exif", encode(rgb, "JPEG", exif=turned)),
        ("png", encode(rgb, "PNG")),
        ("png alpha", encode(Image.fromarray(smooth(50, 60, 4, 2)), "PNG")),
        ("png palette", encode(rgb.convert("P"), "PNG")),
        ("png palette with transparency", encode(rgb.quantize(16), "PNG", transparency=3)),
        ("png gray alpha", encode(Image.fromarray(smooth(50, 60, 4, 3)).convert("LA"), "PNG")),
        ("png one bit", encode(rgb.convert("1"), "PNG")),
        ("webp", encode(rgb, "WEBP")),
        ("webp alpha", encode(Image.fromarray(smooth(50, 60, 4, 2)), "WEBP")),
        ("one pixel wide", encode(Image.fromarray(smooth(40, 1, 3, 4)), "JPEG")),
    ]


@pytest.mark.parametrize(
    ("name", "data"), encoded_pictures(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_decodes_as_pillow(name: str, data: bytes) -> None:
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    found = decode(data)
    assert found.dtype == torch.uint8
    assert np.array_equal(found.permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("seed", range(20))
def test_resized_crop_is_close_to_pillow(seed: int) -> None:
    """Rows first, then columns, as Pillow did for all pictures before version 13."""
    rng = random.Random(seed)
    height, width, size = rng.randint(20, 700), rng.randint(20, 700), rng.choice([32, 64, 224])
    pixels = smooth(height, width, 3, seed).astype(int)
    noise = np.random.default_rng(seed).integers(-20, 20, pixels.shape)
    image = np.clip(pixels + noise, 0, 255).astype(np.uint8)
    box = draw_box(height, width, (0.5, 1.0), rng)
    found = resized_crop(torch.from_numpy(image).permute(2, 0, 1), box, size).permute(1, 2, 0).numpy()
    part = Image.fromarray(image).crop((box.left, box.top, box.left + box.width, box.top + box.height))
    rows = part.resize((size, box.height), Image.Resampling.BICUBIC)
    expected = np.asarray(rows.resize((size, size), Image.Resampling.BICUBIC))
    difference = np.abs(found.astype(int) - expected.astype(int))
    assert difference.max() <= 2 and (difference > 1).mean() < 2e-4 and (difference > 0).mean() < 0.02


def grey(bits: int) -> np.ndarray:
    """All greys of so many bits, from left to right in each of two rows."""
    return np.tile(np.linspace(0, 2**bits - 1, 300), (40, 1)).astype(np.uint16)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_grey_of_16_bits_keeps_its_high_byte_everywhere(form: str) -> None:
    values = grey(16)
    data = encode(Image.fromarray(values), form)
    assert Image.open(io.BytesIO(data)).mode == "I;16"
    expected = torch.from_numpy((values >> 8).astype(np.uint8)).expand(3, -1, -1)
    assert torch.equal(decode(data), expected)
    import cv2  # not before curate.download.resize, which sets its limits

    cv2_ = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(cv2_.transpose(2, 0, 1), expected)
    same = encode(Image.fromarray((values >> 8).astype(np.uint8)), "PNG")
    transform = evaluation_transform(create("test-tiny"))
    for pixels in (Pixels(transform), WebPixels(transform)):
        assert torch.equal(pixels(data), pixels(same))
    small = finished(data, [])
    assert np.abs(np.asarray(Image.open(io.BytesIO(small.jpeg))).astype(int) - (values >> 8)).max() <= 3
    jpeg = without_faces(data, np.array([[0.0, 0.0, 0.01, 0.01]]), 95) if form == "PNG" else None
    assert jpeg is None or np.asarray(Image.open(io.BytesIO(jpeg)))[20, 150, 0] == values[20, 150] >> 8


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_pixels_without_a_range_are_bad(kind: type) -> None:
    data = encode(Image.fromarray(grey(16).astype(kind)), "TIFF")
    for read in (decode, WebPixels(evaluation_transform(create("test-tiny")))):
        with pytest.raises(ValueError, match="cannot be decoded: its pixels are numbers of 32 bits"):
            read(data)
    with pytest.raises(ValueError, match="nobody says what white is"):
        finished(data, [])


def test_colours_of_16_bits_keep_their_high_byte() -> None:
    import cv2

    values = np.stack([grey(16), grey(16)[:, ::-1], grey(12)], axis=-1)
    _, data = cv2.imencode(".png", values[..., ::-1])
    assert np.array_equal(decode(data.tobytes()).permute(1, 2, 0), values >> 8)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (64, 64), (500, 333), (3, 200), (200, 3), (1, 1)])
@pytest.mark.parametrize("scale", [(0.9, 1.0), (0.08, 1.0)])
def test_boxes_are_drawn_as_torchvision_draws_them(height: int, width: int, scale: tuple[float, float]) -> None:
    """The same distribution: each of four quantities has the same mean and spread, within five standard errors."""
    torch.manual_seed(0)
    image, draws = torch.empty(3, height, width), 3000
    theirs = np.array([RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(draws)], float)
    rng = random.Random(0)
    ours = np.array([draw_box(height, width, scale, rng) for _ in range(draws)], float)
    spread = np.sqrt((theirs.var(0) + ours.var(0)) / draws)
    assert (np.abs(theirs.mean(0) - ours.mean(0)) <= 5 * spread + 1e-9).all()
    assert np.allclose(theirs.std(0), ours.std(0), rtol=0.15, atol=0.1)
    tops, lefts, heights, widths = ours.T
    assert (tops >= 0).all() and (lefts >= 0).all() and (heights >= 1).all() and (widths >= 1).all()
    assert (tops + heights <= height).all() and (lefts + widths <= width).all()


def test_a_crop_that_fits_no_ratio_is_the_centre() -> None:
    assert draw_box(3, 200, (0.9, 1.0), random.Random(0)) == Box(0, 98, 3, 4)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_every_cut_is_told(form: str) -> None:
    data = encode(Image.fromarray(smooth(40, 50, 3, 1)), form)
    for length in range(len(data) - 1):
        with pytest.raises(ValueError, match="cannot be decoded"):
            decode(data[:length])


def test_random_damage_raises_nothing_else() -> None:
    rng, pictures = random.Random(0), [data for _, data in encoded_pictures()]
    told = 0
    for _ in range(1500):
        data = bytearray(rng.choice(pictures))
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(min(len(data), 300))] = rng.randrange(256)
        try:
            assert decode(bytes(data)).dtype == torch.uint8
        except ValueError as error:
            told += 1
            assert str(error) and "\n" not in str(error)
    assert told > 100


def test_only_the_webs_formats_are_opened() -> None:
    with pytest.raises(ValueError, match="it is none of JPEG, PNG, WEBP"):
        decode(encode(Image.fromarray(smooth(40, 50, 3, 1)), "EPS"))


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_damaged_images_are_told(form: str) -> None:
    data = encode(Image.fromarray(smooth(90, 120, 3, 1)), form)
    for bad in (b"", b"text", data[: len(data) // 2], data[:20]):
        with pytest.raises(ValueError, match="cannot be decoded") as caught:
            decode(bad)
        assert "\n" not in str(caught.value)


def test_a_decompression_bomb_is_told_without_being_decoded() -> None:
    side = int(PIXEL_LIMIT**0.5) + 1
    with pytest.raises(ValueError, match="more than"):
        decode(encode(Image.new("1", (side, side)), "PNG"))
    with pytest.raises(ValueError, match=r"cannot be decoded|more than"):
        decode(encode(Image.new("1", (30_000, 30_000)), "PNG"))


def test_a_finished_model_sees_the_same_of_a_good_picture_and_nothing_of_what_training_refuses() -> None:
    transform = evaluation_transform(create("test-tiny"))
    pixels, limited = Pixels(transform), WebPixels(transform)
    for name, data in encoded_pictures():
        assert torch.equal(limited(data), pixels(data)), name
    foreign = encode(Image.fromarray(smooth(40, 50, 3, 1)), "SGI")
    assert pixels(foreign).shape == (3, 32, 32)
    side = int(PIXEL_LIMIT**0.5) + 1
    for bad in (b"", b"text", foreign, encode(Image.new("1", (side, side)), "PNG")):
        with pytest.raises(ValueError, match="image cannot be decoded") as training:
            decode(bad)
        with pytest.raises(ValueError, match="image cannot be decoded") as scoring:
            limited(bad)
        assert str(scoring.value) == str(training.value)
