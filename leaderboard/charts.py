"""The charts of the leaderboard as Vega-Lite specifications, for the page and for papers.

Each is a plain dictionary without data (`{"name": "rows"}`; the docstrings say which fields a row has) and without a
theme. Whoever draws one gives it rows, a configuration, and a width where the default does not fit; `laid_out` keeps
the labels apart. Expressions are limited to what Vega's interpreter knows, so that a page can forbid eval. Texts come
from submissions: they are drawn as text, and cut where they are long.
"""

from collections.abc import Sequence
from typing import Any

Spec = dict[str, Any]

VERSION = "6.4"  # of Vega-Lite; what vl_convert bundles for the page when it is asked for nothing else
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_WIDTH, _HEIGHT = 480, 320  # pixels
_GREY = "#888888"  # seen on white and on black

# A row's kind -> its legend.
KINDS = {"entry": "ranked", "unverified": "unverified", "unranked": "not ranked", "published": "published"}
_KIND_COLOURS = {"entry": "#0072b2", "unverified": "#009e73", "unranked": "#d55e00", "published": "#7f7f7f"}
_KIND_SHAPES = {"entry": "circle", "unverified": "square", "unranked": "triangle-up", "published": "diamond"}

# Okabe and Ito, Color Universal Design, 2008; without the yellow, which is lost on white, and the black, on black.
COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"]

# 1,000,000 -> "1M", 10^9 -> "1B"; on a logarithmic axis only the steps 1, 2 and 5 of each decade are labelled, but
# within a single one, where there are others.
_COUNT = "replace(format(datum.value, '~s'), 'G', 'B')"
_IS_ROUND = "indexof('125', substring(format(datum.value, '.0e'), 0, 1)) >= 0"
_COUNT_AXIS = {
    "labelExpr": f"domain('x')[1] < 10 * domain('x')[0] || {_IS_ROUND} ? {_COUNT} : ''",
    "labelOverlap": "greedy",
    "labelSeparation": 3,
    "grid": False,
}
# 0.4321 -> ".43", which leaves room for many columns.
_TWO_DIGITS = "isValid(datum.score) ? replace(format(datum.score, '.2f'), '0.', '.') : ''"
_GROUP = "{imagenet_shifts: 'ImageNet shifts', vtab: 'VTAB', wilds: 'WILDS'}[datum.label] || datum.label"
_LOG = {"type": "log", "nice": False, "padding": 12}

_LABELS = "labels"  # the layer whose texts are kept apart
_REACH = 5  # pixels from the middle of a point that no label may touch
_CORNERS = ["top-right", "bottom-right", "top-left", "bottom-left"]
_LAYOUT = {
    "type": "label",
    "size": {"signal": "[width, height]"},
    "anchor": ["right", "left", "top", "bottom", *_CORNERS, *_CORNERS],
    "offset": [*[_REACH + 2] * 2, *[_REACH + 1] * 2, *[_REACH] * 4, *[2 * _REACH] * 4],
    "sort": {"field": "datum.priority", "order": "descending"},
}


def laid_out(vega: Spec) -> Spec:
    """A chart as compiled to Vega, its labels moved apart; the best scores come first, those without room go.

    Vega-Lite cannot say this, so it is done to what Vega-Lite makes (vega-embed's option `patch` is the place for it).
    """
    marks = [
        {**mark, "transform": [_LAYOUT]} if mark.get("name") == f"{_LABELS}_marks" else mark for mark in vega["marks"]
    ]
    return {**vega, "marks": marks}


def size_against_score(score: str = "Average score", kinds: Sequence[str] = tuple(KINDS)) -> Spec:
    """Dataset size against score: what each method keeps, and what that is worth.

    Rows {label, kind, size, share, score, low, high, rank}: `share` of the pool, `rank`, `low` and `high` may be null.
    """
    x = {"field": "size", "type": "quantitative", "scale": _LOG, "title": "Dataset size", "axis": _COUNT_AXIS}
    y = {
        "field": "score",
        "type": "quantitative",
        "scale": {"zero": False, "padding": 12},
        "title": score,
        "axis": {"tickCount": 6},
    }
    bars: Spec = {
        "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
        "mark": {"type": "rule", "opacity": 0.6, "aria": False},
        "encoding": {"y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": _colour_of_kind(kinds)},
    }
    tooltip = [
        _shown("label", "Method"),
        _shown("rank_shown", "Rank"),
        _shown("score", score, ".3f"),
        _shown("size", "Dataset size", ","),
        _shown("share_shown", "Share of the pool"),
    ]
    return _chart(
        "Dataset size, on a logarithmic axis, against score; a point is a method, a bar its noise.",
        transform=[
            {"filter": "datum.size > 0 && isValid(datum.score)"},
            # A tooltip would write null as 0.
            {"calculate": "isValid(datum.rank) ? datum.rank : '–'", "as": "rank_shown"},
            {"calculate": "isValid(datum.share) ? format(datum.share, '.1%') : '–'", "as": "share_shown"},
        ],
        encoding={"x": x, "y": y},
        layer=[bars, _kind_points(kinds, tooltip), _label_layer("datum.score")],
    )


