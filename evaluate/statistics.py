"""Standard errors of main metrics, and of the difference between two models, from the stored predictions.

    statistic = statistic_of("acc1", predictions)
    statistic.value(), statistic.stderr()
    statistic.paired_stderr(other)      # of other.value() - statistic.value() on the same samples

Closed forms for means, the bootstrap for the rest (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 6): 1000 draws, fixed seed. What is drawn, or counts as independent, are clusters: samples that share a picture
or a board of pictures stay together. A class or group without a sample in a draw is left out of that draw.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from evaluate.evaluators.retrieval import KS
from evaluate.evaluators.winogavil import SIZES

RESAMPLES = 1000
SEED = 0

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


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

    def value(self) -> float:
        return self.value_of(np.ones(self.count))

    def value_of(self, weights: Floats) -> float:
        """The metric where cluster c occurs weights[c] times; `weights` are float64 [count]."""
        present = self.presence.of(weights, self.ratios) > 0
        numerators = self.numerators.of(weights, self.ratios)[present]
        return float(np.mean(numerators / self.denominators.of(weights, self.ratios)[present]))

    def stderr(self) -> float | None:
        return _bootstrap(self.count, self.value_of)

    def paired_stderr(self, other: Self) -> float | None:
        return _bootstrap(self.count, lambda weights: other.value_of(weights) - self.value_of(weights))


def _bootstrap(clusters: int, value_of: Callable[[Floats], float]) -> float | None:
    """Standard deviation of a function of weights float64 [clusters] over draws; None for fewer than two clusters."""
    if clusters < 2:
        return None
    generator = np.random.default_rng(SEED)
    values = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)
        values.append(value_of(drawn.astype(np.float64)))
    return float(np.std(values, ddof=1))


def standard_error(metric: str | None, predictions: pa.Table) -> float | None:
    """Standard error of a task's main metric; None without one, or for fewer than two clusters of samples."""
    statistic = statistic_of(metric, predictions)
    return None if statistic is None else statistic.stderr()


def statistic_of(metric: str | None, predictions: pa.Table) -> Statistic | None:
    """A main metric as a function of the predictions that an evaluator left; None where it is not known as such.

    Raises:
        KeyError: a column that the metric needs is not there.
    """
    make = _STATISTICS.get(metric or "")
    return None if make is None else make(predictions)


def _acc1(predictions: pa.Table) -> Mean:
    return _independent(_hits(predictions))


def _mean_per_class_recall(predictions: pa.Table) -> StratifiedMean:
    return StratifiedMean(_hits(predictions).astype(np.float64), _integers(predictions, "label"))


def _worst_group(predictions: pa.Table) -> WorstGroup:
    return WorstGroup(_hits(predictions), _integers(predictions, "group"))


def _worst_group_top5(predictions: pa.Table) -> WorstGroup:
    # Null where there are fewer than five classes, and so each is among the best five.
    hits = pc.fill_null(predictions.column("top5"), True).to_numpy()
    return WorstGroup(hits, _integers(predictions, "group"))


def _macro_f1(predictions: pa.Table) -> MeanOfRatios:
    """Mean over the classes that occur as labels of 2 TP / (2 TP + FP + FN), as wilds and scikit-learn define it."""
    labels, chosen = _integers(predictions, "label"), _integers(predictions, "prediction")
    rows, right = np.arange(len(labels)), np.flatnonzero(labels == chosen)
    twice = np.concatenate([rows, rows])
    return MeanOfRatios(
        count=len(labels),
        ratios=int(max(labels.max(), chosen.max())) + 1,
        numerators=Sums(right, labels[right], np.full(len(right), 2.0)),
        denominators=Sums(twice, np.concatenate([labels, chosen]), np.ones(len(twice))),
        presence=Sums(rows, labels, np.ones(len(rows))),
    )


def _image_recall(predictions: pa.Table, k: int) -> MeanOfRatios:
    """Over captions: is their picture among the first k? All captions of a picture are one cluster."""
    return _mean_of_ratios([_found(predictions, k)])


def _text_recall(predictions: pa.Table, k: int) -> Mean:
    """Over pictures: is any of their captions among the first k?"""
    return _independent(_integers(predictions, "text_rank") <= k)


def _mean_recall_at_1(predictions: pa.Table) -> MeanOfRatios:
    pictures = (_integers(predictions, "text_rank") <= 1).astype(np.float64)
    return _mean_of_ratios([_found(predictions, 1), (pictures, np.ones(len(pictures)))])


def _jaccard(predictions: pa.Table, of_size: Callable[[int], bool]) -> Mean:
    """Mean score of the puzzles with certain numbers of candidates; those on the same pictures are one cluster."""
    counted = np.array([of_size(size) for size in _integers(predictions, "size").tolist()], dtype=np.bool_)
    predictions = predictions.filter(pa.array(counted))
    boards = [frozenset(pictures) for pictures in predictions.column("pictures").to_pylist()]
    numbers = {board: number for number, board in enumerate(dict.fromkeys(boards))}
    clusters = np.array([numbers[board] for board in boards], dtype=np.int64)
    return Mean(predictions.column("score").to_numpy().astype(np.float64), clusters)


_STATISTICS: dict[str, Callable[[pa.Table], Statistic]] = {
    "acc1": _acc1,
    "mean_per_class_recall": _mean_per_class_recall,
    "acc_wg": _worst_group,
    "acc_worst_region": _worst_group,
    "acc_top5_wg": _worst_group_top5,
    "F1-macro_all": _macro_f1,
    "mean_recall@1": _mean_recall_at_1,
    **{f"image_retrieval_recall@{k}": partial(_image_recall, k=k) for k in KS},
    **{f"text_retrieval_recall@{k}": partial(_text_recall, k=k) for k in KS},
    **{name: partial(_jaccard, of_size=of_size) for name, of_size in SIZES.items()},
}


def _integers(predictions: pa.Table, column: str) -> Ints:
    values: Ints = predictions.column(column).to_numpy()
    return values.astype(np.int64)


def _hits(predictions: pa.Table) -> Bools:
    return np.equal(_integers(predictions, "label"), _integers(predictions, "prediction"))


def _independent(hits: Bools) -> Mean:
    return Mean(hits.astype(np.float64), np.arange(len(hits)))


def _found(predictions: pa.Table, k: int) -> tuple[Floats, Floats]:
    """Of each picture the number of captions that find it among the first k, and of all its captions."""
    ranks = predictions.column("image_ranks")
    captions = pc.list_value_length(ranks).to_numpy()
    pictures = np.repeat(np.arange(len(captions)), captions)
    hits = pc.list_flatten(ranks).to_numpy() <= k
    found = np.bincount(pictures, weights=hits, minlength=len(captions))
    return found.astype(np.float64), captions.astype(np.float64)


def _mean_of_ratios(ratios: Sequence[tuple[Floats, Floats]]) -> MeanOfRatios:
    """The mean of sum(a) / sum(b) over pairs (a, b) of float64 [clusters], b > 0."""
    count = len(ratios[0][0])
    clusters = np.tile(np.arange(count), len(ratios))
    indices = np.repeat(np.arange(len(ratios)), count)
    numerators = Sums(clusters, indices, np.concatenate([a for a, _ in ratios]))
    denominators = Sums(clusters, indices, np.concatenate([b for _, b in ratios]))
    return MeanOfRatios(count, len(ratios), numerators, denominators, denominators)
