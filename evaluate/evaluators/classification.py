"""Zero-shot classification: acc1, acc5 and mean_per_class_recall."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator, Result
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task

LOGIT_SCALE = 100.0  # a constant, not the learned scale; it changes no ranking


class Classification(Evaluator):
    """Keeps two numbers a sample, so memory does not grow with the pictures.

    Classes of equal score rank in the order of their labels.
    """

    needs = frozenset({"label"})

    @classmethod
    def classifiers(cls, task: Task, data: TaskData) -> list[tuple[Sequence[str], Sequence[str]]]:
        return [(data.classnames, data.templates)]

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._weights = encoder.classifier(data.classnames, data.templates)
        self._rows: list[tuple[int, list[str], torch.Tensor]] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        logits = LOGIT_SCALE * features @ self._weights
        labels = batch.labels.to(logits.device)
        predictions, ranks = logits.argmax(dim=1), rank_of(logits, labels)
        self._rows.append((batch.unit, batch.keys, torch.stack([labels, predictions, ranks]).cpu()))

    def result(self) -> Result:
        keys, numbers = in_order(self._rows)
        labels, predictions, ranks = numbers.numpy()
        classes = self._weights.shape[1]
        top5 = ranks < 5
        metrics: dict[str, float | None] = {
            "acc1": float(np.mean(predictions == labels)),
            "acc5": float(np.mean(top5)) if classes >= 5 else None,
            "mean_per_class_recall": mean_per_class_recall(labels, predictions),
        }
        hits = pa.array(top5) if classes >= 5 else pa.nulls(len(keys), pa.bool_())
        table = pa.table({"key": keys, "label": labels, "prediction": predictions, "top5": hits})
        return Result(metrics, len(keys), table)


def in_order(rows: Sequence[tuple[int, list[str], torch.Tensor]]) -> tuple[list[str], torch.Tensor]:
    """Keys [n] and numbers [k, n] of the samples, by unit and place in it, from (unit, keys, numbers) of batches."""
    rows = sorted(rows, key=lambda row: row[0])
    return [key for _, keys, _ in rows for key in keys], torch.cat([numbers for *_, numbers in rows], dim=1)


def rank_of(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How many columns rank before the target in each row, int64 [n]; equal scores rank by column.

    Args:
        scores: [n, m].
        targets: int64 [n], a column for each row.
    """
    target_scores = scores.gather(1, targets[:, None])
    earlier = torch.arange(scores.shape[1], device=scores.device) < targets[:, None]
    return ((scores > target_scores) | ((scores == target_scores) & earlier)).sum(dim=1)


def mean_per_class_recall(labels: npt.NDArray[np.int64], predictions: npt.NDArray[np.int64]) -> float:
    """Mean over the classes present in `labels` (int64 [n]) of the share of their samples that is predicted right.

    It is the balanced accuracy of Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, 2010.
    """
    counts = np.bincount(labels)
    hits = np.bincount(labels[predictions == labels], minlength=len(counts))
    present = counts > 0
    return float(np.mean(hits[present] / counts[present]))
