"""Classification tasks whose samples fall into groups: the worst group, FMoW's regions and years, iWildCam.

Published numbers of these are those of the package wilds, and so are ours. Their standard errors are of the same metric
written as a Statistic, which wilds does not have; a test holds the two together.
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa

from evaluate.metrics import classification
from evaluate.metrics.columns import Bools, Metrics, classes, groups, hits, top5
from evaluate.metrics.statistics import MeanOfRatios, Statistic, Sums, WorstGroup
from evaluate.metrics.wilds import grouped_accuracy, macro_scores
from tasks.registry import Task

TOPS = (1, 5)  # the best class, or the best five: what predictions tell of a sample
SMALLEST_SHARE = 100  # a region counts as one where at least one in so many pictures is of it


def iwildcam(task: Task, predictions: pa.Table) -> Metrics:
    """Besides the metrics of classification `acc_avg`, `recall-macro_all` and `F1-macro_all`."""
    scores = macro_scores(classes(predictions, "prediction"), classes(predictions, "label"))
    return {**classification.metrics(task, predictions), **scores}


def worst_group(task: Task, predictions: pa.Table) -> Metrics:
    """Besides the metrics of classification the accuracy of each value of the task's field `group_by`, and the worst.

    With `top` 1 they are named `acc_...`. With a `top` of k a sample is right when its class is among the k best ones,
    and they are named `acc_top<k>_...`.
    """
    assert task.group_by is not None and task.top in TOPS, task.key
    name, right = ("acc", hits(predictions)) if task.top == 1 else ("acc_top5", _among_five(predictions))
    by_group = grouped_accuracy(name, right, {task.group_by: groups(predictions, "group")})
    return {**classification.metrics(task, predictions), **by_group}


def fmow(task: Task, predictions: pa.Table) -> Metrics:
    """Besides the metrics of classification the accuracy of each year and region, and the worst of each.

    `acc_worst_region` is the published metric: the worst of all regions with pictures, among them "Other", whose 4 of
    22,108 pictures often make it exactly 0. Its authors mean to leave that region out, but look for it by a name that
    the data do not hold; `acc_worst_region_corrected` is the worst of the regions with at least 1 % of the pictures.
    """
    years = grouped_accuracy("acc", hits(predictions), {"year": groups(predictions, "year")})
    regions = grouped_accuracy("acc", hits(predictions), {"region": groups(predictions, "group")})
    metrics = {**classification.metrics(task, predictions), **years, **regions}
    metrics["acc_worst_year"], metrics["acc_worst_region"] = years["acc_wg"], regions["acc_wg"]
    del metrics["acc_wg"]
    return {**metrics, "acc_worst_region_corrected": worst_of_large(regions, len(predictions))}


def worst_of_large(regions: Metrics, samples: int) -> float | None:
    """The lowest accuracy of a region with at least 1 % of the pictures; None where there is none so large.

    Args:
        regions: `acc_region:<k>` and `count_region:<k>` of every region, as `grouped_accuracy` gives them.
    """
    counts = {name.removeprefix("count_"): count for name, count in regions.items() if name.startswith("count_")}
    large = [regions[f"acc_{region}"] for region, count in counts.items() if SMALLEST_SHARE * (count or 0) >= samples]
    return min((accuracy for accuracy in large if accuracy is not None), default=None)


def _among_five(predictions: pa.Table) -> Bools:
    among = top5(predictions)
    return np.ones(len(predictions), np.bool_) if among is None else among  # of fewer classes each is among five


def _worst(predictions: pa.Table) -> WorstGroup:
    return WorstGroup(hits(predictions), groups(predictions, "group"))


def _worst_top5(predictions: pa.Table) -> WorstGroup:
    return WorstGroup(_among_five(predictions), groups(predictions, "group"))


def _macro_f1(predictions: pa.Table) -> MeanOfRatios:
    """Mean over the classes that occur as labels of 2 TP / (2 TP + FP + FN), as wilds and scikit-learn define it."""
    labels, chosen = classes(predictions, "label"), classes(predictions, "prediction")
    rows, right = np.arange(len(labels)), np.flatnonzero(labels == chosen)
    twice = np.concatenate([rows, rows])
    return MeanOfRatios(
        count=len(labels),
        ratios=int(max(labels.max(), chosen.max())) + 1,
        numerators=Sums(right, labels[right], np.full(len(right), 2.0)),
        denominators=Sums(twice, np.concatenate([labels, chosen]), np.ones(len(twice))),
        presence=Sums(rows, labels, np.ones(len(rows))),
    )


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {
    "acc_wg": _worst,
    "acc_worst_region": _worst,
    "acc_top5_wg": _worst_top5,
    "F1-macro_all": _macro_f1,
}
