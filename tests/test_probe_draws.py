"""Probes: which are asked for, and which pictures each of them is trained on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from poolbench.errors import UserError

from evaluate.probes.draws import Draw
from evaluate.probes.words import Probe, probes_of

# --- the words ---


def test_words_are_read_in_every_form() -> None:
    expected = [Probe("linear", None), Probe("linear", 1), Probe("linear", 16), Probe("lp++", 4)]
    for written in (
        ["linear", 1, 16, "lp++4"],
        "linear,1,16,lp++4",
        "[linear, 1, 16, lp++4]",
        ["linear,1", "16,lp++4,1"],
    ):
        assert probes_of(written) == expected
    assert [str(probe) for probe in expected] == ["linear", "1", "16", "lp++4"]
    assert probes_of(None) == probes_of([]) == [] and probes_of(4) == [Probe("linear", 4)]


@pytest.mark.parametrize("word", ["0", "-1", "1.5", "liner", "lp++", "lp++0", "True", "1 4", "9999999"])
def test_other_words_are_refused(word: str) -> None:
    with pytest.raises(UserError, match="is none; write linear"):
        probes_of([word])


# --- which pictures ---


def split(count: int = 200, classes: int = 7, seed: int = 3) -> tuple[list[str], npt.NDArray[np.int64]]:
    return [f"s{number:05d}" for number in range(count)], np.random.default_rng(seed).integers(0, classes, count)


def test_a_draw_takes_exactly_so_many_of_each_class() -> None:
    keys, labels = split()
    counts = Counter(labels.tolist())
    draw = Draw(keys, labels, 0)
    held = Counter(labels[draw.validation()].tolist())
    assert held == {label: max(1, round(0.1 * count)) for label, count in counts.items()}
    for shots in (1, 4, 16):
        rows = draw.training(shots)
        assert Counter(labels[rows].tolist()) == dict.fromkeys(counts, shots)
        assert not set(rows) & set(draw.validation()) and len(set(rows)) == len(rows)
    assert set(draw.training(4)) > set(draw.training(1))
    assert sorted([*draw.training(), *draw.validation()]) == list(range(len(keys)))
    assert Counter(labels[draw.validation(2)].tolist()) == {label: min(2, count) for label, count in held.items()}


def test_a_draw_depends_on_seed_and_keys_and_not_on_the_order() -> None:
    keys, labels = split()
    order = np.random.default_rng(1).permutation(len(keys))
    draws = {seed: Draw(keys, labels, seed) for seed in range(3)}
    other = Draw([keys[row] for row in order], labels[order], 1)

    def names(rows: Sequence[int]) -> set[str]:
        return {keys[row] for row in rows}

    assert names(order[other.training(4)]) == names(draws[1].training(4))
    assert names(order[other.validation()]) == names(draws[1].validation())
    assert names(draws[0].training(4)) != names(draws[1].training(4)) != names(draws[2].training(4))


def test_every_picture_is_as_likely_as_the_others_of_its_class() -> None:
    keys, labels = split(60, 3)
    taken = Counter(row for seed in range(400) for row in Draw(keys, labels, seed).training(4).tolist())
    for label in range(3):
        rows = np.flatnonzero(labels == label)
        expected = 400 * 4 / len(rows)
        chi = sum((taken[row] - expected) ** 2 / expected for row in rows.tolist())
        assert len(rows) - 1 - 5 * np.sqrt(2 * len(rows)) < chi < len(rows) - 1 + 5 * np.sqrt(2 * len(rows))


def test_small_classes_give_what_they_have() -> None:
    keys, labels = ["a", "b", "c", "d"], np.array([0, 1, 1, 3])
    draw = Draw(keys, labels, 0)
    assert len(draw.validation()) == 1 and labels[draw.validation()][0] == 1
    assert labels[draw.training(4)].tolist() == [0, 1, 3]
