"""The leaderboard's charts as figures for papers: PNG, SVG and PDF.

    python -m leaderboard plot site/leaderboard.json kind=size scale=small out=size.pdf
    python -m leaderboard plot site/leaderboard.json kind=across scale=small,medium out='across.{pdf,png}'

`kind` is one of
    scaling       score against samples seen, a line for each method over the scales
    size          score against dataset size
    heat_map      scores of each task, coloured by the difference to the method `baseline`; by default the one with
                  the largest dataset, which is the nearest to no filtering
    across        ranks of the same methods at two scales; prints Spearman's rho
    correlations  ImageNet with each other task
    probes        zero-shot against linear probe, of the tasks that all entries with probes have, or of metric=<task>

`metric` is an aggregate or a task. `top` limits scaling, size and heat_map to the best methods; the others show all.
`width` is in inches: by default a column's 3.3, but 5 for scaling, with its names beside the lines, and a page's 6.8
for the heat map. The same leaderboard gives the same SVG, PNG and PDF, byte for byte; not so a PDF with names in
letters that take a second font, whose parts come in any order.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import braceexpand
import vl_convert

from poolbench import recipes
from poolbench.errors import UserError, nearest
from poolbench.files import atomic
from poolbench.options import option, output

from leaderboard import charts, findings
from leaderboard.models import TRACKS, Board, Entry, Leaderboard, Reference, Track, read_leaderboard
from leaderboard.probe_rows import several_tasks, zero_shot_against_probe
from tasks.registry import suite_of

_INCH = 72  # of a chart's pixels
_COLUMN, _WIDER, _PAGE = 3.3, 5.0, 6.8  # inches
_PPI = 300  # of a PNG

# Text of 7 points on white, in a font that the renderer carries with it, so that every machine draws the same.
PAPER: charts.Spec = {
    "background": "white",
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 7,
        "titleFontSize": 7.5,
        "titleFontWeight": "normal",
        "labelColor": "black",
        "titleColor": "black",
        "domainColor": "black",
        "tickColor": "black",
        "tickSize": 3,
        "gridColor": "#e6e6e6",
        "gridWidth": 0.5,
        "domainWidth": 0.6,
        "tickWidth": 0.6,
    },
    "legend": {
        "labelFontSize": 7,
        "titleFontSize": 7,
        "titleFontWeight": "normal",
        "symbolSize": 30,
        "gradientThickness": 8,
    },
    "text": {"fontSize": 6.5},
}


@dataclass
class PlotOptions:
    """The options of `plot`."""

    kind: str = option("size | scaling | heat_map | across | correlations | probes")
    out: str = output("figure to write, .svg, .pdf or .png; a brace pattern for several")
    track: str | None = option("filtering | byod; null: the one that has entries", None)
    scale: str | None = option("of the board, two with a comma for kind=across; null: the one that has entries", None)
    metric: str = option("an aggregate or a task", "average")
    baseline: str | None = option("method that others are compared with, for kind=heat_map", None)
    top: int = option("entries that are drawn", 20)
    width: float | None = option("inches; null: what suits the kind", None)


class Figure(NamedTuple):
    """A chart, its rows, the width in inches that suits it, and what to say of it beside the file."""

    spec: charts.Spec
    rows: list[dict[str, Any]]
    width: float
    note: str = ""


def plot(words: Sequence[str], options: PlotOptions) -> int:
    """Draw one figure and write it in each format that `out` names.

    Raises:
        UserError: not one file is named, it is not a leaderboard of this format, an option is wrong, or nothing is
            there to be drawn.
    """
    if len(words) != 1:
        raise UserError("plot needs one leaderboard: python -m leaderboard plot leaderboard.json kind=size out=FIGURE")
    paths = _figure_paths(options.out)
    if options.kind not in FIGURES:
        raise UserError(f"kind={options.kind} is not known; {nearest(options.kind, FIGURES)}")
    if options.top < 1 or not 1 <= (options.width or _COLUMN) <= 40:
        raise UserError(f"top={options.top} width={options.width}: top is 1 or more, width is 1 to 40 inches")
    leaderboard = read_leaderboard(words[0])
    if not leaderboard.boards:
        raise UserError(f"{words[0]} holds no entries")
    figure = FIGURES[options.kind](leaderboard, options)
    if not figure.rows:
        raise UserError(f"{words[0]}: nothing to draw for kind={options.kind}; {figure.note}")
    text = svg(figure, options.width or figure.width)
    for path in paths:
        content = RENDERERS[path.suffix](text)
        with atomic(path, "wb") as file:
            file.write(content)
    note = f" ({figure.note})" if figure.note else ""
    print(f"{', '.join(map(str, paths))}{note}")
    return 0


def svg(figure: Figure, width: float) -> str:
    """The figure, `width` inches wide with everything in it; its unit is a point."""
    fitted = {**figure.spec, "data": {"name": "rows", "values": figure.rows}, "width": round(width * _INCH)}
    # Heights by row are kept, as only the width is given.
    by_rows = isinstance(figure.spec["height"], dict)
    fitted["autosize"] = {"type": "fit-x" if by_rows else "fit", "contains": "padding"}
    if not by_rows:
        fitted["height"] = round(width * _INCH * figure.spec["height"] / figure.spec["width"])
    vega = vl_convert.vegalite_to_vega(fitted, vl_version=charts.VERSION, config=PAPER)
    return _renumbered(vl_convert.vega_to_svg(charts.laid_out(vega), allowed_base_urls=[]))


def _renumbered(text: str) -> str:
    """Vega counts gradients and clips over all charts of a process; here they start anew."""
    numbers: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        return f"{found[1]}{numbers.setdefault(found[2], len(numbers))}"

    return re.sub(r'((?:<(?:linearGradient|clipPath) id="|url\(#)(?:gradient_|clip))(\d+)', number, text)


def _svg_file(text: str) -> bytes:
    # Without a unit an SVG's pixels are 1/96 inch, and the text smaller than was asked for.
    return re.sub(r'(<svg [^>]*?width=")([\d.]+)(" height=")([\d.]+)"', r'\1\2pt\3\4pt"', text, count=1).encode()


def _pdf(text: str) -> bytes:
    # The resources of a page come in another order each time; sorted lines are as long, so all else stays in place.
    return re.sub(rb"(?<=<<\n)(?: */\w+ \d+ 0 R\n)+", _sorted_lines, vl_convert.svg_to_pdf(text))


def _sorted_lines(found: re.Match[bytes]) -> bytes:
    return b"".join(sorted(found[0].splitlines(keepends=True)))


def _png(text: str) -> bytes:
    content: bytes = vl_convert.svg_to_png(text, ppi=_PPI)
    return content


RENDERERS: dict[str, Callable[[str], bytes]] = {".svg": _svg_file, ".pdf": _pdf, ".png": _png}


def _figure_paths(out: str) -> list[Path]:
    try:
        paths = [Path(name) for name in braceexpand.braceexpand(out)]
    except ValueError:
        raise UserError(f"out={out}: a brace is not closed") from None
    for path in paths:
        if path.suffix not in RENDERERS:
            raise UserError(f"out={path}: the name of a figure ends in {', '.join(RENDERERS)}")
        if path.is_dir():
            raise UserError(f"out={path} is a folder; name a file")
        if path.parent.exists() and not path.parent.is_dir():
            raise UserError(f"out={path}: {path.parent} is a file, no folder")
    return paths


def _size(leaderboard: Leaderboard, options: PlotOptions) -> Figure:
    board = _board(leaderboard, options)
    title = _metric_title(board, options.metric)
    results = [result for result in _best(board, options.metric) if result.dataset_size]
    results = results[: options.top]
    rows = []
    for result, label in zip(results, _labels(results), strict=True):
        score = findings.score_of(result, options.metric)
        span = None if isinstance(result, Reference) else findings.interval(board, score, options.metric)
        rows.append(
            {
                "label": label,
                "kind": findings.kind_of(result),
                "size": result.dataset_size,
                "share": result.dataset_size / board.pool_size if result.dataset_size and board.pool_size else None,
                "score": score.value,
                "low": span.low if span else None,
                "high": span.high if span else None,
                "rank": None if isinstance(result, Reference) else result.rank,
            }
        )
    note = "no entry tells its dataset size" if not rows else ""
    return Figure(charts.size_against_score(title, _kinds(rows)), rows, _COLUMN, note)


def _scaling(leaderboard: Leaderboard, options: PlotOptions) -> Figure:
    _refuse_scale(options, "scaling shows every scale")
    track = _track(leaderboard, options)
    # Scores of another suite are not on the same axis.
    boards = [board for board in leaderboard.boards if board.track == track and suite_of(board.scale) == "main"]
    if not boards:
        raise UserError(f"track={track} has no scale of the main suite to draw")
    title = _metric_title(boards[0], options.metric)
    means = {board.scale: findings.means(board, options.metric) for board in boards}
    samples = {scale: int(recipes.pinned(scale)["samples"]) for scale in means}
    methods = {
        method: None for scale in sorted(samples, key=lambda s: -samples[s]) for method in _ordered(means[scale])
    }
    shown = list(methods)[: options.top]
    twice = Counter(method.label for method in shown)
    rows = [
        {
            "label": method.label if twice[method.label] == 1 else f"{method.label} ({method.author})",
            "kind": method.kind,
            "scale": scale,
            "samples": samples[scale],
            "score": means[scale][method],
        }
        for method in shown
        for scale in sorted(samples, key=lambda s: samples[s])
        if method in means[scale]
    ]
    note = f"no entry has a score for metric={options.metric}" if not rows else ""
    return Figure(charts.scaling(title, sorted(samples.values())), rows, _WIDER, note)


def _heat_map(leaderboard: Leaderboard, options: PlotOptions) -> Figure:
    board = _board(leaderboard, options)
    _metric_title(board, options.metric)
    results = [result for result in _best(board, options.metric) if result.scores]
    if not results:
        return Figure(charts.heat_map(), [], _PAGE, "no entry has scores of single tasks")
    baseline = _baseline(results, options.baseline)
    shown = results[: options.top]
    if baseline not in shown:
        shown = [*shown[: options.top - 1], baseline]
    rows = []
    for task in board.tasks:
        if task.main_metric is None:
            continue
        origin = findings.score_of(baseline, task.key).value
        for result, label in zip(shown, _labels(shown), strict=True):
            score = findings.score_of(result, task.key).value
            difference = None if score is None or origin is None else score - origin
            place = {"entry": label, "task": task.name, "group": task.groups[0] if task.groups else ""}
            rows.append({**place, "score": score, "difference": difference})
    return Figure({**charts.heat_map(baseline.method), "height": {"step": 9.5}}, rows, _PAGE)


def _across(leaderboard: Leaderboard, options: PlotOptions) -> Figure:
    track = _track(leaderboard, options)
    small, large = _two_scales(leaderboard, track, options.scale)
    for scale in (small, large):
        _metric_title(_find(leaderboard, track, scale), options.metric)
    found = findings.across(leaderboard, track, small, large, options.metric)
    rows = [place._asdict() for place in found.places]
    rho = "unknown" if found.rho is None else f"{found.rho:.3f}"
    note = f"Spearman's rho {rho}, {found.n} methods" if rows else "no method is known at both scales"
    return Figure(charts.across_scales(small, large, _kinds(rows)), rows, _COLUMN, note)


def _correlations(leaderboard: Leaderboard, options: PlotOptions) -> Figure:
    board = _board(leaderboard, options)
    rows = [row._asdict() for row in findings.correlations(board) if row.r is not None]
    note = "" if rows else "at least four entries with ImageNet and another score are needed"
    return Figure({**charts.correlations(), "height": {"step": 9}}, rows, _COLUMN, note)


def _probes(leaderboard: Leaderboard, options: PlotOptions) -> Figure:
    board = _board(leaderboard, options)
    title = _metric_title(board, options.metric)
    if options.metric in board.aggregates and options.metric != "average":
        raise UserError(f"metric={options.metric}: kind=probes shows the average of the probed tasks, or one task")
    found = zero_shot_against_probe(board, None if options.metric == "average" else options.metric, ranked=True)
    rows = [row._asdict() for row in found.rows]
    of = several_tasks(found.tasks) if options.metric == "average" else title
    note = (
        f"{len(rows)} entries, {', '.join(found.tasks)}" if rows else "no ranked entry has linear probes of these tasks"
    )
    return Figure(charts.zero_shot_against_probe(of, _kinds(rows)), rows, _COLUMN, note)


FIGURES: dict[str, Callable[[Leaderboard, PlotOptions], Figure]] = {
    "scaling": _scaling,
    "size": _size,
    "heat_map": _heat_map,
    "across": _across,
    "correlations": _correlations,
    "probes": _probes,
}


def _track(leaderboard: Leaderboard, options: PlotOptions) -> Track:
    there = [track for track in TRACKS if any(board.track == track for board in leaderboard.boards)]
    if options.track is None and len(there) > 1:
        raise UserError(f"track= is needed: {', '.join(there)}")
    if options.track is not None and options.track not in TRACKS:
        raise UserError(f"track={options.track} is no known track; {nearest(options.track, TRACKS)}")
    for track in there:
        if options.track in (None, track):
            return track
    raise UserError(f"track={options.track} has no entries; known: {', '.join(there)}")


def _board(leaderboard: Leaderboard, options: PlotOptions) -> Board:
    """The board that `track` and `scale` name; either may be left out where there is no choice."""
    track = _track(leaderboard, options)
    scales = [board.scale for board in leaderboard.boards if board.track == track]
    if options.scale is None and len(scales) > 1:
        raise UserError(f"scale= is needed: {', '.join(scales)}")
    return _find(leaderboard, track, options.scale or scales[0])


def _find(leaderboard: Leaderboard, track: Track, scale: str) -> Board:
    boards = {board.scale: board for board in leaderboard.boards if board.track == track}
    if scale not in boards:
        raise UserError(f"scale={scale} has no entries in track {track}; {nearest(scale, boards)}")
    return boards[scale]


def _two_scales(leaderboard: Leaderboard, track: Track, named: str | None) -> list[str]:
    scales = [board.scale for board in leaderboard.boards if board.track == track and suite_of(board.scale) == "main"]
    chosen = scales if named is None else named.split(",")
    if len(chosen) != 2 or chosen[0] == chosen[1]:
        raise UserError(f"across needs two scales: scale=small,large of {', '.join(scales)}")
    return chosen


def _refuse_scale(options: PlotOptions, why: str) -> None:
    if options.scale is not None:
        raise UserError(f"scale={options.scale}: {why}; leave it out")


def _metric_title(board: Board, metric: str) -> str:
    """How the metric is called on an axis.

    Raises:
        UserError: it is neither an aggregate of the board nor one of its tasks with a main metric.
    """
    names = {task.key: task.name for task in board.tasks if task.main_metric is not None}
    if metric in board.aggregates:
        return findings.TITLES.get(metric, metric)
    if metric not in names:
        raise UserError(f"metric={metric} is not known; {nearest(metric, [*board.aggregates, *names])}")
    return names[metric]


def _best(board: Board, metric: str) -> list[findings.Result]:
    """Ranked and published results that have the metric, best first, equals in the board's order."""
    scored = [(findings.score_of(result, metric).value, result) for result in findings.results(board)]
    known = [(value, result) for value, result in scored if value is not None]
    return [result for _, result in sorted(known, key=lambda pair: -pair[0])]


def _ordered(scores: dict[findings.Method, float]) -> list[findings.Method]:
    return sorted(scores, key=lambda method: (-scores[method], method))


def _baseline(results: Sequence[findings.Result], named: str | None) -> findings.Result:
    """The best result of that method; by default the one with the largest dataset, the nearest to no filtering."""
    if named is None:
        return max(results, key=lambda result: result.dataset_size or 0)
    for result in results:
        if result.method == named:
            return result
    known = nearest(named, {result.method for result in results})
    raise UserError(f"baseline={named} is no method with scores of this board's tasks; {known}")


def _labels(results: Sequence[findings.Result]) -> list[str]:
    """The methods' names, made longer where two are the same: a chart would take them for one."""
    methods = Counter(result.method for result in results)
    seen: Counter[str] = Counter()
    labels = []
    for result in results:
        label = result.method
        if methods[label] > 1:
            label += f" ({result.author}" + (f", seed {result.seed})" if isinstance(result, Entry) else ")")
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} #{seen[label]}")
    return labels


def _kinds(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The kinds that occur, in the legend's order."""
    there = {row["kind"] for row in rows}
    return [kind for kind in charts.KINDS if kind in there]
