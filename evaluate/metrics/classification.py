"""Zero-shot classification: acc1, acc5 and mean_per_class_recall."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from evaluate.metrics.columns import Metrics, classes, hits, top5
from evaluate.metrics.statistics import Mean, Statistic, StratifiedMean
from tasks.registry import Task


def acc1(predictions: pa.Table) -> Mean:
    """The share of samples whose best class is the right one."""
    return Mean.independent(hits(predictions))


def mean_per_class_recall(predictions: pa.Table) -> StratifiedMean:
    """Mean over the classes that occur as labels of the share of their samples that is predicted right.

    It is the balanced accuracy of Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, 2010.
    """
    return StratifiedMean(hits(predictions).astype(np.float64), classes(predictions, "label"))


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {
    "acc1": acc1,
    "mean_per_class_recall": mean_per_class_recall,
}


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """From the columns `label`, `prediction` and `top5` (which is null where there are fewer than five classes).

    Raises:
        ValueError: no evaluator writes such columns.
    """
    among = top5(predictions)
    if among is not None and np.any(hits(predictions) & ~among):
        raise ValueError("a class is the best one and not among the best five")
    return {
        "acc1": acc1(predictions).value(),
        "acc5": None if among is None else float(np.mean(among)),
        "mean_per_class_recall": mean_per_class_recall(predictions).value(),
    }
