"""The distributions of a report as static SVG, drawn in the page's own colours for text and lines."""

from typing import Any, NamedTuple

import numpy as np
import vl_convert

from curate.report.statistics import DROPPED, KEPT, OTHER, Histogram, Measure

VERSION = "6.4"  # of Vega-Lite
COLOURS = {KEPT: "#0a84d0", DROPPED: "#d9730d", OTHER: "#2e9e6b"}  # seen on white and on black
_INK = "currentColor"
_FAINT = 0.18
_WIDTH, _HEIGHT = 380, 170  # pixels
_BINS = 60  # drawn at most; more of them show noise
_MARGIN = 0.001  # of each group; bins beyond the outermost with so much are not drawn

_THEME: dict[str, Any] = {
    "background": "transparent",
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": _INK,
        "titleColor": _INK,
        "tickColor": _INK,
        "domainColor": _INK,
        "gridColor": _INK,
        "gridOpacity": _FAINT,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
}


class Row(NamedTuple):
    """One bin of one group: its edges and the share of the group's rows in it."""

    group: str
    low: float
    high: float
    share: float


def distribution(measure: Measure, histograms: dict[str, Histogram]) -> str:
    """The shares of the groups' rows in each bin, one outline a group, as an SVG element."""
    rows = [row._asdict() for row in rows_of(histograms)]
    groups = list(dict.fromkeys(row["group"] for row in rows))
    x = {
        "field": "low",
        "type": "quantitative",
        "title": None,  # which stands above the chart
        "scale": {"type": "log" if measure.logarithmic else "linear", "zero": False, "nice": False},
        "axis": {"grid": False, "tickCount": 7, "format": "~g"},
    }
    colour = {"domain": groups, "range": [COLOURS[group] for group in groups]}
    spec = {
        "width": _WIDTH,
        "height": _HEIGHT,
        "data": {"values": rows},
        "mark": {"type": "area", "interpolate": "step-after", "fillOpacity": 0.12, "line": {"strokeWidth": 1.5}},
        "encoding": {
            "x": x,
            "y": {
                "field": "share",
                "type": "quantitative",
                "stack": None,
                "title": "share of the group",
                "axis": {"format": "~%", "tickCount": 4},
            },
            "color": {"field": "group", "type": "nominal", "scale": colour, "legend": None},
        },
    }
    return drawn(spec)


def drawn(spec: dict[str, Any]) -> str:
    """A chart of Vega-Lite as an SVG element, in the page's colours for text and lines."""
    spec = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", **spec}
    svg: str = vl_convert.vegalite_to_svg(spec, vl_version=VERSION, config=_THEME, allowed_base_urls=[])
    return svg


def rows_of(histograms: dict[str, Histogram]) -> list[Row]:
    """The bins to draw, over the range that holds all but a thousandth of each group at either end; neighbours are
    taken together where there are more than _BINS.

    Each group ends with a row of share 0, where the last step comes down.
    """
    drawn = {group: one for group, one in histograms.items() if group in COLOURS and one.size}
    if not drawn:
        return []
    spans = [_span(one) for one in drawn.values()]
    first, last = min(low for low, _ in spans), max(high for _, high in spans)
    together = -(-(last + 1 - first) // _BINS)
    rows = []
    for group, one in drawn.items():
        for place in range(first, last + 1, together):
            end = min(place + together, len(one.counts))
            share = int(one.counts[place:end].sum()) / one.size
            rows.append(Row(group, float(one.edges[place]), float(one.edges[end]), share))
        rows.append(Row(group, rows[-1].high, rows[-1].high, 0.0))
    return rows


def constant(histograms: dict[str, Histogram]) -> bool:
    """Whether all numbers lie in one bin, of which a chart would show nothing."""
    return int(np.sum([one.counts for one in histograms.values()], axis=0).astype(bool).sum()) <= 1


def _span(histogram: Histogram) -> tuple[int, int]:
    enough = histogram.counts.cumsum() > _MARGIN * histogram.size
    rest = histogram.counts[::-1].cumsum()[::-1] > _MARGIN * histogram.size
    return int(enough.argmax()), len(rest) - 1 - int(rest[::-1].argmax())
