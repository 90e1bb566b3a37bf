"""What classifiers found as one HTML document: no script, no network; a bar for each transformation."""

from pathlib import Path
from typing import Any, NamedTuple

from curate.classes.results import Asked, Classes, Row
from curate.report import page as report
from curate.report.charts import drawn

_TEMPLATE = Path(__file__).parent / "page.html"
_COLOUR = "#0a84d0"  # seen on white and on black
_WIDTH, _ROW = 460, 30  # pixels
_INK = "currentColor"


class Line(NamedTuple):
    """Samples of one set."""

    name: str
    pictures: list[str]
    texts: list[str]


class Part(NamedTuple):
    """Samples as one transformation leaves them."""

    title: str
    sets: list[Line]


def page(found: Classes) -> str:
    """The whole document; the same text for the same findings."""
    known = found.conditions
    best = max(found.rows, key=lambda row: row.mean)
    lead = [
        f"{report.percent(best.mean)} of samples are recognised by {best.transform} ({best.explained}),",
        f"where {report.percent(found.chance)} would be chance.",
    ]
    times = f"{known['draws']} draws" if known["draws"] > 1 else "one draw"
    return report.document(
        _TEMPLATE,
        names=found.names,
        lead=lead,
        note=(
            f"A bar is the mean of {times} of {known['train']:,} samples of each set to learn from and "
            f"{known['validation']:,} others to be asked about, a dot one draw, the line Wilson's interval of 95 % of "
            f"all answers together; the dashed line is chance. Model: {known['model']}. That sets are told apart says "
            "that they differ in what the classifier sees, not which is better."
        ),
        warnings=[*_warning(found), *found.notes],
        bars=_bars(found),
        rows=[_row(row) for row in found.rows],
        control=_control(found),
        taken_note=(
            "Validation samples of each set"
            + (", and samples of sets that no classifier has learnt from" if found.asked else "")
            + ", over all draws. A share means something beside the shares of the sets that were learnt."
        ),
        taken=[line for row in found.rows for line in _taken(row, found)],
        examples=[_part(name, sets, found) for name, sets in found.examples.items() if sets],
        sets=[[name, f"{one['samples']:,}", f"{one['drawn']:,}", one["source"]] for name, one in found.sets.items()],
    )


def _warning(found: Classes) -> list[str]:
    if found.control is None or found.control.passed:
        return []
    return ["Halves of one set are told apart, which only a leak can do: believe no number of this page."]


def _control(found: Classes) -> str:
    one = found.control
    if one is None:
        return ""
    said = "as chance has it" if one.passed else "which is not chance"
    return (
        f"Control: of two halves of one set ({', '.join(one.sets)}) {report.percent(one.share)} of {one.of:,} samples "
        f"are recognised ({report.percent(one.low)} to {report.percent(one.high)}, p = {report.p_value(one.p)}), "
        f"{said}."
    )


def _row(row: Row) -> list[str]:
    sd = "" if row.sd is None else f" ± {100 * row.sd:.1f}"
    draws = ", ".join(f"{100 * one:.1f}" for one in row.accuracies)
    interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}"
    told = "yes" if row.different else ""
    return [
        row.transform,
        f"{100 * row.mean:.1f}{sd} %",
        draws,
        interval,
        f"{row.of:,}",
        report.p_value(row.p_corrected),
        told,
    ]


def _taken(row: Row, found: Classes) -> list[list[str]]:
    lines = [
        [row.transform if not at else "", name, *(report.percent(count / max(1, sum(counts))) for count in counts)]
        for at, (name, counts) in enumerate(zip(found.names, row.confusion, strict=True))
    ]
    for name in dict.fromkeys(one.name for one in found.asked):
        some = [one for one in found.asked if (one.name, one.transform) == (name, row.transform)]
        lines.append(["", f"{name} (asked)", *map(_share, some)])
    return lines


def _share(one: Asked) -> str:
    return f"{report.percent(one.mean)} ({100 * one.low:.0f} to {100 * one.high:.0f})"


def _part(name: str, sets: dict[str, list[str]], found: Classes) -> Part:
    explained = next(row.explained for row in found.rows if row.transform == name)
    lines = [
        Line(
            of,
            [one for one in some if one.startswith("data:image/png;base64,")],
            [report.cut(one) for one in some if not one.startswith("data:image/png;base64,")],
        )
        for of, some in sets.items()
    ]
    return Part(f"{name}: {explained}", lines)


def _bars(found: Classes) -> str:
    """A bar for each transformation, its interval, a dot for each draw, and the line of chance."""
    order = [row.transform for row in found.rows]
    values = [{"transform": row.transform, "mean": row.mean, "low": row.low, "high": row.high} for row in found.rows]
    dots = [{"transform": row.transform, "one": one} for row in found.rows for one in row.accuracies]
    y = {"field": "transform", "type": "nominal", "sort": order, "title": None, "axis": {"labelLimit": 260}}
    x: dict[str, Any] = {
        "type": "quantitative",
        "title": "share of samples whose set is recognised",
        "scale": {"domain": [0, 1]},
        "axis": {"format": "~%", "tickCount": 6},
    }
    layers = [
        {
            "mark": {"type": "bar", "color": _COLOUR, "opacity": 0.35, "height": {"band": 0.6}},
            "encoding": {"y": y, "x": {**x, "field": "mean"}},
        },
        {
            "mark": {"type": "rule", "color": _COLOUR, "strokeWidth": 2},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}},
        },
        {
            "data": {"values": dots},
            "mark": {"type": "point", "filled": True, "size": 22, "color": _INK, "opacity": 0.7},
            "encoding": {"y": y, "x": {**x, "field": "one"}},
        },
        {
            "data": {"values": [{"chance": found.chance}]},
            "mark": {"type": "rule", "strokeDash": [4, 3], "stroke": _INK, "opacity": 0.6},
            "encoding": {"x": {**x, "field": "chance"}},
        },
    ]
    return drawn({"width": _WIDTH, "height": {"step": _ROW}, "data": {"values": values}, "layer": layers})
