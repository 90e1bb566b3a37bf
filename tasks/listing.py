"""The tasks as an aligned table."""

from collections.abc import Sequence

from poolbench.text import aligned

from tasks.fast import NAME as FAST
from tasks.fast import fast
from tasks.registry import Task

_HEADINGS = ("key", "name", "suite", "kind", "samples", "classes", "metric", "groups", "data")
_NUMBERS = ("samples", "classes")


def table(tasks: Sequence[Task]) -> str:
    """One row a task under a row of headings; numbers to the right, "-" where a task has none."""
    return aligned([_HEADINGS, *(_row(task) for task in tasks)], [_HEADINGS.index(name) for name in _NUMBERS])


def _row(task: Task) -> tuple[str, ...]:
    return (
        task.key,
        task.name,
        task.suite,
        task.kind,
        str(task.samples),
        "-" if task.classes is None else str(task.classes),
        task.main_metric or "-",
        ",".join([*task.groups, *([FAST] if task.key in fast().tasks else [])]),
        str(task.source),
    )
