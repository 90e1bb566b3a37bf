"""Winoground: text, image and group score, and clip_benchmark's numbers.

The published scores ask that each picture is more similar to its own caption than to the other one (`text_score`), that
each caption is more similar to its own picture (`image_score`), and both (`group_score`); equal similarities are wrong
(Thrush et al., Winoground, 2022). `text_acc`, `image_acc` and `acc` are clip_benchmark's, which takes the first of
equal ones; they differ only there.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import pyarrow as pa

from evaluate.metrics.columns import Bools, Floats, Metrics
from evaluate.metrics.statistics import Mean, Statistic
from tasks.registry import Task

SIMILARITIES = ("c0_i0", "c1_i0", "c0_i1", "c1_i1")  # columns: of caption 0 or 1 and picture 0 or 1


def text_hits(scores: Floats, *, first: bool = False) -> Bools:
    """Whether both pictures choose their captions, bool [n], from similarities [n, 4] as SIMILARITIES orders them.

    Args:
        first: of equal ones the first is chosen, as in clip_benchmark, instead of none.
    """
    c0_i0, c1_i0, c0_i1, c1_i1 = scores.T
    found: Bools = _above(c0_i0, c1_i0, first) & (c1_i1 > c0_i1)
    return found


def image_hits(scores: Floats, *, first: bool = False) -> Bools:
    """Whether both captions choose their pictures, bool [n]; arguments as those of `text_hits`."""
    c0_i0, c1_i0, c0_i1, c1_i1 = scores.T
    found: Bools = _above(c0_i0, c0_i1, first) & (c1_i1 > c1_i0)
    return found


def group_hits(scores: Floats, *, first: bool = False) -> Bools:
    """Whether both choose right, bool [n]; arguments as those of `text_hits`."""
    return text_hits(scores, first=first) & image_hits(scores, first=first)


def _above(own: Floats, other: Floats, first: bool) -> Bools:
    """Of the choices whose right one is the first."""
    return (own >= other) if first else (own > other)


def _mean(predictions: pa.Table, hits: Callable[..., Bools], *, first: bool) -> Mean:
    return Mean.independent(hits(_scores(predictions), first=first))


def _scores(predictions: pa.Table) -> Floats:
    """The similarities, float64 [n, 4].

    Raises:
        KeyError, ValueError: they are not there, or no numbers.
    """
    columns = [predictions.column(name).to_numpy().astype(np.float64) for name in SIMILARITIES]
    scores = np.stack(columns, axis=1)
    if not np.isfinite(scores).all():
        raise ValueError("a similarity is missing or no number")
    return scores


STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {
    "text_score": partial(_mean, hits=text_hits, first=False),
    "image_score": partial(_mean, hits=image_hits, first=False),
    "group_score": partial(_mean, hits=group_hits, first=False),
}
_AS_IN_CLIP_BENCHMARK = {"text_acc": text_hits, "image_acc": image_hits, "acc": group_hits}


def metrics(task: Task, predictions: pa.Table) -> Metrics:
    """From the columns SIMILARITIES.

    Raises:
        KeyError, ValueError: no evaluator writes such columns.
    """
    found: Metrics = {name: make(predictions).value() for name, make in STATISTICS.items()}
    theirs = {name: _mean(predictions, hits, first=True).value() for name, hits in _AS_IN_CLIP_BENCHMARK.items()}
    return {**found, **theirs}
