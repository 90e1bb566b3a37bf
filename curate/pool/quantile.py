"""The n-th largest score of a pool, exactly, without ever holding its scores: a few passes that count.

A float64 is turned into an integer of the same order. Its leading digits are counted first; of the one that holds the
n-th score the next digits, and so on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.files import digest_json
from poolbench.uids import split_uid, uid_text

from curate.pool.chosen import Chooser, Everything, bits_of, kept_bits
from curate.pool.columns import UnusableColumn, folders, origin_digest
from curate.pool.files import PLACE, BadFile, File, read, read_columns
from curate.pool.passes import Pass, Passes, light, result
from curate.pool.places import forget

# Bits of each digit. The first two are all that a float32 has once it is a float64, so that it needs two passes.
_DIGITS = (18, 17, 15, 14)
_AT_ONCE = 2**18  # rows whose digits are counted at a time, so that the counters, as many, are gone through less often
_SIGN = np.int64(-(1 << 63))
_FEW = 2**16  # rows of one score that are sorted by their uids in memory
_UID_DIGIT = 16  # bits of a uid by which more of them are parted


def scores(table: pa.Table, name: str) -> np.ndarray:
    """A column of numbers, NaN where one is missing.

    Raises:
        BadFile: no numbers.
    """
    column = table[name]
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise BadFile(f"a score is {column.type}, not a number: {name!r}")
    values: np.ndarray = column.to_numpy()
    return values


class Column(NamedTuple):
    """A column of scores, as an argument of passes: results of one that was made otherwise are not found again."""

    name: str
    origin: str  # digest of what made it in all files, "" where it is the pool's own

    def identity(self) -> Any:
        return [self.name, self.origin] if self.origin else self.name


def column_of(files: Sequence[File], name: str) -> Column:
    """A column with its origin, as it is now.

    Raises:
        UserError: the columns in a store cannot be listed.
    """
    forget()  # once for all files
    try:
        if not any(folders(file.made) for file in files[:1]):
            return Column(name, "")
    except UnusableColumn as error:
        raise UserError(str(error)) from None
    found = {file.name: origin_digest(file.made, file.name, name) for file in files}
    forget()
    return Column(name, digest_json(found)[:16] if any(found.values()) else "")


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
    return _at_place(passes, column_of(passes.files, column), lambda rows: int(rows * fraction), ranked).score


class Best(NamedTuple):
    """The best rows of a pool by a column, an exact number of them: those with higher scores than `threshold`, and of
    those with that score the first by uid, up to the one at `uid` and `place`.

    Attributes:
        threshold: -inf where all are kept that have a score.
        uid: 32 hex digits; "" where all rows with the score of the threshold are kept.
        place: of the last row, see curate.pool.files.PLACE; it decides between rows of one uid.
        rows: how many of the pool's rows there are by this, and `asked` how many there should be.
    """

    threshold: float
    uid: str
    place: int
    rows: int
    asked: int

    def keep(self, values: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Which of some rows are among the best, bool [rows]; NaN never is.

        Args:
            values: their scores.
            arrays: "uid", u8,u8, and PLACE.
        """
        kept: np.ndarray = values > self.threshold
        if not self.uid:
            kept |= values == self.threshold
            return kept
        tied = np.flatnonzero(values == self.threshold)
        uids, places = arrays["uid"][tied], arrays[PLACE][tied]
        high, low = (np.uint64(half) for half in split_uid(self.uid))
        same = (uids["f0"] == high) & (uids["f1"] == low)
        first = (uids["f0"] < high) | ((uids["f0"] == high) & (uids["f1"] < low)) | (same & (places <= self.place))
        kept[tied[first]] = True
        return kept

    def state(self) -> dict[str, Any]:
        """As JSON holds it."""
        infinite = np.isinf(self.threshold)
        return {**self._asdict(), "threshold": str(self.threshold) if infinite else self.threshold}

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Best":
        """What `state` gave."""
        return cls(**{**state, "threshold": float(state["threshold"])})