def scaling(score: str = "Average score", samples: Sequence[int] = ()) -> Spec:
    """Samples seen against score, a line for each method over the scales.

    Rows {label, kind, scale, samples, score}; a label is one method.

    Args:
        samples: where the axis has its ticks, as at the samples of each scale; () for powers of ten and the like.
    """
    colour = {"field": "label", "type": "nominal", "scale": {"range": COLOURS}, "legend": None}
    dash = {"scale": {"domain": list(KINDS), "range": [[1, 0], [1, 0], [4, 3]]}, "legend": None}
    ticks = {**_COUNT_AXIS, "labelExpr": _COUNT, "values": list(samples)} if samples else _COUNT_AXIS
    tooltip = [
        _shown("label", "Method"),
        _shown("scale", "Scale"),
        _shown("samples", "Samples seen", ","),
        _shown("score", score, ".3f"),
    ]
    y = {"field": "score", "type": "quantitative", "scale": {"zero": False}, "title": score}
    lines = {
        "mark": {"type": "line", "strokeWidth": 1.5},
        "encoding": {"color": colour, "strokeDash": {"field": "kind", "type": "nominal", **dash}},
    }
    points = {"mark": {"type": "point", "filled": True, "size": 20, "opacity": 1}, "encoding": {"color": colour}}
    leader, label = {"field": "place", "type": "quantitative"}, {"text": {"field": "label"}, "color": colour}
    leaders = {
        "transform": _BESIDE,
        "mark": {"type": "rule", "strokeWidth": 0.5, "x2Offset": 14, "aria": False},
        "encoding": {"x2": {"value": "width"}, "y2": leader, "color": colour},
    }
    labels = {
        "transform": _BESIDE,
        "mark": {"type": "text", "align": "left", "dx": 16, "limit": 130, "aria": False},
        "encoding": {"x": {"value": "width"}, "y": {**y, "field": "place"}, **label},
    }
    return _chart(
        "Samples seen, on a logarithmic axis, against score; a line is a method, a published one's is dashed.",
        transform=[{"filter": "datum.samples > 0 && isValid(datum.score)"}],
        encoding={
            "x": {"field": "samples", "type": "quantitative", "scale": _LOG, "title": "Samples seen", "axis": ticks},
            "y": y,
            "tooltip": tooltip,
        },
        layer=[lines, points, leaders, labels],
    )


# Names beside the lines instead of a legend, in which nobody can tell twenty colours apart: evenly spread over the
# height of the chart, in the order in which the lines end, with a thin line from each end to its name.
_BESIDE = [
    {"joinaggregate": [{"op": "min", "field": "score", "as": "bottom"}, {"op": "max", "field": "score", "as": "top"}]},
    {"joinaggregate": [{"op": "max", "field": "samples", "as": "last"}], "groupby": ["label"]},
    {"filter": "datum.samples == datum.last"},
    {"window": [{"op": "row_number", "as": "row"}], "sort": [{"field": "score", "order": "descending"}]},
    {"joinaggregate": [{"op": "count", "as": "rows"}]},
    {"calculate": "datum.top - (datum.row - 0.5) / datum.rows * (datum.top - datum.bottom)", "as": "place"},
]


def heat_map(baseline: str = "the baseline") -> Spec:
    """Per-task scores of some entries, coloured by their difference to a baseline.

    Rows {entry, task, group, score, difference}, in the order to be shown; `score` and `difference` may be null.
    """
    tooltip = [
        _shown("entry", "Method"),
        _shown("task", "Task"),
        _shown("group", "Group"),
        _shown("score", "Score", ".3f"),
        _shown("difference", "Difference", "+.3f"),
    ]
    axis = {"domain": False, "ticks": False}
    names = {"type": "nominal", "sort": None, "title": None}
    across = {"orient": "top", "labelAngle": -90, "labelLimit": 140, **axis}
    dark = {"test": "isValid(datum.difference) && abs(datum.difference) > 0.75 * limit", "value": "white"}
    digits = {
        "transform": [{"calculate": _TWO_DIGITS, "as": "digits"}],
        "mark": {"type": "text", "aria": False},
        "encoding": {"text": {"field": "digits"}, "color": {"condition": dark, "value": "#222222"}},
    }
    return {
        **_chart(
            "Scores of each task (down) for each method (across), coloured by the difference to a baseline: blue is "
            "better, orange is worse.",
            params=[
                {"name": "reach", "expr": "extent(pluck(data('rows'), 'difference'))"},
                {"name": "limit", "expr": "max(0.01, -(reach[0] || 0), reach[1] || 0)"},
            ],
            encoding={
                "x": {"field": "entry", **names, "axis": across},
                "y": {"field": "task", **names, "axis": {"labelLimit": 160, **axis}},
                "tooltip": tooltip,
            },
            layer=[{"mark": {"type": "rect"}, "encoding": {"color": _colour_of_difference(baseline)}}, digits],
        ),
        "width": {"step": 26},
        "height": {"step": 13},
    }


