"""The repository of a task's data on the Hub, and which of its files the task reads."""

import re
from collections.abc import Sequence

from poolbench.errors import UserError
from poolbench.hub import Repository, inspect

from tasks.readers import CLASSNAMES, DATASET_TYPE, NSHARDS, TEMPLATES, TRAIN
from tasks.registry import Task

PARQUET = "refs/convert/parquet"  # the branch on which the Hub keeps a parquet conversion of script datasets
SPLIT = "test"

_TEXTS = (CLASSNAMES, TEMPLATES, DATASET_TYPE, NSHARDS)


def repository(task: Task, *, train: bool = False, revision: str | None = None) -> Repository:
    """Ask the Hub for the files that a task reads, at the newest commit of the task's revision or of another one.

    Args:
        train: for those of its training split, too, where it has one.

    Raises:
        UserError: no such repository, no answer, or files that are not those of a task.
    """
    assert task.source.repo is not None, task.key
    revision = revision or task.source.revision or "main"
    return inspect(task.source.repo, revision, lambda paths: _named(task, paths, train))


def _named(task: Task, paths: Sequence[str], train: bool) -> dict[str, str]:
    """Path in the repository -> name on disk, of the files that belong to a task.

    Raises:
        UserError: there are none, or the parquet conversion is only of a part.
    """
    if task.source.revision != PARQUET:
        shards = rf"{SPLIT}/\d+\.tar" + rf"|{TRAIN}/(\d+\.tar|nshards\.txt)" * train
        named = {path: path for path in paths if path in _TEXTS or re.fullmatch(shards, path)}
        if NSHARDS not in named:
            raise UserError(f"{task.source.repo} has no {NSHARDS}: it holds no webdataset as {task.key} needs it")
        return named
    if any(f"/partial-{SPLIT}/" in f"/{path}" for path in paths):
        raise UserError(f"{task.source.repo}: the hub has converted only a part of it to parquet")
    named = {path: path.replace("/", "-") for path in paths if re.fullmatch(rf"([^/]+/)?{SPLIT}/[^/]+\.parquet", path)}
    if not named:
        raise UserError(f"{task.source.repo} has no parquet files of the split {SPLIT} on {PARQUET}")
    return named
