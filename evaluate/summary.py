"""The table at the end of an evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from poolbench.text import aligned

from evaluate.fairness import tables
from tasks.aggregates import aggregates, mean, members
from tasks.fast import NAME as FAST
from tasks.fast import fast, foretold
from tasks.grade import worst
from tasks.lock import why_unpinned
from tasks.registry import Task
from tasks.results import ResultLine

_HEADINGS = ("task", "metric", "score", "± stderr", "samples", "grade")


def brief(task: Task, line: ResultLine) -> str:
    """One line for a task that has just finished."""
    score = f"{task.main_metric} {_number(line.metrics['main_metric'])} over " if task.main_metric else ""
    return f"{task.key}: {score}{line.samples:,} samples in {line.seconds:.1f} s"


def summary(
    tasks: Sequence[Task],
    lines: Mapping[str, ResultLine],
    problems: Mapping[str, str],
    stored: Mapping[str, ResultLine],
    results: Path,
) -> str:
    """The table of the chosen tasks, the groups' means over all stored results, the fairness tables, what has no
    result, and where all lies. Where the group `fast` was chosen, its mean and what that foretells.

    Args:
        tasks: the chosen ones, in order.
        lines: key -> result, of the chosen tasks that have one.
        problems: key -> why a chosen task has none.
        stored: key -> last result in the file for this checkpoint, of chosen tasks and others.
        results: the results file.
    """
    lines, stored = ({key: line.regraded() for key, line in some.items()} for some in (lines, stored))
    parts = []
    if lines:
        rows = [_row(task, lines[task.key]) for task in tasks if task.key in lines]
        parts.append(aligned([_HEADINGS, *rows]))
        chosen_fast = _is_fast(tasks)
        means = [row for suite in _suites(tasks) for row in _aggregates(suite, stored)]
        means += [_fast(stored)] if chosen_fast else []
        parts += [aligned(means)] if means else []
        parts += _foretold(stored) if chosen_fast else []
        fairness = [task for task in tasks if task.kind == "fairness" and task.key in lines]
        parts += [tables(task, lines[task.key].metrics) for task in fairness]
    if problems:
        parts.append("\n".join(f"{key}: {reason}" for key, reason in problems.items()))
    bad = [f"{key}: {len(line.bad)} unreadable, listed in its line" for key, line in lines.items() if line.bad]
    if bad:
        parts.append("\n".join(bad))
    unverified = sum(line.grade == "unverified" for line in lines.values())
    if unverified:
        count = f"{unverified} task{'s' * (unverified > 1)}"
        parts.append(f"the data are not pinned: {why_unpinned()}. Only counts and known names were checked of {count}.")
    done = f"{len(lines)} of {len(tasks)} tasks have results"
    parts.append(f"{done}: {results}\npredictions: {results.parent / 'predictions'}" if lines else done)
    return "\n" + "\n\n".join(parts)


def _suites(tasks: Sequence[Task]) -> list[str]:
    return list(dict.fromkeys(task.suite for task in tasks))


def _row(task: Task, line: ResultLine) -> tuple[str, ...]:
    stderr = "-" if line.stderr is None else f"{line.stderr:.4f}"
    grade = f"{line.grade}: {'; '.join(line.deviations)}" if line.deviations else str(line.grade)
    score = _number(line.metrics["main_metric"])
    return task.key, task.main_metric or "-", score, stderr, f"{line.samples:,}", grade


def _aggregates(suite: str, stored: Mapping[str, ResultLine]) -> list[tuple[str, ...]]:
    """Name, mean and remark of each aggregate; a mean has the grade of its worst task."""
    main = {key: line.metrics["main_metric"] for key, line in stored.items()}
    values = aggregates(main, suite)
    rows: list[tuple[str, ...]] = []
    for name, keys in members(suite).items():
        missing = [key for key in keys if main.get(key) is None]
        remark = f"{len(missing)} of {len(keys)} tasks missing" if missing else f"{len(keys)} tasks"
        if not missing and (grade := worst(stored[key].grade or "unofficial" for key in keys)) != "official":
            remark += f", {grade}"
        label = name if suite == "main" else f"{suite} {name}"
        rows.append((label, _number(values[name]), remark))
    return rows


def _is_fast(tasks: Sequence[Task]) -> bool:
    """Whether the group `fast` was chosen, alone or with some others, and not the whole of which it is a part."""
    chosen = {task.key for task in tasks}
    return chosen >= set(fast().tasks) and not chosen >= set(members()["average"])


def _fast(stored: Mapping[str, ResultLine]) -> tuple[str, ...]:
    """The mean of the group `fast`, as the rows of the aggregates."""
    keys = fast().tasks
    missing = sum(_main(stored, key) is None for key in keys)
    remark = f"{missing} of {len(keys)} tasks missing" if missing else f"{len(keys)} tasks"
    return FAST, _number(mean([_main(stored, key) for key in keys])), f"{remark}, never official"


def _foretold(stored: Mapping[str, ResultLine]) -> list[str]:
    """What the mean of the group `fast` is good for, where there is one."""
    group = fast()
    value = mean([_main(stored, key) for key in group.tasks])
    if value is None:
        return []
    return [
        f"{FAST} foretells an average of {foretold(value):.3f}, give or take {group.error:.3f} (root mean square "
        f"error). Its rank\ncorrelation with the average is {group.spearman:.3f}, Kendall's {group.kendall:.3f}. Both "
        "are of published models that it was not\nchosen on. Only the average, over all 38 tasks, is ever official."
    ]


def _main(stored: Mapping[str, ResultLine], key: str) -> float | None:
    return stored[key].metrics["main_metric"] if key in stored else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
