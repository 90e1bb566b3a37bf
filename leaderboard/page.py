"""The leaderboard as one static page: no script, no network, every text from a submission escaped."""

from collections.abc import Sequence
from html import escape

from leaderboard.models import Board, Entry, Leaderboard

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #d9dee3; --paper: #fff; --tint: #f3f6f8;
  --accent: #0b62a8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --soft: #9aa5b0; --line: #333b43; --paper: #14181c;
  --tint: #1d2329; --accent: #6cb6f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; } h2 { margin: 2.5rem 0 .5rem; font-size: 1.2rem; }
h3 { margin: 1.5rem 0 .5rem; font-size: 1rem; }
p { margin: .3rem 0; max-width: 46rem; } .soft, td small { color: var(--soft); } a { color: var(--accent); }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--tint); font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; } .name { min-width: 11rem; overflow-wrap: anywhere; }
.first { font-weight: 600; } ul { margin: .3rem 0; padding-left: 1.1rem; } li { overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--accent); padding: .4rem 0; } td summary { padding: 0; }
.tasks th:first-child { position: sticky; left: 0; background: var(--tint); font-weight: 400; text-align: left; }
"""

_TITLES = {"imagenet": "ImageNet", "imagenet_shifts": "ImageNet shifts", "vtab": "VTAB", "retrieval": "Retrieval"}
_TRACKS = {"filtering": "Filtering", "byod": "Bring your own data"}
_NONE = "\u2013"


def page(leaderboard: Leaderboard) -> str:
    """The whole HTML document."""
    boards = "\n".join(_board(board) for board in leaderboard.boards)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>poolbench leaderboard</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>poolbench leaderboard</h1>
<p>Which image-text dataset trains the best CLIP? Every ranked entry was trained with the pinned recipe of its scale
and scored on every task with complete data. Entries that were not are shown below each ranking, with the reasons.</p>
<p class="soft">Aggregates: definition {leaderboard.aggregates_version}. All numbers are in
<a href="leaderboard.json">leaderboard.json</a>.</p>
{boards or "<p>No submissions yet.</p>"}
</body>
</html>
"""


def _board(board: Board) -> str:
    parts = [f"<section>\n<h2>{_TRACKS[board.track]}, scale {escape(board.scale)}</h2>"]
    if board.ranked:
        parts.append(_ranking(board))
    else:
        parts.append("<p>No official entry yet.</p>")
    if board.unranked:
        parts.append(f"<h3>Not ranked</h3>\n{_unranked(board)}")
    parts.append(f"<details>\n<summary>Scores of each task</summary>\n{_tasks(board)}\n</details>\n</section>")
    return "\n".join(parts)


def _ranking(board: Board) -> str:
    heads = [_head("Rank", number=True), _head("Method"), _head("Average", number=True)]
    others = [name for name in board.aggregates if name != "average"]
    heads += [_head(_TITLES[name], number=True) for name in others]
    heads += [_head(title, number=True) for title in ("Dataset size", "Seed")]
    rows = []
    for entry in board.ranked:
        cells = [_number(str(entry.rank)), _method(entry), _number(_score(entry.aggregates["average"]), "first")]
        cells += [_number(_score(entry.aggregates[name])) for name in others]
        cells += [_number(_size(entry.dataset_size)), _number(str(entry.seed))]
        rows.append(cells)
    return _table(heads, rows)


def _unranked(board: Board) -> str:
    rows = []
    for entry in board.unranked:
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in entry.deviations)
        listed = f"<ul>{reasons}</ul>"
        if len(entry.deviations) > 5:
            listed = f"<details><summary>{len(entry.deviations)} reasons</summary>{listed}</details>"
        rows.append([_method(entry), _number(_score(entry.aggregates["average"])), f"<td>{listed}</td>"])
    return _table([_head("Method"), _head("Average", number=True), _head("Why not")], rows)


def _tasks(board: Board) -> str:
    """A row a task, a column an entry, in the order of the board."""
    entries = [*board.ranked, *board.unranked]
    heads = [_head("Task"), _head("Metric")]
    heads += [f'<th scope="col" class="number"><bdi>{escape(_short(entry))}</bdi></th>' for entry in entries]
    rows = []
    for task in board.tasks:
        cells = [f'<th scope="row">{escape(task.name)}</th>', f"<td>{escape(task.main_metric or _NONE)}</td>"]
        for entry in entries:
            score = entry.scores.get(task.key)
            cells.append(_number(_NONE if score is None else _with_error(score.value, score.stderr)))
        rows.append(cells)
    return _table(heads, rows, "tasks")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], style: str = "") -> str:
    body = "\n".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    start = f'<div class="scroll"><table class="{style}">' if style else '<div class="scroll"><table>'
    return f"{start}\n<thead><tr>{''.join(heads)}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"


def _head(title: str, number: bool = False) -> str:
    return f'<th scope="col"{" class=number" if number else ""}>{escape(title)}</th>'


def _number(text: str, style: str = "") -> str:
    return f'<td class="{f"number {style}".strip()}">{text}</td>'


def _method(entry: Entry) -> str:
    """<bdi> keeps a name that is written right to left from turning its neighbours around."""
    name = f"<bdi>{escape(entry.method)}</bdi>"
    if entry.writeup is not None:
        name = f'<a href="{escape(entry.writeup)}" rel="nofollow noopener noreferrer">{name}</a>'
    return f'<td class="name">{name}<br><small><bdi>{escape(entry.author)}</bdi></small></td>'


def _short(entry: Entry) -> str:
    name = entry.method if len(entry.method) <= 24 else entry.method[:23] + "\u2026"
    return name if entry.rank is None else f"{entry.rank}. {name}"


def _score(value: float | None) -> str:
    return _NONE if value is None else f"{value:.3f}"


def _with_error(value: float | None, stderr: float | None) -> str:
    return _score(value) if value is None or stderr is None else f"{value:.3f} <small>\u00b1 {stderr:.3f}</small>"


def _size(size: int | None) -> str:
    """14012345 -> 14.0M, with the exact number on hover."""
    if size is None:
        return _NONE
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if size >= unit:
            return f'<span title="{size:,}">{size / unit:.1f}{name}</span>'
    return str(size)
