"""Standard errors of metrics, and of the difference between two models, as functions of the samples.

    statistic = Mean.independent(hits)
    statistic.value(), statistic.stderr()
    statistic.paired_stderr(other)      # of other.value() - statistic.value() on the same samples

Closed forms for means, the bootstrap for the rest (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 6): 1000 draws, fixed seed. What is drawn, or counts as independent, are clusters: samples that share a picture
or a board of pictures stay together. A class or group without a sample in a draw is left out of that draw.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np

from evaluate.metrics.columns import Bools, Floats, Ints

RESAMPLES = 1000
SEED = 0


class Statistic(ABC):
    """A metric over samples of one model."""

    @abstractmethod
    def value(self) -> float:
        """The metric; there has to be at least one sample."""

    @abstractmethod
    def stderr(self) -> float | None:
        """Its standard error, None for fewer than two clusters."""

    @abstractmethod
    def paired_stderr(self, other: Self) -> float | None:
        """The standard error of `other.value() - self.value()`, None for fewer than two clusters.

        Args:
            other: of another model over the same samples in the same order.
        """


@dataclass(frozen=True)
class Mean(Statistic):
    """The mean of `values`, float64 [n]. Those of the same cluster, int64 [n] from 0 without gaps, may be dependent.

    The standard error is sqrt(c / (c - 1) * sum over c clusters of (sum over the cluster of x_i - mean)^2) / n
    (Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference, 2015, section II). For hits that are
    clusters of their own it is sqrt(p (1 - p) / (n - 1)).
    """

    values: Floats
    clusters: Ints

    @classmethod
    def independent(cls, hits: Bools) -> Self:
        """The share of `hits`, bool [n], each of them a cluster of its own."""
        return cls(hits.astype(np.float64), np.arange(len(hits)))

    def value(self) -> float:
        return float(np.mean(self.values))

    def stderr(self) -> float | None:
        count = int(self.clusters.max(initial=-1)) + 1
        if count < 2:
            return None
        sums = np.bincount(self.clusters, weights=self.values - self.value())
        return float(np.sqrt(count / (count - 1) * (sums @ sums)) / len(self.values))

    def paired_stderr(self, other: Self) -> float | None:
        return replace(self, values=other.values - self.values).stderr()


@dataclass(frozen=True)
class StratifiedMean(Statistic):
    """The unweighted mean over strata (classes), int64 [n], of the mean of their `values`, float64 [n].

    The sizes of the strata are taken as given. The standard error is sqrt(sum over S strata of s_h^2 / n_h) / S
    (Cochran, Sampling Techniques, 1977, section 5.6, with equal weights), s_h^2 with divisor n_h - 1. Nothing is known
    of the spread within a stratum of one sample, so all of these count as one stratum there (section 5A.12); if only
    one stratum is so small, it adds 0.
    """

    values: Floats
    strata: Ints

    def value(self) -> float:
        return float(np.mean(self._means()[0]))

    def stderr(self) -> float | None:
        if len(self.values) < 2:
            return None
        means, counts, index = self._means()
        squares = np.bincount(index, weights=(self.values - means[index]) ** 2)
        variances = squares / np.maximum(counts - 1, 1) / counts
        alone = counts == 1
        if alone.sum() > 1:
            variances[alone] = np.var(means[alone], ddof=1)
        return float(np.sqrt(variances.sum()) / len(counts))

    def paired_stderr(self, other: Self) -> float | None:
        return replace(self, values=other.values - self.values).stderr()

    def _means(self) -> tuple[Floats, Ints, Ints]:
        """Means and sizes of the strata that occur, and the place of each sample's stratum among them."""
        _, index, counts = np.unique(self.strata, return_inverse=True, return_counts=True)
        return np.bincount(index, weights=self.values) / counts, counts, index


