"""Boards of a leaderboard from scores alone, for the tests of what is read from them."""

from collections.abc import Mapping, Sequence
from typing import Any

from poolbench.files import digest_bytes

from leaderboard.models import Bad, Board, BoardTask, Citation, Entry, Leaderboard, Noise, Reference, Score
from tasks.aggregates import aggregates, members
from tasks.registry import load_tasks, suite_of

SOURCE = Citation(text="A paper", url="https://example.org/paper")
NOISE = Noise(values={"average": 0.006, "imagenet": 0.002}, citation=SOURCE)
POOLS = {"small": 12_800_000, "medium": 128_000_000, "large": 1_280_000_000}


def scored_keys(scale: str = "small") -> list[str]:
    """The tasks of a scale that have a main metric."""
    return [task.key for task in load_tasks().values() if task.suite == suite_of(scale) and task.main_metric]


def entry(method: str, scores: Mapping[str, float], scale: str = "small", **changes: Any) -> Entry:
    """A ranked entry; its aggregates follow from its scores."""
    values = {
        "rank": 1,
        "rank_last": 1,
        "digest": digest_bytes(method.encode()),
        "method": method,
        "author": "A. Author",
        "writeup": None,
        "aggregates": {
            name: Score(value=value, stderr=0.002) for name, value in aggregates(scores, suite_of(scale)).items()
        },
        "scores": {key: Score(value=value, stderr=0.01) for key, value in scores.items()},
        "dataset_size": 3_800_000,
        "samples_seen": 12_800_000,
        "seed": 0,
        "precision": "amp",
        "official": True,
        "grade": "official",
        "deviations": [],
        "recipe_digest": digest_bytes(b"recipe"),
        "data_digest": digest_bytes(b"data"),
        "subset_digest": None,
        "checkpoint_sha256": digest_bytes(method.encode()),
        "bad": Bad(samples=0, shards=0),
        "version": "0.1.0",
        "finished": None,
    }
    return Entry(**{**values, **changes})


def reference(method: str, scores: Mapping[str, float], **changes: Any) -> Reference:
    """A published result at a scale of the main suite."""
    values = {
        "method": method,
        "author": "A paper",
        "aggregates": aggregates(scores, "main"),
        "scores": dict(scores),
        "dataset_size": 12_800_000,
        "citations": [SOURCE],
        "notes": [],
    }
    return Reference(**{**values, **changes})


def board(
    ranked: Sequence[Entry] = (), references: Sequence[Reference] = (), scale: str = "small", **changes: Any
) -> Board:
    tasks = [task for task in load_tasks().values() if task.suite == suite_of(scale)]
    values = {
        "track": "filtering",
        "scale": scale,
        "pool_size": POOLS.get(scale),
        "aggregates": list(members(suite_of(scale))),
        "tasks": [
            BoardTask(key=task.key, name=task.name, main_metric=task.main_metric, groups=list(task.groups))
            for task in tasks
        ],
        "noise": NOISE,
        "ranked": list(ranked),
        "unverified": [],
        "unranked": [],
        "references": list(references),
        "methods": [],
    }
    return Board(**{**values, **changes})


def leaderboard_of(*boards: Board) -> Leaderboard:
    return Leaderboard(format=2, aggregates_version=1, boards=list(boards))
