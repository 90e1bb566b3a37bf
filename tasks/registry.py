"""What the evaluation tasks are: one YAML file a task below tasks/main/, extra/ and demo/, read strictly.

    from tasks.registry import load_tasks, select
    load_tasks()["vtab/cifar100"].main_metric       # "acc1"
    select(["imagenet_shifts", "wilds/*"])          # groups, keys and globs, in the registry's order
    select(["fast"])                                # the group of tasks/fast.yaml

The suite `main` holds the 40 tasks of the benchmark, `extra` tasks of other kinds, which are in no aggregate and on no
board, and `demo` the tasks of the embedded demonstration data.
A new task is one new file named after its key ("/" becomes "-").
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    StrictInt,
    ValidationError,
    field_validator,
    model_validator,
)

from poolbench.errors import UserError, nearest
from poolbench.files import files_in
from poolbench.validation import first_problem

from tasks.fast import NAME as FAST
from tasks.fast import fast

Suite = Literal["main", "extra", "demo"]
Kind = Literal[
    "classification",
    "retrieval",
    "winogavil",
    "iwildcam",
    "worst_group",
    "fmow",
    "fairness",
    "caption_selection",
    "winoground",
    "multilabel",
]
Group = Literal[
    "imagenet",
    "imagenet_shifts",
    "vtab",
    "other",
    "retrieval",
    "wilds",
    "fairness",
    "sugarcrepe",
    "aro",
    "composition",
    "multilabel",
    "multilingual",
    "demo",
]

SUITES: tuple[Suite, ...] = get_args(Suite)
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUPS: tuple[Group, ...] = get_args(Group)

_SUITE_WORDS: dict[str, Suite] = {"all": "main", **{suite: suite for suite in SUITES}}

# libyaml, where PyYAML was built with it, reads all files in the time that Python takes for three.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it is blank")
    return text


Text = Annotated[str, AfterValidator(_not_blank)]
Count = Annotated[StrictInt, Field(gt=0)]


class _Fields(BaseModel):
    """A part of a task's file: no field but those that are known, and none without a value."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if value is None:
            raise ValueError("it has no value; leave the field out or give it one")
        return value


class Source(_Fields):
    """Where the data come from: a repository of the Hugging Face Hub, pip packages, or `by_hand`, what to do."""

    repo: Text | None = None
    revision: Text | None = None
    packages: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(default=())
    by_hand: Text | None = None

    @model_validator(mode="after")
    def _one_of_all(self) -> "Source":
        if self.packages and (self.repo or self.revision):
            raise ValueError("it has packages, and then neither repo nor revision")
        if self.by_hand and (self.repo or self.revision or self.packages):
            raise ValueError("it has by_hand, and then nothing else")
        if not self.packages and not self.repo and not self.by_hand:
            raise ValueError("the key 'repo' is missing, or packages, or by_hand")
        return self

    def __str__(self) -> str:
        if self.by_hand is not None:
            return "by hand"
        if self.repo is None:
            return ", ".join(self.packages)
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


class TaskPrompts(_Fields):
    """Class names and templates in place of those in the task's folder: clip_benchmark's for ImageNet in a language,
    by their digest (tasks.names.Translated)."""

    language: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Task(_Fields):
    """One evaluation task: what its file says, and the suite, which is the folder that the file lies in.

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
        metadata: names of the fields of a sample's metadata vector, () for tasks without.
        group_by: the field whose worst group counts, None for tasks without.
        top: a sample is right when its class is among the `top` best ones (only with `group_by`).
        races: names of the values of the field `race`, () for tasks without.
        prompts: in another language than the task's own.
        counted: where `samples` is known from, where no lock file pins the data.
        cost: seconds that the task takes in relation to others. For the main suite they are those that the published
            task list states; WinoGAViL's are divided by 12, as its pictures are encoded once here.
    """

    key: Text
    name: Text
    kind: Kind
    samples: Count
    classes: Count | None = None
    main_metric: Text | None = None
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]
    source: Source
    citation: Text | None = None
    metadata: tuple[str, ...] = ()
    group_by: Text | None = None
    top: Count = 1
    races: tuple[str, ...] = ()
    prompts: TaskPrompts | None = None
    counted: Text | None = None
    cost: Count = 1
    _suite: Suite = PrivateAttr(default="main")

    @model_validator(mode="after")
    def _grouped_by_a_field(self) -> "Task":
        if self.group_by is not None and self.group_by not in self.metadata:
            raise ValueError(f"group_by: {self.group_by!r} is not one of the names in metadata")
        return self

    @model_validator(mode="after")
    def _prompts_of_classes(self) -> "Task":
        if self.prompts is not None and self.kind != "classification":
            raise ValueError("prompts: only a task of classification has them")
        return self

    @property
    def suite(self) -> Suite:
        """One of SUITES."""
        return self._suite

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


def suite_of(scale: str) -> Suite:
    """The suite that a training scale is scored on: "demo" for the scale `tiny`, else "main"."""
    return "demo" if scale == "tiny" else "main"


@cache
def load_tasks() -> dict[str, Task]:
    """Every task by its key: the main suite, the extra one, the demo's; by group in the order of GROUPS, then by key.

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

    A pattern is a task's key, "all" or "main" (the main suite), "extra" and "demo" (those suites), the name of a group,
    "fast" (that of tasks/fast.py), or a glob over keys such as "vtab/*". Without any pattern the whole suite
    `suite_default` is meant.

    Raises:
        UserError: a pattern that names no task.
    """
    tasks = load_tasks()
    chosen: set[str] = set()
    for pattern in patterns:
        matched = _matches(pattern, tasks)
        if not matched:
            words = {*_SUITE_WORDS, FAST, *(group for task in tasks.values() for group in task.groups)}
            raise UserError(f"tasks: {pattern!r} names no task or group; {nearest(pattern, words | set(tasks))}")
        chosen |= matched
    if not patterns:
        chosen = {key for key, task in tasks.items() if task.suite == suite_default}
    return [task for key, task in tasks.items() if key in chosen]


def read_task(path: Path, suite: Suite) -> Task:
    """Read one task file.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(fields, dict):
        raise ValueError(f"{path} is not a mapping of fields")
    try:
        task = Task.model_validate(fields)
    except ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error, Task)}") from None
    if path.stem != task.key.replace("/", "-"):
        raise ValueError(f"{path}: the key {task.key!r} does not fit the file's name")
    task._suite = suite
    return task


def _matches(pattern: str, tasks: Mapping[str, Task]) -> set[str]:
    if pattern in tasks:
        return {pattern}
    if pattern in _SUITE_WORDS:
        suite = _SUITE_WORDS[pattern]
        return {key for key, task in tasks.items() if task.suite == suite}
    if pattern in GROUPS:
        return {key for key, task in tasks.items() if pattern in task.groups}
    if pattern == FAST:
        return tasks.keys() & set(fast().tasks)
    return set(fnmatch.filter(tasks, pattern))
