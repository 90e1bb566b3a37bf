"""MetaCLIP's curation: pairs whose caption names an entry of a list, few of those entries that very many captions name.

Published: https://arxiv.org/abs/2309.16671 (a list for English), https://arxiv.org/abs/2507.22062 (lists by language).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.files import digest_bytes
from poolbench.options import option, source

from curate.models.entries import Entries, Metadata, described, load_entries
from curate.models.languages import PUBLISHED
from curate.pool.chosen import bits_of, kept_bits
from curate.pool.files import File, read
from curate.pool.hashes import hashed, mixed
from curate.pool.passes import Pass, Passes, result
from curate.selectors.base import AMONG, Filter

TAIL = 0.06  # of the 400 million published pairs' matches, about this share is of entries at most as frequent as t
ENGLISH = "en"
_SURPLUS = np.uint64(11)  # bits by which a hash is longer than what a float64 holds


@dataclass
class Options:
    """The options; t follows from one of the three."""

    metadata: str = source("JSON list of entries, or an object of such lists by language; or published; or wordnet")
    t: float | None = option(
        "captions of an entry that are kept, about, where more name it; of English's entries", None
    )
    tail: float | None = option(
        f"t from the share of matches of entries that fewer name; {TAIL} where none is given", None
    )
    size: int | None = option("t from the number of rows that are kept", None)
    seed: int = option("another one keeps others", 0)
    language: str = option("for lists by language: the detector, see curate/models/languages.py", PUBLISHED)
    wordnet: str = source("folder of WordNet 3.0; empty: Debian's wordnet-base or a downloaded one", "")
    of: Any = option(AMONG, None)


class MetaClip(Filter):
    """Keeps a row if one of the entries in its caption draws it; one that n captions name does so with probability
    min(1, t / n).

    What an entry draws depends on its text, the uid and the seed alone. So it draws more with a larger t, and the same
    rows whatever the pool's files are. With `of`, only the captions of rows that it keeps are counted.
    """

    columns = ("text",)

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        given = [name for name in ("t", "tail", "size") if getattr(options, name) is not None]
        if len(given) > 1:
            raise UserError(f"filter=metaclip takes one of t, tail and size, not {' and '.join(given)}")
        if options.t is not None and not 0 < options.t < np.inf:
            raise UserError(f"filter.t={options.t} must be a positive number of captions")
        if options.tail is not None and not 0 < options.tail < 1:
            raise UserError(f"filter.tail={options.tail} must lie between 0 and 1")
        if options.size is not None and options.size < 1:
            raise UserError(f"filter.size={options.size} must be positive")
        self._balance: Balance | None = None
        self._thresholds = np.zeros(0)

    def learn(self, passes: Passes) -> None:
        options = self.options
        entries = load_entries(options.metadata, options.wordnet)
        if options.size is not None and len(entries.lists) > 1:
            raise UserError("filter.size= is for one list of entries; give filter.tail= for lists by language")
        metadata = described(entries, options.metadata, options.wordnet, options.language)
        ranked = [] if self.among is None else [passes.made(kept_bits, self.among)]
        counts = np.zeros(sum(map(len, entries.lists.values())), np.int64)
        rows = np.zeros(2, np.int64)
        for _, found in passes.map(count_entries, metadata, *ranked):
            rows += found[0]
            counts[found[1:, 0]] += found[1:, 1]
        self._balance = Balance(metadata, counts, options.seed)
        if options.size is None:
            self._thresholds = self._solved(entries, counts)
        else:
            self._thresholds = np.array([of_size(passes, self._balance, options.size, ranked)])
        by_name = dict(zip(entries.lists, self._thresholds.tolist(), strict=True))
        self.state = {
            "t": by_name[""] if list(by_name) == [""] else by_name,
            "metadata_sha256": metadata.digest,
            "entries": len(counts),
            "entries_given_twice": entries.duplicates,
            "entries_blank": entries.blanks,
            "entries_matched": int((counts > 0).sum()),
            "matches": int(counts.sum()),
            "rows_counted": int(rows[0]),
            "rows_without_match": int(rows[1]),
            "counts_sha256": digest_bytes(counts.tobytes()),
        }

    def _solved(self, entries: Entries, counts: np.ndarray) -> np.ndarray:
        """Each list's t, float64 [lists]."""
        ends = np.cumsum([len(one) for one in entries.lists.values()])[:-1]
        by_language = dict(zip(entries.lists, np.split(counts, ends), strict=True))
        t, tail = self.options.t, self.options.tail
        if t is None:
            return np.array([of_tail(one, TAIL if tail is None else tail) for one in by_language.values()])
        if len(by_language) == 1:
            return np.array([float(t)])
        if ENGLISH not in by_language:
            raise UserError(f"filter.t= is that of English's entries, {ENGLISH!r}, of which there are none; give tail=")
        tail = tail_of(by_language[ENGLISH], t)
        return np.array([float(t) if name == ENGLISH else of_tail(one, tail) for name, one in by_language.items()])

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        assert self._balance is not None
        needed, places = self._balance.needed(rows["text"], arrays["uid"])
        kept: np.ndarray = needed < self._thresholds[places]
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {"rows without a caption": rows["text"].null_count}


