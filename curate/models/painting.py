"""Painting over parts of a picture, each with one colour: that of what is around it, or of the whole picture."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FILLS = ("ring", "picture")


class Painted(NamedTuple):
    """A picture uint8 [height, width, 3], and the share of its pixels that were painted over."""

    pixels: np.ndarray
    share: float


def painted(pixels: np.ndarray, regions: Sequence[np.ndarray], fill: str, ring: int) -> Painted:
    """Paint over regions of uint8 RGB [height, width, 3], polygons float [corners, 2] of x and y in its pixels.

    All colours are means of the picture as it was. With `fill` "ring" a region gets that of the pixels within `ring`
    pixels around it that lie in no region; where there are none, that of all pixels in no region; where there are no
    such ones either, that of the picture, which all get with "picture". Of regions that overlap the later lies on top.
    """
    import cv2

    height, width = pixels.shape[:2]
    masks = []
    union = np.zeros((height, width), np.uint8)
    for region in regions:
        # cv2 counts from the middle of a pixel, and paints the border too.
        corners = np.clip(np.round(region - 0.5), 0, (width - 1, height - 1)).astype(np.int32)
        low, high = np.maximum(corners.min(0) - ring, 0), np.minimum(corners.max(0) + ring + 1, (width, height))
        window = (slice(low[1], high[1]), slice(low[0], high[0]))
        mask = np.zeros(union[window].shape, np.uint8)
        cv2.fillConvexPoly(mask, cv2.convexHull(corners - low.astype(np.int32)), 1)
        union[window] |= mask
        masks.append((window, mask))
    made = pixels.copy()
    square = np.ones((2 * ring + 1, 2 * ring + 1), np.uint8)
    for window, mask in masks:
        around = (cv2.dilate(mask, square) > 0) & (union[window] == 0) if fill == "ring" else None
        made[window][mask > 0] = _colour(pixels, window, around, union)
    return Painted(made, float(union.mean()) if union.size else 0.0)


def _colour(
    pixels: np.ndarray, window: tuple[slice, slice], around: np.ndarray | None, union: np.ndarray
) -> np.ndarray:
    """The mean colour of the pixels of the window that are `around`, see `painted`; uint8 [3]."""
    chosen = pixels.reshape(-1, 3)
    if around is not None and around.any():
        chosen = pixels[window][around]
    elif around is not None and not union.all():
        chosen = pixels[union == 0]
    mean: np.ndarray = np.round(chosen.mean(0, dtype=np.float64)).astype(np.uint8)
    return mean
