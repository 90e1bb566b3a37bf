"""The n-th largest score of a pool, exactly, without ever holding its scores: a few passes that count.

A float64 is turned into an integer of the same order. Its leading digits are counted first; of the one that holds the
n-th score the next digits, and so on.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from curate.pool.chosen import Chooser, bits_of, kept_bits
from curate.pool.files import BadFile, File, read_columns
from curate.pool.passes import Pass, Passes, result
from poolbench.errors import UserError

# Bits of each digit. The first two are all that a float32 has once it is a float64, so that it needs two passes.
_DIGITS = (20, 15, 29)
_SIGN = np.uint64(1 << 63)


def scores(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers, NaN where one is missing.

    Raises:
        BadFile: no numbers.
    """
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise BadFile(f"a score is {column.type}, not a number")
    values: np.ndarray = column.to_numpy()
    return values


def nth_largest(passes: Passes, column: str, fraction: float, among: Chooser | None = None) -> float:
    """The score at place n, counted from 0, of the descending scores of N rows, where n = int(N * fraction).

    NaN are the last of the order. -inf where n is N or where a NaN stands there: then all scores are kept.

    Args:
        among: ranks only rows that it keeps, each once; N is still all rows of the pool. -inf where they are n or
            fewer. It judges each row once, in a pass before, and is asked no more.

    Raises:
        UserError: the pool has no rows.
    """
    ranked = [] if among is None else [passes.made(kept_bits, among)]
    prefix = done = 0
    place: int | None = None
    for level, bits in enumerate(_DIGITS):
        counts: Counter[int] = Counter()
        rows, single = 0, True
        for _, found in passes.map(count_digits, column, level, prefix, *ranked):
            counts.update(dict(zip(found["digits"], found["counts"], strict=True)))
            rows, single = rows + found["rows"], single and found["single"]
        if place is None:
            if not rows:
                raise UserError("the pool has no rows")
            place = int(rows * fraction)
            if place >= counts.total():
                return -np.inf
        digit, place = _at(counts, place)
        prefix, done = prefix << bits | digit, done + bits
        if single and level == 1:
            break
    left = 64 - done  # bits that are 0 in every score, and so 1 in the integer of a negative one
    key = prefix << left
    return _float(key if key >> 63 else key | (1 << left) - 1)


def count_digits(file: File, column: str, level: int, prefix: int, ranked: Pass | None = None) -> dict[str, Any]:
    """How often each digit at `level` stands in the scores of a file that begin with `prefix`.

    `rows` counts all rows, NaN too; `single` says whether two digits hold all of a score. With `ranked`, a pass of
    `kept_bits`, only its rows' scores are looked at.
    """
    done, bits = sum(_DIGITS[:level]), _DIGITS[level]
    kept = None if ranked is None else result(ranked, file)
    counts: Counter[int] = Counter()
    rows, single = 0, True
    for table, _ in read_columns(file, [column]):
        values = scores(table[column])
        start, rows = rows, rows + len(values)
        single = single and values.dtype in (np.float16, np.float32)
        values = values if kept is None else values[bits_of(kept, start, rows)]
        keys = ordered(values[~np.isnan(values)])
        if level:
            keys = keys[keys >> np.uint64(64 - done) == np.uint64(prefix)]
        digits, often = np.unique(
            (keys >> np.uint64(64 - done - bits)) & np.uint64((1 << bits) - 1), return_counts=True
        )
        counts.update(dict(zip(digits.tolist(), often.tolist(), strict=True)))
    return {"digits": list(counts), "counts": list(counts.values()), "rows": rows, "single": single}


def ordered(values: np.ndarray) -> np.ndarray:
    """Numbers, none of them NaN, as u8 of the same order, -0.0 just below 0.0."""
    bits = values.astype(np.float64).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _float(key: int) -> float:
    """The number that `ordered` made `key` of."""
    bits = key ^ (1 << 63) if key >> 63 else ~key & ((1 << 64) - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])


def _at(counts: Counter[int], place: int) -> tuple[int, int]:
    """The digit that holds the score at `place` in descending order, and the place among those with that digit."""
    for digit in sorted(counts, reverse=True):
        if place < counts[digit]:
            return digit, place
        place -= counts[digit]
    raise AssertionError("a place beyond the counts")
