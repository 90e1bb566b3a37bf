"""One probe of one task: a classifier for each draw, and what it says of the test split."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch

from poolbench.errors import UserError

from evaluate.evaluators.classification import rank_of
from evaluate.metrics import metrics, standard_error
from evaluate.metrics.columns import Metrics
from evaluate.probes import lp_plus
from evaluate.probes.draws import Draw, Rows
from evaluate.probes.features import Split, Splits
from evaluate.probes.linear import Linear, Regression
from evaluate.probes.search import search
from evaluate.probes.words import LINEAR, Probe
from tasks.probes import DrawResult
from tasks.registry import Task

_ROWS = 8192  # test pictures at a time


class Trained(NamedTuple):
    """A classifier and the weight decay that was chosen for it, None of LP++."""

    linear: Linear
    weight_decay: float | None


class Fitted(NamedTuple):
    """What came of a probe: each draw, the mean of the main metric's standard errors, how many classes have fewer
    pictures than shots, and each draw's classifier."""

    draws: list[DrawResult]
    stderr: float | None
    short_classes: int
    linears: list[Linear]

    def mean(self) -> Metrics:
        """Each metric over the draws; None where a draw has none."""
        return self._over_draws(np.mean)

    def sd(self) -> Metrics:
        """The standard deviation of each metric over the draws; None of a single one."""
        if len(self.draws) < 2:
            return dict.fromkeys(self.draws[0].metrics)
        return self._over_draws(lambda values: np.std(values, ddof=1))

    def _over_draws(self, statistic: Callable[[list[float]], np.floating]) -> Metrics:
        found: Metrics = {}
        for name in self.draws[0].metrics:
            values = [value for draw in self.draws if (value := draw.metrics[name]) is not None]
            found[name] = float(statistic(values)) if len(values) == len(self.draws) else None
        return found


class Prober:
    """The splits of a task on a device, for any number of probes."""

    def __init__(
        self, task: Task, splits: Splits, classes: int, text: torch.Tensor | None, device: torch.device
    ) -> None:
        """`text`: the task's zero-shot weights, float32 [d, classes], which the head `lp++` needs."""
        self._task, self._splits, self._classes, self._text, self._device = task, splits, classes, text, device
        self._features = splits.train.features.to(device)
        self._labels = torch.from_numpy(splits.train.labels).to(device)

    def fit(self, probe: Probe, seeds: Sequence[int], trained: Sequence[Trained] | None = None) -> Fitted:
        """Train and test a probe once for each seed; only test it where it is `trained` already.

        Raises:
            UserError: no class has two training pictures, so that none can be put aside for the weight decay.
        """
        draws, errors, linears, short = [], [], [], 0
        for number, seed in enumerate(seeds):
            draw = Draw(self._splits.train.keys, self._splits.train.labels, seed)
            rows, held = draw.training(probe.shots), draw.validation(_most(probe))
            if not len(held):
                raise UserError("no class has two training pictures, so that none can choose the weight decay")
            linear, decay = self._classifier(probe, rows, held) if trained is None else trained[number]
            linears.append(linear)
            predictions = self._predictions(linear)
            sizes = {"train": self._trained_on(probe, rows, held), "validation": len(held)}
            found = metrics(self._task, predictions)
            draws.append(DrawResult(seed=seed, weight_decay=decay, metrics=found, **sizes))
            errors.append(standard_error(self._task.main_metric, predictions))
            short = self._short(probe, rows)
        known = [error for error in errors if error is not None]
        return Fitted(draws, float(np.mean(known)) if len(known) == len(errors) else None, short, linears)

    def _classifier(self, probe: Probe, rows: Rows, held: Rows) -> tuple[Linear, float | None]:
        """As in clip_benchmark, the probe of all pictures is fitted to the validation part too in the end, and one of
        few shots is not, as it would see more pictures than it says."""
        part, validation = self._part(rows), self._part(held)
        if probe.head != LINEAR:
            assert self._text is not None
            return lp_plus.fit(*part, self._text, validation), None
        chosen = search(Regression(*part, self._classes), *validation)
        if probe.shots is not None:
            return chosen.linear, chosen.weight_decay
        del part
        whole = Regression(*self._part(np.union1d(rows, held)), self._classes)
        return whole.fit(chosen.weight_decay, chosen.linear), chosen.weight_decay

    def _part(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.from_numpy(rows).to(self._device)
        return self._features[at], self._labels[at]

    def _predictions(self, linear: Linear) -> pa.Table:
        """As of zero-shot classification, but for the keys: of equal classes the first one counts."""
        test: Split = self._splits.test
        labels = torch.from_numpy(test.labels)
        parts = []
        for features, truth in zip(torch.split(test.features, _ROWS), torch.split(labels, _ROWS), strict=True):
            logits = linear.logits(features.to(self._device))
            parts.append(torch.stack([logits.argmax(dim=1), rank_of(logits, truth.to(logits.device))]).cpu())
        chosen, ranks = torch.cat(parts, dim=1).numpy()
        top5 = pa.array(ranks < 5) if self._classes >= 5 else pa.nulls(len(ranks), pa.bool_())
        return pa.table({"label": test.labels, "prediction": chosen, "top5": top5})

    def _short(self, probe: Probe, rows: Rows) -> int:
        labels, least = self._splits.train.labels, probe.shots
        counts = np.bincount(labels if least is None else labels[rows], minlength=self._classes)
        return int((counts < (least or 1)).sum())

    @staticmethod
    def _trained_on(probe: Probe, rows: Rows, held: Rows) -> int:
        return len(rows) + (len(held) if probe.shots is None else 0)


def _most(probe: Probe) -> int | None:
    """How many pictures of each class the validation part has at most."""
    if probe.head == LINEAR or probe.shots is None:
        return None
    return min(probe.shots, lp_plus.VALIDATION)
