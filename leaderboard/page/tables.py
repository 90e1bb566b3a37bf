"""The best of each board as plain HTML, for search engines and whoever runs no scripts; and public models, for all."""

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup

from leaderboard.findings import TITLES, score_of
from leaderboard.models import Entry, Leaderboard, Reference
from leaderboard.page.data import TRACKS, UNVERIFIED, aggregate_names, link, merged, seeded, shown
from leaderboard.public_models import PublicModels
from tasks.aggregates import members
from tasks.registry import load_tasks

_FOLDER = Path(__file__).parent
_ROWS = 100  # of each table; leaderboard.json has all
_NONE, _MINUS = "\u2013", "\u2212"


def tables(leaderboard: Leaderboard) -> str:
    """A section a board; the script takes them away."""
    return _template("tables").render(boards=leaderboard.boards).rstrip("\n")


def public_section(public: PublicModels | None) -> str:
    """The section of public models; empty without any."""
    if public is None:
        return ""
    names = sorted(members(), key=lambda name: name != "average")
    tasks = [load_tasks()[key] for key in members()["average"]]
    return _template("public_models").render(public=public, names=names, tasks=tasks).rstrip("\n")


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"shown": shown, "short": _short, "signed": _signed, "rank": _rank, "title_of": _title}
    environment.filters |= {"of": lambda key, values: values[key]}
    environment.tests["published"] = lambda entry: isinstance(entry, Reference)
    environment.globals |= {"tracks": TRACKS, "unverified": Markup(UNVERIFIED), "most": _ROWS}
    environment.globals |= {"score_of": score_of, "address": _address, "aggregate_names": aggregate_names}
    environment.globals |= {"merged": merged, "seeded": seeded}
    return environment.from_string((_FOLDER / f"{name}.html").read_text(encoding="utf-8"))


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
