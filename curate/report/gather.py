"""One pass over a pool: how many rows a subset keeps, the distributions of numbers, and samples of texts.

Numbers are counted over all rows, in bins. Words, languages and hosts are counted over samples: the rows of each group
whose uids have the least hashes, so that they depend on the seed and on nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.pool.files import BadFile, File, Rows, read
from curate.report.members import Members
from poolbench.errors import UserError, first_line
from poolbench.uids import malformed, uid_text

KEPT, DROPPED, OTHER = "kept", "dropped", "other"  # groups of rows; OTHER is what the second subset keeps
ONLY, ONLY_OTHER = "only", "only other"
_SCORE = ("clip_", "_similarity_score")
_OTHERS = ("url", "text", "original_width", "original_height")


class Measure(NamedTuple):
    """A number that each row has: what it is called, its bins, and whether an axis of it is logarithmic."""

    title: str
    edges: np.ndarray
    logarithmic: bool = False


MEASURES = {
    "words": Measure("Words of a caption", np.arange(0, 61, dtype=float)),
    "side": Measure("Shorter side, pixels", np.round(np.geomspace(16, 8192, 55), 3), logarithmic=True),
    "ratio": Measure("Longer side / shorter side", np.round(np.arange(1, 5.05, 0.1), 2)),
}


@dataclass
class Histogram:
    """Counts of one group's numbers; what lies beyond the first or last edge is counted in the first or last bin."""

    edges: np.ndarray
    counts: np.ndarray
    total: float = 0.0
    missing: int = 0  # null or NaN

    @classmethod
    def of(cls, edges: np.ndarray) -> "Histogram":
        return cls(edges, np.zeros(len(edges) - 1, np.int64))

    def add(self, values: np.ndarray) -> None:
        """float64 [n], NaN where a row has none."""
        known = values[np.isfinite(values)]
        places = np.clip(np.searchsorted(self.edges, known, side="right") - 1, 0, len(self.counts) - 1)
        self.counts += np.bincount(places, minlength=len(self.counts))
        self.total += float(known.sum())
        self.missing += len(values) - len(known)

    @property
    def size(self) -> int:
        return int(self.counts.sum())

    @property
    def mean(self) -> float | None:
        return self.total / self.size if self.size else None

    def quantile(self, share: float) -> float | None:
        """The lower edge of the bin in which that share of the numbers is reached, None where there are none."""
        if not self.size:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.size, side="left"))
        return float(self.edges[place])


@dataclass
class Sample:
    """The rows of one group with the least hashes, at most `limit`."""

    limit: int
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    texts: pa.Table | None = None
    of: int = 0  # rows of the group

    def add(self, chosen: np.ndarray, hashes: np.ndarray, table: pa.Table) -> None:
        """Take in the chosen ones of some rows, bool [n] and uint64 [n], with their texts."""
        self.of += int(chosen.sum())
        near = chosen & (hashes < self.hashes[-1]) if len(self.hashes) == self.limit else chosen
        if not near.any():
            return
        hashes, new = np.concatenate([self.hashes, hashes[near]]), table.filter(pa.array(near))
        joined = new if self.texts is None else pa.concat_tables([self.texts, new])
        order = np.argsort(hashes, kind="stable")[: self.limit]
        # Combined, as a chunk from which a single row is left would keep all of its memory.
        self.hashes, self.texts = hashes[order], joined.take(pa.array(order)).combine_chunks()

    def column(self, name: str) -> list[str | None]:
        """The texts, or the addresses, of the sampled rows."""
        values: list[str | None] = [] if self.texts is None else self.texts[name].to_pylist()
        return values


@dataclass
class Findings:
    """What the pass has found.

    Attributes:
        rows: of each group.
        histograms: measure or score column -> group -> its histogram.
        samples: group -> its sample.
        scores: uid -> its scores by column, of the uids that were asked for.
        malformed: rows with uids that are none.
        first_malformed: of them.
        unreadable: why files were left out.
        absent: columns that no file has.
    """

    rows: dict[str, int]
    histograms: dict[str, dict[str, Histogram]]
    samples: dict[str, Sample]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    malformed: int = 0
    first_malformed: str = ""
    unreadable: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    @property
    def pool(self) -> int:
        """Rows with a good uid."""
        return self.rows[KEPT] + self.rows[DROPPED]

    @property
    def score_columns(self) -> list[str]:
        """The score columns that hold a score at all."""
        return [
            name
            for name in sorted(self.histograms)
            if name not in MEASURES and any(one.size for one in self.histograms[name].values())
        ]


@dataclass(frozen=True)
class Question:
    """What to find out: about which subset, beside which other, from how many texts, and scores of which uids."""

    subset: Members
    other: Members | None
    texts: int
    seed: int
    wanted: Sequence[str] = ()

    @property
    def groups(self) -> tuple[str, ...]:
        return (KEPT, DROPPED) if self.other is None else (KEPT, DROPPED, OTHER, ONLY, ONLY_OTHER)


