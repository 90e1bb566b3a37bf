"""The best of each board as plain HTML: for search engines, and for whoever runs no scripts."""

from collections.abc import Sequence
from html import escape

from leaderboard.findings import TITLES, score_of
from leaderboard.models import Board, Entry, Leaderboard, Method, Reference
from leaderboard.page.data import TRACKS, UNVERIFIED, aggregate_names, link, merged, seeded, shown

_ROWS = 100  # of each table; leaderboard.json has all
_NONE = "\u2013"
_MINUS = "\u2212"
_SEEDS = (
    "Means over seeds; \u00b1 is the standard deviation between them. The gain is over the baseline, which is training "
    "on the whole pool, with Welch's interval of 95 %, which covers seeds alone."
)


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
    if over_seeds := seeded(board):
        parts.append(f"<h3>Methods, over their seeds</h3>\n{_methods(over_seeds)}")
    if board.unverified:
        parts.append(f"<h3>Unverified</h3>\n<p>{UNVERIFIED}</p>\n{_unverified(board)}")
    if board.unranked:
        parts.append(f"<h3>Not ranked</h3>\n{_unranked(board)}")
    return "\n".join([*parts, "</section>"])


def _unverified(board: Board) -> str:
    """The ranking's columns without ranks."""
    names = aggregate_names(board)
    heads = [("Method", False), *((TITLES.get(n, n), True) for n in names), ("Dataset size", True)]
    rows = []
    for entry in board.unverified[:_ROWS]:
        scores = [_number(_score(entry, name)) for name in names]
        rows.append([_method(entry), *scores, _number(_size(entry.dataset_size))])
    return _table(heads, rows) + _more(len(board.unverified))


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


def _methods(methods: Sequence[Method]) -> str:
    heads = [("Method", False), *((title, True) for title in ("Average", "Gain", "Seeds", "Dataset size"))]
    rows = []
    for method in methods[:_ROWS]:
        average = method.aggregates["average"]
        scores = (_with_error(average.mean, average.sd), _gain(method))
        cells = (*scores, str(len(method.seeds)), _size(method.dataset_size))
        rows.append([_head(_text(method.method), _text(method.author)), *map(_number, cells)])
    return f"<p>{_SEEDS}</p>\n{_table(heads, rows)}{_more(len(methods))}"


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
    name = _text(entry.method)
    url = link(entry.writeup) if isinstance(entry, Entry) else link(entry.citations[0].url) if entry.citations else None
    if url is not None:
        name = f'<a href="{escape(url)}" rel="nofollow noopener noreferrer">{name}</a>'
    published = "" if isinstance(entry, Entry) else ", published"
    return _head(name, f"{_text(entry.author)}{published}")


def _head(name: str, author: str) -> str:
    return f'<th scope="row" class="name">{name}<small>{author}</small></th>'


def _text(text: str) -> str:
    """<bdi> keeps a name that is written right to left from turning its neighbours around."""
    return f'<bdi class="text">{escape(shown(text))}</bdi>'


def _rank(entry: Entry | Reference) -> str:
    if isinstance(entry, Reference) or entry.rank is None:
        return _NONE
    return str(entry.rank) if entry.rank_last in (None, entry.rank) else f"{entry.rank}\u2013{entry.rank_last}"


def _score(entry: Entry | Reference, name: str) -> str:
    score = score_of(entry, name)
    return _with_error(score.value, score.stderr)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return _NONE
    return f"{value:.3f}" if error is None else f"{value:.3f} <small>\u00b1 {error:.3f}</small>"


def _gain(method: Method) -> str:
    if method.baseline:
        return "baseline"
    if method.gain is None:
        return _NONE
    value, low, high = method.gain.value, method.gain.low, method.gain.high
    interval = "" if low is None or high is None else f" <small>({_signed(low, '')} to {_signed(high, '')})</small>"
    return f"{_signed(value)}{interval}"


def _signed(value: float, plus: str = "+") -> str:
    return f"{plus if value >= 0 else _MINUS}{abs(value):.3f}"


def _size(size: int | None) -> str:
    """14012345 -> 14.0M, with the exact number on hover."""
    if size is None:
        return _NONE
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if size >= unit:
            return f'<span title="{size:,}">{size / unit:.1f}{name}</span>'
    return str(size)
