"""The tasks as an aligned table."""

from collections.abc import Sequence

from tasks.registry import Task

_HEADINGS = ("key", "name", "kind", "samples", "classes", "metric", "groups", "data")
_NUMBERS = ("samples", "classes")


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
