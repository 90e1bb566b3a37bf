"""FairFace and UTKFace: race, gender, age and degrading names, each by a classifier of its own."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch

from poolbench.errors import UserError

from evaluate.embedder import LOGIT_SCALE
from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator
from evaluate.evaluators.classification import in_order
from evaluate.evaluators.groups import MetadataRows
from evaluate.metrics.fairness import GROUPS, PREFIXES
from evaluate.stream import Batch
from tasks.readers import CLASSNAMES, TEMPLATES, TaskData
from tasks.registry import Task


class Fairness(Evaluator):
    """Class names and templates say by a prefix, such as `race:`, which of the classifiers they belong to."""

    needs = frozenset({"metadata"})

    @classmethod
    def classifiers(cls, task: Task, data: TaskData) -> list[tuple[Sequence[str], Sequence[str]]]:
        names = by_prefix(data.folder / CLASSNAMES, data.classnames)
        templates = by_prefix(data.folder / TEMPLATES, data.templates)
        return [(names[prefix], templates[prefix]) for prefix in PREFIXES]

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._weights = [encoder.classifier(*pair) for pair in self.classifiers(task, data)]
        self._metadata = MetadataRows(task, data, GROUPS)
        self._rows: list[tuple[int, list[str], torch.Tensor]] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        self._metadata.add(batch)
        predictions = [(LOGIT_SCALE * features @ weights).argmax(dim=1) for weights in self._weights]
        self._rows.append((batch.unit, batch.keys, torch.stack(predictions).cpu()))

    def predictions(self) -> pa.Table:
        keys, numbers = in_order(self._rows)
        table = {"key": keys, **self._metadata.in_order()}
        table |= {f"{prefix}_prediction": chosen.numpy() for prefix, chosen in zip(PREFIXES, numbers, strict=True)}
        return pa.table(table)


def by_prefix(file: Path, lines: Sequence[str]) -> dict[str, list[str]]:
    """The lines of a file without their prefixes, for each of PREFIXES; other prefixes are of no use here.

    Raises:
        UserError: a line has no prefix, or a prefix no line.
    """
    groups: dict[str, list[str]] = {prefix: [] for prefix in PREFIXES}
    for number, line in enumerate(lines, start=1):
        prefix, colon, text = line.partition(":")
        if not colon:
            raise UserError(f"{file}, line {number}, has no prefix such as 'race:' before {line[:40]!r}")
        groups.setdefault(prefix, []).append(text)
    for prefix in PREFIXES:
        if not groups[prefix]:
            raise UserError(f"{file} has no line with the prefix '{prefix}:'")
    return groups