@dataclass(frozen=True)
class WorstGroup(Statistic):
    """The lowest share of `hits`, bool [n], in any of the groups, int64 [n], that have samples.

    A plain bootstrap takes a group of four misses for one that cannot do better, and so the error of its accuracy for
    zero. Here each group's samples are drawn from its outcomes with one more sample divided evenly among all possible
    outcomes (the prior of Jeffreys, for hits and misses of one model), which changes nothing in large groups. The
    number of samples from each group varies as in the plain bootstrap.
    """

    hits: Bools
    groups: Ints

    def value(self) -> float:
        counts = np.bincount(self.groups)
        hits = np.bincount(self.groups, weights=self.hits)
        return float(np.min(hits[counts > 0] / counts[counts > 0]))

    def stderr(self) -> float | None:
        if len(self.hits) < 2:
            return None
        (worst,) = _worst_in_draws(self.groups, [self.hits])
        return float(np.std(worst, ddof=1))

    def paired_stderr(self, other: Self) -> float | None:
        if len(self.hits) < 2:
            return None
        first, second = _worst_in_draws(self.groups, [self.hits, other.hits])
        return float(np.std(second - first, ddof=1))


def _worst_in_draws(groups: Ints, models: Sequence[Bools]) -> list[Floats]:
    """The worst group's share of hits in each draw, for each of m models on the same draws, float64 [RESAMPLES] each.

    Drawn are counts of the 2^m possible outcomes in each group, which is the same as drawing samples, but faster.
    """
    outcomes = 2 ** len(models)
    outcome = sum(hits.astype(np.int64) << bit for bit, hits in enumerate(models))
    _, index, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    table = np.bincount(index * outcomes + outcome, minlength=len(sizes) * outcomes).reshape(-1, outcomes)
    chances = (table + 1 / outcomes) / (sizes + 1)[:, None] * sizes[:, None] / len(groups)
    draws = np.random.default_rng(SEED).multinomial(len(groups), chances.ravel() / chances.sum(), size=RESAMPLES)
    draws = draws.reshape(RESAMPLES, *table.shape)
    drawn = draws.sum(axis=2)
    worst = []
    for bit in range(len(models)):
        hits = draws[:, :, (np.arange(outcomes) >> bit) & 1 == 1].sum(axis=2)
        worst.append(np.where(drawn > 0, hits / np.maximum(drawn, 1), np.inf).min(axis=1))
    return worst


class Sums(NamedTuple):
    """Sums over clusters: cluster `clusters[j]` adds `amounts[j]` to the sum of number `indices[j]`; all are [m]."""

    clusters: Ints
    indices: Ints
    amounts: Floats

    def of(self, weights: Floats, count: int) -> Floats:
        """The first `count` sums where cluster c occurs weights[c] times, float64 [count]."""
        sums = np.bincount(self.indices, weights=weights[self.clusters] * self.amounts, minlength=count)
        return sums.astype(np.float64)


@dataclass(frozen=True)
class MeanOfRatios(Statistic):
    """The mean over k of numerator k / denominator k, over those k < `ratios` of which `presence` k is positive.

    All three are sums over `count` clusters. The standard error is that of the bootstrap over clusters.
    """

    count: int
    ratios: int
    numerators: Sums
    denominators: Sums
    presence: Sums

    @classmethod
    def of(cls, ratios: Sequence[tuple[Floats, Floats]]) -> Self:
        """The mean of sum(a) / sum(b) over pairs (a, b) of float64 [clusters], b > 0."""
        count = len(ratios[0][0])
        clusters = np.tile(np.arange(count), len(ratios))
        indices = np.repeat(np.arange(len(ratios)), count)
        numerators = Sums(clusters, indices, np.concatenate([a for a, _ in ratios]))
        denominators = Sums(clusters, indices, np.concatenate([b for _, b in ratios]))
        return cls(count, len(ratios), numerators, denominators, denominators)

    def value(self) -> float:
        return self.value_of(np.ones(self.count))

    def value_of(self, weights: Floats) -> float:
        """The metric where cluster c occurs weights[c] times; `weights` are float64 [count]."""
        present = self.presence.of(weights, self.ratios) > 0
        numerators = self.numerators.of(weights, self.ratios)[present]
        return float(np.mean(numerators / self.denominators.of(weights, self.ratios)[present]))

    def stderr(self) -> float | None:
        return bootstrap(self.count, self.value_of)

    def paired_stderr(self, other: Self) -> float | None:
        return bootstrap(self.count, lambda weights: other.value_of(weights) - self.value_of(weights))


def bootstrap(clusters: int, value_of: Callable[[Floats], float]) -> float | None:
    """Standard deviation of a function of weights float64 [clusters] over draws; None for fewer than two clusters."""
    if clusters < 2:
        return None
    generator = np.random.default_rng(SEED)
    values = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)
        values.append(value_of(drawn.astype(np.float64)))
    return float(np.std(values, ddof=1))
