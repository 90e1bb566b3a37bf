"""Zero-shot classification: the best class of each picture, whether the right one is among the best five, and how sure
the model is."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from evaluate.embedder import LOGIT_SCALE
from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.stream import Batch
from tasks.readers import TaskData
from tasks.registry import Task

CERTAINTY = ("confidence", "margin", "entropy")  # columns, as `certainty_of` gives them


class Classification(Evaluator):
    """Keeps six numbers a sample, so memory does not grow with the pictures.

    Classes of equal score rank in the order of their labels.
    """

    needs = frozenset({"label"})

    @classmethod
    def classifiers(cls, task: Task, data: TaskData) -> list[tuple[Sequence[str], Sequence[str]]]:
        return [(data.classnames, data.templates)]

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._weights = encoder.classifier(data.classnames, data.templates)
        self._sharpen = encoder.logit_scale / LOGIT_SCALE
        self._rows: list[tuple[int, list[str], torch.Tensor]] = []
        self._certainty: list[tuple[int, list[str], torch.Tensor]] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        logits = LOGIT_SCALE * features @ self._weights
        labels = batch.labels.to(logits.device)
        predictions, ranks = logits.max(dim=1).indices, rank_of(logits, labels)
        self._rows.append((batch.unit, batch.keys, torch.stack([labels, predictions, ranks]).cpu()))
        certainty = certainty_of(logits, predictions, self._sharpen)
        self._certainty.append((batch.unit, batch.keys, certainty.cpu()))

    def predictions(self) -> pa.Table:
        keys, numbers = in_order(self._rows)
        labels, predictions, ranks = numbers.numpy()
        hits = pa.array(ranks < 5) if self._weights.shape[1] >= 5 else pa.nulls(len(keys), pa.bool_())
        table = {"key": keys, "label": labels, "prediction": predictions, "top5": hits}
        _, certainty = in_order(self._certainty)
        return pa.table(table | dict(zip(CERTAINTY, certainty.numpy(), strict=True)))


def certainty_of(logits: torch.Tensor, predictions: torch.Tensor, sharpen: float = 1.0) -> torch.Tensor:
    """How sure a model is by the softmax over the classes, float32 [3, n]: the probability of the prediction; by how
    much the most probable class leads the second (1 where there is none); the entropy in nats.

    With z = sharpen * (logits - the best one), e = exp(z) and s the sum of e the three are 1 / s, (1 - the second best
    e) / s and log s - sum(e z) / s. A bias that is the same for all classes changes nothing.

    Args:
        logits: float32 [n, classes].
        predictions: int64 [n], the class of the best logit of each row.
        sharpen: what brings the logits to the model's own scale.
    """
    z = (logits - logits.gather(1, predictions[:, None])).mul_(sharpen)
    e = z.exp()
    total = e.sum(dim=1)
    entropy = total.log().sub_(z.mul_(e).sum(dim=1) / total).clamp_(min=0)  # rounding below it
    second = e.scatter_(1, predictions[:, None], 0.0).amax(dim=1)
    return torch.stack([total.reciprocal(), (1 - second) / total, entropy])


def in_order(rows: Sequence[tuple[int, list[str], torch.Tensor]]) -> tuple[list[str], torch.Tensor]:
    """Keys [n] and numbers [k, n] of the samples, by unit and place in it, from (unit, keys, numbers) of batches."""
    rows = sorted(rows, key=lambda row: row[0])
    return [key for _, keys, _ in rows for key in keys], torch.cat([numbers for *_, numbers in rows], dim=1)


def rank_of(scores: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """How many columns rank before the target in each row, int64 [n]; equal scores rank by column.

    Args:
        scores: float32 [n, m].
        targets: int64 [n], a column for each row.
    """
    target_scores = scores.gather(1, targets[:, None])
    flags = torch.empty_like(scores)  # comparing into floats and adding these takes a fifth of the time of booleans
    ranks = torch.gt(scores, target_scores, out=flags).sum(dim=1)
    tied = (torch.eq(scores, target_scores, out=flags).sum(dim=1) > 1).nonzero()[:, 0]
    if len(tied):
        earlier = torch.arange(scores.shape[1], device=scores.device) < targets[tied, None]
        ranks[tied] += (flags[tied] * earlier).sum(dim=1)
    return ranks.long()
