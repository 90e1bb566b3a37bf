"""What a change does to the boards, as Markdown for a pull request.

    python -m leaderboard diff before/leaderboard.json after/leaderboard.json out=diff.md

New entries with their places and their lead, unverified and unofficial ones apart, entries whose place moved, and, as
warnings, entries that were changed or removed. Every text from a submission is shown as it is: it cannot end a table,
make a link or call people.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from poolbench.errors import UserError
from poolbench.files import atomic
from poolbench.options import output

from leaderboard.models import Board, Entry, Leaderboard, read_leaderboard
from leaderboard.rank import margin

_ROWS = 25  # of a table; a comment on a pull request has 65,536 characters at most
_LENGTH = 120  # characters shown of a text from a submission


@dataclass
class DiffOptions:
    """The options of `diff`."""

    out: str | None = output("Markdown file to write; null: print it", None)


class Change(NamedTuple):
    """An entry before and after, None where it is not there."""

    before: Entry | None
    after: Entry | None


def diff(paths: Sequence[str], options: DiffOptions) -> int:
    """Print what differs between two leaderboard.json, or write it to `out`.

    Raises:
        UserError: not two files are named, or one is no leaderboard.
    """
    if len(paths) != 2:
        raise UserError("diff needs two files: python -m leaderboard diff OLD.json NEW.json [out=FILE.md]")
    text = markdown(*(read_leaderboard(Path(path)) for path in paths))
    if options.out is None:
        print(text, end="")
        return 0
    try:
        with atomic(options.out) as file:
            file.write(text)
    except OSError as error:
        raise UserError(f"out={options.out} cannot be written: {error.strerror or error}") from None
    return 0


def markdown(before: Leaderboard, after: Leaderboard) -> str:
    """The whole summary."""
    old, new = ({(board.track, board.scale): board for board in side.boards} for side in (before, after))
    parts = [part for key in [*new, *(old.keys() - new.keys())] if (part := _board(old.get(key), new.get(key)))]
    if before.aggregates_version != after.aggregates_version:
        versions = f"{before.aggregates_version} to {after.aggregates_version}"
        parts.insert(0, f"**Warning:** the definition of the aggregates changes from {versions}.\n")
    return "\n".join(["## What this does to the leaderboard\n", *(parts or ["Nothing.\n"])])


def shown(text: str) -> str:
    """A text from a submission, as Markdown that shows it and does nothing else.

    Within <code>, GitHub looks for no names to notify, no issues and no addresses; as numbers, no character has a
    meaning in Markdown or HTML. Control characters and marks that turn the direction of writing are made visible.
    """
    text = text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"
    visible = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)
    return f"<code>{re.sub(r'[^A-Za-z0-9]', _number, visible)}</code>"


def _number(match: re.Match[str]) -> str:
    char = match[0]
    return char if char == " " or not char.isascii() else f"&#{ord(char)};"


def _board(before: Board | None, after: Board | None) -> str:
    """What changes on a board, "" where nothing does."""
    board = after or before
    assert board is not None
    changes = _changes(before, after)
    sections = [
        _warnings(changes),
        _table("New", ["Place", "Method", "Author", "Average", "To the best other"], changes, _new_row(after)),
        _table("New, unverified: ranked with none", ["Method", "Author", "Average"], changes, _unverified_row),
        _table("New, not ranked", ["Method", "Author", "Average", "Why"], changes, _unranked_row),
        _table("Moved", ["Method", "Author", "Place before", "Place now"], changes, _moved_row),
    ]
    filled = [section for section in sections if section]
    return "\n".join([f"### {board.track}, scale {board.scale}\n", *filled]) if filled else ""


def _changes(before: Board | None, after: Board | None) -> list[Change]:
    """Every entry of both, those that are gone first. One with another digest and the same checkpoint was changed."""
    old, new = _entries(before), _entries(after)
    gone = {entry.checkpoint_sha256: entry for digest, entry in old.items() if digest not in new}
    changes = []
    for digest, entry in new.items():
        known = old.get(digest) or gone.pop(entry.checkpoint_sha256, None)
        changes.append(Change(known, entry))
    return [*(Change(entry, None) for entry in gone.values()), *changes]


def _entries(board: Board | None) -> dict[str, Entry]:
    listed = [] if board is None else [*board.ranked, *board.unverified, *board.unranked]
    return {entry.digest: entry for entry in listed}


def _warnings(changes: Sequence[Change]) -> str:
    lines = []
    for before, after in changes:
        if before is None or (after is not None and before.digest == after.digest):
            continue
        what = "removed" if after is None else f"changed, its average from {_score(before)} to {_score(after)}"
        lines.append(f"> **Warning:** the entry {shown(before.method)} by {shown(before.author)} is {what}.")
    return "\n>\n".join(_capped(lines, "> and {} more")) + "\n" if lines else ""


def _table(
    title: str, heads: Sequence[str], changes: Sequence[Change], row: Callable[[Change], list[str] | None]
) -> str:
    """A table of the changes for which `row` gives cells, "" where there are none."""
    rows = [cells for change in changes if (cells := row(change)) is not None]
    if not rows:
        return ""
    lines = [f"**{title}**\n", _line(heads), _line(["---"] * len(heads))]
    return "\n".join([*lines, *_capped([_line(cells) for cells in rows], "\nand {} more")]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _capped(lines: list[str], rest: str) -> Iterator[str]:
    yield from lines[:_ROWS]
    if len(lines) > _ROWS:
        yield rest.format(len(lines) - _ROWS)


def _new_row(board: Board | None) -> Callable[[Change], list[str] | None]:
    def row(change: Change) -> list[str] | None:
        entry = change.after
        if change.before is not None or entry is None or entry.rank is None or board is None:
            return None
        place = f"{_place(entry)} of {len(board.ranked)}"
        return [place, shown(entry.method), shown(entry.author), _score(entry), _lead(board, entry)]

    return row


def _unverified_row(change: Change) -> list[str] | None:
    entry = change.after
    if change.before is not None or entry is None or entry.grade != "unverified":
        return None
    return [shown(entry.method), shown(entry.author), _score(entry)]


def _unranked_row(change: Change) -> list[str] | None:
    entry = change.after
    if change.before is not None or entry is None or entry.rank is not None or entry.grade == "unverified":
        return None
    more = f" and {len(entry.deviations) - 1} more" if len(entry.deviations) > 1 else ""
    why = shown(entry.deviations[0]) + more if entry.deviations else ""
    return [shown(entry.method), shown(entry.author), _score(entry), why]


def _moved_row(change: Change) -> list[str] | None:
    before, after = change
    if before is None or after is None or _place(before) == _place(after):
        return None
    return [shown(after.method), shown(after.author), _place(before), _place(after)]


def _lead(board: Board, entry: Entry) -> str:
    """How far the entry is ahead of the best other one, or behind it, and whether that is more than noise."""
    other = next((other for other in board.ranked if other.digest != entry.digest), None)
    if other is None:
        return "the only one"
    one, best = entry.aggregates["average"], other.aggregates["average"]
    assert one.value is not None
    assert best.value is not None
    noise = margin(one, best, board.noise.values["average"] if board.noise else 0.0)
    within = ", within noise" if abs(one.value - best.value) <= noise else ""
    return f"{one.value - best.value:+.4f} (noise {noise:.4f}){within}"


def _place(entry: Entry) -> str:
    """ "3", "3–5" where noise leaves places open, "unverified", "none" below the ranking."""
    if entry.rank is None:
        return "unverified" if entry.grade == "unverified" else "none"
    return f"{entry.rank}" if entry.rank == entry.rank_last else f"{entry.rank}–{entry.rank_last}"


def _score(entry: Entry) -> str:
    value = entry.aggregates["average"].value
    return "none" if value is None else f"{value:.4f}"
