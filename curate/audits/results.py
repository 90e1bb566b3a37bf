"""What an audit found, as rows: of each group, each regression, each word."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from curate.audits import statistics
from curate.audits.count import Items, Key, Question, Tallies
from curate.audits.groups import CELL

DOMAIN = "domain"
VERSION = 1  # of groups.json


class Group(NamedTuple):
    """One group and one subset; `p_corrected` is of all groups of the subset together."""

    subset: str
    attribute: str
    group: str
    raw: int
    kept: int
    ratio: float
    stderr: float
    low: float
    high: float
    base: float
    p: float
    p_corrected: float

    @property
    def different(self) -> bool:
        return self.p_corrected < statistics.LEVEL


class Line(NamedTuple):
    """The regression of an attribute's kept shares on the sizes of its groups."""

    subset: str
    attribute: str
    slope: float
    intercept: float
    r: float
    p: float
    groups: int


class Word(NamedTuple):
    """A word beside two groups: the share that is kept with the first less that with the second."""

    subset: str
    word: str
    first_raw: int
    first_kept: int
    second_raw: int
    second_kept: int
    difference: float
    stderr: float
    p: float
    p_corrected: float

    @property
    def different(self) -> bool:
        return self.p_corrected < statistics.LEVEL


@dataclass
class Audit:
    """All of it.

    Attributes:
        pool: rows.
        kept: of each subset, by name.
        small: how many groups have fewer rows than are told of, by attribute.
        compared: the two groups that words stand beside; None where there are none.
        notes: what was left out, a line each.
    """

    pool: int
    kept: dict[str, int]
    groups: list[Group]
    lines: list[Line]
    words: list[Word]
    small: dict[str, int]
    compared: tuple[str, str] | None
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """groups.json."""
        return {
            "version": VERSION,
            "pool": self.pool,
            "level": statistics.LEVEL,
            "subsets": [{"subset": name, "kept": kept, "base": kept / self.pool} for name, kept in self.kept.items()],
            "groups": [{**one._asdict(), "different": one.different} for one in self.groups],
            "amplification": [one._asdict() for one in self.lines],
            "words": [{**one._asdict(), "different": one.different} for one in self.words],
            "compared": self.compared,
            "below_minimum": self.small,
            "notes": self.notes,
        }


def audited(names: Sequence[str], question: Question, total: Tallies, items: Items) -> Audit:
    """Shares, tests and regressions of what was counted.

    Args:
        names: of the subsets.
    """
    counts = total.groups | {Key(DOMAIN, name): of for name, of in items.domains.items()}
    told = {key: of for key, of in sorted(counts.items()) if of[0] >= _least(key, question)}
    small: dict[str, int] = defaultdict(int)
    for key in counts.keys() - told.keys():
        small[key.attribute] += 1
    found = Audit(
        pool=int(total.rows[0]),
        kept={name: int(kept) for name, kept in zip(names, total.rows[1:], strict=True)},
        groups=[],
        lines=[],
        words=[],
        small=dict(sorted(small.items())),
        compared=None if question.words is None else question.words.groups,
    )
    for place, name in enumerate(names, start=1):
        groups = _groups(name, {key: (int(of[0]), int(of[place])) for key, of in told.items()}, found)
        found.groups += groups
        found.lines += _lines(name, groups, question)
        found.words += _words(name, {word: of[:, [0, place]] for word, of in sorted(items.words.items())})
    return found


def _least(key: Key, question: Question) -> int:
    """Rows that a group has at least to be told of; those of domains were looked at before."""
    return next((one.minimum for one in question.attributes if one.name == key.attribute), CELL)


def _groups(subset: str, counts: dict[Key, tuple[int, int]], found: Audit) -> list[Group]:
    kept = found.kept[subset]
    tests = [statistics.differ(few, raw, kept - few, found.pool - raw) for raw, few in counts.values()]
    rows = zip(counts.items(), tests, statistics.corrected(tests), strict=True)
    base = kept / found.pool
    return [
        Group(subset, *key, raw, few, *statistics.share(few, raw), base, p, corrected)
        for (key, (raw, few)), p, corrected in rows
    ]


def _lines(subset: str, groups: Sequence[Group], question: Question) -> Iterator[Line]:
    least = {attribute.name: attribute.regressed for attribute in question.attributes}
    for attribute in dict.fromkeys(one.attribute for one in groups):
        of = [one for one in groups if one.attribute == attribute and one.raw >= least.get(attribute, CELL)]
        line = statistics.amplification([one.ratio for one in of], [one.raw for one in of])
        if line is not None:
            yield Line(subset, attribute, *line)


def _words(subset: str, counts: dict[str, np.ndarray]) -> list[Word]:
    tables = [tuple(int(number) for number in of.ravel()) for of in counts.values()]
    tests = [statistics.differ(kept, raw, other_kept, other) for raw, kept, other, other_kept in tables]
    rows = zip(counts, tables, tests, statistics.corrected(tests), strict=True)
    found = []
    for word, (raw, kept, other, other_kept), p, corrected in rows:
        first, second = statistics.share(kept, raw), statistics.share(other_kept, other)
        stderr = float(np.hypot(first.stderr, second.stderr))
        difference = first.ratio - second.ratio
        found.append(Word(subset, word, raw, kept, other, other_kept, difference, stderr, p, corrected))
    return found
