"""What the evaluation tasks are: one YAML file a task below tasks/main/ and tasks/demo/, read strictly.

    from tasks.registry import load_tasks, select
    load_tasks()["vtab/cifar100"].main_metric       # "acc1"
    select(["imagenet_shifts", "wilds/*"])          # groups, keys and globs, in the registry's order

The suite `main` holds the 40 tasks of the benchmark, `demo` the tasks of the embedded demonstration data.
A new task is one new file named after its key ("/" becomes "-").
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from poolbench.errors import UserError, nearest
from poolbench.files import files_in

SUITES = ("main", "demo")
KINDS = ("classification", "retrieval", "winogavil", "iwildcam", "worst_group", "fmow", "fairness")
GROUPS = ("imagenet", "imagenet_shifts", "vtab", "other", "retrieval", "wilds", "fairness", "demo")

_REQUIRED = {"key", "name", "kind", "samples", "groups", "source"}
_OPTIONAL = {"classes", "main_metric", "citation", "metadata", "group_by", "top", "races", "cost"}


@dataclass(frozen=True)
class Source:
    """Where the data come from: a dataset repository of the Hugging Face Hub, or pip packages."""

    repo: str | None = None
    revision: str | None = None
    packages: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.repo is None:
            return ", ".join(self.packages)
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


@dataclass(frozen=True)
class Task:
    """One evaluation task.

    Attributes:
        key: the public name that results files refer to, e.g. "vtab/cifar100".
        name: the display name, e.g. "CIFAR-100".
        kind: one of KINDS; it decides which evaluator runs.
        samples: how many samples the complete data hold.
        classes: how many classes there are, None where the task has no single class list.
        main_metric: the metric that is averaged, None for a task that is only reported.
        groups: which of GROUPS it belongs to.
        source: where its data come from.
        citation: the paper behind the data, one line, None where not recorded.
        suite: "main" or "demo".
        metadata: names of the fields of a sample's metadata vector, () for tasks without.
        group_by: the field whose worst group counts, None for tasks without.
        top: a sample is right when its class is among the `top` best ones (only with `group_by`).
        races: names of the values of the field `race`, () for tasks without.
        cost: seconds that the task takes in relation to others. For the main suite they are those that the published
            task list states; WinoGAViL's are divided by 12, as its pictures are encoded once here.
    """

    key: str
    name: str
    kind: str
    samples: int
    classes: int | None
    main_metric: str | None
    groups: tuple[str, ...]
    source: Source
    citation: str | None
    suite: str
    metadata: tuple[str, ...] = ()
    group_by: str | None = None
    top: int = 1
    races: tuple[str, ...] = ()
    cost: int = 1

    @property
    def folder(self) -> str:
        """The task's folder below the data directory.

        It is the repository's name. A task without one has `wds_<name>_test`, where <name> is the key without
        a leading "fairness/" and with "/" turned into "-"; the repositories of webdatasets are named so too.
        """
        if self.source.repo is not None:
            return self.source.repo.split("/")[-1]
        name = self.key.removeprefix("fairness/").replace("/", "-")
        return f"wds_{name}_test"


def suite_of(scale: str) -> str:
    """The suite that a training scale is scored on: "demo" for the scale `tiny`, else "main"."""
    return "demo" if scale == "tiny" else "main"


@cache
def load_tasks() -> dict[str, Task]:
    """Every task by its key: the main suite, then the demo's; by group in the order of GROUPS, then by key.

    Raises:
        ValueError: a task file has an unknown or missing key, an unknown kind or group, or the wrong name.
    """
    root = Path(__file__).parent
    tasks = [read_task(path, suite) for suite in SUITES for path in files_in(root / suite, "*.yaml")]
    tasks.sort(key=lambda task: (SUITES.index(task.suite), GROUPS.index(task.groups[0]), task.key))
    if len({task.key for task in tasks}) < len(tasks):
        raise ValueError(f"{root}: two task files have the same key")
    return {task.key: task for task in tasks}


def words_of(text: str) -> list[str]:
    """The patterns of a `tasks=` that is plain text: separated by commas, in brackets or not."""
    whole = re.fullmatch(r"\s*\[(.*)\]\s*", text)
    return [word.strip() for word in (whole[1] if whole else text).split(",") if word.strip()]


def select(patterns: Sequence[str], suite_default: str = "main") -> list[Task]:
    """The tasks that `patterns` name, in the registry's order and without repeats.

    A pattern is a task's key, "all" (the main suite), "demo" (the demo suite), the name of a group, or a glob
    over keys such as "vtab/*". Without any pattern the whole suite `suite_default` is meant.

    Raises:
        UserError: a pattern that names no task.
    """
    tasks = load_tasks()
    chosen: set[str] = set()
    for pattern in patterns:
        matched = _matches(pattern, tasks)
        if not matched:
            words = {"all", *(group for task in tasks.values() for group in task.groups)}
            raise UserError(f"tasks: {pattern!r} names no task or group; {nearest(pattern, words | set(tasks))}")
        chosen |= matched
    if not patterns:
        chosen = {key for key, task in tasks.items() if task.suite == suite_default}
    return [task for key, task in tasks.items() if key in chosen]


def read_task(path: Path, suite: str) -> Task:
    """Read one task file.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} is not a mapping of fields")
    _check_keys(path, fields, _REQUIRED, _OPTIONAL)
    _check_fields(path, fields)
    return Task(
        key=fields["key"],
        name=fields["name"],
        kind=fields["kind"],
        samples=fields["samples"],
        classes=fields.get("classes"),
        main_metric=fields.get("main_metric"),
        groups=tuple(fields["groups"]),
        source=_source(path, fields["source"]),
        citation=fields.get("citation"),
        suite=suite,
        metadata=tuple(fields.get("metadata", ())),
        group_by=fields.get("group_by"),
        top=fields.get("top", 1),
        races=tuple(fields.get("races", ())),
        cost=fields.get("cost", 1),
    )


