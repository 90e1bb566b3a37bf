"""Each metric once: what a task's table of predictions says of the model, for evaluation and for the leaderboard alike.

    metrics(task, predictions)                     # {"acc1": .61, ..., "main_metric": .61}
    standard_error(task.main_metric, predictions)  # of the main metric (docs/statistics.md)

One module a kind of task. A new kind is a new module and a line in METRICS; a line in that module's STATISTICS says how
its main metric's standard error follows. The predictions may be anybody's: what no evaluator writes is refused before
it takes time or memory. torch and wilds are imported when the first metric that needs wilds is computed.
"""

from collections.abc import Callable

import pyarrow as pa

from poolbench.errors import UserError, nearest

from evaluate.metrics import (
    caption_selection,
    classification,
    fairness,
    groups,
    multilabel,
    retrieval,
    winogavil,
    winoground,
)
from evaluate.metrics.columns import Metrics
from evaluate.metrics.statistics import Statistic
from tasks.registry import Task

METRICS: dict[str, Callable[[Task, pa.Table], Metrics]] = {
    "classification": classification.metrics,
    "retrieval": retrieval.metrics,
    "winogavil": winogavil.metrics,
    "iwildcam": groups.iwildcam,
    "worst_group": groups.worst_group,
    "fmow": groups.fmow,
    "fairness": fairness.metrics,
    "caption_selection": caption_selection.metrics,
    "winoground": winoground.metrics,
    "multilabel": multilabel.metrics,
}

_STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {
    **classification.STATISTICS,
    **groups.STATISTICS,
    **retrieval.STATISTICS,
    **winogavil.STATISTICS,
    **caption_selection.STATISTICS,
    **winoground.STATISTICS,
    **multilabel.STATISTICS,
}


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """All metrics of a task from a table of predictions, one row a sample, the main one also as `main_metric`.

    Raises:
        UserError: the task's main metric is none of its kind's.
        KeyError, ValueError, ...: the table is not one that the task's evaluator writes.
    """
    found = METRICS[task.kind](task, predictions)
    main = task.main_metric
    if main is not None and main not in found:
        raise UserError(f"there is no metric {main!r} for its main_metric; {nearest(main, found)}")
    return {**found, "main_metric": None if main is None else found[main]}


def standard_error(metric: str | None, predictions: pa.Table) -> float | None:
    """Standard error of a task's main metric; None without one, or for fewer than two clusters of samples."""
    statistic = statistic_of(metric, predictions)
    return None if statistic is None else statistic.stderr()


def statistic_of(metric: str | None, predictions: pa.Table) -> Statistic | None:
    """A main metric as a function of the predictions that an evaluator left; None where it is not known as such.

    Raises:
        KeyError: a column that the metric needs is not there.
    """
    make = _STATISTICS.get(metric or "")
    return None if make is None else make(predictions)
