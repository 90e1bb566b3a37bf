"""Places on a board: against the plain definition, and what they must say in cases that a person can check."""

import math
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runs import ROOT

from leaderboard.models import Score
from leaderboard.rank import constants, margin, places, standard_error

MAIN, DEMO = (constants().noise[suite].values["average"] for suite in ("main", "demo"))

SCORES = st.builds(
    Score,
    value=st.integers(0, 60).map(lambda step: step / 500),  # coarse, so that there are ties
    stderr=st.one_of(st.none(), st.floats(0, 0.02)),
)


def naive(averages: list[Score], seed_noise: float) -> tuple[list[int], list[int]]:
    """The definition, pair by pair."""

    def better(one: Score, other: Score) -> bool:
        assert one.value is not None
        assert other.value is not None
        return one.value - other.value > margin(one, other, seed_noise)

    first = [1 + sum(better(other, one) for other in averages) for one in averages]
    last = [len(averages) - sum(better(one, other) for other in averages) for one in averages]
    for place in range(1, len(averages)):
        first[place] = max(first[place], first[place - 1])
    for place in reversed(range(len(averages) - 1)):
        last[place] = min(last[place], last[place + 1])
    return first, last


@given(st.lists(SCORES, max_size=40), st.sampled_from([0.0, 0.0055, 0.0175]))
def test_places_are_those_of_the_definition(scores: list[Score], seed_noise: float) -> None:
    averages = sorted(scores, key=lambda score: -(score.value or 0))
    assert places(averages, seed_noise) == naive(averages, seed_noise)


def test_places_of_more_entries_than_are_looked_at_in_one_go() -> None:
    draw = random.Random(0)
    averages = [Score(value=draw.random() / 3, stderr=draw.choice([None, 0.001, 0.01])) for _ in range(600)]
    averages.sort(key=lambda score: -(score.value or 0))
    assert places(averages, MAIN) == naive(averages, MAIN)


@given(st.lists(SCORES, min_size=1, max_size=40))
def test_places_contain_the_place_in_the_list_and_never_fall(scores: list[Score]) -> None:
    first, last = places(sorted(scores, key=lambda score: -(score.value or 0)), MAIN)
    assert all(a <= place <= b for place, (a, b) in enumerate(zip(first, last, strict=True), start=1))
    assert first == sorted(first)
    assert last == sorted(last)


def board(*values: float, errors: dict[int, float] | None = None) -> list[tuple[int, int]]:
    scores = [Score(value=value, stderr=(errors or {}).get(place)) for place, value in enumerate(values)]
    return list(zip(*places(scores, MAIN), strict=True))


def test_ties_are_chained_through_noise_and_not_beyond() -> None:
    assert board(0.5, 0.495, 0.490, 0.4) == [(1, 2), (1, 3), (2, 3), (4, 4)]
    assert board(0.5) == [(1, 1)]
    assert board() == []


def test_an_entry_that_was_measured_badly_is_held_between_its_neighbours() -> None:
    assert board(0.5, 0.45, 0.40, errors={2: 0.2}) == [(1, 2), (2, 3), (2, 3)]
    assert board(0.5, 0.45, 0.40, errors={0: 0.2}) == [(1, 2), (1, 2), (2, 3)]


def test_margin_adds_seed_noise_and_the_errors_of_both() -> None:
    one, other, unknown = (Score(value=0.5, stderr=error) for error in (0.003, 0.004, None))
    assert margin(one, other, MAIN) == pytest.approx(math.sqrt(0.006**2 + (1.96 * 0.005) ** 2))
    assert margin(unknown, unknown, DEMO) == DEMO


def test_standard_error_of_a_mean() -> None:
    scores = {"a": Score(value=0.5, stderr=0.3), "b": Score(value=0.5, stderr=0.4), "c": Score(value=0.1, stderr=None)}
    assert standard_error(["a", "b"], scores) == pytest.approx(0.25)
    assert standard_error(["a", "c"], scores) is None
    assert standard_error(["a", "d"], scores) is None
    assert standard_error([], scores) is None


def test_seed_noise_is_the_largest_difference_that_was_seen() -> None:
    """The demo's: of the averages that its citation and, rounded, the table in docs/demo_data.md have."""
    noise = constants().noise["demo"]
    cited = [float(number) for number in re.findall(r"\.\d{4}", noise.citation.text)]
    assert len(cited) == 3 and max(cited) - min(cited) == pytest.approx(noise.values["average"], abs=1e-6)
    page = (ROOT / "docs" / "demo_data.md").read_text(encoding="utf-8")
    rows = page[page.index("| no filter |") : page.index("| CLIP score of one half |")].splitlines()[:3]
    assert [row.split("|")[-2].strip() for row in rows] == [f"{value:.3f}"[1:] for value in cited]
    assert constants().noise["main"].values == {"imagenet": 0.002, "average": 0.006}