def _colour_of_difference(baseline: str) -> Spec:
    return {
        "condition": {"test": "!isValid(datum.difference)", "value": "#d9d9d9"},
        "field": "difference",
        "type": "quantitative",
        # Both sides reach equally far, else a pale blue and a pale orange would not mean the same.
        "scale": {
            "scheme": "blueorange",
            "reverse": True,
            "domainMin": {"expr": "-limit"},
            "domainMax": {"expr": "limit"},
        },
        "legend": {
            "title": f"Difference to {baseline}",
            "format": "+.2f",
            "titleLimit": 240,
            "orient": "bottom",
            "direction": "horizontal",
            "offset": 6,
        },
    }


def across_scales(
    small: str = "the smaller scale", large: str = "the larger scale", kinds: Sequence[str] = tuple(KINDS)
) -> Spec:
    """Ranks of the same methods at two scales; on the diagonal both agree.

    Rows {label, kind, x, y, x_rank, y_rank}: scores and ranks at the smaller (x) and the larger scale (y).
    """
    axis = {"type": "quantitative", "scale": {"reverse": True, "zero": False, "nice": False, "padding": 12}}
    # Room for the points reaches below the first rank, where nobody can be.
    ticks = {
        "tickMinStep": 1,
        "grid": False,
        "labelExpr": "datum.value < 1 ? '' : format(datum.value, 'd')",
        "tickOpacity": {"condition": {"test": "datum.value < 1", "value": 0}, "value": 1},
    }
    diagonal = {
        "transform": [
            {"aggregate": [{"op": "max", "field": field, "as": field} for field in ("x_rank", "y_rank")]},
            {"calculate": "max(datum.x_rank, datum.y_rank)", "as": "last"},
            {"calculate": "1", "as": "first"},
        ],
        "mark": {"type": "rule", "color": _GREY, "strokeDash": [4, 3]},
        "encoding": {
            "x": {**axis, "field": "first"},
            "y": {**axis, "field": "first"},
            "x2": {"field": "last"},
            "y2": {"field": "last"},
        },
    }
    places = {
        "x": {**axis, "field": "x_rank", "title": f"Rank at {small}", "axis": ticks},
        "y": {**axis, "field": "y_rank", "title": f"Rank at {large}", "axis": ticks},
    }
    tooltip = [
        _shown("label", "Method"),
        _shown("x_rank", f"Rank at {small}"),
        _shown("y_rank", f"Rank at {large}"),
        _shown("x", f"Score at {small}", ".3f"),
        _shown("y", f"Score at {large}", ".3f"),
    ]
    points, labels = _kind_points(kinds, tooltip), _label_layer("-datum.y_rank")
    chart = _chart(
        "Rank at a smaller scale against rank at a larger one, the best at the top right; a point is a method.",
        layer=[
            diagonal,
            {**points, "encoding": {**points["encoding"], **places}},
            {**labels, "encoding": {**labels["encoding"], **places}},
        ],
    )
    return {**chart, "height": _WIDTH}


def zero_shot_against_probe(tasks: str = "", kinds: Sequence[str] = tuple(KINDS)) -> Spec:
    """Zero-shot score against that of a linear probe; what a little training adds.

    Rows {label, kind, zero_shot, probe}.

    Args:
        tasks: what the scores are of, for the axes: "mean of 3 tasks", or the name of one.
    """
    of = f", {tasks}" if tasks else ""
    axis = {"type": "quantitative", "scale": {"zero": False, "padding": 12}, "axis": {"tickCount": 6}}
    places = {
        "x": {**axis, "field": "zero_shot", "title": f"Zero-shot{of}"},
        "y": {**axis, "field": "probe", "title": f"Linear probe{of}"},
    }
    tooltip = [
        _shown("label", "Method"),
        _shown("zero_shot", "Zero-shot", ".3f"),
        _shown("probe", "Linear probe", ".3f"),
    ]
    points, labels = _kind_points(kinds, tooltip), _label_layer("datum.probe")
    return _chart(
        "Zero-shot score against that of a linear probe on the same tasks; a point is a method.",
        layer=[
            {**points, "encoding": {**points["encoding"], **places}},
            {**labels, "encoding": {**labels["encoding"], **places}},
        ],
    )


