"""The report as one HTML document: no script, no network, every text escaped."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

_FOLDER = Path(__file__).parent
CAPTION = 160  # characters of a caption that are shown


class Fact(NamedTuple):
    name: str
    value: str


class Part(NamedTuple):
    """A part of a bar: whose colour it has, and how large it is."""

    kind: str
    weight: int


class Other(NamedTuple):
    """The second subset; `shared` is the share of the first one's uids that it has, too."""

    name: str
    shared: str
    facts: list[Fact]
    overlap: list[Part]


class Numbers(NamedTuple):
    """One line below a chart."""

    name: str
    cells: list[str]


class Chart(NamedTuple):
    title: str
    svg: str
    quantiles: list[str]
    rows: list[Numbers]


class Distributions(NamedTuple):
    title: str
    charts: list[Chart]


class Line(NamedTuple):
    """One word, host or language: its shares, and as long as which part of the list's longest bar they are drawn."""

    item: str
    first: float
    second: float
    first_bar: str
    second_bar: str
    z: str


class Listing(NamedTuple):
    title: str
    names: tuple[str, str]  # what the two columns are called
    kinds: tuple[str, str]  # and whose colours they have
    rows: list[Line]


class Contrasts(NamedTuple):
    title: str
    note: str
    lists: list[Listing]


class SheetCell(NamedTuple):
    picture: str
    caption: str
    scores: str


class SheetGroup(NamedTuple):
    title: str
    kind: str
    cells: list[SheetCell]


class Sheets(NamedTuple):
    """Pictures of kept and dropped samples; `wide` ones are two beside each other."""

    title: str
    note: str
    groups: list[SheetGroup]
    wide: bool = False


class Report(NamedTuple):
    """Everything the page shows, in words and numbers."""

    name: str
    kept: int
    pool: int
    repeats: int
    facts: list[Fact]
    warnings: Sequence[str]
    other: Other | None
    distributions: list[Distributions]
    contrasts: list[Contrasts]
    sheets: list[Sheets]
    made: str

    @property
    def kept_share(self) -> float:
        return self.kept / self.pool


def page(report: Report) -> str:
    """The whole document; the same text for the same report."""
    return document(_FOLDER / "page.html", report=report)


def document(template: Path, **values: Any) -> str:
    """A document from a template that extends base.html of this folder: the same head, the same styles."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, _FOLDER]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"percent": percent, "count": count}
    style = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template.name).render(style=style, **values)


def p_value(p: float) -> str:
    """Two digits; one that is too small for a float is not 0."""
    return f"{p:.2g}" if p else "below 1e-300"


def percent(share: float) -> str:
    """30 %, 1.2 %, 0.04 %: two digits."""
    value = 100 * share
    digits = 0 if value >= 10 or value == 0 else 1 if value >= 1 else 2
    return f"{value:.{digits}f} %" if value == 0 or value >= 0.005 else "< 0.01 %"


def cut(caption: str) -> str:
    """As much of a text as is shown."""
    return caption if len(caption) <= CAPTION else caption[:CAPTION] + "…"


def count(number: int) -> str:
    return f"{number:,}"
