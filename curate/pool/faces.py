"""Blur the faces that a pool's metadata name (`face_bboxes`), as the faces of the published pools are blurred.

One definition for all who do: that of img2dataset 1.40.0, which made those pools. A box grows by a tenth of its longer
side on each side; picture and mask of the boxes are blurred by a Gaussian whose deviation is a tenth of the longest
side of all boxes; and the one is laid over the other through the blurred mask, so that a box has no edge. The last row
and the last column of a picture are in no box.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

Box = Sequence[float]  # left, top, right, bottom, as shares of width and height
Pixels = np.ndarray[Any, Any]
Region = tuple[slice, slice]  # rows, columns
# Picture and mask, float32 [h, w] or [h, w, channels] of one shape, sigma, region -> both blurred, in the region. A
# pixel is a sum over `reach(sigma)` pixels on each side, those beyond the edge being mirrored at it.
Gaussian = Callable[[Pixels, Pixels, float, Region], tuple[Pixels, Pixels]]


def blurred(pixels: Pixels, faces: Iterable[Box], gaussian: Gaussian | None = None) -> Pixels:
    """`pixels`, uint8 [h, w] or [h, w, channels], with the faces blurred.

    Args:
        gaussian: who computes it; by default `mirrored`. Another one, as OpenCV's, may differ in a pixel by one of 255.
    """
    sharp = pixels.astype(np.float32) / 255.0
    mask, sigma = _masked(sharp, faces)
    region = _around(mask, reach(sigma))
    soft, soft_mask = (gaussian or mirrored)(sharp, mask, sigma, region)
    mixed = sharp[region] * (1 - soft_mask) + soft * soft_mask
    result = pixels.copy()
    result[region] = (mixed * 255.0).astype(np.uint8)
    return result


def reach(sigma: float) -> int:
    """How many pixels on each side a blurred one is made of."""
    return math.ceil(4 * sigma)


def mirrored(sharp: Pixels, mask: Pixels, sigma: float, region: Region) -> tuple[Pixels, Pixels]:
    """SciPy's Gaussian: sums of double precision, and so the same on every machine."""
    from scipy.ndimage import gaussian_filter  # for those alone who have faces to blur

    radius = reach(sigma)
    wide = tuple(slice(max(side.start - radius, 0), side.stop + radius) for side in region)
    inner = tuple(
        slice(side.start - outer.start, side.stop - outer.start) for side, outer in zip(region, wide, strict=True)
    )
    flat = mask if mask.ndim == 2 else mask[..., :1]  # its channels are the same
    soft, soft_mask = (
        gaussian_filter(one[wide], sigma, mode="mirror", radius=radius, axes=(0, 1))[inner] for one in (sharp, flat)
    )
    return soft, soft_mask


def _masked(sharp: Pixels, faces: Iterable[Box]) -> tuple[Pixels, float]:
    """Ones within the grown boxes, of the shape of `sharp`, and the deviation of the Gaussian."""
    height, width = sharp.shape[:2]
    mask, longest = np.zeros_like(sharp), 0
    for face in faces:
        left, top, right, bottom = (int(share * side) for share, side in zip(face, (width, height) * 2, strict=True))
        side = max(right - left, bottom - top)
        longest = max(longest, side)
        columns = [min(max(int(edge), 0), width - 1) for edge in (left - 0.1 * side, right + 0.1 * side)]
        rows = [min(max(int(edge), 0), height - 1) for edge in (top - 0.1 * side, bottom + 0.1 * side)]
        mask[rows[0] : rows[1], columns[0] : columns[1]] = 1
    return mask, 0.1 * longest


def _around(mask: Pixels, radius: int) -> Region:
    """Where the blurred mask is more than 0: the pixels of all others stay what they are."""
    held = mask if mask.ndim == 2 else mask[..., 0]
    sides = [np.flatnonzero(held.any(axis=axis)) for axis in (1, 0)]
    if not len(sides[0]):
        return slice(0, 0), slice(0, 0)
    rows, columns = (
        slice(max(int(side[0]) - radius, 0), min(int(side[-1]) + 1 + radius, length))
        for side, length in zip(sides, held.shape, strict=True)
    )
    return rows, columns
