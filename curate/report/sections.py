"""What a report shows, in words and numbers, of what was found in a pool."""

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from poolbench.errors import UserError
from poolbench.uids import malformed

from curate.models.languages import detector
from curate.report import page as pages
from curate.report import words
from curate.report.charts import constant, distribution
from curate.report.gather import Findings
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
    Measure,
)

if TYPE_CHECKING:
    from curate.report.sheet import Sheet

Parts = Callable[[str], Collection[str]]  # of a text: its words, its host, its language

_QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}
_LISTED = 20  # words or hosts of a list
_CHANCE = 2.0  # a z-score that is not worth a line
_LANGUAGES = "fasttext_small"
# Groups that are held against each other, what their columns are called, and in which colours they are.
_PAIRS = (
    (KEPT, DROPPED, ("kept", "dropped"), ("kept", "dropped")),
    (ONLY, ONLY_OTHER, ("only here", "only there"), ("kept", "other")),
)


def sizes(subset: Members, found: Findings, files: int) -> list[pages.Fact]:
    runs = subset.runs()
    return [
        pages.Fact("Pool", f"{found.pool:,} rows"),
        pages.Fact("Kept", f"{found.rows[KEPT]:,} rows"),
        pages.Fact("Dropped", f"{found.rows[DROPPED]:,} rows"),
        pages.Fact("Kept share", pages.percent(found.rows[KEPT] / found.pool)),
        pages.Fact("Subset, with repeats", f"{subset.size:,} uids"),
        pages.Fact("Different uids", f"{runs.distinct:,}"),
        pages.Fact("Not in the pool", f"{runs.distinct - subset.seen():,} uids"),
        pages.Fact("Metadata files", f"{files:,}"),
    ]


def warnings(subset: Members, found: Findings) -> list[str]:
    lines = [f"left out: {reason}" for reason in found.unreadable[:5]]
    if len(found.unreadable) > 5:
        lines.append(f"{len(found.unreadable):,} metadata files were left out, of which five are named")
    if found.malformed:
        lines.append(f"left out: {malformed(found.malformed, found.first_malformed)}")
    missing = subset.runs().distinct - subset.seen()
    if missing:
        lines.append(f"{missing:,} uids of the subset are not in this pool; is it the pool the subset was made from?")
    if found.absent:
        lines.append(f"the pool has no column {', '.join(found.absent)}; what needs it is left out")
    return lines


def beside(subset: Members, other: Members, found: Findings) -> pages.Other:
    overlap = subset.overlap(other)
    shared = pages.percent(overlap.both / (overlap.both + overlap.first_only))
    facts = [
        pages.Fact("In both", f"{overlap.both:,} uids"),
        pages.Fact("Only in this one", f"{overlap.first_only:,} uids"),
        pages.Fact("Only in the other", f"{overlap.second_only:,} uids"),
        pages.Fact("Of this one, in both", shared),
        pages.Fact("Both of either (Jaccard)", pages.percent(overlap.jaccard)),
        pages.Fact("Kept share of the other", pages.percent(found.rows[OTHER] / found.pool)),
    ]
    parts = [("kept", overlap.first_only), ("both", overlap.both), ("other", overlap.second_only)]
    return pages.Other(Path(other.path).name, shared, facts, [pages.Part(kind, size) for kind, size in parts if size])


def distributions(found: Findings) -> list[pages.Distributions]:
    scores = [(Measure(name, SCORE_EDGES), found.histograms[name]) for name in found.score_columns]
    sizes = [(measure, found.histograms[name]) for name, measure in MEASURES.items() if name in found.histograms]
    groups = [("Scores", scores), ("Pictures and captions", sizes)]
    shown = [(title, [_chart(*one) for one in several if _any(one[1])]) for title, several in groups]
    return [pages.Distributions(title, charts) for title, charts in shown if charts]


def _any(histograms: dict[str, Histogram]) -> bool:
    return any(one.size for one in histograms.values())


