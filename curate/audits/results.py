"""What an audit found, as rows: of each group, each regression, each word."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from poolbench.audit_report import VERSION, AuditedSubset, AuditReport, Group, Line, Word

from curate.audits import statistics
from curate.audits.count import Items, Key, Question, Tallies
from curate.audits.groups import CELL

DOMAIN = "domain"


def audited(
    names: Sequence[str], question: Question, total: Tallies, items: Items, notes: Sequence[str]
) -> AuditReport:
    """Shares, tests and regressions of what was counted.

    Args:
        names: of the subsets.
        notes: what was left out, a line each.
    """
    counts = total.groups | {Key(DOMAIN, name): of for name, of in items.domains.items()}
    told = {key: of for key, of in sorted(counts.items()) if of[0] >= _least(key, question)}
    small: dict[str, int] = defaultdict(int)
    for key in counts.keys() - told.keys():
        small[key.attribute] += 1
    pool, subsets = int(total.rows[0]), []
    groups, lines, words = list[Group](), list[Line](), list[Word]()
    for place, (name, subset, digest) in enumerate(zip(names, question.subsets, question.digests, strict=True), 1):
        kept = int(total.rows[place])
        of_it = AuditedSubset(subset=name, digest=digest, size=subset.size, kept=kept, base=kept / pool)
        its = list(_groups(of_it, {key: (int(of[0]), int(of[place])) for key, of in told.items()}, pool))
        subsets.append(of_it)
        groups += its
        lines += _lines(name, its, question)
        words += _words(name, {word: of[:, [0, place]] for word, of in sorted(items.words.items())})
    return AuditReport(
        version=VERSION,
        pool=pool,
        level=statistics.LEVEL,
        subsets=subsets,
        groups=groups,
        amplification=lines,
        words=words,
        compared=None if question.words is None else list(question.words.groups),
        below_minimum=dict(sorted(small.items())),
        notes=list(notes),
    )


def _least(key: Key, question: Question) -> int:
    """Rows that a group has at least to be told of; those of domains were looked at before."""
    return next((one.minimum for one in question.attributes if one.name == key.attribute), CELL)


def _groups(subset: AuditedSubset, counts: dict[Key, tuple[int, int]], pool: int) -> Iterator[Group]:
    tests = [statistics.differ(few, raw, subset.kept - few, pool - raw) for raw, few in counts.values()]
    rows = zip(counts.items(), tests, statistics.corrected(tests), strict=True)
    for (key, (raw, few)), p, corrected in rows:
        yield Group(
            subset=subset.subset,
            **key._asdict(),
            raw=raw,
            kept=few,
            **statistics.share(few, raw)._asdict(),
            base=subset.base,
            p=p,
            p_corrected=corrected,
            different=corrected < statistics.LEVEL,
        )


def _lines(subset: str, groups: Sequence[Group], question: Question) -> Iterator[Line]:
    least = {attribute.name: attribute.regressed for attribute in question.attributes}
    for attribute in dict.fromkeys(one.attribute for one in groups):
        of = [one for one in groups if one.attribute == attribute and one.raw >= least.get(attribute, CELL)]
        line = statistics.amplification([one.ratio for one in of], [one.raw for one in of])
        if line is not None:
            yield Line(subset=subset, attribute=attribute, **line._asdict())


def _words(subset: str, counts: dict[str, np.ndarray]) -> Iterator[Word]:
    tables = [tuple(int(number) for number in of.ravel()) for of in counts.values()]
    tests = [statistics.differ(kept, raw, other_kept, other) for raw, kept, other, other_kept in tables]
    rows = zip(counts, tables, tests, statistics.corrected(tests), strict=True)
    for word, (raw, kept, other, other_kept), p, corrected in rows:
        first, second = statistics.share(kept, raw), statistics.share(other_kept, other)
        yield Word(
            subset=subset,
            word=word,
            first_raw=raw,
            first_kept=kept,
            second_raw=other,
            second_kept=other_kept,
            difference=first.ratio - second.ratio,
            stderr=float(np.hypot(first.stderr, second.stderr)),
            p=p,
            p_corrected=corrected,
            different=corrected < statistics.LEVEL,
        )
