"""Pictures with several labels: how well each class ranks the pictures."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from evaluate.embedder import LOGIT_SCALE
from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task


class MultiLabel(Evaluator):
    """Keeps the scores of all classes for each sample."""

    needs = frozenset({"labels"})

    @classmethod
    def classifiers(cls, task: Task, data: TaskData) -> list[tuple[Sequence[str], Sequence[str]]]:
        return [(data.classnames, data.templates)]

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._weights = encoder.classifier(data.classnames, data.templates)
        self._rows: list[tuple[int, list[str], torch.Tensor, torch.Tensor]] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        scores = (LOGIT_SCALE * features @ self._weights).cpu()
        self._rows.append((batch.unit, batch.keys, batch.metadata, scores))

    def predictions(self) -> pa.Table:
        rows = sorted(self._rows, key=lambda row: row[0])
        truth = torch.cat([labels for _, _, labels, _ in rows]).numpy()
        table = {
            "key": [key for _, keys, *_ in rows for key in keys],
            "labels": pa.array([np.flatnonzero(row) for row in truth], pa.list_(pa.int64())),
            "scores": pa.array(list(torch.cat([scores for *_, scores in rows]).numpy()), pa.list_(pa.float32())),
        }
        return pa.table(table)