def _matches(pattern: str, tasks: Mapping[str, Task]) -> set[str]:
    if pattern in tasks:
        return {pattern}
    if pattern in ("all", "demo"):
        suite = "main" if pattern == "all" else "demo"
        return {key for key, task in tasks.items() if task.suite == suite}
    if pattern in GROUPS:
        return {key for key, task in tasks.items() if pattern in task.groups}
    return set(fnmatch.filter(tasks, pattern))


def _check_keys(where: Path | str, fields: Mapping[Any, Any], required: set[str], optional: set[str]) -> None:
    for key in fields:
        if key not in required | optional:
            raise ValueError(f"{where}: unknown key {key!r}; {nearest(str(key), required | optional)}")
    for key in sorted(required):
        if key not in fields:
            raise ValueError(f"{where}: the key {key!r} is missing")


def _check_fields(path: Path, fields: Mapping[str, Any]) -> None:
    for key in ("key", "name", "kind", "main_metric", "citation", "group_by"):
        if key in fields and not (isinstance(fields[key], str) and fields[key].strip()):
            raise ValueError(f"{path}: {key} is not text")
    for key in ("metadata", "races"):
        if key in fields and not (isinstance(fields[key], list) and all(isinstance(name, str) for name in fields[key])):
            raise ValueError(f"{path}: {key} is not a list of names")
    if "group_by" in fields and fields["group_by"] not in fields.get("metadata", ()):
        raise ValueError(f"{path}: group_by is not one of the names in metadata")
    for key in ("samples", "classes", "top", "cost"):
        if key in fields and not (type(fields[key]) is int and fields[key] > 0):
            raise ValueError(f"{path}: {key} is not a positive whole number")
    if fields["kind"] not in KINDS:
        raise ValueError(f"{path}: unknown kind {fields['kind']!r}; {nearest(fields['kind'], KINDS)}")
    groups = fields["groups"]
    if not isinstance(groups, list) or not groups:
        raise ValueError(f"{path}: groups is not a list with at least one group")
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"{path}: unknown group {group!r}; {nearest(str(group), GROUPS)}")
    if path.stem != fields["key"].replace("/", "-"):
        raise ValueError(f"{path}: the key {fields['key']!r} does not fit the file's name")


def _source(path: Path, fields: Any) -> Source:
    """`{repo}`, `{repo, revision}` or `{packages: [...]}`."""
    if not isinstance(fields, dict):
        raise ValueError(f"{path}: source is not a mapping")
    if "packages" in fields:
        _check_keys(f"{path}: source", fields, {"packages"}, set())
        packages = fields["packages"]
        if not isinstance(packages, list) or not packages or not all(isinstance(name, str) for name in packages):
            raise ValueError(f"{path}: source.packages is not a list of package names")
        return Source(packages=tuple(packages))
    _check_keys(f"{path}: source", fields, {"repo"}, {"revision"})
    if not all(isinstance(value, str) for value in fields.values()):
        raise ValueError(f"{path}: source.repo and source.revision are text")
    return Source(repo=fields["repo"], revision=fields.get("revision"))
