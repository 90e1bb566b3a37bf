"""Winoground: two pictures and two captions of the same words a sample, each of a picture more similar to its own?"""

import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.metrics.winoground import SIMILARITIES
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task


class Winoground(Evaluator):
    """Keeps the embeddings of all pictures. A sample of which a picture cannot be read is left out."""

    needs = frozenset({"pairs"})

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._encoder = encoder
        self._samples: dict[tuple[int, str], tuple[str, ...]] = {}  # unit and key -> captions, in order within a unit
        self._pictures: dict[tuple[int, str], torch.Tensor] = {}

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        for key, captions, vector in zip(batch.keys, batch.captions, features.cpu(), strict=True):
            self._samples[batch.unit, key.rpartition("/")[0]] = captions
            self._pictures[batch.unit, key] = vector

    def predictions(self) -> pa.Table:
        pairs = []
        for (unit, key), captions in sorted(self._samples.items(), key=lambda item: item[0][0]):
            both = [self._pictures.get((unit, f"{key}/{place}")) for place in range(2)]
            if both[0] is not None and both[1] is not None:
                pairs.append((key, captions, torch.stack([both[0], both[1]])))
        texts = [caption for _, captions, _ in pairs for caption in captions]
        vectors = self._encoder.encode_texts(texts).cpu().reshape(len(pairs), 2, -1) if pairs else torch.empty(0, 2, 1)
        pictures = torch.stack([pair for *_, pair in pairs]) if pairs else torch.empty(0, 2, 1)
        scores = similarities(pictures, vectors).reshape(-1, 4).numpy()
        table = {
            "key": [key for key, *_ in pairs],
            "caption_0": [captions[0] for _, captions, _ in pairs],
            "caption_1": [captions[1] for _, captions, _ in pairs],
        }
        return pa.table(table | {name: scores[:, place] for place, name in enumerate(SIMILARITIES)})


def similarities(images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    """[n, 2, 2], of each sample's pictures (rows) and captions (columns), from unit vectors [n, 2, d] of both."""
    # Products one by one, not a matrix product, whose columns may round the same caption differently.
    return (images[:, :, None] * texts[:, None, :]).sum(dim=-1)
