"""What classifiers found, as rows: of each transformation, of the control, of the sets that were asked about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from curate.audits import statistics

VERSION = 1  # of accuracy.json
CONTROL = 0.001  # the probability below which the control is not chance


class Answer(NamedTuple):
    """What one classifier, of one draw and one transformation, found.

    Attributes:
        confusion: of the validation samples, counts [of the set][taken for].
        asked: by name of a set, how many of its samples are taken for each class.
    """

    confusion: list[list[int]]
    asked: dict[str, list[int]]

    @property
    def accuracy(self) -> float:
        matrix = np.array(self.confusion)
        return float(matrix.trace() / matrix.sum())


class Row(NamedTuple):
    """One transformation over all draws.

    Attributes:
        accuracies: of the draws; mean and sd (n - 1; None for one draw) are theirs.
        low, high: Wilson's interval of 95 % of all validation samples together.
        p, p_corrected: that so many are right by chance, exact binomial, one-sided; the second over all
            transformations together.
    """

    transform: str
    explained: str
    accuracies: list[float]
    mean: float
    sd: float | None
    correct: int
    of: int
    low: float
    high: float
    p: float
    p_corrected: float
    confusion: list[list[int]]

    @property
    def different(self) -> bool:
        return self.p_corrected < statistics.LEVEL


class Asked(NamedTuple):
    """Of one set that was only asked about: the share that is taken for one class, over all draws."""

    name: str
    transform: str
    taken_for: str
    taken: int
    of: int
    shares: list[float]
    mean: float
    sd: float | None
    low: float
    high: float


class Control(NamedTuple):
    """Two halves of single sets, which cannot be told apart: how many validation samples were."""

    transform: str
    sets: list[str]
    correct: int
    of: int
    share: float
    low: float
    high: float
    p: float

    @property
    def passed(self) -> bool:
        return self.p >= CONTROL


@dataclass
class Classes:
    """All of it.

    Attributes:
        sets: what is known of each set, by name; conditions: what the classifiers were trained by.
        examples: by transformation and set, pictures as data URLs, or captions.
        notes: what was left out, a line each.
    """

    sets: dict[str, dict[str, Any]]
    conditions: dict[str, Any]
    rows: list[Row]
    asked: list[Asked]
    control: Control | None
    examples: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The sets that are told apart."""
        return [name for name, known in self.sets.items() if not known["asked"]]

    @property
    def chance(self) -> float:
        return 1 / len(self.names)

    def as_json(self) -> dict[str, Any]:
        """accuracy.json."""
        control = self.control and {**self.control._asdict(), "level": CONTROL, "passed": self.control.passed}
        return {
            "version": VERSION,
            "chance": self.chance,
            "sets": [{"name": name, **known} for name, known in self.sets.items()],
            **self.conditions,
            "transforms": [{**row._asdict(), "different": row.different} for row in self.rows],
            "asked": [one._asdict() for one in self.asked],
            "control": control,
            "notes": self.notes,
        }


def rows_of(answers: Mapping[str, Sequence[Answer]], explained: Mapping[str, str], classes: int) -> list[Row]:
    """A row of each transformation."""
    tests = []
    for some in answers.values():
        correct, of = _right(some)
        tests.append(_binomial(correct, of, 1 / classes, "greater"))
    found = []
    for (name, some), p, corrected in zip(answers.items(), tests, statistics.corrected(tests), strict=True):
        correct, of = _right(some)
        share = statistics.share(correct, of)
        accuracies = [one.accuracy for one in some]
        matrix = np.sum([one.confusion for one in some], axis=0).tolist()
        numbers = (*_moments(accuracies), correct, of, share.low, share.high, p, corrected)
        found.append(Row(name, explained[name], accuracies, *numbers, matrix))
    return found


def asked_of(answers: Mapping[str, Sequence[Answer]], classes: Sequence[str]) -> list[Asked]:
    """What each set that was asked about is taken for."""
    found = []
    for transform, some in answers.items():
        for name in some[0].asked:
            counts = np.array([one.asked[name] for one in some])
            for place, taken_for in enumerate(classes):
                shares = (counts[:, place] / counts.sum(axis=1)).tolist()
                count, of = int(counts[:, place].sum()), int(counts.sum())
                share = statistics.share(count, of)
                row = (transform, taken_for, count, of, shares, *_moments(shares), share.low, share.high)
                found.append(Asked(name, *row))
    return found


def control_of(answers: Sequence[Answer], transform: str, sets: Sequence[str]) -> Control:
    """The control over all draws: two-sided, as a leak can make it worse than chance, too."""
    correct, of = _right(answers)
    share = statistics.share(correct, of)
    p = _binomial(correct, of, 0.5, "two-sided")
    return Control(transform, list(dict.fromkeys(sets)), correct, of, share.ratio, share.low, share.high, p)


def _right(answers: Sequence[Answer]) -> tuple[int, int]:
    total = np.sum([one.confusion for one in answers], axis=0)
    return int(total.trace()), int(total.sum())


def _moments(values: Sequence[float]) -> tuple[float, float | None]:
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def _binomial(correct: int, of: int, chance: float, alternative: str) -> float:
    from scipy import stats  # half a second, for which help and mistakes need not wait

    return float(stats.binomtest(correct, of, chance, alternative).pvalue)
