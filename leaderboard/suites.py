"""What a scale's board needs: which tasks, what their results amount to, and the grade of the whole."""

from collections.abc import Sequence
from functools import cache

from leaderboard.models import TaskResult
from tasks.grade import WITHOUT_REASON, Grade, grade_of, worst
from tasks.registry import Task, load_tasks, suite_of
from tasks.results import ResultLine


@cache
def suite_tasks(scale: str) -> tuple[Task, ...]:
    """The tasks a run at `scale` is scored on, in the registry's order."""
    return tuple(task for task in load_tasks().values() if task.suite == suite_of(scale))


def main_metrics(results: Sequence[ResultLine | TaskResult]) -> dict[str, float | None]:
    """Task key -> main metric."""
    return {result.key: result.metrics.get("main_metric") for result in results}


def results_deviations(scale: str, results: Sequence[ResultLine | TaskResult]) -> list[str]:
    """Why the results of a run at `scale` are unofficial: each task's own reasons, and each task that is missing."""
    by_key = {result.key: result for result in results}
    lines = []
    for task in suite_tasks(scale):
        result = by_key.get(task.key)
        if result is None:
            lines.append(f"task {task.key} missing")
            continue
        reasons = list(result.deviations)
        if result.grade == "unofficial" and not reasons:
            reasons.append(WITHOUT_REASON)
        if task.main_metric is not None and result.metrics.get("main_metric") is None:
            reasons.append("has no main metric")
        lines += [f"task {task.key}: {reason}" for reason in reasons]
    return lines


def grade_of_whole(deviations: Sequence[str], results: Sequence[ResultLine | TaskResult]) -> Grade:
    """A submission's grade: the worst of its run's and its results', whose reasons are all among `deviations`."""
    return worst([grade_of(deviations, pinned=True), *(result.grade for result in results if result.grade is not None)])
