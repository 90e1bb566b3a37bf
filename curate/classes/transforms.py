"""What is left of a picture: the transformations of Zeng et al. 2024 (arXiv 2412.01876), by name.

Some are made of the picture before it is augmented, others of what augmentation leaves. Which is which, and how each is
augmented, is as published. Where the source writes a picture (HOG, SIFT) and does not say how, it is ours.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np

from poolbench.errors import UserError

Augmentation = Literal["crop", "flip", "full"]
Before = Callable[[np.ndarray], np.ndarray]  # uint8 [side, side, 3] -> the same
After = Callable[[np.ndarray, np.random.Generator], np.ndarray]  # float32 [3, side, side] -> the same

GRID = 14  # patches along a side: of 16 pixels at 224
RADIUS = 40 / 224  # of the filters, by the side
_GREY = np.array([0.2989, 0.587, 0.114], np.float32)  # of red, green and blue, as torchvision's Grayscale
_FIXED = 0  # seed of the permutation that is the same for all pictures
_EXTRA = "pip install 'poolbench[classify]'"


class Transform(NamedTuple):
    """A transformation.

    Attributes:
        explained: what is left, in words.
        augmentation: `crop`; `flip` besides; `full`: RandAugment besides, where the recipe has one, and normalised
            colours.
        before: what is done before augmentation, in whole pictures; after: what is done behind it.
    """

    explained: str
    augmentation: Augmentation
    before: Before | None = None
    after: After | None = None


def mean_colour(picture: np.ndarray) -> np.ndarray:
    """Each pixel the mean of all, rounded down as in the source."""
    return np.broadcast_to(picture.mean(axis=(0, 1)).astype(np.uint8), picture.shape)


def canny(picture: np.ndarray) -> np.ndarray:
    """Edges by Canny, thresholds 85 and 255, of the grey picture smoothed by a Gaussian of 3 x 3."""
    cv2 = _cv2()
    edges = cv2.Canny(cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (3, 3), 0), 85, 255)
    return _three(edges)


def hog(picture: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients, drawn: in each cell of 8 x 8 pixels lines of 9 orientations, as bright as their
    gradients are strong; the brightest pixel is white."""
    try:
        from skimage.feature import hog as drawn
    except ImportError as error:
        raise UserError(f"{error.name} is missing; {_EXTRA}") from None
    _, image = drawn(picture, orientations=9, pixels_per_cell=(8, 8), visualize=True, channel_axis=-1)
    return _three(np.round(image * (255 / max(float(image.max()), 1e-9))).astype(np.uint8))


def sift(picture: np.ndarray) -> np.ndarray:
    """SIFT's key points, drawn in white on black: circles of their size with a radius in their direction."""
    cv2 = _cv2()
    points = cv2.SIFT_create().detect(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), None)
    rich = cv2.DRAW_MATCHES_FLAGS_DRAW_RICH_KEYPOINTS
    return np.asarray(cv2.drawKeypoints(np.zeros_like(picture), points, None, (255, 255, 255), rich))


def pixel_shuffle(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The pixels in another order, float32 [3, side, side]."""
    flat = picture.reshape(3, -1)
    return flat[:, rng.permutation(flat.shape[1])].reshape(picture.shape)


def patch_shuffle(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The 14 x 14 patches in another order, float32 [3, side, side]; 14 divides the side."""
    side = picture.shape[1] // GRID
    patches = picture.reshape(3, GRID, side, GRID, side).transpose(1, 3, 0, 2, 4).reshape(-1, 3, side, side)
    patches = patches[rng.permutation(GRID * GRID)].reshape(GRID, GRID, 3, side, side)
    return patches.transpose(2, 0, 3, 1, 4).reshape(picture.shape)


def low_pass(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What of the grey picture has frequencies up to the radius, see `_filtered`."""
    return _filtered(picture, low=True)


def high_pass(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What of the grey picture has frequencies above the radius, see `_filtered`."""
    return _filtered(picture, low=False)


def _filtered(picture: np.ndarray, low: bool) -> np.ndarray:
    """An ideal filter of the grey picture, whose radius is 40 of 224, scaled to 0..1 as in the source."""
    side = picture.shape[1]
    grey = np.tensordot(_GREY, picture, 1).astype(np.float64)
    frequency = np.fft.fftfreq(side, 1 / side)
    within = np.hypot(frequency[:, None], frequency[None, :]) <= RADIUS * side
    kept = np.fft.ifft2(np.where(within == low, np.fft.fft2(grey), 0)).real
    scaled = (kept - kept.min()) / (kept.max() - kept.min() + 1e-5)
    return np.broadcast_to(scaled.astype(np.float32), picture.shape)


def _fixed(shuffle: After) -> After:
    """The same order for every picture."""
    return lambda picture, _: shuffle(picture, np.random.default_rng(_FIXED))


TRANSFORMS = {
    "none": Transform("the picture as it is", "full"),
    "canny": Transform("edges, by Canny", "crop", canny),
    "hog": Transform("histograms of oriented gradients, drawn", "flip", hog),
    "sift": Transform("key points of SIFT, drawn", "flip", sift),
    "mean_colour": Transform("the mean colour", "full", mean_colour),
    "pixel_shuffle": Transform("pixels in another order for each picture", "full", None, pixel_shuffle),
    "pixel_shuffle_fixed": Transform("pixels in one order for all", "full", None, _fixed(pixel_shuffle)),
    "patch_shuffle": Transform("14 x 14 patches in another order for each picture", "full", None, patch_shuffle),
    "patch_shuffle_fixed": Transform("14 x 14 patches in one order for all", "full", None, _fixed(patch_shuffle)),
    "low_pass": Transform("low frequencies of the grey picture", "flip", None, low_pass),
    "high_pass": Transform("high frequencies of the grey picture", "flip", None, high_pass),
}
CAPTIONS = "captions"  # no picture at all: the sample's text
# How pictures that are given are augmented, where the source says so of their kind.
_GIVEN: dict[str, Augmentation] = {"segmentation": "crop", "depth": "flip", "contour": "flip"}


def given(name: str) -> Transform:
    """The transformation that is made elsewhere."""
    return Transform("given pictures", _GIVEN.get(name, "full"))


def check_packages(names: list[str]) -> None:
    """Make sure that transformations can be made.

    Raises:
        UserError: a package is missing.
    """
    tiny = np.zeros((32, 32, 3), np.uint8)
    for name in names:
        if name in TRANSFORMS and TRANSFORMS[name].before is not None:
            TRANSFORMS[name].before(tiny)  # type: ignore[misc]


def crop_of(side: int, scale: tuple[float, float], rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random crop of a square, as torchvision's RandomResizedCrop draws it: a share of
    the area uniform in `scale`, the logarithm of width by height uniform between those of 3/4 and 4/3; ten tries, else
    the whole."""
    for _ in range(10):
        area = side * side * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= side and 0 < height <= side:
            return int(rng.integers(side - width + 1)), int(rng.integers(side - height + 1)), width, height
    return 0, 0, side, side


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"{error.name} is missing; {_EXTRA}") from None
    return cv2


def _three(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)
