"""The weight decay of a linear probe, chosen on a validation part.

The grid and the way through it are clip_benchmark's: 97 values from 1e-6 to 1e2, 12 a decade, of which first every 16th
is tried, then the neighbours of the best one at 8, 4, 2 and 1 steps (after Radford et al., Learning Transferable Visual
Models From Natural Language Supervision, 2021, appendix A.3). Each fit starts from that of the nearest value tried.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from evaluate.probes.linear import Linear, Regression

GRID = tuple(float(value) for value in np.logspace(-6, 2, 97))
_FIRST, _STEPS = 16, (8, 4, 2, 1)


class Chosen(NamedTuple):
    """A weight decay, and the classifier of the training part with it."""

    weight_decay: float
    linear: Linear


def search(regression: Regression, features: torch.Tensor, labels: torch.Tensor) -> Chosen:
    """The weight decay with the best accuracy on a validation part; of equal ones that of the lower cross entropy.

    Args:
        features: of the validation part, float32 [n, d], n > 0.
        labels: int64 [n].
    """
    tried: dict[int, tuple[tuple[float, float], Linear]] = {}

    def best_of(places: Iterable[int]) -> int:
        for place in places:
            if place not in tried:
                nearest = min(tried, key=lambda other: abs(other - place), default=None)
                linear = regression.fit(GRID[place], None if nearest is None else tried[nearest][1])
                tried[place] = quality(linear.logits(features), labels), linear
        return max(sorted(tried), key=lambda place: tried[place][0])

    # From the strongest on, whose fit is done at once.
    best = best_of(range(len(GRID) - 1, -1, -_FIRST))
    for step in _STEPS:
        best = best_of(place for place in (best + step, best - step) if 0 <= place < len(GRID))
    return Chosen(GRID[best], tried[best][1])


def quality(logits: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """The accuracy and, to tell equal ones apart, the cross entropy with its sign turned: the higher the better."""
    right = float((logits.argmax(dim=1) == labels).double().mean())
    return right, -float(functional.cross_entropy(logits.double(), labels))
