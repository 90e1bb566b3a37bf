"""The best of each board as plain HTML: for search engines, and for whoever runs no scripts."""

from collections.abc import Sequence
from html import escape

from leaderboard.findings import TITLES, score_of
from leaderboard.models import Board, Entry, Leaderboard, Reference
from leaderboard.page.data import TRACKS, aggregate_names, link, merged, shown

_ROWS = 100  # of each table; leaderboard.json has all
_NONE = "\u2013"


def tables(leaderboard: Leaderboard) -> str:
    """A section a board; the script takes them away."""
    if not leaderboard.boards:
        return "<p>No submissions yet.</p>"
    return "\n".join(_board(board) for board in leaderboard.boards)


def _board(board: Board) -> str:
    parts = [f"<section>\n<h2>{TRACKS[board.track]}, scale {escape(board.scale)}</h2>"]
    entries = merged(board)
    if not board.ranked:
        parts.append("<p>No official entry yet.</p>")
    if entries:
        parts.append(_ranking(board, entries))
    if board.unranked:
        parts.append(f"<h3>Not ranked</h3>\n{_unranked(board)}")
    return "\n".join([*parts, "</section>"])


def _ranking(board: Board, entries: Sequence[Entry | Reference]) -> str:
    names = aggregate_names(board)
    heads = [("Rank", True), ("Method", False), *((TITLES.get(n, n), True) for n in names), ("Dataset size", True)]
    rows = []
    for entry in entries[:_ROWS]:
        scores = [_number(_score(entry, name)) for name in names]
        rows.append([_number(_rank(entry)), _method(entry), *scores, _number(_size(entry.dataset_size))])
    return _table(heads, rows) + _more(len(entries))


def _unranked(board: Board) -> str:
    rows = []
    for entry in board.unranked[:_ROWS]:
        reasons = "".join(f"<li>{escape(shown(reason))}</li>" for reason in entry.deviations)
        rows.append([_method(entry), _number(_score(entry, "average")), f"<td><ul>{reasons}</ul></td>"])
    return _table([("Method", False), ("Average", True), ("Why not", False)], rows) + _more(len(board.unranked))


def _more(count: int) -> str:
    if count <= _ROWS:
        return ""
    return f'<p>The first {_ROWS} of {count:,}; <a href="leaderboard.json">leaderboard.json</a> has all.</p>'


def _table(heads: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(
        f'<th scope="col"{" class=number" if number else ""}>{escape(title)}</th>' for title, number in heads
    )
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def _number(text: str) -> str:
    return f'<td class="number">{text}</td>'


def _method(entry: Entry | Reference) -> str:
    """<bdi> keeps a name that is written right to left from turning its neighbours around."""
    name = f'<bdi class="text">{escape(shown(entry.method))}</bdi>'
    url = link(entry.writeup) if isinstance(entry, Entry) else link(entry.citations[0].url) if entry.citations else None
    if url is not None:
        name = f'<a href="{escape(url)}" rel="nofollow noopener noreferrer">{name}</a>'
    published = "" if isinstance(entry, Entry) else ", published"
    author = f'<bdi class="text">{escape(shown(entry.author))}</bdi>{published}'
    return f'<th scope="row" class="name">{name}<small>{author}</small></th>'


def _rank(entry: Entry | Reference) -> str:
    if isinstance(entry, Reference) or entry.rank is None:
        return _NONE
    return str(entry.rank) if entry.rank_last in (None, entry.rank) else f"{entry.rank}\u2013{entry.rank_last}"


def _score(entry: Entry | Reference, name: str) -> str:
    score = score_of(entry, name)
    if score.value is None:
        return _NONE
    error = "" if score.stderr is None else f" <small>\u00b1 {score.stderr:.3f}</small>"
    return f"{score.value:.3f}{error}"


def _size(size: int | None) -> str:
    """14012345 -> 14.0M, with the exact number on hover."""
    if size is None:
        return _NONE
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if size >= unit:
            return f'<span title="{size:,}">{size / unit:.1f}{name}</span>'
    return str(size)
