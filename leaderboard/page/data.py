"""What the page's script is given: of the leaderboard what the page shows, small enough for 10,000 entries."""

import heapq
import math
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from poolbench.files import digest_json

from leaderboard import charts
from leaderboard.findings import TITLES, across, correlations, score_of
from leaderboard.models import (
    Audit,
    Board,
    BoardTask,
    Citation,
    Entry,
    Leaderboard,
    Method,
    Overlap,
    Reference,
    Score,
)
from leaderboard.probe_rows import several_tasks, zero_shot_against_probe

UNIT = 1e-5  # scores are whole numbers of it, which halves the size of the page
_LONGEST = 300  # characters of a text that are shown
_UNKNOWN = Score(value=None, stderr=None)

TRACKS = {"filtering": "Filtering", "byod": "Bring your own data"}
UNVERIFIED = (
    "By score, without ranks: these entries met every condition, but nothing pins the data they were evaluated on, so "
    "that nobody can tell whether they are the same as others'."
)
_GROUPS = {**TITLES, "wilds": "WILDS"}  # of tasks; others are shown by their own name


class Row(NamedTuple):
    """An entry of any kind. Scores and errors are in units of UNIT, in the order of the board's aggregates or tasks."""

    id: str
    kind: str  # one of charts.KINDS
    rank: int | None
    last: int | None
    method: str
    author: str
    link: str | None
    size: int | None
    seed: int | None
    finished: str | None
    version: str | None
    bad: int | None  # samples that could not be read
    notes: list[str]  # why it is not ranked; where the sources of a published one disagree
    sources: list[int]  # places in the board's citations
    aggregates: list[int | None]
    errors: list[int | None]  # standard errors of the aggregates
    scores: list[int | None]  # of the tasks; empty where none is known
    task_errors: list[int | None]
    audit: list[Any] | None  # see _audit
    overlap: list[int] | None  # samples that show an evaluation picture, of how many; tasks looked at, of how many


def page_data(leaderboard: Leaderboard) -> dict[str, Any]:
    """Everything the script needs, as plain values."""
    return {
        "unit": UNIT,
        "fields": Row._fields,
        "kinds": charts.KINDS,
        "unverified": UNVERIFIED,
        # What keeps a chart's labels apart is done to the compiled chart, so the script has to do it.
        "labels": charts.laid_out({"marks": [{"name": "labels_marks"}]})["marks"][0],
        "boards": [_board(board) for board in leaderboard.boards],
        "pairs": [_pair(leaderboard, *pair) for pair in combinations(leaderboard.boards, 2) if _like(*pair)],
    }


def shown(text: str) -> str:
    """Text of a submission as one may show it: nothing that is unseen or turns its neighbours around, no novels."""
    visible = "".join(letter if letter.isprintable() else "\ufffd" for letter in text[:_LONGEST])
    return visible if len(text) <= _LONGEST else f"{visible}\u2026"


def link(url: str | None) -> str | None:
    """An address that is safe to link to. The models refuse others, but this is where it would do harm."""
    return url if url is not None and url.startswith(("http://", "https://")) else None


def aggregate_names(board: Board) -> list[str]:
    """In the order of the columns: what ranks comes first."""
    return sorted(board.aggregates, key=lambda name: name != "average")


def merged(board: Board) -> list[Entry | Reference]:
    """The ranked entries in their order, with the published results in their places."""
    ranked: list[Entry | Reference] = [*board.ranked]
    return list(heapq.merge(ranked, sorted(board.references, key=_place), key=_place))


def seeded(board: Board) -> list[Method]:
    """The methods with several seeds and what they are compared with; none where no method has several."""
    if all(len(method.seeds) < 2 for method in board.methods):
        return []
    return [method for method in board.methods if len(method.seeds) > 1 or method.baseline]


def _place(entry: Entry | Reference) -> tuple[float, float]:
    average, imagenet = (score_of(entry, name).value for name in ("average", "imagenet"))
    return (math.inf if average is None else -average, math.inf if imagenet is None else -imagenet)


def _board(board: Board) -> dict[str, Any]:
    names = aggregate_names(board)
    tasks = [task for task in board.tasks if task.main_metric is not None]
    citations = _citations(board)
    rows = [
        _entry(entry, "entry", names, tasks) if isinstance(entry, Entry) else _reference(entry, names, tasks, citations)
        for entry in merged(board)
    ]
    rows += [_entry(entry, "unverified", names, tasks) for entry in board.unverified]
    rows += [_entry(entry, "unranked", names, tasks) for entry in board.unranked]
    kinds = [kind for kind in charts.KINDS if any(row.kind == kind for row in rows)]
    return {
        "track": board.track,
        "trackTitle": TRACKS[board.track],
        "scale": shown(board.scale),
        "pool": board.pool_size,
        "aggregates": [{"name": name, "title": TITLES.get(name, name)} for name in names],
        "tasks": [
            {"name": shown(task.name), "metric": task.main_metric, "group": _group_title("".join(task.groups[:1]))}
            for task in tasks
        ],
        "noise": [board.noise.values.get(name) for name in names] if board.noise else [None for _ in names],
        "noiseSource": _cited(board.noise.citation) if board.noise else None,
        "citations": [_cited(citation) for citation in citations],
        "rows": rows,
        "methods": [_method(method) for method in seeded(board)],
        "correlations": [
            {**row._asdict(), "task": shown(row.task), "group": _group_title(row.group)} for row in correlations(board)
        ],
        "probes": _probes(board),
        "charts": {
            "size": {name: charts.size_against_score(TITLES.get(name, name), kinds) for name in names},
            "correlations": charts.correlations(),
        },
    }