def best(
    passes: Passes, column: str, fraction: float | None = None, count: int | None = None, among: Chooser | None = None
) -> Best:
    """The rows with the largest scores, exactly int(N * fraction) or `count` of them, ties by uid, the smaller first.

    N is all rows of the pool. Rows whose score is NaN and those without a good uid are never among them, so that there
    may be fewer.

    Args:
        among: ranks only rows that it keeps, each once.

    Raises:
        UserError: the pool has no rows.
    """
    assert (fraction is None) != (count is None)
    ranked = passes.made(kept_bits, among or Everything())
    source = column_of(passes.files, column)

    def wanted(rows: int) -> int:
        return int(rows * fraction) if fraction is not None else count or 0

    found = _at_place(passes, source, lambda rows: max(wanted(rows) - 1, 0), [ranked])
    asked = wanted(found.rows)
    if asked == 0:
        return Best(np.inf, f"{0:032x}", -1, 0, 0)
    if found.score == -np.inf and not found.ties:
        return Best(-np.inf, "", 0, found.above, asked)
    take = asked - found.above
    if take == found.ties:
        return Best(found.score, "", 0, asked, asked)
    high, low, place = _nth_tie(passes, source, found.score, take - 1, found.ties, ranked)
    return Best(found.score, uid_text((high, low)), place, asked, asked)


class _Place(NamedTuple):
    """A score, how many of the ranked rows have a higher one and how many this one, and how many rows there are.

    Where no score stands at the place asked for: -inf, all that have one, 0.
    """

    score: float
    above: int
    ties: int
    rows: int


def _at_place(passes: Passes, column: Column, place_of: Callable[[int], int], ranked: Sequence[Pass]) -> _Place:
    """The score at a place of the descending scores, counted from 0; `place_of` gives it from the number of rows."""
    prefix = done = above = 0
    place: int | None = None
    for level, bits in enumerate(_DIGITS):
        counts = np.zeros(1 << bits, np.int64)
        rows, single = 0, True
        for _, found in passes.map(count_digits, column, level, prefix, *ranked):
            rows, single = rows + int(found[0, 0]), single and bool(found[0, 1])
            counts[found[1:, 0]] += found[1:, 1]
        if place is None:
            if not rows:
                raise UserError("the pool has no rows")
            place = place_of(rows)
            if place >= counts.sum():
                return _Place(-np.inf, int(counts.sum()), 0, rows)
        digit, left = _at(counts[::-1], place)
        digit = len(counts) - 1 - digit
        above, place = above + place - left, left
        prefix, done = prefix << bits | digit, done + bits
        if single and level == 1:
            break
    missing = 64 - done  # bits that are 0 in every score, and so 1 in the integer of a negative one
    key = prefix << missing
    score = _float(key if key >> 63 else key | (1 << missing) - 1)
    return _Place(score, above, int(counts[digit]), rows)


@light
def count_digits(file: File, column: Column, level: int, prefix: int, ranked: Pass | None = None) -> np.ndarray:
    """How often each digit at `level` stands in the scores of a file that begin with `prefix`, int64 [1 + digits, 2].

    The first row has the number of all rows, NaN too, and 1 where two digits hold all of a score, else 0; each other
    one a digit and how often it stands. With `ranked`, a pass of `kept_bits`, only its rows' scores are looked at.
    """
    done, bits = sum(_DIGITS[:level]), _DIGITS[level]
    kept = None if ranked is None else result(ranked, file)
    counts = np.zeros(1 << bits, np.int64)
    rows, single = 0, True
    for table, _ in read_columns(file, [column.name], at_once=_AT_ONCE):
        values = scores(table, column.name)
        start, rows = rows, rows + len(values)
        single = single and values.dtype in (np.float16, np.float32)
        values = values if kept is None else values[bits_of(kept, start, rows)]
        numbers = values[~missing] if (missing := np.isnan(values)).any() else values
        keys = ordered(numbers + values.dtype.type(0))  # -0.0 is no less than 0.0
        if level:
            keys = keys[keys >> np.uint64(64 - done) == np.uint64(prefix)]
        digits = (keys >> np.uint64(64 - done - bits)) & np.uint64((1 << bits) - 1)
        often = np.bincount(digits.view(np.int64))
        counts[: len(often)] += often
    return np.concatenate([np.array([[rows, single]], np.int64), _counted(counts)])


