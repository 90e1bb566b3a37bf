"""negCLIPLoss: a pair's similarity, less what its picture and caption have in common with those of other pairs.

score_i = f_i g_i - mean over K partitions of R_i, R_i = T/2 (log sum_j exp(f_i g_j / T) + log sum_j exp(f_j g_i / T)),
j over the batch in which i lies: -T times the loss of CLIP, so higher is better and 0 the most. It is computed as such,
without a difference of large numbers. Wang et al., 2024, "CLIPLoss and Norm-Based Data Selection Methods for Multimodal
Contrastive Learning", https://arxiv.org/abs/2405.19547.

Batches lie within a file. Those of a partition are as large as each other, but for one row: the published code's last
one is short, which makes R too small for its rows. There are as many as come nearest to the size that is asked for, and
one in a file with fewer rows. A file's partitions are drawn from its name and the seed, whoever scores it and when.
Rows whose embeddings are no numbers lie in none.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from poolbench.files import digest_json

from curate.models.devices import opened
from curate.models.forms import pair_losses, single
from curate.pool.files import File
from curate.scorers.embeddings import pieces
from curate.scorers.rows import RowScorer


class NegClipLoss(RowScorer):
    """Scores rows by the embeddings of their pictures and captions, and by those of others in their file, all of which
    are in memory at once: twice a file's two arrays."""

    makes = ("neg_clip_loss",)

    def __init__(self, arch: str, temperature: float, batch: int, partitions: int, seed: int, device: str) -> None:
        self.arrays, self.device = (f"{arch}_img", f"{arch}_txt"), device
        self.temperature, self.batch, self.partitions, self.seed = temperature, batch, partitions, seed
        self.name = f"neg_clip_loss-{arch}-{digest_json(self.identity())[:6]}"

    def identity(self) -> Any:
        return {
            "arrays": list(self.arrays),
            "temperature": self.temperature,
            "batch": self.batch,
            "partitions": self.partitions,
            "seed": self.seed,
        }

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        lefts, rights, finites = [], [], [np.empty(0, bool)]
        for (left, right), finite in pieces(file, *self.arrays):
            lefts.append(left[finite])
            rights.append(right[finite])
            finites.append(finite)
        every = np.concatenate(finites)
        found = np.full(len(every), np.nan, np.float32)
        if every.any():
            found[every] = self._of_all(np.concatenate(lefts), np.concatenate(rights), file.name)
        return {"neg_clip_loss": found}

    def _of_all(self, left: np.ndarray, right: np.ndarray, name: str) -> np.ndarray:
        """The scores of a file's rows, float32 [n]."""
        device, losses = opened(self.device), np.zeros(len(left))
        for rows in partitions_of(len(left), name, self.batch, self.partitions, self.seed):
            losses += pair_losses(left, right, rows, self.temperature, device)
        return single(-losses / self.partitions)


def partitions_of(rows: int, name: str, batch: int, partitions: int, seed: int) -> list[list[np.ndarray]]:
    """The rows of each batch of each partition of a file."""
    numbers = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], "<u4")
    draws = np.random.default_rng([seed, *numbers.tolist()])
    batches = max(1, round(rows / batch))
    return [np.array_split(draws.permutation(rows), batches) for _ in range(partitions)]
