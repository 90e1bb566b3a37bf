"""How well the mean over a group of tasks stands for the average of all, on models that the group was not chosen on."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau, spearmanr

from tasks.registry import Task

NOISE = 0.006  # of an average, between two seeds (leaderboard/boards.yaml): pairs nearer than that have no order

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Group = tuple[int, ...]  # places of tasks


class Models(NamedTuple):
    """What is chosen from.

    Attributes:
        names, families: of the models.
        scores: [models, tasks], main metrics.
        tasks, costs: the tasks, and each one's share of the cost of all.
        alike: [models, models], which have one architecture and as many samples seen, so that their data differ.
    """

    names: list[str]
    families: list[str]
    scores: Floats
    tasks: list[Task]
    costs: Floats
    alike: Bools

    @property
    def averages(self) -> Floats:
        found: Floats = self.scores.mean(axis=1)
        return found


class Judged(NamedTuple):
    """Rank correlations, the error after the fit, and pairs of models: how many are in the right order, of how many.

    `like` pairs are those of Models.alike.
    """

    rho: float
    tau: float
    error: float
    right: int
    pairs: int
    like_right: int
    like_pairs: int


def judged(models: Models, group: Group, fitted: Bools, held: Bools) -> Judged:
    """A group on the held-out models, with the line that is fitted on the others.

    A pair whose averages are no more than NOISE apart is not counted.
    """
    means, averages = models.scores[:, group].mean(axis=1), models.averages
    slope, intercept = line(means[fitted], averages[fitted])
    x, y = means[held], averages[held]
    one, other = np.triu_indices(len(x), 1)
    apart = np.abs(y[one] - y[other]) > NOISE
    right = (x[one] - x[other]) * (y[one] - y[other]) > 0
    like = apart & models.alike[np.ix_(held, held)][one, other]
    return Judged(
        float(spearmanr(x, y).statistic),
        float(kendalltau(x, y).statistic),
        float(np.sqrt(np.mean((y - slope * x - intercept) ** 2))),
        *(int(some.sum()) for some in (right & apart, apart, right & like, like)),
    )


def line(x: Floats, y: Floats) -> tuple[float, float]:
    """Slope and intercept of least squares."""
    slope, intercept = np.polyfit(x, y, 1)
    return float(slope), float(intercept)


def mean(found: Sequence[Judged]) -> Judged:
    """Over the halves: of errors the root of the mean square, of pairs all together."""
    rho, tau, error, *counts = np.array(found, dtype=np.float64).T
    root = float(np.sqrt(np.mean(error**2)))
    return Judged(float(rho.mean()), float(tau.mean()), root, *(int(count.sum()) for count in counts))
