"""WinoGAViL: the Jaccard index of the pictures that were chosen for a cue and of those that go with it."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from evaluate.metrics.columns import Metrics, integers
from evaluate.metrics.statistics import Mean, Statistic
from tasks.registry import Task

# Metric -> which puzzles it is the mean over, by their number of candidates.
SIZES: dict[str, Callable[[int], bool]] = {
    "avg_jaccard_score": lambda size: True,
    "jaccard_score_5": lambda size: size == 5,
    "jaccard_score_6": lambda size: size == 6,
    "jaccard_score_10": lambda size: size == 10,
    "jaccard_score_12": lambda size: size == 12,
    "jaccard_score_5-6": lambda size: size <= 6,
    "jaccard_score_10-12": lambda size: size >= 10,
}


def jaccard(right: Sequence[bool], chosen: Sequence[bool]) -> float:
    """Size of the intersection over size of the union of two sets, given as marks; `right` is not empty."""
    pairs = list(zip(right, chosen, strict=True))
    return sum(a and b for a, b in pairs) / sum(a or b for a, b in pairs)


def mean_score(predictions: pa.Table, of_size: Callable[[int], bool]) -> Mean:
    """Mean score of the puzzles with certain numbers of candidates; those on the same pictures are one cluster."""
    counted = np.array([of_size(size) for size in integers(predictions, "size").tolist()], dtype=np.bool_)
    predictions = predictions.filter(pa.array(counted))
    boards = [frozenset(pictures) for pictures in predictions.column("pictures").to_pylist()]
    numbers = {board: number for number, board in enumerate(dict.fromkeys(boards))}
    clusters = np.array([numbers[board] for board in boards], dtype=np.int64)
    return Mean(predictions.column("score").to_numpy().astype(np.float64), clusters)


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {
    name: partial(mean_score, of_size=of_size) for name, of_size in SIZES.items()
}


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """From the columns `size`, `score` and `pictures`; the first two have to follow from `right` and `chosen`.

    Raises:
        TypeError, ValueError: no evaluator writes such columns.
    """
    rights, chosens = predictions.column("right").to_pylist(), predictions.column("chosen").to_pylist()
    pairs = list(zip(rights, chosens, strict=True))
    if any(len(right) != len(chosen) or not 0 < sum(right) == sum(chosen) for right, chosen in pairs):
        raise ValueError("a puzzle of which not as many pictures were chosen as are right")
    scores, sizes = [jaccard(right, chosen) for right, chosen in pairs], [len(right) for right in rights]
    if sizes != predictions.column("size").to_pylist() or scores != predictions.column("score").to_pylist():
        raise ValueError("size and score do not follow from right and chosen")
    means = {name: mean_score(predictions, of_size) for name, of_size in SIZES.items()}
    return {name: mean.value() if len(mean.values) else None for name, mean in means.items()}
