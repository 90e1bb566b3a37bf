"""The best of each board as plain HTML: for search engines, and for whoever runs no scripts."""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from leaderboard.findings import TITLES, score_of
from leaderboard.models import Entry, Leaderboard, Reference
from leaderboard.page.data import TRACKS, UNVERIFIED, aggregate_names, link, merged, seeded, shown

_TEMPLATE = Path(__file__).parent / "tables.html"
_ROWS = 100  # of each table; leaderboard.json has all
_NONE, _MINUS = "\u2013", "\u2212"


def tables(leaderboard: Leaderboard) -> str:
    """A section a board; the script takes them away."""
    return _template().render(boards=leaderboard.boards).rstrip("\n")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "short": _short, "signed": _signed, "rank": _rank, "title_of": _title}
    environment.tests["published"] = lambda entry: isinstance(entry, Reference)
    environment.globals |= {"tracks": TRACKS, "unverified": Markup(UNVERIFIED), "most": _ROWS}
    environment.globals |= {"score_of": score_of, "address": _address, "aggregate_names": aggregate_names}
    environment.globals |= {"merged": merged, "seeded": seeded}
    return environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))


def _title(aggregate: str) -> str:
    return TITLES.get(aggregate, aggregate)


def _address(entry: Entry | Reference) -> str | None:
    """What the name of a method links to."""
    if isinstance(entry, Entry):
        return link(entry.writeup)
    return link(entry.citations[0].url) if entry.citations else None


def _rank(entry: Entry | Reference) -> str:
    if isinstance(entry, Reference) or entry.rank is None:
        return _NONE
    return str(entry.rank) if entry.rank_last in (None, entry.rank) else f"{entry.rank}{_NONE}{entry.rank_last}"


def _signed(value: float, plus: str = "+") -> str:
    return f"{plus if value >= 0 else _MINUS}{abs(value):.3f}"


def _short(size: int) -> str:
    """14012345 -> 14.0M"""
    unit, name = next(pair for pair in ((10**9, "B"), (10**6, "M"), (10**3, "k")) if size >= pair[0])
    return f"{size / unit:.1f}{name}"
