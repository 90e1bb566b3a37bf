"""Tables and names as people read them in a terminal."""

import re
from collections.abc import Collection, Sequence

SHOWN = 3  # names of a long list that a message tells
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def aligned(rows: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Rows of equally many cells, one a line, two spaces between columns; those numbered in `right` go to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def one_line(text: str) -> str:
    """A text in one line, whatever names of files stand in it: what would break the line, or move the terminal's
    cursor, or is no character at all, as Python writes it."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
