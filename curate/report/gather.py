"""One pass over a pool: how many rows a subset keeps, the distributions of numbers, and samples of texts.

Numbers are counted over all rows, in bins. Words, languages and hosts are counted over samples: the rows of each group
whose uids have the least hashes, so that they depend on the seed and on nothing else. Each file is counted by itself,
in any process; what was found is then joined in the order of the files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from poolbench.errors import UserError, first_line
from poolbench.uids import malformed, uid_text

from curate.pool.files import BadFile, File, Rows, read
from curate.pool.hashes import hashed
from curate.pool.passes import Passes
from curate.report.members import Members
from curate.report.statistics import (
    DROPPED,
    KEPT,
    MEASURES,
    ONLY,
    ONLY_OTHER,
    OTHER,
    SCORE_EDGES,
    Histogram,
    Sample,
)

_SCORE = ("clip_", "_similarity_score")
_OTHERS = ("url", "text", "original_width", "original_height")


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


@dataclass
class Findings:
    """What was found in a file, or in all so far.

    Attributes:
        rows: of each group.
        histograms: measure or score column -> group -> its histogram.
        samples: group -> its sample.
        scores: uid -> its scores by column, of the uids that were asked for.
        malformed: rows with uids that are none.
        first_malformed: of them.
        columns: those that a report is made of and that a file has.
        places: of a file, where in the subset its uids stand, each once, int64.
        unreadable: why files were left out.
    """

    rows: dict[str, int]
    samples: dict[str, Sample]
    histograms: dict[str, dict[str, Histogram]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    malformed: int = 0
    first_malformed: str = ""
    columns: set[str] = field(default_factory=set)
    places: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def none(cls, question: Question) -> "Findings":
        """Of no rows yet."""
        groups = question.groups
        return cls(dict.fromkeys(groups, 0), {name: Sample(question.texts) for name in groups})

    @property
    def pool(self) -> int:
        """Rows with a good uid."""
        return self.rows[KEPT] + self.rows[DROPPED]

    @property
    def absent(self) -> list[str]:
        """Columns that no file has."""
        return [name for name in _OTHERS if name not in self.columns]

    @property
    def score_columns(self) -> list[str]:
        """The score columns that hold a score at all."""
        return [
            name
            for name in sorted(self.histograms)
            if name not in MEASURES and any(one.size for one in self.histograms[name].values())
        ]

    def merge(self, other: "Findings") -> None:
        """Take in what was found in the file that comes after these."""
        for group, rows in other.rows.items():
            self.rows[group] += rows
            self.samples[group].merge(other.samples[group])
        for name, histograms in other.histograms.items():
            if name in self.histograms:
                for group, histogram in histograms.items():
                    self.histograms[name][group].merge(histogram)
            else:
                self.histograms[name] = histograms
        self.scores |= other.scores
        self.malformed += other.malformed
        self.first_malformed = self.first_malformed or other.first_malformed
        self.columns |= other.columns


def gather(passes: Passes, question: Question) -> Findings:
    """Read the whole pool once. Files that cannot be read are left out and named.

    Raises:
        UserError: none of them can be read, or they have no rows.
    """
    found = Findings.none(question)
    for _, one in passes.map(found_in, question):
        question.subset.note(one.places)
        found.merge(one)
    found.unreadable = [passes.bad[file.name] for file in passes.files if file.name in passes.bad]
    if not found.pool:
        wrong = f": {malformed(found.malformed, found.first_malformed)}" if found.malformed else ""
        raise UserError(found.unreadable[0] if found.unreadable else f"the pool has no rows with a uid{wrong}")
    return found


def found_in(file: File, question: Question) -> Findings:
    """What there is to find in one file.

    Raises:
        BadFile: it cannot be read.
    """
    columns = columns_of(file)
    found = Findings.none(question)
    found.columns |= set(columns)
    places = [_take(rows, question, found) for rows in read(file, columns)]
    found.places = np.unique(np.concatenate(places)) if places else found.places
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


def _take(rows: Rows, question: Question, found: Findings) -> np.ndarray:
    """Count some rows; where in the subset their uids stand."""
    uids, table = rows.arrays["uid"], rows.table
    found.malformed += len(rows.malformed)
    found.first_malformed = found.first_malformed or (rows.malformed[0] if rows.malformed else "")
    places, times = question.subset.find(uids)
    groups = dict(_groups(uids, times > 0, question.other))
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
    kept_places: np.ndarray = places[times > 0]
    return kept_places


def _groups(uids: np.ndarray, kept: np.ndarray, second: Members | None) -> Iterator[tuple[str, np.ndarray]]:
    """Which rows are of which group, bool [rows]."""
    yield KEPT, kept
    yield DROPPED, ~kept
    if second is not None:
        other = second.find(uids)[1] > 0
        yield from ((OTHER, other), (ONLY, kept & ~other), (ONLY_OTHER, other & ~kept))


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


def _look_up(uids: np.ndarray, numbers: Mapping[str, np.ndarray], wanted: Sequence[str], found: Findings) -> None:
    """Note the scores of the wanted uids that are among these rows."""
    if not wanted:
        return
    halves = {int(uid[:16], 16) for uid in wanted}
    for row in np.flatnonzero(np.isin(uids["f0"], np.array(sorted(halves), np.uint64))).tolist():
        uid = uid_text(uids[row])
        scores = {name: float(values[row]) for name, values in numbers.items() if name not in MEASURES}
        found.scores[uid] = {name: value for name, value in scores.items() if np.isfinite(value)}
