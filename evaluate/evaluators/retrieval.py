"""Image-text retrieval: the rank of each caption's picture, and of each picture's first caption, among all."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.evaluators.classification import rank_of
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task

TOP_CAPTIONS = 3  # kept for each picture, so that a contact sheet can be made without the model
_QUERIES = 512  # scores of this many queries against everything are in memory at a time


class Retrieval(Evaluator):
    """Keeps the embeddings of all pictures and, at the end, of all captions.

    Candidates of equal score rank in the order of the data: by shard, by place in it, by line of the caption file.
    """

    needs = frozenset({"captions"})

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._encoder = encoder
        self._rows: list[tuple[int, list[str], list[tuple[str, ...]], torch.Tensor]] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        self._rows.append((batch.unit, batch.keys, batch.captions, features.cpu()))

    def predictions(self) -> pa.Table:
        rows = sorted(self._rows, key=lambda row: row[0])
        keys = [key for _, names, _, _ in rows for key in names]
        captions = [texts for _, _, group, _ in rows for texts in group]
        images = torch.cat([features for *_, features in rows]).to(self._encoder.device)
        texts = self._encoder.encode_texts([caption for group in captions for caption in group])
        counts = np.array([len(group) for group in captions])
        return _table(keys, captions, rank(images, texts, counts))


class Ranks(NamedTuple):
    """`image` int64 [texts]: how many images rank before the right one; `text` int64 [images]: how many texts rank
    before the first right one, which is text `best` int64 [images]; `top` int64 [images, up to TOP_CAPTIONS]: the texts
    that rank first."""

    image: npt.NDArray[np.int64]
    text: npt.NDArray[np.int64]
    best: npt.NDArray[np.int64]
    top: npt.NDArray[np.int64]


def rank(images: torch.Tensor, texts: torch.Tensor, counts: npt.NDArray[np.int64]) -> Ranks:
    """Rank every image for every text and the other way round, exactly, a chunk of queries at a time.

    Args:
        images: unit vectors [n, d].
        texts: unit vectors [m, d]; the first counts[0] belong to image 0, and so on.
        counts: int64 [n], all positive, summing to m.
    """
    owners = torch.from_numpy(np.repeat(np.arange(len(counts)), counts)).to(texts.device)
    image_ranks = [
        rank_of(texts[start : start + _QUERIES] @ images.T, owners[start : start + _QUERIES])
        for start in range(0, len(texts), _QUERIES)
    ]
    text_ranks, bests, tops = [], [], []
    for start in range(0, len(images), _QUERIES):
        scores = images[start : start + _QUERIES] @ texts.T
        own = owners == torch.arange(start, start + len(scores), device=owners.device)[:, None]
        # The best of an image's own texts; argmax takes the first of equal ones.
        bests.append(scores.masked_fill(~own, -torch.inf).argmax(dim=1))
        text_ranks.append(rank_of(scores, bests[-1]))
        tops.append(_first(scores, min(TOP_CAPTIONS, len(texts))))
    return Ranks(*(torch.cat(parts).cpu().numpy() for parts in (image_ranks, text_ranks, bests, tops)))


def _first(scores: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` columns of each row, int64 [n, count], by the rule for equal scores that argmax keeps."""
    columns = []
    for _ in range(count):
        columns.append(scores.argmax(dim=1, keepdim=True))
        scores = scores.scatter(1, columns[-1], -torch.inf)
    return torch.cat(columns, dim=1)


def _table(keys: list[str], captions: list[tuple[str, ...]], ranks: Ranks) -> pa.Table:
    """One row an image; ranks count from 1 here, as people read them."""
    texts = [caption for group in captions for caption in group]
    ends = np.cumsum([len(group) for group in captions])
    return pa.table(
        {
            "key": keys,
            "captions": [list(group) for group in captions],
            "text_rank": ranks.text + 1,
            "best_caption": [texts[index] for index in ranks.best],
            "image_ranks": [part.tolist() for part in np.split(ranks.image + 1, ends[:-1])],
            "top_captions": [[texts[index] for index in row] for row in ranks.top],
        }
    )