def _nth_tie(passes: Passes, column: Column, score: float, place: int, ties: int, ranked: Pass) -> tuple[int, int, int]:
    """Uid and place of the row at `place`, from 0, of the rows with a score, in the order of their uids."""
    prefix = done = 0
    while ties > _FEW and done < 128:
        counts = np.zeros(1 << _UID_DIGIT, np.int64)
        for _, found in passes.map(count_ties, column, score, done, prefix, ranked):
            counts[found[:, 0]] += found[:, 1]
        digit, place = _at(counts, place)
        ties, prefix, done = int(counts[digit]), prefix << _UID_DIGIT | digit, done + _UID_DIGIT
    rows = [tuple(row) for _, found in passes.map(ties_of, column, score, done, prefix, ranked) for row in found]
    rows.sort()
    high, low, at = rows[place]
    return int(high), int(low), int(at)


@light
def count_ties(file: File, column: Column, score: float, done: int, prefix: int, ranked: Pass) -> np.ndarray:
    """How often each digit follows, after `done` bits, in the uids that begin with `prefix` of rows with a score: int64
    [digits, 2], a digit and how often it does."""
    counts = np.zeros(1 << _UID_DIGIT, np.int64)
    for uids, _ in _tied(file, column, score, done, prefix, ranked):
        half, at = ("f0", done) if done < 64 else ("f1", done - 64)
        digit = (uids[half] >> np.uint64(64 - at - _UID_DIGIT)) & np.uint64((1 << _UID_DIGIT) - 1)
        counts += np.bincount(digit.view(np.int64), minlength=len(counts))
    return _counted(counts)


@light
def ties_of(file: File, column: Column, score: float, done: int, prefix: int, ranked: Pass) -> list[list[int]]:
    """High and low half of the uid, and place, of the rows with a score whose uids begin with the `done` bits of
    `prefix`."""
    return [
        [high, low, place]
        for uids, places in _tied(file, column, score, done, prefix, ranked)
        for high, low, place in zip(uids["f0"].tolist(), uids["f1"].tolist(), places.tolist(), strict=True)
    ]


def _tied(
    file: File, column: Column, score: float, done: int, prefix: int, ranked: Pass
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Uids, u8,u8, and places of the ranked rows with a score whose uids begin with the `done` bits of `prefix`."""
    bits, start = result(ranked, file), 0
    for rows in read(file, [column.name], [PLACE]):
        kept = bits_of(bits, start, start + len(rows.good))[rows.good]
        start += len(rows.good)
        kept &= scores(rows.table, column.name) == score
        uids, places = rows.arrays["uid"][kept], rows.arrays[PLACE][kept]
        for half, known in (("f0", min(done, 64)), ("f1", max(done - 64, 0))):
            if known:
                wanted = (prefix >> (done - 64 if half == "f0" and done > 64 else 0)) & ((1 << known) - 1)
                same = uids[half] >> np.uint64(64 - known) == np.uint64(wanted)
                uids, places = uids[same], places[same]
        yield uids, places


def ordered(values: np.ndarray) -> np.ndarray:
    """Numbers, none of them NaN, as u8 of the same order, -0.0 just below 0.0."""
    bits = values.astype(np.float64).view(np.int64)
    turned = bits >> 63  # all bits of a negative one; of the others the sign alone
    turned |= _SIGN
    return (bits ^ turned).view(np.uint64)


def _float(key: int) -> float:
    """The number that `ordered` made `key` of."""
    bits = key ^ (1 << 63) if key >> 63 else ~key & ((1 << 64) - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])


def _counted(counts: np.ndarray) -> np.ndarray:
    """The digits that stand somewhere and how often, int64 [digits, 2], of counts of all."""
    digits = np.flatnonzero(counts)
    return np.stack([digits, counts[digits]], axis=1)


def _at(counts: np.ndarray, place: int) -> tuple[int, int]:
    """The digit that stands at `place` in ascending order, and the place among its own."""
    upto = np.cumsum(counts)
    digit = int(np.searchsorted(upto, place, side="right"))
    return digit, place - int(upto[digit] - counts[digit])
