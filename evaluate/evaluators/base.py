"""What an evaluator is."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task


class Result(NamedTuple):
    """Scores of one task.

    Attributes:
        metrics: name -> value, None where a metric is not defined.
        stderr: standard error of the task's main metric, None where it has none.
        samples: how many pictures were scored.
        predictions: one row a sample, enough to compare two models sample by sample.
    """

    metrics: dict[str, float | None]
    stderr: float | None
    samples: int
    predictions: pa.Table


class Evaluator(ABC):
    """Scores one task from batches that come in any order of units; within a unit they come in order."""

    needs: ClassVar[frozenset[str]]  # of every sample: "label", "captions", "metadata"

    @abstractmethod
    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None: ...

    @abstractmethod
    def add(self, batch: Batch, features: torch.Tensor) -> None:
        """Take in a batch and its image embeddings, unit vectors, float32 [n, d] on the encoder's device."""

    @abstractmethod
    def result(self) -> Result:
        """The scores over everything that was added, at least one sample. Called once, at the end."""