def _chart(measure: Measure, histograms: dict[str, Histogram]) -> pages.Chart:
    shown = {group: one for group, one in histograms.items() if group in (KEPT, DROPPED, OTHER)}
    rows = [
        pages.Numbers(
            group,
            [
                _number(one.mean),
                *(_number(one.quantile(share)) for share in _QUANTILES.values()),
                pages.percent(one.missing / max(one.missing + one.size, 1)),
            ],
        )
        for group, one in shown.items()
    ]
    svg = "" if constant(shown) else distribution(measure, shown)
    return pages.Chart(measure.title, svg, list(_QUANTILES), rows)


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    digits = 0 if value == int(value) else 3 if abs(value) < 2 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def contrasts(found: Findings, names: tuple[str, str] | None) -> list[pages.Contrasts]:
    """Languages, words and hosts: kept beside dropped, then, with a second subset, what only one of them keeps."""
    groups = []
    for first, second, columns, kinds in _PAIRS:
        if first not in found.samples:
            continue
        title = f" only in {names[0]} and only in {names[1]}" if names and first == ONLY else ""
        sizes = (len(found.samples[first].hashes), len(found.samples[second].hashes))
        note = (
            f"Of {sizes[0]:,} of {found.samples[first].of:,} rows {columns[0]} and {sizes[1]:,} of "
            f"{found.samples[second].of:,} {columns[1]}, drawn at random: the share of rows with it."
        )
        for what, column, parts in _things():
            if column in found.absent:
                continue
            if isinstance(parts, str):
                groups.append(pages.Contrasts(what + title, parts, []))
                continue
            counts = [words.counted(found.samples[group].column(column), parts) for group in (first, second)]
            groups.append(pages.Contrasts(what + title, note, _lists(what, counts, sizes, columns, kinds)))
    return groups


def _things() -> list[tuple[str, str, Parts | str]]:
    """What is counted, in which column, and how a text is taken apart, or why it is not."""
    return [
        ("Languages", "text", _language()),
        ("Words", "text", words.words_of),
        ("Hosts", "url", lambda url: (words.host_of(url),)),
    ]


def _language() -> Parts | str:
    """The language of a caption, or why it cannot be told."""
    try:
        detect = detector(_LANGUAGES)
    except UserError as error:
        return f"Not identified: {error}"
    return lambda text: (detect([text])[0] or "(none)",)


def _lists(
    what: str, counts: Sequence[Counter[str]], sizes: tuple[int, int], names: tuple[str, str], kinds: tuple[str, str]
) -> list[pages.Listing]:
    rows = words.contrasts(counts[0], counts[1], sizes)
    if what == "Languages":
        return [_listing("Most frequent", words.top(rows, _LISTED, lambda row: row.first + row.second), names, kinds)]
    over = [row for row in rows if row.z > _CHANCE][:_LISTED]
    under = [row for row in reversed(rows) if row.z < -_CHANCE][:_LISTED]
    return [
        _listing(f"Over-represented, {names[0]}", over, names, kinds),
        _listing(f"Over-represented, {names[1]}", under, names, kinds),
        _listing(f"Most frequent, {names[0]}", words.top(rows, _LISTED, lambda row: row.first), names, kinds),
        _listing(f"Most frequent, {names[1]}", words.top(rows, _LISTED, lambda row: row.second), names, kinds),
    ]


def _listing(
    title: str, rows: Sequence[words.Contrast], names: tuple[str, str], kinds: tuple[str, str]
) -> pages.Listing:
    longest = max((max(row.first, row.second) for row in rows), default=1.0) or 1.0
    lines = [
        pages.Line(
            row.item,
            row.first,
            row.second,
            f"{row.first / longest:.3f}",
            f"{row.second / longest:.3f}",
            f"{row.z:+z.1f}",
        )
        for row in rows
    ]
    return pages.Listing(title, names, kinds, lines)


def contact_sheet(sheet: "Sheet", found: Findings) -> pages.Sheets:
    groups = []
    for group in (KEPT, DROPPED):
        cells = [
            pages.SheetCell(cell.picture, pages.cut(cell.caption), _scores(found.scores.get(cell.uid, {})))
            for cell in sheet.cells[group]
        ]
        groups.append(pages.SheetGroup(group.capitalize(), group, cells))
    left_out = f" {sheet.bad:,} of them could not be read." if sheet.bad else ""
    note = (
        f"Drawn at random from the {sheet.samples:,} samples of {sheet.shards} of {sheet.of_shards} shards.{left_out}"
    )
    return pages.Sheets("Samples", note, groups)


def _scores(scores: dict[str, float]) -> str:
    short = {name.removeprefix("clip_").removesuffix("_similarity_score"): value for name, value in scores.items()}
    return ", ".join(f"{name} {value:.3f}" for name, value in sorted(short.items()))
