"""Correlations with ImageNet and ranks across scales, against the formulas written out."""

import math
import random
from collections.abc import Sequence

import pytest
from boards import board, entry, leaderboard_of, reference, scored_keys

from leaderboard.findings import Correlation, across, correlations, interval
from leaderboard.models import Reference, Score

KEYS = scored_keys()
SOME = dict.fromkeys(KEYS, 0.25)


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return products / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the highest; ties share the mean of their places."""
    return [1 + sum(w > v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


@pytest.mark.parametrize("seed", range(3))
def test_correlations_are_those_of_the_formulas(seed: int) -> None:
    draw = random.Random(seed)
    results = []
    for number in range(draw.randint(12, 30)):
        common = draw.gauss(0.4, 0.1)
        scores = {key: min(1.0, max(0.0, common + draw.gauss(0, 0.1))) for key in KEYS if draw.random() < 0.8}
        results.append(entry(str(number), scores) if draw.random() < 0.7 else reference(str(number), scores))
    entries = [result for result in results if not isinstance(result, Reference)]
    published = [result for result in results if isinstance(result, Reference)]
    found = {row.key: row for row in correlations(board(entries, published))}
    assert set(found) == {*KEYS, "average", "imagenet_shifts", "vtab", "retrieval"} - {"imagenet1k"}

    def score(result: object, key: str) -> float | None:
        value = {**result.aggregates, **result.scores}.get(key)  # type: ignore[attr-defined]
        return value.value if isinstance(value, Score) else value

    compared = 0
    for key, row in found.items():
        pairs = [(score(result, "imagenet"), score(result, key)) for result in results]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        assert row.n == len(known)
        if row.n < 4:
            assert (row.r, row.low, row.high) == (None, None, None)
            continue
        r = pearson([a for a, _ in known], [b for _, b in known])
        ends = [math.tanh(math.atanh(r) + sign * 1.959963984540054 / math.sqrt(row.n - 3)) for sign in (-1, 1)]
        assert [row.r, row.low, row.high] == pytest.approx([r, *ends], abs=1e-12)
        compared += 1
    assert compared > len(KEYS) // 2


def test_highest_correlation_first_and_unknown_last() -> None:
    """Rising with ImageNet, falling, always the same, and only in three entries."""
    keys = ["food101", "mnist", "stl10", "cifar10"]
    entries = []
    for number in range(5):
        value = 0.1 + 0.1 * number
        scores = dict(zip(keys, (value / 2, 1 - value, 0.5, value), strict=True))
        if number > 2:
            del scores["cifar10"]
        entries.append(entry(str(number), {"imagenet1k": value, **scores}))
    rows = correlations(board(entries))
    assert [row.key for row in rows][:2] == ["food101", "mnist"]
    assert rows[0] == Correlation("food101", "Food-101", "other", *[pytest.approx(1)] * 3, 5)
    assert (rows[1].r, rows[1].low, rows[1].high) == (pytest.approx(-1),) * 3
    rest = {row.key: (row.r, row.low, row.high, row.n) for row in rows[2:]}
    assert (rest["stl10"], rest["cifar10"]) == ((None, None, None, 5), (None, None, None, 3))


def test_aggregates_alone_count_for_aggregates_alone() -> None:
    published = [
        reference(str(n), {}, aggregates={"imagenet": 0.1 * n, "average": 0.2 + 0.05 * n**2}) for n in range(5)
    ]
    found = {row.key: row for row in correlations(board([], published))}
    assert found["average"].n == 5 and found["average"].r is not None
    assert found["food101"].n == found["vtab"].n == 0


def test_only_what_can_be_compared_counts() -> None:
    entries = [entry(str(n), {key: 0.1 * n + 0.01 * (n % 2) * len(key) for key in KEYS}) for n in range(5)]
    outlier = entry("unofficial", {**SOME, "imagenet1k": 1.0}, rank=None, rank_last=None)
    assert correlations(board(entries, unranked=[outlier])) == correlations(board(entries))
    assert correlations(board(scale="tiny")) == [], "there is no ImageNet among the demonstration's tasks"


@pytest.mark.parametrize("seed", range(5))
def test_across_is_spearman_with_ties_and_missing_methods(seed: int) -> None:
    draw = random.Random(seed)
    small, large, known = [], [], {}
    for number in range(draw.randint(6, 15)):
        name, scores = f"m{number:02}", []
        for entries, scale in ((small, "small"), (large, "medium")):
            if draw.random() < 0.8:
                values = [draw.randint(1, 5) / 8 for _ in range(draw.choice([1, 1, 2]))]  # two seeds, and many ties
                entries += [entry(name, dict.fromkeys(KEYS, v), scale, seed=n) for n, v in enumerate(values)]
                scores.append(sum(values) / len(values))
        if len(scores) == 2:
            known[name] = scores
    found = across(leaderboard_of(board(small), board(large, scale="medium")), "filtering", "small", "medium")
    x, y = ([scores[place] for scores in known.values()] for place in (0, 1))
    right = dict(zip(known, zip(x, y, ranks(x), ranks(y), strict=True), strict=True))
    assert found.n == len(found.places) == len(known)
    for place in found.places:
        assert place[2:] == pytest.approx(right[place.label], abs=1e-12)
    assert [place.y_rank for place in found.places] == sorted(ranks(y)), "best first at the larger scale"
    if len(known) >= 4 and len(set(x)) > 1 and len(set(y)) > 1:
        assert found.rho == pytest.approx(pearson(ranks(x), ranks(y)), abs=1e-12)
    else:
        assert found.rho is None


def test_a_method_is_known_by_name_author_and_kind() -> None:
    def all_of(value: float) -> dict[str, float]:
        return dict.fromkeys(KEYS, value)

    small = board(
        [entry("one", all_of(0.2)), entry("two", all_of(0.3), author="B")],
        [reference("one", all_of(0.1)), reference("paper", all_of(0.15))],
    )
    medium = board(
        [entry("one", all_of(0.4)), entry("two", all_of(0.6), author="C")],
        [reference("paper", all_of(0.5))],
        scale="medium",
    )
    found = across(leaderboard_of(small, medium), "filtering", "small", "medium", "imagenet")
    assert [(place.label, place.kind, place.x_rank, place.y_rank) for place in found.places] == [
        ("paper", "published", 2, 1),
        ("one", "entry", 1, 2),
    ]
    assert (found.rho, found.n) == (None, 2), "two methods say nothing of an order"
    of_task = across(leaderboard_of(small, medium), "filtering", "small", "medium", "mnist")
    assert [place.label for place in of_task.places] == ["paper", "one"]
    assert across(leaderboard_of(small), "filtering", "small", "large") == ([], None, 0)


def test_interval_joins_seeds_and_samples() -> None:
    here = board([])
    assert interval(here, Score(value=0.5, stderr=0.002), "average") == pytest.approx(
        (0.5 - math.hypot(0.003, 0.00392), 0.5 + math.hypot(0.003, 0.00392))
    )
    assert interval(here, Score(value=0.5, stderr=None), "average") == pytest.approx((0.497, 0.503))
    assert interval(here, Score(value=0.5, stderr=0.01), "mnist") == pytest.approx((0.4804, 0.5196))
    assert interval(here, Score(value=0.5, stderr=None), "mnist") is None
    assert interval(here, Score(value=None, stderr=0.01), "average") is None
