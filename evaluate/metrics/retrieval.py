"""Image-text retrieval: recall at 1, 5 and 10 in both directions, over all captions that are given.

`image_retrieval_recall@k` is over texts, `text_retrieval_recall@k` over images with any of their captions being a hit
(Karpathy and Fei-Fei, Deep Visual-Semantic Alignments, 2015, section 4.1).
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from evaluate.metrics.columns import Floats, Metrics, integers
from evaluate.metrics.statistics import Mean, MeanOfRatios, Statistic
from tasks.registry import Task

KS = (1, 5, 10)


def image_recall(predictions: pa.Table, k: int) -> MeanOfRatios:
    """Over captions: is their picture among the first k? All captions of a picture are one cluster."""
    return MeanOfRatios.of([_found(predictions, k)])


def text_recall(predictions: pa.Table, k: int) -> Mean:
    """Over pictures: is any of their captions among the first k?"""
    return Mean.independent(integers(predictions, "text_rank") <= k)


def mean_recall_at_1(predictions: pa.Table) -> MeanOfRatios:
    """The mean of both directions."""
    pictures = (integers(predictions, "text_rank") <= 1).astype(np.float64)
    return MeanOfRatios.of([_found(predictions, 1), (pictures, np.ones(len(pictures)))])


def _found(predictions: pa.Table, k: int) -> tuple[Floats, Floats]:
    """Of each picture the number of captions that find it among the first k, and of all its captions."""
    ranks = predictions.column("image_ranks")
    captions = pc.list_value_length(ranks).to_numpy()
    pictures = np.repeat(np.arange(len(captions)), captions)
    hits = pc.list_flatten(ranks).to_numpy() <= k
    found = np.bincount(pictures, weights=hits, minlength=len(captions))
    return found.astype(np.float64), captions.astype(np.float64)


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {}
for _k in KS:
    STATISTICS[f"image_retrieval_recall@{_k}"] = partial(image_recall, k=_k)
    STATISTICS[f"text_retrieval_recall@{_k}"] = partial(text_recall, k=_k)
STATISTICS["mean_recall@1"] = mean_recall_at_1


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """From the columns `text_rank` and `image_ranks`, which count from 1.

    Raises:
        ValueError: no evaluator writes such columns.
    """
    ranks = predictions.column("image_ranks")
    counted = (pc.list_flatten(ranks), predictions.column("text_rank"), pc.list_value_length(ranks))
    if min(pc.min_max(column)["min"].as_py() for column in counted) < 1:
        raise ValueError("a rank below 1, or a picture without a caption")
    return {name: make(predictions).value() for name, make in STATISTICS.items()}
