"""The leaderboard's aggregates over tasks. The definition has a version: scores are compared over years.

aggregates({"imagenet1k": 0.6332, ...})["average"]
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache

from tasks.registry import load_tasks

AGGREGATES_VERSION = 1

_GROUPS = ("imagenet", "imagenet_shifts", "vtab", "retrieval")


@cache
def members(suite: str = "main") -> Mapping[str, tuple[str, ...]]:
    """The keys of the tasks behind each aggregate of a suite, in the registry's order.

    `average` is over every task of the suite that has a main metric; the main suite also has the groups
    imagenet, imagenet_shifts, vtab and retrieval, each over its own tasks. The extra suite has no aggregate.
    """
    if suite == "extra":
        return {}
    scored = [task for task in load_tasks().values() if task.suite == suite and task.main_metric is not None]
    groups = _GROUPS if suite == "main" else ()
    named = {group: tuple(task.key for task in scored if group in task.groups) for group in groups}
    return {**named, "average": tuple(task.key for task in scored)}


def aggregates(scores: Mapping[str, float | None], suite: str = "main") -> dict[str, float | None]:
    """Unweighted means of main metrics; None where a task of the aggregate is missing or None.

    Args:
        scores: task key -> main metric. Tasks outside the suite or without a main metric are not looked at.
        suite: "main" or "demo".

    Raises:
        ValueError: a score that is NaN or infinite.
    """
    return {name: mean([scores.get(key) for key in keys]) for name, keys in members(suite).items()}


def mean(values: Sequence[float | None]) -> float | None:
    """The mean over complete coverage only. fsum makes it independent of the order of the tasks.

    Raises:
        ValueError: a value that is NaN or infinite.
    """
    present = [value for value in values if value is not None]
    if not all(math.isfinite(value) for value in present):
        raise ValueError("a score is not a finite number")
    if not present or len(present) < len(values):
        return None
    return math.fsum(present) / len(present)
