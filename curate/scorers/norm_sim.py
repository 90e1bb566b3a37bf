"""NormSim: the p-norm of a picture's similarities to the targets.

NormSim_p(i) = (sum over the targets of |f_i f_t|^p)^(1/p), for p = 2 and, its limit, the largest |f_i f_t|. The square
of the first is N times the variance alignment score: one product with a matrix of the embeddings' width for each row,
not one with every target. Wang et al., 2024, "CLIPLoss and Norm-Based Data Selection Methods for Multimodal Contrastive
Learning", https://arxiv.org/abs/2405.19547.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.models import targets as of_targets
from curate.models.devices import opened
from curate.models.forms import MANY, Quadratic, largest
from curate.models.targets import Targets, gram_of
from curate.pool.files import File
from curate.scorers.embeddings import scored
from curate.scorers.rows import RowScorer

NORMS = ("2", "inf")


def folder_of(targets: str, embedding: str, p: str) -> str:
    """The folder of the scores by targets of that name."""
    return f"norm_sim_{p}-{targets}-{embedding}"


class NormSim(RowScorer):
    """Scores rows by their embeddings and the targets'."""

    def __init__(self, targets: Targets, embedding: str, p: str, device: str) -> None:
        self.targets, self.arrays, self.p, self.device = targets, (embedding,), p, device
        self.makes = (f"norm_sim_{p}",)
        self.name = folder_of(targets.name, embedding, p)
        if p == "2":
            gram_of(targets)

    def identity(self) -> Any:
        return {"targets": self.targets.digest, "embedding": self.arrays[0], "p": self.p}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        device, (array,) = opened(self.device), self.arrays
        if self.p == "2":
            form = Quadratic(gram_of(self.targets), device)
            found = scored(file, array, self.targets, lambda vectors: form(vectors, np.sqrt))
        else:
            targets = of_targets.opened(self.targets)
            found = scored(file, array, self.targets, lambda vectors: largest(vectors, targets, device), MANY)
        return {self.makes[0]: found}
