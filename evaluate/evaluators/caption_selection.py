"""Caption selection: which of several captions is most similar to a picture?"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task

_CAPTIONS = 65_536  # whose pictures' embeddings are in memory once more at a time


class _Rows(NamedTuple):
    """What is kept of a batch."""

    unit: int
    keys: list[str]
    captions: list[tuple[str, ...]]
    right: list[int]
    pictures: list[str]
    features: torch.Tensor


class CaptionSelection(Evaluator):
    """Keeps the embeddings of all pictures and, at the end, of all captions.

    Of captions of equal score the first is chosen, and `tied` tells that there were several.
    """

    needs = frozenset({"choices", "digest"})

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._encoder = encoder
        self._rows: list[_Rows] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        pictures = [digest.hex()[:16] for digest in batch.digests]
        right = batch.labels.tolist()
        self._rows.append(_Rows(batch.unit, batch.keys, batch.captions, right, pictures, features.cpu()))

    def predictions(self) -> pa.Table:
        rows = sorted(self._rows, key=lambda row: row.unit)
        captions = [texts for row in rows for texts in row.captions]
        images = torch.cat([row.features for row in rows]).to(self._encoder.device)
        texts = self._encoder.encode_texts([caption for group in captions for caption in group])
        chosen = choose(images, texts, np.array([len(group) for group in captions]))
        table = {
            "key": [key for row in rows for key in row.keys],
            "picture": [picture for row in rows for picture in row.pictures],
            "captions": [list(group) for group in captions],
            "right": np.array([right for row in rows for right in row.right], np.int64),
            "prediction": chosen.caption,
            "tied": chosen.tied,
        }
        return pa.table(table)


class Chosen(NamedTuple):
    """`caption` int64 [n]: the first of a picture's captions with the best score, from 0; `tied` bool [n]: whether
    another one has the same score."""

    caption: npt.NDArray[np.int64]
    tied: npt.NDArray[np.bool_]


def choose(images: torch.Tensor, texts: torch.Tensor, counts: npt.NDArray[np.int64]) -> Chosen:
    """Choose among the captions of each image by the similarity of the embeddings.

    Args:
        images: unit vectors [n, d].
        texts: unit vectors [m, d]; the first counts[0] are to be chosen among for image 0, and so on.
        counts: int64 [n], all positive, summing to m.
    """
    owners = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(images.device)
    # Products row by row, not a matrix product, whose columns may round the same caption differently.
    parts = [
        (images[owners[start : start + _CAPTIONS]] * texts[start : start + _CAPTIONS]).sum(dim=1)
        for start in range(0, len(texts), _CAPTIONS)
    ]
    groups = np.split(torch.cat(parts).cpu().numpy(), np.cumsum(counts)[:-1])
    caption = np.array([scores.argmax() for scores in groups], np.int64)
    tied = np.array([(scores == scores.max()).sum() > 1 for scores in groups], np.bool_)
    return Chosen(caption, tied)
