"""Every metric of a task from its stored predictions alone, as its evaluator computed it.

    metrics, stderr = computed(task, pq.read_table("predictions/mnist.parquet"))

It comes with torch, and is imported by the function that needs it. The predictions may be anybody's: what no evaluator
writes is refused before it takes time or memory.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from evaluate.evaluators.classification import mean_per_class_recall
from evaluate.evaluators.fairness import PREFIXES, fairness_metrics
from evaluate.evaluators.groups import MOST_GROUPS, worst_of_large
from evaluate.evaluators.retrieval import Ranks, hits_at
from evaluate.evaluators.winogavil import SIZES, jaccard
from evaluate.statistics import standard_error
from evaluate.wilds_metrics import Metadata, Metrics, grouped_accuracy, macro_scores
from tasks.registry import Task

Ints = npt.NDArray[np.int64]

_MOST_CLASSES = 100_000  # a higher number of a class would only take memory


def computed(task: Task, predictions: pa.Table) -> tuple[Metrics, float | None]:
    """All metrics of a task, the main one also as `main_metric`, and its standard error, from a table of predictions.

    Raises:
        KeyError, ValueError, ...: the table is not one that the task's evaluator writes.
    """
    metrics = _METRICS[task.kind](task, predictions)
    main = None if task.main_metric is None else metrics[task.main_metric]
    return {**metrics, "main_metric": main}, standard_error(task.main_metric, predictions)


def _classification(task: Task, predictions: pa.Table) -> Metrics:
    labels, chosen = _numbers(predictions, "label"), _numbers(predictions, "prediction")
    top5 = predictions.column("top5")
    if top5.null_count not in (0, len(top5)):
        raise ValueError("top5 is missing for some samples")
    if not top5.null_count and np.any((labels == chosen) & ~top5.to_numpy()):
        raise ValueError("a class is the best one and not among the best five")
    return {
        "acc1": float(np.mean(labels == chosen)),
        "acc5": None if top5.null_count else float(np.mean(top5.to_numpy())),
        "mean_per_class_recall": mean_per_class_recall(labels, chosen),
    }


def _iwildcam(task: Task, predictions: pa.Table) -> Metrics:
    chosen, labels = _tensor(predictions, "prediction"), _tensor(predictions, "label")
    return {**_classification(task, predictions), **macro_scores(chosen, labels)}


def _worst_group(task: Task, predictions: pa.Table) -> Metrics:
    assert task.group_by is not None
    plain = _classification(task, predictions)
    if task.top == 1:
        return {**plain, **_by_group("acc", predictions, "group", task.group_by)}
    assert task.top == 5, f"the predictions of {task.key} tell the best five classes only"
    return {**plain, **_by_group("acc_top5", predictions, "group", task.group_by, top5=True)}


def _fmow(task: Task, predictions: pa.Table) -> Metrics:
    years = _by_group("acc", predictions, "year", "year")
    regions = _by_group("acc", predictions, "group", "region")
    metrics = {**_classification(task, predictions), **years, **regions}
    del metrics["acc_wg"]
    metrics["acc_worst_year"], metrics["acc_worst_region"] = years["acc_wg"], regions["acc_wg"]
    return {**metrics, "acc_worst_region_corrected": worst_of_large(regions, len(predictions))}


def _by_group(name: str, predictions: pa.Table, column: str, field: str, top5: bool = False) -> Metrics:
    """Accuracies of the groups that `column` numbers, under the name that the data have for it, `field`."""
    metadata = Metadata((field,), torch.from_numpy(_groups(predictions, column))[:, None])
    if not top5:
        chosen, truth = _tensor(predictions, "prediction"), _tensor(predictions, "label")
        return grouped_accuracy(name, chosen, truth, metadata, [field])
    # Null where there are fewer than five classes, and so each is among the best five.
    hits = torch.from_numpy(np.array(predictions.column("top5").fill_null(True), dtype=np.bool_))
    return grouped_accuracy(name, hits, torch.ones_like(hits), metadata, [field])


def _fairness(task: Task, predictions: pa.Table) -> Metrics:
    columns = [torch.from_numpy(_groups(predictions, field)) for field in task.metadata]
    chosen = {prefix: _tensor(predictions, f"{prefix}_prediction") for prefix in PREFIXES}
    return fairness_metrics(chosen, Metadata(task.metadata, torch.stack(columns, dim=1)))


def _retrieval(task: Task, predictions: pa.Table) -> Metrics:
    lists = predictions.column("image_ranks").combine_chunks()
    counts = lists.value_lengths().to_numpy().astype(np.int64)
    images, texts = lists.flatten().to_numpy() - 1, _numbers(predictions, "text_rank", math.inf) - 1
    if min(images.min(), texts.min(), counts.min() - 1) < 0:
        raise ValueError("a rank below 1, or a picture without a caption")
    ratios = hits_at(Ranks(images, texts, texts, texts), counts)
    return {name: float(np.mean([a.sum() / b.sum() for a, b in pairs])) for name, pairs in ratios.items()}


def _winogavil(task: Task, predictions: pa.Table) -> Metrics:
    rights, chosens = predictions.column("right").to_pylist(), predictions.column("chosen").to_pylist()
    pairs = list(zip(rights, chosens, strict=True))
    if any(len(right) != len(chosen) or not 0 < sum(right) == sum(chosen) for right, chosen in pairs):
        raise ValueError("a puzzle of which not as many pictures were chosen as are right")
    scores = [jaccard(tuple(right), torch.tensor(chosen)) for right, chosen in pairs]
    sizes = [len(right) for right in rights]
    if sizes != predictions.column("size").to_pylist() or scores != predictions.column("score").to_pylist():
        raise ValueError("size and score do not follow from right and chosen")
    metrics: Metrics = {}
    for name, of_size in SIZES.items():
        counted = [score for score, size in zip(scores, sizes, strict=True) if of_size(size)]
        metrics[name] = float(np.mean(counted)) if counted else None
    return metrics


_METRICS: dict[str, Callable[[Task, pa.Table], Metrics]] = {
    "classification": _classification,
    "retrieval": _retrieval,
    "winogavil": _winogavil,
    "iwildcam": _iwildcam,
    "worst_group": _worst_group,
    "fmow": _fmow,
    "fairness": _fairness,
}


def _numbers(predictions: pa.Table, column: str, most: float = _MOST_CLASSES) -> Ints:
    """A column of whole numbers from 0, int64 [n].

    Raises:
        ValueError: numbers are missing, or are none of classes.
    """
    values = predictions.column(column)
    if values.null_count:
        raise ValueError(f"{column} is missing for some samples")
    numbers: Ints = values.to_numpy().astype(np.int64)
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < most:
        raise ValueError(f"{column} holds numbers from {numbers.min()} to {numbers.max()}")
    return numbers


def _groups(predictions: pa.Table, column: str) -> Ints:
    return _numbers(predictions, column, MOST_GROUPS)


def _tensor(predictions: pa.Table, column: str) -> torch.Tensor:
    return torch.from_numpy(_numbers(predictions, column))
