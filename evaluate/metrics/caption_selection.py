"""Caption selection: how often the right caption is more similar to its picture than each of the others.

`acc` counts equal scores as wrong, as SugarCrepe does (Hsieh et al., SugarCrepe, 2023): a model that cannot tell two
captions apart has not chosen. `text_acc` is clip_benchmark's number, which takes the first of equal ones; it differs
from `acc` only where scores are equal.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluate.metrics.columns import Bools, Metrics, clusters, flags, integers
from evaluate.metrics.statistics import Mean, Statistic
from tasks.registry import Task


def acc(predictions: pa.Table) -> Mean:
    """The share of samples whose right caption has the best score alone; those of one picture are a cluster."""
    alone = np.equal(integers(predictions, "right"), integers(predictions, "prediction")) & ~flags(predictions, "tied")
    return _share(predictions, alone)


def text_acc(predictions: pa.Table) -> Mean:
    """The share of samples whose right caption is the first of those with the best score."""
    return _share(predictions, np.equal(integers(predictions, "right"), integers(predictions, "prediction")))


def _share(predictions: pa.Table, hits: Bools) -> Mean:
    return Mean(hits.astype(np.float64), clusters(predictions, "picture"))


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {"acc": acc, "text_acc": text_acc}


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """From the columns `right`, `prediction`, `tied` and `picture`.

    Raises:
        ValueError: no evaluator writes such columns.
    """
    counts = pc.list_value_length(predictions.column("captions")).to_numpy()
    for name in ("right", "prediction"):
        places = integers(predictions, name)
        if np.any((places < 0) | (places >= counts)):
            raise ValueError(f"{name} is no place among the captions")
    return {name: make(predictions).value() for name, make in STATISTICS.items()}
