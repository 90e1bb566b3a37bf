"""The statistics of an audit: shares with their errors, tests against the rest of the pool, amplification.

The measures are those of the audit of CommonPool (Hong et al., 2024, arXiv 2405.08209): the share of a group that is
kept, its standard error sqrt(r (1 - r) / n), and exclusion amplification, the regression of these shares on the sizes
of the groups. Intervals, tests and their correction are ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from poolbench.audit_report import wilson

LEVEL = 0.05  # of the tests together, after Benjamini and Hochberg
_FEW = 5.0  # an expected count below this: the exact test


class Share(NamedTuple):
    """Of a group: the share that is kept, its standard error, and Wilson's interval of 95 %."""

    ratio: float
    stderr: float
    low: float
    high: float


class Amplification(NamedTuple):
    """The regression of kept shares on sizes of groups: a slope above 0 says that rarer groups are cut more."""

    slope: float
    intercept: float
    r: float
    p: float
    groups: int


def share(kept: int, raw: int) -> Share:
    """Of `raw` rows, more than none, of which `kept` are kept."""
    ratio = kept / raw
    return Share(ratio, math.sqrt(ratio * (1 - ratio) / raw), *wilson(kept, raw))


def differ(kept: int, raw: int, other_kept: int, other_raw: int) -> float:
    """The probability that two groups of rows, no row in both, differ so much by chance; 1 where there is nothing to
    compare.

    Pearson's chi-squared of the table of two, without correction; Fisher's exact test where less than 5 is expected in
    a cell.
    """
    from scipy import stats  # here and below: half a second, for which help and mistakes need not wait

    table = np.array([[kept, raw - kept], [other_kept, other_raw - other_kept]], np.int64)
    rows, columns, total = table.sum(axis=1), table.sum(axis=0), table.sum()
    if not (rows.all() and columns.all()):
        return 1.0
    if float(rows.min()) * float(columns.min()) / float(total) < _FEW:
        return float(stats.fisher_exact(table).pvalue)
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def corrected(probabilities: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's: called different at 5 %, of those that are called so 5 % are not, on average."""
    from scipy import stats

    return [float(one) for one in stats.false_discovery_control(probabilities)] if probabilities else []


def amplification(shares: Sequence[float], sizes: Sequence[int]) -> Amplification | None:
    """The least-squares line of kept shares over sizes; None for fewer than three groups, or groups of one size."""
    from scipy import stats

    if len(shares) < 3 or len(set(sizes)) < 2:
        return None
    line = stats.linregress(np.asarray(sizes, float), np.asarray(shares, float))
    found = Amplification(float(line.slope), float(line.intercept), float(line.rvalue), float(line.pvalue), len(shares))
    return found if np.isfinite(found).all() else None
