"""What an evaluator is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.stream import Batch, UnitEnd
from tasks.readers import TaskData
from tasks.registry import Task


class Evaluator(ABC):
    """Turns one task's batches, which come in any order of units, in order within a unit, into predictions."""

    needs: ClassVar[
        frozenset[str]
    ]  # of every sample: "label", "captions", "choices", "labels", "metadata", "digest"; or "pairs", "puzzles"

    @classmethod
    def classifiers(cls, task: Task, data: TaskData) -> list[tuple[Sequence[str], Sequence[str]]]:
        """The (class names, templates) that it will ask the encoder for; those of all tasks are encoded together.

        Raises:
            UserError: the class names or templates are not what the task needs.
        """
        return []

    @abstractmethod
    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None: ...

    @abstractmethod
    def add(self, batch: Batch, features: torch.Tensor) -> None:
        """Take in a batch and its image embeddings, unit vectors, float32 [n, d] on the encoder's device."""

    def end(self, end: UnitEnd) -> None:  # noqa: B027 most kinds need nothing of it
        """Take in what is known at the end of a unit."""

    @abstractmethod
    def predictions(self) -> pa.Table:
        """One row a sample of all that were added, at least one; called once, at the end.

        It is enough to compute every metric (`evaluate.metrics`), and to compare two models sample by sample.
        """
