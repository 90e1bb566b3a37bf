"""What a board tells of methods that were trained with several seeds: their spread, and their gain over no filtering.

    methods(ranked, aggregates, pool_size)  # of the entries and the names of the aggregates of a board
    sentence(board)                         # "clip_score .353 ± .007 (3 seeds), +.083 (.071 to .095) over no filter"

Ranked entries that were trained on the same dataset by the same recipe are one method; only a seed tells them apart.
A seed is one observation however often it was trained: entries with the same seed count once, by their mean. The best
of them would be a choice after the fact, and each of them on its own would make the interval narrower than it is.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from leaderboard.models import Board, Entry, Gain, Method, Spread
from leaderboard.rank import descending

_LEVEL = 0.95
_NO_SPREAD = Spread(mean=None, sd=None)


class _Group(NamedTuple):
    """The entries of a method, in the order of their ranks; `whole` where they are not filtered."""

    entries: list[Entry]
    averages: list[float]  # one a seed
    whole: bool


def methods(ranked: Sequence[Entry], aggregates: Sequence[str], pool_size: int | None) -> list[Method]:
    """The methods of ranked entries, best mean first.

    Args:
        pool_size: samples of the pool that is filtered, None where there is none and so no gain.
    """
    grouped: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
    for entry in ranked:
        grouped[_known_by(entry)].append(entry)
    groups = [
        _Group(entries, _by_seed(entries, "average"), _whole(entries[0], pool_size)) for entries in grouped.values()
    ]
    baseline = _baseline(groups)
    return sorted((_method(group, aggregates, baseline) for group in groups), key=_order)


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation sqrt(sum of (value - mean)² / (n - 1)), null below two values."""
    if not values:
        return _NO_SPREAD
    return Spread(mean=_mean(values), sd=math.sqrt(_variance(values)) if len(values) > 1 else None)


def gain(values: Sequence[float], baseline: Sequence[float]) -> Gain:
    """The difference of two means with its interval of 95 %, null where either is of fewer than two values.

    difference ± t(df) sqrt(a + b) where a and b are variance / n of each side, t is Student's quantile at 97.5 % and

        df = (a + b)² / (a² / (n_a - 1) + b² / (n_b - 1))

    (Welch, The Generalization of "Student's" Problem when Several Different Population Variances are Involved,
    Biometrika 34, 1947; df after Satterthwaite, An Approximate Distribution of Estimates of Variance Components,
    Biometrics Bulletin 2, 1946). Without any variance the interval is the difference alone.
    """
    difference = _mean(values) - _mean(baseline)
    if min(len(values), len(baseline)) < 2:
        return Gain(value=difference, low=None, high=None)
    a, b = _variance(values) / len(values), _variance(baseline) / len(baseline)
    if a + b == 0:
        return Gain(value=difference, low=difference, high=difference)
    share = a / (a + b)  # the same df from shares, whose squares do not underflow
    freedom = 1 / (share**2 / (len(values) - 1) + (1 - share) ** 2 / (len(baseline) - 1))
    reach = _student(freedom) * math.sqrt(a + b)
    return Gain(value=difference, low=difference - reach, high=difference + reach)


def baseline_of(board: Board) -> Method | None:
    """The method that the gains of a board are over."""
    return next((method for method in board.methods if method.baseline), None)


def sentence(board: Board) -> str | None:
    """The best method whose gain has an interval, else the best with a gain, in words; None where there is none."""
    baseline = baseline_of(board)
    gains = [(method, method.gain) for method in board.methods if method.gain is not None]
    if baseline is None or not gains:
        return None
    best, gained = next(((method, gain) for method, gain in gains if gain.low is not None), gains[0])
    average, count = best.aggregates["average"], len(best.seeds)
    seeds = f" ± {_short(average.sd)} ({count} seeds)" if count > 1 else " (1 seed)"
    interval = "" if gained.low is None else f" ({_short(gained.low)} to {_short(gained.high)})"
    sign = "+" if gained.value >= 0 else ""
    return f"{best.method} {_short(average.mean)}{seeds}, {sign}{_short(gained.value)}{interval} over {baseline.method}"


def _known_by(entry: Entry) -> tuple[object, ...]:
    """What the seeds of a method have in common."""
    digests = (entry.subset_digest, entry.data_digest, entry.recipe_digest)
    return (entry.method, entry.author, *digests, entry.dataset_size)


def _by_seed(entries: Sequence[Entry], name: str) -> list[float]:
    """An aggregate's value for each seed, the mean where a seed was trained several times; [] where one is unknown."""
    values: dict[int, list[float]] = defaultdict(list)
    for entry in entries:
        value = entry.aggregates[name].value
        if value is None:
            return []
        values[entry.seed].append(value)
    return [_mean(values[seed]) for seed in sorted(values)]


def _whole(entry: Entry, pool_size: int | None) -> bool:
    return pool_size is not None and entry.subset_digest is None and entry.dataset_size == pool_size


def _baseline(groups: Sequence[_Group]) -> _Group | None:
    """The method of the whole pool that is known best: by the most seeds, of those the one with the best mean."""
    whole = [group for group in groups if group.whole]
    return max(whole, key=lambda group: (len(group.averages), _mean(group.averages)), default=None)


def _method(group: _Group, aggregates: Sequence[str], baseline: _Group | None) -> Method:
    first = group.entries[0]
    return Method(
        method=first.method,
        author=first.author,
        dataset_size=first.dataset_size,
        entries=[entry.digest for entry in group.entries],
        seeds=sorted({entry.seed for entry in group.entries}),
        aggregates={name: spread(_by_seed(group.entries, name)) for name in aggregates},
        baseline=group is baseline,
        gain=None if baseline is None or group is baseline else gain(group.averages, baseline.averages),
    )


def _order(method: Method) -> tuple[float, float, str, str, str]:
    average, imagenet = (method.aggregates.get(name, _NO_SPREAD).mean for name in ("average", "imagenet"))
    return (*descending(average, imagenet), method.method, method.author, method.entries[0])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _student(freedom: float) -> float:
    """The quantile of Student's distribution that leaves out as much above it as lies below the interval."""
    from scipy.special import stdtrit  # here: most boards need no interval, and it takes half a second to load

    return float(stdtrit(freedom, (1 + _LEVEL) / 2))


def _short(value: float | None) -> str:
    """.353 for 0.3528"""
    return "none" if value is None else f"{value:z.3f}".replace("0.", ".", 1)
