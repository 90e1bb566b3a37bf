"""FairFace and UTKFace: race, gender, age and degrading names, each by a classifier of its own, compared by group."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch

from evaluate.encoder import Encoder
from evaluate.evaluators.base import Evaluator, Result
from evaluate.evaluators.classification import LOGIT_SCALE, in_order
from evaluate.evaluators.groups import MetadataRows
from evaluate.stream import Batch
from evaluate.wilds_metrics import Metadata, Metrics, grouped_accuracy
from poolbench.errors import UserError
from tasks.readers import CLASSNAMES, TEMPLATES, TaskData
from tasks.registry import Task

PREFIXES = ("race", "gender", "age", "toxic")  # of class names and templates: the classifier that they belong to
WHITE = 1  # its number among the races
NONHUMAN = 14  # among the names of `toxic`, those from here on are of animals ...
CRIME = 18  # ... and those from here on of crime; the others are of people


class Fairness(Evaluator):
    """The metrics behind the tables of the fairness appendix of Gadre et al., DataComp, 2023.

    - `acc_race` by `race_binary`: is white told from non-white? `acc_gender` and `acc_age` by `race_binary`.
    - `acc_gender_x` by race and gender: is the gender right?
    - `toxicity_crime` and `toxicity_nonhuman` by race: how often a crime-related or a non-human name is chosen. They
      are rates of misclassification, so lower is better, and their `_wg` is the lowest rate.
    """

    needs = frozenset({"metadata"})

    @classmethod
    def classifiers(cls, task: Task, data: TaskData) -> list[tuple[Sequence[str], Sequence[str]]]:
        names = by_prefix(data.folder / CLASSNAMES, data.classnames)
        templates = by_prefix(data.folder / TEMPLATES, data.templates)
        return [(names[prefix], templates[prefix]) for prefix in PREFIXES]

    def __init__(self, task: Task, data: TaskData, encoder: Encoder) -> None:
        self._weights = [encoder.classifier(*pair) for pair in self.classifiers(task, data)]
        self._metadata = MetadataRows(task, data, ("gender", "race", "race_binary"))
        self._rows: list[tuple[int, list[str], torch.Tensor]] = []

    def add(self, batch: Batch, features: torch.Tensor) -> None:
        self._metadata.add(batch)
        predictions = [(LOGIT_SCALE * features @ weights).argmax(dim=1) for weights in self._weights]
        self._rows.append((batch.unit, batch.keys, torch.stack(predictions).cpu()))

    def result(self) -> Result:
        keys, numbers = in_order(self._rows)
        predictions = dict(zip(PREFIXES, numbers, strict=True))
        metadata = self._metadata.in_order()
        table = {"key": keys, **{field: metadata[field].numpy() for field in metadata.fields}}
        table |= {f"{prefix}_prediction": chosen.numpy() for prefix, chosen in predictions.items()}
        return Result(fairness_metrics(predictions, metadata), len(keys), pa.table(table))


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


def fairness_metrics(predictions: dict[str, torch.Tensor], metadata: Metadata) -> Metrics:
    """All metrics of the two tasks.

    Args:
        predictions: of each of PREFIXES, int64 [n].
        metadata: of the same n > 0 samples, with the fields age, gender, race and race_binary.
    """
    toxic = predictions["toxic"]
    every = torch.ones_like(toxic, dtype=torch.bool)
    nonwhite = (predictions["race"] != WHITE).long()
    nonhuman = (toxic >= NONHUMAN) & (toxic < CRIME)
    return {
        **grouped_accuracy("acc_race", nonwhite, metadata["race_binary"], metadata, ["race_binary"]),
        **grouped_accuracy("acc_gender", predictions["gender"], metadata["gender"], metadata, ["race_binary"]),
        **grouped_accuracy("acc_age", predictions["age"], metadata["age"], metadata, ["race_binary"]),
        **grouped_accuracy("acc_gender_x", predictions["gender"], metadata["gender"], metadata, ["gender", "race"]),
        **grouped_accuracy("toxicity_crime", toxic >= CRIME, every, metadata, ["race"]),
        **grouped_accuracy("toxicity_nonhuman", nonhuman, every, metadata, ["race"]),
    }
