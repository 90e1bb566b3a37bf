"""The variance alignment score: how much of a picture's embedding lies where those of the targets vary.

VAS_i = f_i' S f_i with S = sum over the targets of f_t f_t' / N, not centred. Wang et al., 2024, "Variance Alignment
Score", https://arxiv.org/abs/2402.02055.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.models.devices import opened
from curate.models.forms import Quadratic
from curate.models.targets import Targets, gram_of
from curate.pool.files import File
from curate.scorers.embeddings import scored
from curate.scorers.rows import RowScorer


def folder_of(targets: str, embedding: str) -> str:
    """The folder of the scores by targets of that name."""
    return f"vas-{targets}-{embedding}"


class Vas(RowScorer):
    """Scores rows by their embeddings and the targets'."""

    makes = ("vas",)

    def __init__(self, targets: Targets, embedding: str, device: str) -> None:
        self.targets, self.arrays, self.device = targets, (embedding,), device
        self.name = folder_of(targets.name, embedding)
        gram_of(targets)

    def identity(self) -> Any:
        return {"targets": self.targets.digest, "embedding": self.arrays[0]}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        form, rows = Quadratic(gram_of(self.targets), opened(self.device)), self.targets.rows
        of_some = lambda vectors: form(vectors, lambda values: values / rows)  # noqa: E731
        return {"vas": scored(file, self.arrays[0], self.targets, of_some)}