def _probes(board: Board) -> dict[str, Any] | None:
    """Zero-shot against linear probe; None where fewer than two entries have such probes."""
    found = zero_shot_against_probe(board)
    if len(found.rows) < 2:
        return None
    names = {task.key: task.name for task in board.tasks}
    kinds = [kind for kind in charts.KINDS if any(row.kind == kind for row in found.rows)]
    return {
        "rows": [{**row._asdict(), "label": shown(row.label)} for row in found.rows],
        "tasks": [shown(names[key]) for key in found.tasks],
        "chart": charts.zero_shot_against_probe(several_tasks(found.tasks), kinds),
    }


def _entry(entry: Entry, kind: str, names: Sequence[str], tasks: Sequence[BoardTask]) -> Row:
    aggregates = [score_of(entry, name) for name in names]
    scores = [entry.scores.get(task.key, _UNKNOWN) for task in tasks] if entry.scores else []
    return Row(
        id=entry.digest[:12],
        kind=kind,
        rank=entry.rank,
        last=entry.rank_last,
        method=shown(entry.method),
        author=shown(entry.author),
        link=link(entry.writeup),
        size=entry.dataset_size,
        seed=entry.seed,
        finished=entry.finished and shown(entry.finished[:10]),
        version=shown(entry.version),
        bad=entry.bad.samples,
        notes=[shown(reason) for reason in entry.deviations],
        sources=[],
        aggregates=[_units(score.value) for score in aggregates],
        errors=[_units(score.stderr) for score in aggregates],
        scores=[_units(score.value) for score in scores],
        task_errors=[_units(score.stderr) for score in scores],
        audit=None if entry.audit is None else _audit(entry.audit),
        overlap=None if entry.overlap is None else _overlap(entry.overlap, len(entry.scores)),
    )


def _reference(
    entry: Reference, names: Sequence[str], tasks: Sequence[BoardTask], citations: Sequence[Citation]
) -> Row:
    return Row(
        id=digest_json([entry.method, entry.author])[:12],
        kind="published",
        rank=None,
        last=None,
        method=shown(entry.method),
        author=shown(entry.author),
        link=link(entry.citations[0].url) if entry.citations else None,
        size=entry.dataset_size,
        seed=None,
        finished=None,
        version=None,
        bad=None,
        notes=[shown(note) for note in entry.notes],
        sources=sorted(citations.index(citation) for citation in entry.citations),
        aggregates=[_units(entry.aggregates.get(name)) for name in names],
        errors=[None for _ in names],
        scores=[_units(entry.scores.get(task.key)) for task in tasks] if entry.scores else [],
        task_errors=[],
        audit=None,
        overlap=None,
    )


def _audit(audit: Audit) -> list[Any]:
    """Counts, groups and regressions in the order in which the script takes them; shares are in units of UNIT."""
    different = [
        [shown(one.attribute), shown(one.group), one.raw, *map(_units, (one.ratio, one.low, one.high))]
        for one in audit.different
    ]
    lines = [[shown(one.attribute), round(one.r, 3), float(f"{one.p:.3g}"), one.groups] for one in audit.amplification]
    return [audit.pool, audit.kept, audit.groups, audit.less, audit.more, different, lines]


def _overlap(overlap: Overlap, tasks: int) -> list[int]:
    return [overlap.found, overlap.samples, len(overlap.tasks), tasks]


def _method(method: Method) -> dict[str, Any]:
    """A method over its seeds; numbers are in units of UNIT."""
    average, gain = method.aggregates["average"], method.gain
    return {
        "method": shown(method.method),
        "author": shown(method.author),
        "seeds": len(method.seeds),
        "size": method.dataset_size,
        "baseline": method.baseline,
        "average": [_units(average.mean), _units(average.sd)],
        "gain": None if gain is None else [_units(gain.value), _units(gain.low), _units(gain.high)],
    }


def _pair(leaderboard: Leaderboard, small: Board, large: Board) -> dict[str, Any]:
    """How the ranks at one scale predict those at a larger one."""
    found = across(leaderboard, small.track, small.scale, large.scale)
    return {
        "track": small.track,
        "scales": [shown(small.scale), shown(large.scale)],
        "rho": found.rho,
        "rows": [{**place._asdict(), "label": shown(place.label)} for place in found.places],
        "chart": charts.across_scales(small.scale, large.scale),
    }


def _like(one: Board, other: Board) -> bool:
    """Whether two boards have the same track and the same tasks, so that their averages are of one kind."""
    return one.track == other.track and [t.key for t in one.tasks] == [t.key for t in other.tasks]


def _citations(board: Board) -> list[Citation]:
    """Each once, in the order of the entries that rely on them."""
    return list(dict.fromkeys(citation for entry in merged(board) for citation in getattr(entry, "citations", [])))


def _cited(citation: Citation) -> dict[str, str | None]:
    return {"text": shown(citation.text), "url": link(citation.url)}


def _group_title(group: str) -> str:
    return _GROUPS.get(group, group.capitalize() or "Other")


def _units(value: float | None) -> int | None:
    return None if value is None else round(value / UNIT)
