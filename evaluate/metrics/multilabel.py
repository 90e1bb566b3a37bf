"""Pictures with several labels: the mean over classes of the average precision.

As in clip_benchmark, the average precision of a class is the mean, over the pictures that show it, of the precision
among the pictures that rank no lower, and a class that no picture shows counts as 0. Of equal scores the earlier
picture ranks first; clip_benchmark leaves that to torch.sort. Without equal scores it is scikit-learn's
`average_precision_score`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluate.metrics.columns import Bools, Floats, Ints, Metrics
from evaluate.metrics.statistics import Statistic, bootstrap
from tasks.registry import Task


@dataclass(frozen=True)
class MeanAveragePrecision(Statistic):
    """Of `scores`, float64 [n, classes], and `truth`, bool [n, classes], which classes a picture shows.

    The standard error is that of the bootstrap over pictures. A class that no picture of a draw shows is left out
    of the draw.
    """

    scores: Floats
    truth: Bools

    def value(self) -> float:
        return self.value_of(np.ones(len(self.scores)))

    def value_of(self, weights: Floats) -> float:
        """The metric where picture i occurs weights[i] times; `weights` are float64 [n]."""
        drawn = weights[self._order]
        shown = drawn * np.take_along_axis(self.truth, self._order, axis=0)
        found, ranks = np.cumsum(shown, axis=0), np.cumsum(drawn, axis=0)
        precisions = found / np.maximum(ranks, 1)  # a picture that was not drawn has no part in the sum
        totals = shown.sum(axis=0)
        there = totals > 0
        if not there.any():
            return 0.0
        averages = (precisions * shown).sum(axis=0)[there] / totals[there]
        return float(np.mean(averages) * np.mean(self.truth.any(axis=0)))

    def stderr(self) -> float | None:
        return bootstrap(len(self.scores), self.value_of)

    def paired_stderr(self, other: Self) -> float | None:
        return bootstrap(len(self.scores), lambda weights: other.value_of(weights) - self.value_of(weights))

    @cached_property
    def _order(self) -> Ints:
        """For each class the pictures from the best score down, int64 [n, classes]."""
        order: Ints = np.argsort(-self.scores, axis=0, kind="stable")
        return order


def mean_average_precision(predictions: pa.Table) -> MeanAveragePrecision:
    """From the columns `labels`, the numbers of the classes that a picture shows, and `scores`, one for each class.

    Raises:
        KeyError, ValueError: no evaluator writes such columns.
    """
    counts = pc.list_value_length(predictions.column("scores")).to_numpy()
    classes = int(counts[0])
    if np.any(counts != classes):
        raise ValueError("scores of different numbers of classes")
    scores = pc.list_flatten(predictions.column("scores")).to_numpy().astype(np.float64).reshape(-1, classes)
    if not np.isfinite(scores).all():
        raise ValueError("a score is missing or no number")
    labels = predictions.column("labels")
    rows = np.repeat(np.arange(len(counts)), pc.list_value_length(labels).to_numpy())
    columns = pc.list_flatten(labels).to_numpy().astype(np.int64)
    if np.any((columns < 0) | (columns >= classes)):
        raise ValueError(f"labels hold something else than 0 .. {classes - 1}")
    truth = np.zeros(scores.shape, np.bool_)
    truth[rows, columns] = True
    return MeanAveragePrecision(scores, truth)


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {"mean_average_precision": mean_average_precision}


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """From the columns `labels` and `scores`.

    Raises:
        KeyError, ValueError: no evaluator writes such columns.
    """
    return {"mean_average_precision": mean_average_precision(predictions).value()}