def gather(files: Iterable[File], question: Question) -> Findings:
    """Read the whole pool once. Files that cannot be read are left out and named.

    Raises:
        UserError: none of them can be read.
    """
    groups = question.groups
    found = Findings(dict.fromkeys(groups, 0), {}, {name: Sample(question.texts) for name in groups})
    seen: set[str] = set()
    for file in files:
        try:
            columns = columns_of(file)
            seen |= set(columns)
            for rows in read(file, columns):
                _take(rows, question, found)
        except BadFile as error:
            found.unreadable.append(str(error))
        except pa.ArrowException as error:  # as for a text that is no UTF-8, or a number that is a text
            found.unreadable.append(f"{file.path} holds what it should not: {first_line(error)}")
    found.absent = [name for name in _OTHERS if name not in seen]
    if not found.pool:
        wrong = f": {malformed(found.malformed, found.first_malformed)}" if found.malformed else ""
        raise UserError(found.unreadable[0] if found.unreadable else f"the pool has no rows with a uid{wrong}")
    return found


def columns_of(file: File) -> list[str]:
    """The columns of a file that a report is made of; a pool needs none of them but the uid.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        with fsspec.open(file.path) as opened:
            names = pq.read_schema(opened).names
    except (OSError, ValueError, pa.ArrowException) as error:
        raise BadFile(f"{file.path} cannot be read: {first_line(error)}") from error
    return [name for name in names if name in _OTHERS or _is_score(name)]


def _is_score(column: str) -> bool:
    return column.startswith(_SCORE[0]) and column.endswith(_SCORE[1])


def _take(rows: Rows, question: Question, found: Findings) -> None:
    uids, table = rows.arrays["uid"], rows.table
    found.malformed += len(rows.malformed)
    found.first_malformed = found.first_malformed or (rows.malformed[0] if rows.malformed else "")
    groups = dict(_groups(uids, question))
    hashes = hashed(uids, question.seed)
    texts = pa.table({name: _strings(table, name) for name in ("text", "url")})
    for group, chosen in groups.items():
        found.rows[group] += int(chosen.sum())
        found.samples[group].add(chosen, hashes, texts)
    numbers = dict(_numbers(table))
    for name, values in numbers.items():
        edges = MEASURES[name].edges if name in MEASURES else SCORE_EDGES
        histograms = found.histograms.setdefault(name, {group: Histogram.of(edges) for group in question.groups})
        for group, chosen in groups.items():
            histograms[group].add(values[chosen])
    _look_up(uids, numbers, question.wanted, found)


def _groups(uids: np.ndarray, question: Question) -> Iterator[tuple[str, np.ndarray]]:
    """Which rows are of which group, bool [rows]."""
    kept = question.subset.times(uids) > 0
    yield KEPT, kept
    yield DROPPED, ~kept
    if question.other is not None:
        other = question.other.times(uids) > 0
        yield from ((OTHER, other), (ONLY, kept & ~other), (ONLY_OTHER, other & ~kept))


SCORE_EDGES = np.round(np.arange(-1, 1.0025, 0.005), 3)


def _numbers(table: pa.Table) -> Iterator[tuple[str, np.ndarray]]:
    """Every measure of the rows, float64 [rows] with NaN for none."""
    names = table.column_names
    for name in names:
        if _is_score(name):
            yield name, _floats(table[name])
    if "text" in names:
        yield "words", _floats(word_counts(table["text"]))
    if {"original_width", "original_height"} <= set(names):
        width, height = (_floats(table[f"original_{side}"]) for side in ("width", "height"))
        shorter = np.where((width > 0) & (height > 0), np.minimum(width, height), np.nan)
        yield "side", shorter
        yield "ratio", np.maximum(width, height) / shorter


def word_counts(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Words between blanks, of each text; null where there is none."""
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.large_string()))
    counts = pc.list_value_length(pc.utf8_split_whitespace(trimmed))
    return pc.if_else(pc.equal(pc.binary_length(trimmed), 0), 0, counts)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    values: np.ndarray = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return values


def _strings(table: pa.Table, name: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        return pa.chunked_array([pa.nulls(len(table), pa.string())])
    return table[name].cast(pa.string())


def hashed(uids: np.ndarray, seed: int) -> np.ndarray:
    """A number for each uid that looks random and depends on uid and seed alone, uint64 [n].

    The mixing is splitmix64's (Steele, Lea and Flood 2014), over both halves.
    """
    state = np.full(len(uids), seed, np.uint64)
    for half in ("f0", "f1"):
        state = (state ^ uids[half]) + np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def _look_up(uids: np.ndarray, numbers: Mapping[str, np.ndarray], wanted: Sequence[str], found: Findings) -> None:
    """Note the scores of the wanted uids that are among these rows."""
    if not wanted:
        return
    halves = {int(uid[:16], 16) for uid in wanted}
    for row in np.flatnonzero(np.isin(uids["f0"], np.array(sorted(halves), np.uint64))).tolist():
        uid = uid_text(uids[row])
        scores = {name: float(values[row]) for name, values in numbers.items() if name not in MEASURES}
        found.scores[uid] = {name: value for name, value in scores.items() if np.isfinite(value)}
