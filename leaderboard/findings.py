"""What a leaderboard tells beyond its ranking: what goes along with ImageNet, and whether small scales foretell large.

    correlations(board)                                  # ImageNet with each other task
    across(leaderboard, "filtering", "small", "medium")  # the same methods' ranks at two scales

Only ranked entries and published results count: what was trained or scored differently would blur both.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from leaderboard.models import Board, Entry, Leaderboard, Reference, Score, Track

IMAGENET = "imagenet"
TITLES = {
    "average": "Average",
    "imagenet": "ImageNet",
    "imagenet_shifts": "ImageNet shifts",
    "vtab": "VTAB",
    "retrieval": "Retrieval",
}
_AGGREGATE_GROUP = "aggregate"
_FEWEST = 4  # Fisher's interval needs a positive n - 3
_LEVEL = 0.95

Result = Entry | Reference
Floats = npt.NDArray[np.float64]


class Correlation(NamedTuple):
    """Pearson's r of ImageNet with another task or aggregate over the `n` entries that have both, and its interval.

    All three are None below four entries, or where one of the two scores is the same in all.
    """

    key: str
    task: str
    group: str
    r: float | None
    low: float | None
    high: float | None
    n: int


class Method(NamedTuple):
    """What several results of a board are known by as one method; `kind` is "entry" or "published"."""

    label: str
    author: str
    kind: str


class Place(NamedTuple):
    """A method at two scales: scores `x` and `y`, and ranks among the methods that are known at both; ties share."""

    label: str
    kind: str
    x: float
    y: float
    x_rank: float
    y_rank: float


class Across(NamedTuple):
    """The methods that are known at two scales, best first at the larger, and Spearman's rho of their ranks.

    `rho` is None below four methods, or where all have the same score at one of the scales.
    """

    places: list[Place]
    rho: float | None
    n: int


class Interval(NamedTuple):
    low: float
    high: float


def correlations(board: Board) -> list[Correlation]:
    """ImageNet with each other aggregate and task: highest r first, those without one last, else in their own order.

    [] where ImageNet is not part of the board's suite. The interval of 95 % is tanh(atanh r ± 1.96 / sqrt(n - 3))
    (Fisher, On the "Probable Error" of a Coefficient of Correlation Deduced from a Small Sample, Metron 1, 1921).
    """
    if IMAGENET not in board.aggregates:
        return []
    counted = results(board)
    imagenet = _column(counted, IMAGENET)
    rows = [_correlation(key, title, group, imagenet, _column(counted, key)) for key, title, group in _columns(board)]
    return sorted(rows, key=lambda row: -math.inf if row.r is None else row.r, reverse=True)


def across(leaderboard: Leaderboard, track: Track, small: str, large: str, metric: str = "average") -> Across:
    """How the methods of a track that are known at both scales rank at each.

    A method is known by its name and its author; where it is there several times, as with several seeds, its mean
    counts. Rho is Pearson's r of the ranks, ties at their average (Spearman, The Proof and Measurement of Association
    between Two Things, American Journal of Psychology 15, 1904).

    Args:
        metric: the name of an aggregate or the key of a task.
    """
    from scipy import stats  # here and below, as it takes half a second that help can do without

    boards = {board.scale: board for board in leaderboard.boards if board.track == track}
    one, other = (means(boards[scale], metric) if scale in boards else {} for scale in (small, large))
    both = sorted(one.keys() & other.keys(), key=lambda method: (-other[method], method))
    x, y = (np.array([scores[method] for method in both]) for scores in (one, other))
    places = [
        Place(method.label, method.kind, *map(float, numbers))
        for method, *numbers in zip(both, x, y, stats.rankdata(-x), stats.rankdata(-y), strict=True)
    ]
    varied = len(both) >= _FEWEST and np.ptp(x) > 0 and np.ptp(y) > 0
    return Across(places, float(stats.spearmanr(x, y).statistic) if varied else None, len(both))


def results(board: Board) -> list[Result]:
    """What counts: the ranked entries, then the published results."""
    return [*board.ranked, *board.references]


def kind_of(result: Result) -> Literal["entry", "published"]:
    return "published" if isinstance(result, Reference) else "entry"


def means(board: Board, metric: str) -> dict[Method, float]:
    """Each method's mean score on a board, as over seeds; those without a score are left out."""
    scores: dict[Method, list[float]] = {}
    for result in results(board):
        value = score_of(result, metric).value
        if value is not None:
            scores.setdefault(Method(result.method, result.author, kind_of(result)), []).append(value)
    return {method: math.fsum(values) / len(values) for method, values in scores.items()}


def score_of(result: Result, metric: str) -> Score:
    """An aggregate, known by its name, or the score of a task, known by its key; both None where there is none."""
    found = result.aggregates.get(metric, result.scores.get(metric))
    return found if isinstance(found, Score) else Score(value=found, stderr=None)


def interval(board: Board, score: Score, metric: str) -> Interval | None:
    """What noise leaves open of a score; None where the score or all noise is unknown.

    Half of the largest difference between two seeds, and 1.96 standard errors, which do not know of each other.
    """
    seeds = board.noise.values.get(metric) if board.noise else None
    if score.value is None or (seeds is None and score.stderr is None):
        return None
    reach = math.hypot((seeds or 0.0) / 2, 1.96 * (score.stderr or 0.0))
    return Interval(score.value - reach, score.value + reach)


def _columns(board: Board) -> Iterator[tuple[str, str, str]]:
    """Key, title and group of what ImageNet is compared with."""
    for name in board.aggregates:
        if name != IMAGENET:
            yield name, TITLES.get(name, name), _AGGREGATE_GROUP
    for task in board.tasks:
        if task.main_metric is not None and IMAGENET not in task.groups:
            yield task.key, task.name, task.groups[0] if task.groups else ""


def _column(counted: Sequence[Result], metric: str) -> Floats:
    """float64 [len(counted)], NaN where there is no score."""
    values = (score_of(result, metric).value for result in counted)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _correlation(key: str, title: str, group: str, imagenet: Floats, scores: Floats) -> Correlation:
    both = np.isfinite(imagenet) & np.isfinite(scores)
    x, y, n = imagenet[both], scores[both], int(both.sum())
    if n < _FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(key, title, group, None, None, None, n)
    from scipy import stats

    found = stats.pearsonr(x, y)
    low, high = found.confidence_interval(_LEVEL)
    return Correlation(key, title, group, float(found.statistic), float(low), float(high), n)
