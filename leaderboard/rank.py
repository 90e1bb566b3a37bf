"""The order on a board, and which places noise leaves open.

Entries are ordered by their average, then by ImageNet. One counts as better than another where its average is higher by
more than the margin: what two runs can differ by that have the same data and another seed, and, for the samples of the
tasks, 1.96 standard errors of the difference, added as independent errors are.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

from poolbench.fields import Strict

from leaderboard.models import Entry, Noise, Score

_CONSTANTS = Path(__file__).parent / "boards.yaml"
_CONFIDENCE = 1.96  # standard errors either side of 95 % of a normal distribution
_UNKNOWN = Score(value=None, stderr=None)
_ROWS = 256  # of the table of all pairs at a time


class Places(NamedTuple):
    """The first and the last place that noise leaves open to each entry, counted from 1."""

    first: list[int]
    last: list[int]


class Constants(Strict):
    """What is known of the boards besides their entries: pool sizes by scale, seed noise by suite."""

    pools: dict[str, int]
    noise: dict[str, Noise]


@cache
def constants() -> Constants:
    """The content of boards.yaml."""
    return Constants.model_validate(yaml.safe_load(_CONSTANTS.read_text(encoding="utf-8")))


def order(entry: Entry) -> tuple[float, float, str, str, str, str]:
    """A key that sorts best first; equals in an order that does not depend on their files."""
    average, imagenet = (entry.aggregates.get(name, _UNKNOWN).value for name in ("average", "imagenet"))
    return (*descending(average, imagenet), entry.method, entry.author, entry.checkpoint_sha256, entry.digest)


def descending(average: float | None, imagenet: float | None) -> tuple[float, float]:
    """The part of the order that is merit: unknown numbers come last."""
    return (math.inf if average is None else -average, math.inf if imagenet is None else -imagenet)


def standard_error(keys: Sequence[str], scores: Mapping[str, Score]) -> float | None:
    """Of the mean over the tasks `keys`, whose samples are independent; None where a task's own is not known."""
    errors = [scores[key].stderr if key in scores else None for key in keys]
    known = [error for error in errors if error is not None]
    if not errors or len(known) < len(errors):
        return None
    return math.hypot(*known) / len(errors)


def margin(one: Score, other: Score, seed_noise: float) -> float:
    """By how much two aggregates can differ by chance. An unknown standard error adds nothing."""
    return math.hypot(seed_noise, _CONFIDENCE * math.hypot(one.stderr or 0.0, other.stderr or 0.0))


def places(averages: Sequence[Score], seed_noise: float) -> Places:
    """The places of entries that are sorted by average, best first.

    `first` is one more than the number of entries that are better by more than the margin, `last` is their number
    less those that are worse by more than it. Neither falls down the list: an entry that was measured badly is held
    between its neighbours, else it would share the first place, or keep all below it from theirs.
    """
    values = np.array([score.value for score in averages], dtype=np.float64)
    errors = np.array([score.stderr or 0.0 for score in averages], dtype=np.float64)
    better, worse = _counts(values, (_CONFIDENCE * errors) ** 2, seed_noise**2)
    first = np.maximum.accumulate(1 + better)
    last = np.minimum.accumulate((len(values) - worse)[::-1])[::-1]
    return Places(first.tolist(), last.tolist())


def _counts(
    values: NDArray[np.float64], variances: NDArray[np.float64], seed_variance: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many entries are better and how many worse than each by more than the margin.

    Shape of all: [entries], `values` descending. `variances` are squares of half intervals. Pairs (better, worse) are
    looked at one by one only where the widest margin of the board leaves the answer open: of 100,000 entries some
    hundredths of all pairs, and some rows of these at a time.
    """
    better, worse = np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=np.int64)
    certain = _certain(values, variances, seed_variance)
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        upper = slice(certain[rows].min(), min(start + _ROWS, len(values)))
        gaps = values[None, upper] - values[rows, None]
        noise = variances[rows, None] + variances[None, upper] + seed_variance
        beyond = (gaps > 0) & (gaps * gaps > noise)
        beyond &= np.arange(upper.start, upper.stop)[None] >= certain[rows, None]
        better[rows] = certain[rows] + beyond.sum(axis=1)
        worse[upper] += beyond.sum(axis=0)
    # Entry j is certainly better than every entry of which the first more than j are.
    worse += len(values) - np.cumsum(np.bincount(certain, minlength=len(values)))[: len(values)]
    return better, worse


def _certain(values: NDArray[np.float64], variances: NDArray[np.float64], seed_variance: float) -> NDArray[np.int64]:
    """How many of the first entries are better than each beyond the widest margin that it has with any. Shape
    [entries]."""
    widest = np.sqrt(variances + variances.max(initial=0.0) + seed_variance)
    limits = values + widest * (1 + 1e-9) + 1e-12  # of what rounding leaves open, nothing is certain
    counts: NDArray[np.int64] = np.searchsorted(-values, -limits, side="left")
    return counts