def correlations() -> Spec:
    """How ImageNet correlates with each other task over the entries of a board, with 95 % intervals.

    Rows {task, group, r, low, high, n}: Pearson's r; those without one are left out.
    """
    y = {
        "field": "task",
        "type": "nominal",
        "sort": {"field": "r", "op": "max", "order": "descending"},
        "title": None,
        "axis": {"labelLimit": 180, "grid": True, "ticks": False, "domain": False},
    }
    x = {"type": "quantitative", "scale": {"domainMax": 1}, "title": "Correlation with ImageNet"}
    colour = {
        "field": "group",
        "type": "nominal",
        "scale": {"range": COLOURS},
        "legend": {
            "title": None,
            "orient": "bottom",
            "columns": 3,
            "offset": 6,
            "symbolOpacity": 1,
            "labelExpr": _GROUP,
        },
    }
    tooltip = [
        _shown("task", "Task"),
        _shown("group", "Group"),
        _shown("r", "Pearson's r", ".2f"),
        _shown("low", "95 % from", ".2f"),
        _shown("high", "95 % to", ".2f"),
        _shown("n", "Entries"),
    ]
    zero = {"mark": {"type": "rule", "color": _GREY}, "encoding": {"x": {**x, "datum": 0}}}
    bars = {
        "mark": {"type": "rule", "opacity": 0.6, "aria": False},
        "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}, "y": y, "color": colour},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 36, "opacity": 1},
        "encoding": {"x": {**x, "field": "r"}, "y": y, "color": colour, "tooltip": tooltip},
    }
    return {
        **_chart(
            "Pearson correlation of ImageNet with each other task over the entries; a bar is the 95 % interval.",
            transform=[{"filter": "isValid(datum.r)"}],
            layer=[zero, bars, points],
        ),
        "height": {"step": 13},
    }


def _chart(description: str, **parts: Any) -> Spec:
    """What all of them share."""
    return {
        "$schema": _SCHEMA,
        "description": description,
        "data": {"name": "rows"},
        "width": _WIDTH,
        "height": _HEIGHT,
        **parts,
    }


def _kind_points(kinds: Sequence[str], tooltip: Sequence[Spec]) -> Spec:
    shape = {**_of_kind(kinds, _KIND_SHAPES), "legend": _kind_legend()}
    return {
        "mark": {"type": "point", "filled": True, "size": 45, "opacity": 0.9},
        "encoding": {"color": _colour_of_kind(kinds), "shape": shape, "tooltip": list(tooltip)},
    }


def _colour_of_kind(kinds: Sequence[str]) -> Spec:
    return {**_of_kind(kinds, _KIND_COLOURS), "legend": _kind_legend()}


def _of_kind(kinds: Sequence[str], values: dict[str, str]) -> Spec:
    return {
        "field": "kind",
        "type": "nominal",
        "scale": {"domain": list(kinds), "range": [values[kind] for kind in kinds]},
    }


def _kind_legend() -> Spec:
    words = ", ".join(f"{kind}: '{name}'" for kind, name in KINDS.items())
    return {"title": None, "orient": "top", "offset": 4, "symbolOpacity": 1, "labelExpr": f"{{{words}}}[datum.label]"}


def _label_layer(priority: str) -> Spec:
    """Labels, of which those with the highest priority (an expression) are placed first.

    Beside each label there are four empty ones around its point, so that the other labels keep off the point.

    (The layout can keep off marks by itself, but not where there is no canvas to draw them on, as for papers.)
    """
    steps = f"[[0, 0], [{_REACH}, 0], [-{_REACH}, 0], [0, {_REACH}], [0, -{_REACH}]]"
    return {
        "name": _LABELS,
        "transform": [
            {"calculate": priority, "as": "priority"},
            {"calculate": steps, "as": "step"},
            {"flatten": ["step"]},
        ],
        "mark": {
            "type": "text",
            "aria": False,  # the point says it all
            "limit": 130,
            "xOffset": {"expr": "datum.step[0]"},
            "yOffset": {"expr": "datum.step[1]"},
        },
        "encoding": {
            "text": {"condition": {"test": "!datum.step[0] && !datum.step[1]", "field": "label"}, "value": ""}
        },
    }


def _shown(field: str, title: str, number: str | None = None) -> Spec:
    """A line of a tooltip; `number` is a d3 format."""
    if number is None:
        return {"field": field, "title": title}
    return {"field": field, "title": title, "type": "quantitative", "format": number}
