"""The audit as one HTML document: no script, no network; a dot and its interval for each group."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from poolbench.audit_report import AuditReport, Group, Line, Word

from curate.report import page as report
from curate.report.charts import drawn

_TEMPLATE = Path(__file__).parent / "page.html"
_SHOWN = 40  # groups of an attribute that are drawn, the largest; the tables have all
_WORDS = 15  # of either sign
_COLOURS = ("#0a84d0", "#d9730d", "#2e9e6b", "#a05bc0", "#c0392b", "#7f8c8d")  # of subsets, seen on white and on black
_WIDTH, _ROW = 420, 22  # pixels
_INK = {"stroke": "currentColor", "opacity": 0.55}


class Section(NamedTuple):
    """One attribute: its charts and its table."""

    title: str
    note: str
    dots: str
    amplification: str
    lines: list[str]
    rows: list[list[str]]


class Beside(NamedTuple):
    """The words beside two groups, of one subset."""

    title: str
    note: str
    chart: str
    rows: list[list[str]]


class Legend(NamedTuple):
    name: str
    colour: str
    share: str


def page(found: AuditReport) -> str:
    """The whole document; the same text for the same audit."""
    names = [one.subset for one in found.subsets]
    colours = dict(zip(names, _COLOURS * len(names), strict=False))
    return report.document(
        _TEMPLATE,
        legend=[Legend(one.subset, colours[one.subset], report.percent(one.base)) for one in found.subsets],
        pool=f"{found.pool:,}",
        tests=f"{len(found.groups):,}",
        sections=[_section(name, found, colours) for name in dict.fromkeys(one.attribute for one in found.groups)],
        words=[_beside(subset, found, colours[subset]) for subset in names if found.words],
        small=[f"{name}: {count:,}" for name, count in found.below_minimum.items()],
        notes=found.notes,
    )


def _section(attribute: str, found: AuditReport, colours: dict[str, str]) -> Section:
    groups = [one for one in found.groups if one.attribute == attribute]
    sizes = {one.group: one.raw for one in groups}
    shown = sorted(sizes, key=lambda name: (-sizes[name], name))[:_SHOWN]
    of = [one for one in groups if one.group in shown]
    lines = [one for one in found.amplification if one.attribute == attribute]
    note = f"{len(sizes):,} group{'s' if len(sizes) > 1 else ''}" + (
        f", the {_SHOWN} largest are shown" if len(sizes) > _SHOWN else ""
    )
    return Section(
        title=attribute,
        note=note,
        dots=_dots(of, found, colours),
        amplification=_amplification(groups, lines, colours) if lines else "",
        lines=[_said(one) for one in lines],
        rows=[_row(one, len(found.subsets) > 1) for one in of],
    )


def _said(line: Line) -> str:
    direction = "rarer groups are cut more" if line.slope > 0 else "rarer groups are cut less"
    sure = direction if line.p < 0.05 else "no more than chance"
    return (
        f"{line.subset}: the share kept changes by {line.slope * 1000:+.2g} for 1,000 rows more "
        f"(r = {line.r:.2f}, p = {report.p_value(line.p)}, {line.groups:,} groups): {sure}"
    )


def _row(one: Group, several: bool) -> list[str]:
    cells = [one.group, *([one.subset] if several else []), f"{one.raw:,}", f"{one.kept:,}", report.percent(one.ratio)]
    interval = f"{report.percent(one.low)} to {report.percent(one.high)}"
    return [*cells, interval, report.p_value(one.p_corrected), "yes" if one.different else ""]


def _dots(groups: Sequence[Group], found: AuditReport, colours: dict[str, str]) -> str:
    """A dot for each group's share and a line for its interval, beside the pool's share; filled where it differs."""
    order = sorted({one.group for one in groups}, key=lambda name: (_first(groups, name).ratio, name))
    values = [
        {
            "group": one.group,
            "label": f"{one.group} (n = {one.raw:,})",
            "subset": one.subset,
            "ratio": one.ratio,
            "low": one.low,
            "high": one.high,
            "filled": 1.0 if one.different else 0.0,
        }
        for one in groups
    ]
    labels = [f"{name} (n = {_first(groups, name).raw:,})" for name in order]
    y = {"field": "label", "type": "nominal", "sort": labels, "title": None, "axis": {"labelLimit": 260}}
    colour = {
        "field": "subset",
        "type": "nominal",
        "scale": {"domain": list(colours), "range": list(colours.values())},
        "legend": None,
    }
    x = {"type": "quantitative", "title": "share that is kept", "axis": {"format": "~%", "tickCount": 6}}
    offset = {"yOffset": {"field": "subset", "type": "nominal"}} if len(colours) > 1 else {}
    encoding: dict[str, Any] = {"y": y, "color": colour, **offset}
    bases = [{"base": one.base, "subset": one.subset} for one in found.subsets]
    return drawn(
        {
            "width": _WIDTH,
            "height": {"step": _ROW + 8 * (len(colours) - 1)},
            "data": {"values": values},
            "layer": [
                {
                    "data": {"values": bases},
                    "mark": {"type": "rule", "strokeDash": [4, 3]},
                    "encoding": {"x": {**x, "field": "base"}, "color": colour},
                },
                {"mark": "rule", "encoding": {**encoding, "x": {**x, "field": "low"}, "x2": {"field": "high"}}},
                {
                    "mark": {"type": "point", "size": 45, "filled": False},
                    "encoding": {
                        **encoding,
                        "x": {**x, "field": "ratio"},
                        "fill": colour,
                        "fillOpacity": {"field": "filled", "type": "quantitative", "scale": None, "legend": None},
                    },
                },
            ],
        }
    )


def _first(groups: Sequence[Group], name: str) -> Group:
    return next(one for one in groups if one.group == name)


def _amplification(groups: Sequence[Group], lines: Sequence[Line], colours: dict[str, str]) -> str:
    """The share kept over the size of each group, and the regression."""
    points = [{"raw": one.raw, "ratio": one.ratio, "subset": one.subset} for one in groups]
    ends = [min(one.raw for one in groups), max(one.raw for one in groups)]
    line = [
        {"raw": end, "ratio": one.intercept + one.slope * end, "subset": one.subset} for one in lines for end in ends
    ]
    encoding = {
        "x": {"field": "raw", "type": "quantitative", "title": "rows of the group", "axis": {"format": "~s"}},
        "y": {
            "field": "ratio",
            "type": "quantitative",
            "title": "share kept",
            "axis": {"format": "~%", "tickCount": 5},
        },
        "color": {
            "field": "subset",
            "type": "nominal",
            "scale": {"domain": list(colours), "range": list(colours.values())},
            "legend": None,
        },
    }
    layers = [
        {"data": {"values": points}, "mark": {"type": "point", "size": 30}, "encoding": encoding},
        {"data": {"values": line}, "mark": {"type": "line", "strokeWidth": 1.5}, "encoding": encoding},
    ]
    return drawn({"width": 320, "height": 200, "layer": layers})


def _beside(subset: str, found: AuditReport, colour: str) -> Beside:
    assert found.compared is not None
    first, second = found.compared
    words = sorted((one for one in found.words if one.subset == subset), key=lambda one: one.difference)
    different = [one for one in words if one.different]
    shown = [
        *[one for one in different if one.difference < 0][:_WORDS],
        *[one for one in different if one.difference > 0][-_WORDS:],
    ]
    note = (
        f"{len(words):,} words stand often enough beside both; {len(different):,} of them are kept more often with one "
        f"than with the other, beyond chance. To the right: kept more often beside “{first}”; to the left: beside "
        f"“{second}”."
    )
    rows = [
        [
            one.word,
            f"{one.first_kept:,} of {one.first_raw:,}",
            f"{one.second_kept:,} of {one.second_raw:,}",
            f"{one.difference:+.1%}",
            report.p_value(one.p_corrected),
        ]
        for one in shown
    ]
    return Beside(
        f"Words beside {first} and {second}: {subset}", note, _word_dots(shown, colour) if shown else "", rows
    )


def _word_dots(words: Sequence[Word], colour: str) -> str:
    values = [
        {
            "word": f"{one.word} (n = {one.first_raw:,} and {one.second_raw:,})",
            "difference": one.difference,
            "low": one.difference - 1.96 * one.stderr,
            "high": one.difference + 1.96 * one.stderr,
        }
        for one in words
    ]
    x = {"type": "quantitative", "title": "difference of the shares kept", "axis": {"format": "+~%", "tickCount": 6}}
    sort = [one["word"] for one in values]
    y = {"field": "word", "type": "nominal", "sort": sort, "title": None, "axis": {"labelLimit": 260}}
    rule = {"type": "rule", "color": colour}
    layers = [
        {
            "data": {"values": [{"zero": 0}]},
            "mark": {"type": "rule", **_INK},
            "encoding": {"x": {**x, "field": "zero"}},
        },
        {"mark": rule, "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}}},
        {
            "mark": {"type": "point", "filled": True, "size": 45, "color": colour},
            "encoding": {"y": y, "x": {**x, "field": "difference"}},
        },
    ]
    return drawn({"width": _WIDTH, "height": {"step": _ROW}, "data": {"values": values}, "layer": layers})
