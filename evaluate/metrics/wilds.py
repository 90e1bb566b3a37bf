"""Accuracy by group, F1 and recall with the metrics and groupers of the package wilds, under the names it gives them.

wilds and torch take seconds to import, so they are imported when the first metric is computed.
"""

import contextlib
import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evaluate.metrics.columns import Bools, Ints, Metrics

if TYPE_CHECKING:
    import torch


def grouped_accuracy(name: str, hits: Bools, groups: Mapping[str, Ints]) -> Metrics:
    """What wilds' standard evaluation by group gives, group numbers running from 0 to the highest that occurs.

    `<name>_avg`, `<name>_<group>` and `count_<group>` of each group, and `<name>_wg`, the lowest accuracy of a group
    with samples. A group is called `region:3`, and with several fields, the last of them first, `race:3_gender:0`. The
    accuracy of a group without samples is None. Accuracies are float32: hits / count.

    Args:
        hits: bool [n], n > 0.
        groups: by field that makes up a group, in the order of the metadata, int64 [n], not negative.
    """
    import torch

    wilds = _wilds()
    values = torch.from_numpy(np.stack(list(groups.values()), axis=1))
    dataset = SimpleNamespace(metadata_fields=list(groups), metadata_array=values, metadata_map=None)
    with warnings.catch_warnings():
        # Test sets are parts of larger sets; that their group numbers need not start at 0 is expected.
        warnings.filterwarnings("ignore", message="Minimum metadata value for CombinatorialGrouper is not 0")
        grouper = wilds.CombinatorialGrouper(dataset, list(groups))
    right = torch.from_numpy(np.array(hits))  # arrow's memory cannot be written to, of which torch would warn
    results, _ = wilds.standard_group_eval(wilds.Accuracy(name=name), grouper, right, torch.ones_like(right), values)
    return _without_nan(results)


def macro_scores(predictions: Ints, truth: Ints) -> Metrics:
    """`acc_avg`, and `recall-macro_all` and `F1-macro_all`, means over the classes that occur in `truth`.

    Args:
        predictions: int64 [n], n > 0.
        truth: int64 [n].
    """
    import torch

    wilds = _wilds()
    metrics = [wilds.Accuracy(), wilds.Recall(average="macro"), wilds.F1(average="macro")]
    pair = torch.from_numpy(predictions), torch.from_numpy(truth)
    return _without_nan({name: value for metric in metrics for name, value in metric.compute(*pair).items()})


def _without_nan(results: Mapping[str, float]) -> Metrics:
    return {name: None if math.isnan(value) else value for name, value in results.items()}


class _Wilds(NamedTuple):
    Accuracy: Any
    Recall: Any
    F1: Any
    CombinatorialGrouper: Any
    standard_group_eval: Any


@cache
def _wilds() -> _Wilds:
    with _no_search_for_updates():
        from wilds.common import utils
        from wilds.common.grouper import CombinatorialGrouper
        from wilds.common.metrics import all_metrics, metric
        from wilds.datasets.wilds_dataset import WILDSDataset
    for module in (utils, metric, all_metrics):  # the latter two hold a reference of their own
        module.avg_over_groups = _avg_over_groups
    return _Wilds(
        all_metrics.Accuracy,
        all_metrics.Recall,
        all_metrics.F1,
        CombinatorialGrouper,
        WILDSDataset.standard_group_eval,
    )


@contextlib.contextmanager
def _no_search_for_updates() -> Iterator[None]:
    """Let wilds do without the package `outdated`, with which it would ask the package index for newer versions.

    The environment variable OUTDATED_IGNORE silences that package's warnings, but not its requests.
    """
    missing = object()
    before: Any = sys.modules.get("outdated", missing)
    sys.modules["outdated"] = None  # type: ignore[assignment] # documented: an import of it then fails
    try:
        yield
    finally:
        if before is missing:
            del sys.modules["outdated"]
        else:
            sys.modules["outdated"] = before


def _avg_over_groups(
    values: "torch.Tensor", groups: "torch.Tensor", count: int
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Mean of `values` in each of `count` groups (NaN where there are none) and group sizes, float32 [count] both.

    It stands in for wilds' function of that name, which needs the package torch_scatter.

    Args:
        values: float32 [n].
        groups: int64 [n], the group of each.
    """
    import torch

    sizes = torch.bincount(groups, minlength=count).float()
    return torch.zeros(count).index_add(0, groups, values) / sizes, sizes
