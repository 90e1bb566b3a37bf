"""`python -m tasks list`: the tasks as an aligned table."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from conf.command import parse
from conf.errors import UserError, nearest
from tasks.registry import Task, load_tasks, select

COMMANDS = ("list",)

_HEADINGS = ("key", "name", "kind", "samples", "classes", "metric", "groups", "data")
_NUMBERS = ("samples", "classes")


@dataclass
class ListOptions:
    """`tasks=` takes keys, groups and globs, separated by commas; without it every task is listed."""

    tasks: str = ""


def main() -> int:
    """Run the command that the command line names.

    Raises:
        UserError: no command, an unknown one, or a wrong option.
    """
    if not sys.argv[1:]:
        raise UserError(f"python -m tasks needs a command; known: {', '.join(COMMANDS)}")
    command, *arguments = sys.argv[1:]
    if command not in COMMANDS:
        raise UserError(f"unknown command {command!r}: {nearest(command, COMMANDS)}")
    words, options = parse(arguments, ListOptions)
    if words:
        raise UserError(f"unknown word {words[0]!r}; to choose tasks write tasks={words[0]}")
    patterns = [word.strip() for word in options.tasks.strip("[]").split(",") if word.strip()]
    print(table(select(patterns) if patterns else list(load_tasks().values())))
    return 0


def table(tasks: Sequence[Task]) -> str:
    """One row a task under a row of headings; numbers to the right, "-" where a task has none."""
    rows = [_HEADINGS, *(_row(task) for task in tasks)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return "\n".join(_line(row, widths) for row in rows)


def _row(task: Task) -> tuple[str, ...]:
    return (
        task.key,
        task.name,
        task.kind,
        str(task.samples),
        "-" if task.classes is None else str(task.classes),
        task.main_metric or "-",
        ",".join(task.groups),
        str(task.source),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if heading in _NUMBERS else cell.ljust(width)
        for heading, cell, width in zip(_HEADINGS, row, widths, strict=True)
    ]
    return "  ".join(cells).rstrip()
