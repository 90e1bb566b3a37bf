"""Zero-shot classification: the best class of each picture, and whether the right one is among the best five."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
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

    def predictions(self) -> pa.Table:
        keys, numbers = in_order(self._rows)
        labels, predictions, ranks = numbers.numpy()
        hits = pa.array(ranks < 5) if self._weights.shape[1] >= 5 else pa.nulls(len(keys), pa.bool_())
        return pa.table({"key": keys, "label": labels, "prediction": predictions, "top5": hits})


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