class Balance:
    """What is drawn for the rows of a pool."""

    def __init__(self, metadata: Metadata, counts: np.ndarray, seed: int) -> None:
        """
        Args:
            counts: how many captions name each entry, int64 [entries].
        """
        self._metadata, self._counts, self._seed = metadata, counts, seed

    def identity(self) -> Any:
        return [self._metadata.identity(), digest_bytes(self._counts.tobytes()), self._seed]

    def needed(self, texts: pa.ChunkedArray, uids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The t above which each row is kept, and the number of the list that its entries are of.

        An entry that n captions name keeps a row if a number that is uniform over [0, 1) lies below t / n.

        Returns:
            float64 [rows], infinite where the caption names no entry; int64 [rows].
        """
        matcher = self._metadata.matcher()
        rows, entries = matcher.find(texts)
        bits = mixed(hashed(uids, self._seed)[rows] ^ matcher.hashes[entries])
        drawn = (bits >> _SURPLUS) / 2.0**53
        least = np.full(len(texts), np.inf)
        np.minimum.at(least, rows, drawn * self._counts[entries])
        places = np.zeros(len(texts), np.int64)
        places[rows] = matcher.lists[entries]
        return least, places


def count_entries(file: File, metadata: Metadata, ranked: Pass | None = None) -> np.ndarray:
    """How many captions of a file name each entry: rows of (entry, captions), int32 [1 + entries found, 2], after a row
    of (captions, captions that name none). With `ranked`, a pass of `kept_bits`, of its rows only."""
    matcher = metadata.matcher()
    counts = np.zeros(len(matcher.hashes), np.int64)
    rows = matched = 0
    for texts, _ in _read(file, ranked):
        found = matcher.find(texts)
        counts += np.bincount(found.entries, minlength=len(counts))
        rows += len(texts)
        matched += len(np.unique(found.rows))
    named = np.flatnonzero(counts)
    return np.concatenate([[[rows, rows - matched]], np.stack([named, counts[named]], axis=1)]).astype(np.int32)


def needed_thresholds(file: File, balance: Balance, ranked: Pass | None = None) -> np.ndarray:
    """The t above which each row of a file is kept, float64, of rows that some t keeps."""
    found = [balance.needed(texts, uids)[0] for texts, uids in _read(file, ranked)]
    every: np.ndarray = np.concatenate([np.zeros(0), *found])
    some: np.ndarray = every[np.isfinite(every)]
    return some


def _read(file: File, ranked: Pass | None) -> Iterator[tuple[pa.ChunkedArray, np.ndarray]]:
    """Captions and uids of a file, piece by piece."""
    kept = None if ranked is None else result(ranked, file)
    start = 0
    for rows in read(file, ("text",)):
        texts, uids = rows.table["text"], rows.arrays["uid"]
        if kept is not None:
            some = bits_of(kept, start, start + len(rows.good))[rows.good]
            texts, uids = texts.filter(pa.array(some)), uids[some]
        start += len(rows.good)
        yield texts, uids


def of_tail(counts: np.ndarray, tail: float) -> float:
    """The t below which entries have nearest to a share of all matches; 1 where nothing matches."""
    ascending = np.sort(counts[counts > 0])
    if not len(ascending):
        return 1.0
    shares = np.cumsum(ascending) / ascending.sum()
    return float(ascending[np.abs(shares - tail).argmin()])


def tail_of(counts: np.ndarray, t: float) -> float:
    """The share of all matches that is of entries with fewer than t."""
    return float(counts[counts < t].sum() / max(counts.sum(), 1))


def of_size(passes: Passes, balance: Balance, size: int, ranked: Sequence[Pass]) -> float:
    """The t that keeps a number of rows; more where rows of one uid and caption stand at its end.

    Raises:
        UserError: fewer rows name an entry.
    """

    def found() -> Iterator[np.ndarray]:
        return (needed.view(np.uint64) for _, needed in passes.map(needed_thresholds, balance, *ranked))

    total = sum(map(len, found()))
    if total < size:
        raise UserError(f"filter.size={size:,} is more than the {total:,} rows whose caption names an entry")
    prefix, place = np.uint64(0), size - 1
    for shift in (48, 32, 16, 0):  # floats that are not negative have the order of their bits
        counts = np.zeros(2**16, np.int64)
        for keys in found():
            some = keys if shift == 48 else keys[keys >> np.uint64(shift + 16) == prefix]
            counts += np.bincount((some >> np.uint64(shift)) & np.uint64(0xFFFF), minlength=2**16)
        digit = int(np.searchsorted(np.cumsum(counts), place, side="right"))
        place -= int(counts[:digit].sum())
        prefix = prefix << np.uint64(16) | np.uint64(digit)
    last = np.array([prefix], np.uint64).view(np.float64)[0]
    return float(np.nextafter(last, np.inf))
