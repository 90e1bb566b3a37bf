"""What is left of a picture, against scipy, torchvision and plain numpy; and what is done in which order."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pools import encoded
from scipy import fft, stats
from torchvision.transforms import CenterCrop, InterpolationMode, RandomResizedCrop, Resize

from curate.classes import transforms as t
from curate.classes.networks import Epochs, Pictures, Sight, Small, seen, shown
from curate.classes.recipes import PUBLISHED, QUICK
from curate.classes.store import square

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)


def sight(name: str, side: int = 56) -> Sight:
    return Sight("none", side * 8 // 7, t.TRANSFORMS[name], QUICK)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("side", [28, 56, 224])
@pytest.mark.parametrize("low", [True, False])
def test_filters_are_ideal(side: int, low: bool) -> None:
    """In float64, with the zero frequency in the middle: radius 40 at 224, and the same part of another side."""
    picture = rng(side).random((3, side, side)).astype(np.float32)
    grey = np.tensordot([0.2989, 0.587, 0.114], picture.astype(np.float64), 1)
    rows, columns = np.mgrid[:side, :side] - side // 2
    distance = np.sqrt(rows**2 + columns**2)
    mask = distance <= 40 * side / 224 if low else distance > 40 * side / 224
    kept = fft.ifft2(fft.ifftshift(fft.fftshift(fft.fft2(grey)) * mask)).real
    expected = (kept - kept.min()) / (kept.max() - kept.min() + 1e-5)
    found = (t.low_pass if low else t.high_pass)(picture, rng())
    assert found.dtype == np.float32 and found.shape == picture.shape
    np.testing.assert_allclose(found, np.broadcast_to(expected, picture.shape), atol=2e-6)


def test_a_wave_passes_one_filter_alone() -> None:
    """What the filters are for: a slow wave is left by the low one, a quick one by the high one."""
    line = np.cos(2 * np.pi * np.arange(56) / 56 * np.array([[3], [20]]))  # 3 and 20 waves over the picture
    for quick, wave in enumerate(line):
        picture = np.broadcast_to(0.5 + 0.4 * wave, (3, 56, 56)).astype(np.float32)
        left, gone = (t.high_pass, t.low_pass) if quick else (t.low_pass, t.high_pass)
        assert np.corrcoef(left(picture, rng())[0].ravel(), picture[0].ravel())[0, 1] > 0.999
        assert abs(np.corrcoef(gone(picture, rng())[0].ravel(), picture[0].ravel())[0, 1]) < 0.05


def test_edges_are_those_of_both_thresholds() -> None:
    """A step of height h is 3 h to Sobel's filter behind the Gaussian of 3 x 3 ([1 2 1] / 4): a strong edge where that
    is more than 255, an edge where it is more than 85 and a strong one is near, none below."""

    def step(heights: np.ndarray) -> np.ndarray:
        picture = np.full((len(heights), 60, 3), 40, np.uint8)
        picture[:, 30:] += heights.astype(np.uint8)[:, None, None]
        return picture

    def edged(heights: np.ndarray) -> np.ndarray:
        return np.asarray(t.canny(step(heights))[:, 25:35, 0].any(axis=1))

    assert not edged(np.full(60, 84)).any() and edged(np.full(60, 87)).all()
    falling = np.linspace(120, 0, 121)
    found = edged(falling)
    assert found[falling > 32].all() and not found[falling < 26].any()
    assert set(np.unique(t.canny(noise(64)))) == {0, 255}


def test_gradients_are_drawn_as_strong_as_they_are() -> None:
    """A cell is as bright as the strongest colour's gradients there, which numpy finds; lines of some directions are
    longer than others. Lines run along edges."""
    picture = np.asarray(Image.fromarray(noise(8)).resize((64, 64), Image.Resampling.BICUBIC))
    values = picture.astype(np.float64)
    down, across = np.zeros_like(values), np.zeros_like(values)
    down[1:-1], across[:, 1:-1] = values[2:] - values[:-2], values[:, 2:] - values[:, :-2]
    strength = np.hypot(down, across).max(axis=2).reshape(8, 8, 8, 8).mean(axis=(1, 3))
    drawn = t.hog(picture)
    brightness = drawn[:, :, 0].astype(float).reshape(8, 8, 8, 8).mean(axis=(1, 3))
    assert drawn.max() == 255 and np.corrcoef(brightness.ravel(), strength.ravel())[0, 1] > 0.97
    upright = np.full((64, 64, 3), 40, np.uint8)
    upright[:, 36:] = 200
    for picture, upwards in ((upright, True), (upright.transpose(1, 0, 2), False)):
        rows, columns = np.nonzero(t.hog(picture)[:, :, 0])
        spread = len(np.unique(rows)), len(np.unique(columns))
        assert (spread[0] > 3 * spread[1]) if upwards else (spread[1] > 3 * spread[0])
    assert not t.hog(np.full((64, 64, 3), 90, np.uint8)).any()


def test_key_points_are_circles_where_something_is() -> None:
    picture = np.full((64, 64, 3), 230, np.uint8)
    cv2.circle(picture, (40, 24), 6, (20, 20, 20), -1)
    drawn = t.sift(picture)
    rows, columns = np.nonzero(drawn[:, :, 0])
    assert len(rows) and np.hypot(rows - 24, columns - 40).max() < 20
    around = np.hypot(rows - 24, columns - 40)
    angles = np.arctan2(rows - 24, columns - 40)[around > 3]
    assert len(np.unique(np.round(angles))) >= 6, "a ring goes all around"
    assert not t.sift(np.full((64, 64, 3), 90, np.uint8)).any()


def test_the_mean_colour_is_everywhere() -> None:
    picture = noise(32)
    expected = np.array([int(picture[:, :, colour].astype(float).mean()) for colour in range(3)])
    assert (t.mean_colour(picture) == expected).all() and t.mean_colour(picture).shape == (32, 32, 3)


def test_shuffles_move_and_change_nothing() -> None:
    picture = np.arange(3 * 56 * 56, dtype=np.float32).reshape(3, 56, 56)
    pixels = t.pixel_shuffle(picture, rng())
    assert np.array_equal(np.sort(pixels.reshape(3, -1)), picture.reshape(3, -1))
    assert np.array_equal(np.argsort(pixels[0].ravel()), np.argsort(pixels[2].ravel())), "colours stay together"
    patches = t.patch_shuffle(picture, rng())
    cut = {picture[:, y : y + 4, x : x + 4].tobytes() for y in range(0, 56, 4) for x in range(0, 56, 4)}
    assert {patches[:, y : y + 4, x : x + 4].tobytes() for y in range(0, 56, 4) for x in range(0, 56, 4)} == cut
    assert (patches != picture).mean() > 0.9
    for name in ("pixel_shuffle", "patch_shuffle"):
        random, fixed = (t.TRANSFORMS[one].after for one in (name, f"{name}_fixed"))
        assert random is not None and fixed is not None
        assert not np.array_equal(random(picture, rng(1)), random(picture, rng(2)))
        assert np.array_equal(fixed(picture, rng(1)), fixed(picture, rng(2)))


@pytest.mark.parametrize("name", t.TRANSFORMS)
def test_shuffles_and_filters_come_after_augmentation_and_all_else_before(name: str) -> None:
    one = t.TRANSFORMS[name]
    assert (one.after is not None) == ("shuffle" in name or "pass" in name)
    assert (one.before is not None) == (name in ("canny", "hog", "sift", "mean_colour"))
    crops = {"canny": "crop", **dict.fromkeys(("hog", "sift", "low_pass", "high_pass"), "flip")}
    assert one.augmentation == crops.get(name, "full")
    if one.after is None:
        return
    plain = sight(name)._replace(transform=one._replace(after=None))
    draws = rng(3)
    augmented = seen(noise(64), plain, draws, True)
    assert np.array_equal(seen(noise(64), sight(name), rng(3), True), one.after(augmented, draws))


def test_given_pictures_are_augmented_as_their_kind() -> None:
    kinds = [t.given(name).augmentation for name in ("segmentation", "depth", "contour", "objects")]
    assert kinds == ["crop", "flip", "flip", "full"]


def test_what_is_seen_in_evaluation_is_the_middle() -> None:
    """Normalised where the source does so; and what the page shows is that picture."""
    picture = noise(64)
    middle = picture[4:60, 4:60].transpose(2, 0, 1) / 255
    found = seen(picture, sight("none"), rng(), False)
    np.testing.assert_allclose(found, (middle - MEAN[:, None, None]) / STD[:, None, None], atol=1e-6)
    np.testing.assert_allclose(seen(picture, sight("canny"), rng(), False), middle, atol=1e-7)
    assert np.array_equal(shown(picture, sight("none"), rng()), picture[4:60, 4:60])
    assert np.array_equal(shown(picture, sight("hog"), rng()), picture[4:60, 4:60])


def test_flips_are_half_and_not_of_edges() -> None:
    """A picture that is dark to the left: whether it is flipped shows in any crop."""
    picture = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 64, 0).repeat(3, 2)
    for name, low, high in (("canny", 0, 0), ("sift", 0.4, 0.6), ("none", 0.4, 0.6)):
        views = [seen(picture, sight(name), rng(seed), True)[0] for seed in range(400)]
        flipped = np.mean([view[:, :20].mean() > view[:, -20:].mean() for view in views])
        assert low <= flipped <= high, name


def test_crops_are_torchvisions() -> None:
    torch.manual_seed(0)
    picture, draws = torch.zeros(3, 256, 256), rng()
    theirs = np.array([RandomResizedCrop.get_params(picture, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(3000)])
    ours = np.array([t.crop_of(256, (0.08, 1.0), draws) for _ in range(3000)])[:, [1, 0, 3, 2]]
    assert (ours[:, 0] + ours[:, 2] <= 256).all() and (ours[:, 1] + ours[:, 3] <= 256).all()
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.01
    assert stats.ks_2samp(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3]).pvalue > 0.01


def test_randaugment_depends_on_the_picture_and_epoch_alone() -> None:
    """Not on what else was drawn by the generators that timm draws from."""
    pixels = noise(64)
    data = Pictures([], None, Sight("none", 64, t.TRANSFORMS["none"], PUBLISHED), 0)  # type: ignore[arg-type]
    image = Image.fromarray(pixels)
    first = [np.asarray(data._augment(image, rng(seed))) for seed in range(5)]
    np.random.random(7)
    again = [np.asarray(data._augment(image, rng(seed))) for seed in range(5)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not np.array_equal(a, pixels) for a in first)


def test_every_picture_is_shown_once_an_epoch() -> None:
    epochs = Epochs(20, QUICK, 0)
    batches = list(epochs)
    assert len(batches) == len(epochs) == QUICK.epochs and sorted(batches[3]) == [(3, number) for number in range(20)]
    assert batches == list(Epochs(20, QUICK, 0)) and batches != list(Epochs(20, QUICK, 1))
    assert len(Epochs(150, QUICK, 0)) == 2 * QUICK.epochs, "what is left of an epoch is not shown"


def test_pictures_are_held_as_their_middle_square() -> None:
    """As torchvision's Resize and CenterCrop make it in two steps."""
    wide = np.random.default_rng(0).integers(0, 256, (100, 200, 3)).astype(np.uint8)
    expected = CenterCrop(64)(Resize(64, InterpolationMode.BICUBIC)(Image.fromarray(wide)))
    assert np.array_equal(square(encoded(wide, "PNG"), 64), np.asarray(expected))
    with pytest.raises(ValueError, match="image cannot be decoded"):
        square(b"nothing", 64)


def test_the_small_network_is_small() -> None:
    assert sum(weight.numel() for weight in Small(2).parameters()) == 93_954
