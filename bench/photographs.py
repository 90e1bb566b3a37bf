"""Parts of the photographs that scikit-learn carries."""

import functools

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def part(number: int, width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """A part of one of them, of that size, drawn by `rng`; numbers take turns."""
    photographs = _photographs()
    whole = photographs[number % len(photographs)]
    top, left = (
        int(rng.integers(0, side - length + 1)) for side, length in zip(whole.shape, (height, width), strict=False)
    )
    return Image.fromarray(whole[top : top + height, left : left + width])


@functools.cache
def _photographs() -> list[np.ndarray]:
    found: list[np.ndarray] = load_sample_images().images
    return found
