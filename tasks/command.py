"""The commands of `python -m tasks`."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from poolbench.command import Command, Verbs
from poolbench.errors import UserError, nearest
from poolbench.hub import forbidden
from poolbench.machine import cores
from poolbench.options import option, output, source
from poolbench.shards.samples import Problem, commonest

from tasks import aro, captions, datasets, export, from_tables, names
from tasks import lock as locking
from tasks.download import download
from tasks.listing import table
from tasks.registry import SUITES, Task, select, words_of
from tasks.verify import verify

_TASKS = "keys, groups and globs of tasks, separated by commas"


@dataclass
class ListOptions:
    """The options of `list`."""

    tasks: str = option(f"{_TASKS}; empty: every task", "")


@dataclass
class DownloadOptions:
    """The options of `download`."""

    data: str = output("folder of the evaluation sets")
    tasks: str = option(_TASKS, "all")
    jobs: int = option("downloads at a time", 4)
    offline: bool = option("true: only tell what is missing", False)
    train: bool = option("true: the training splits too, which probes need, where there are any", False)


@dataclass
class VerifyOptions:
    """The options of `verify`."""

    data: str = source("folder of the evaluation sets")
    tasks: str = option(_TASKS, "all")
    images: bool = option("true: decode every picture as well", False)
    jobs: int = option("processes that read shards", cores())


@dataclass
class LockOptions:
    """The options of `lock`."""

    tasks: str = option(_TASKS, "all")
    file: str | None = output("lock file to write; null: the one that the other commands read", None)
    data: str | None = source(
        "folder of evaluation sets: pin the demo's tasks, which the project makes, to what lies there", None
    )


@dataclass
class NamesOptions:
    """The options of `names`, which writes the digests of the class names and templates that are known."""

    file: str | None = output("JSON file to write; null: the one that the other commands read", None)


@dataclass
class ExportOptions:
    """The options of `export`, which writes what clip_benchmark can build, or the Hub's parquet files hold, as an
    evaluation folder."""

    dataset: str = option("clip_benchmark's name of it, such as cifar10, vtab/pets; or parquet, with task=")
    root: str = source("folder where its data lie, as clip_benchmark expects them, or that of the parquet files")
    out: str = output("folder of the evaluation sets, below which the task's folder is written")
    split: str = option("which samples: test, or train, or what else the data set has", "test")
    task: str | None = option("key of the task that is to read it; null: the one that the data set fits", None)
    language: str = option("of class names and templates, or of captions", "en")
    prompts: str | None = source("JSON of templates by data set, a file or one in clip_benchmark; null: its own", None)
    download: bool = option("true: clip_benchmark may fetch into root= what is missing", False)


@dataclass
class CaptionsOptions:
    """The options of `captions`, which writes a labelled set as shards of pictures with captions, to train on."""

    task: str = source("key of a task, or a folder in the layout of the tasks, below data= or by itself")
    out: str = output("folder of the shards")
    data: str | None = source("folder of the evaluation sets", None)
    split: str = option("which samples; test are those that evaluations ask", "train")
    templates: str = option("one: of the set's, drawn for each picture | all: each picture once with every one", "one")
    seed: int = option("of the draws", 0)


def _list(options: ListOptions) -> int:
    print(table(_chosen(options.tasks or ",".join(SUITES))))
    return 0


def _download(options: DownloadOptions) -> int:
    _check_jobs(options.jobs)
    tasks = _with_repository(_chosen(options.tasks))
    if Path(options.data).exists() and not Path(options.data).is_dir():
        raise UserError(f"data={options.data} is not a folder")
    offline = options.offline or forbidden()
    problems = download(tasks, Path(options.data), jobs=options.jobs, offline=offline, train=options.train)
    _note_unpinned(tasks)
    return _tell(problems, len(tasks), "whole")


def _verify(options: VerifyOptions) -> int:
    _check_jobs(options.jobs)
    if not Path(options.data).is_dir():
        raise UserError(f"data={options.data} is not a folder")
    tasks = _chosen(options.tasks)
    wrong = verify(tasks, Path(options.data), images=options.images, jobs=options.jobs)
    _note_unpinned(tasks)
    print(f"{len(tasks) - wrong} of {len(tasks)} tasks have the data that they need")
    return int(wrong > 0)


def _lock(options: LockOptions) -> int:
    chosen, data = _chosen(options.tasks), None if options.data is None else Path(options.data)
    tasks = [task for task in chosen if (data is None) == (task.source.repo is not None)]
    if not tasks:
        raise UserError(
            "none of these can be pinned so: tasks=demo is pinned with data=<evaluation sets> that hold it, "
            "other tasks without data= where a repository of the hub holds their data"
        )
    demo = all(task.suite == "demo" for task in tasks)
    default = locking.DEMO if demo and data is not None else locking.lock_file()
    file = default if options.file is None else Path(options.file)
    status = _tell(locking.lock(tasks, file, data), len(tasks), "pinned")
    print(file if file.exists() else "no lock file was written")
    return status


def _names(options: NamesOptions) -> int:
    file = names.KNOWN if options.file is None else Path(options.file)
    names.write(file)
    print(file)
    return 0


def _export(options: ExportOptions) -> int:
    _check_split(options.split)
    plain = _as_it_lies(options.dataset)
    task = export.task_named(options.dataset, options.task, datasets.task_of(options.dataset), options.language)
    folder = Path(options.out) / export.folder_of(options.dataset, task, options.language)
    found = export.here(folder, options.split)
    if found is not None:
        print(found)
        return 0
    if not Path(options.root).is_dir() and (plain or not options.download):
        way = "" if plain else "; download=true lets clip_benchmark fetch the data there"
        raise UserError(f"root={options.root} is not a folder{way}")
    data = _dataset(options, task)
    written = export.export(data, folder)
    kept = f"{written.untouched:,} pictures as they were, {written.pictures - written.untouched:,} as PNG"
    print(f"{folder}: {written.samples:,} samples of split={options.split} in {written.shards} shards, {kept}")
    for note in export.notes(export.key_of(options.dataset, options.language), task, data, written):
        print(f"note: {note}")
    return 0


def _dataset(options: ExportOptions, task: Task | None) -> datasets.Dataset:
    """What is to be exported."""
    root = Path(options.root)
    if not _as_it_lies(options.dataset):
        return datasets.build(
            options.dataset,
            root,
            options.split,
            language=options.language,
            prompts=options.prompts,
            download=options.download,
        )
    if options.language != "en" or options.prompts is not None or options.download:
        raise UserError(
            f"dataset={options.dataset} takes the files as they are; language=, prompts= and download= go with what "
            "clip_benchmark builds"
        )
    if options.dataset in datasets.ARO:
        return aro.build(options.dataset, root, options.split)
    assert task is not None, "which dataset=parquet needs"
    return from_tables.build(task, root, options.split)


def _as_it_lies(dataset: str) -> bool:
    """Whether a data set is none of clip_benchmark's, which can download and translate."""
    return dataset == datasets.TABLES or dataset in datasets.ARO


def _captions(options: CaptionsOptions) -> int:
    _check_split(options.split)
    if options.templates not in (captions.ONE, captions.ALL):
        raise UserError(f"templates={options.templates} is not known; {nearest(options.templates, ('one', 'all'))}")
    data = captions.labelled(options.task, None if options.data is None else Path(options.data), options.split)
    warning = (
        f"WARNING: split=test holds the pictures that {options.task} asks models about; no track allows to train on "
        "them, nor on what a model chose that was trained on them"
    )
    if options.split == "test":
        print(warning, file=sys.stderr)
    written = captions.write(data, captions.Wording(options.templates, options.seed), Path(options.out))
    chosen = f"{options.templates} of {len(data.templates)} templates, {len(data.classnames)} classes"
    counts = f"{written.samples:,} samples of {written.pictures:,} pictures in {len(written.files):,} shards"
    print(f"{options.out}: {counts}; split={options.split}, {chosen}")
    if written.bad:
        reason = commonest(map(Problem._make, written.bad))
        print(f"left out: {len(written.bad):,} samples or rests of shards{reason}", file=sys.stderr)
    if options.split == "test":
        print(warning, file=sys.stderr)
    return int(bool(written.bad))


COMMANDS: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "list": (ListOptions, _list),
    "download": (DownloadOptions, _download),
    "verify": (VerifyOptions, _verify),
    "lock": (LockOptions, _lock),
    "names": (NamesOptions, _names),
    "export": (ExportOptions, _export),
    "captions": (CaptionsOptions, _captions),
}
_REFUSAL = "unknown word {word!r}; to choose tasks write tasks={word}"
VERBS = Verbs("tasks", {name: partial(Command, *both, refusal=_REFUSAL) for name, both in COMMANDS.items()})


def _chosen(words: str) -> list[Task]:
    return select(words_of(words))


def _with_repository(tasks: Sequence[Task]) -> list[Task]:
    """The tasks whose data lie on the Hub.

    Raises:
        UserError: none of them.
    """
    remote = [task for task in tasks if task.source.repo is not None]
    by_hand = [task for task in tasks if task.source.by_hand is not None]
    for task in by_hand:
        print(f"{task.key}: not downloaded; {task.source.by_hand}", flush=True)
    if by_hand and not remote:
        raise UserError("none of these tasks is downloaded; what brings their data stands above")
    if not remote:
        raise UserError(
            "these tasks need no download: make demo and python -m evaluate make their data from pip packages"
        )
    return remote


def _tell(problems: dict[str, str], count: int, what: str) -> int:
    """Print what went wrong and how many tasks are as they should be; returns the exit status."""
    for key, reason in problems.items():
        print(f"{key}: {reason}", file=sys.stderr)
    print(f"{count - len(problems)} of {count} tasks are {what}")
    return int(bool(problems))


def _note_unpinned(tasks: Sequence[Task]) -> None:
    note = locking.unpinned(tasks)
    if note is not None:
        print(note)


def _check_jobs(jobs: int) -> None:
    if jobs < 1:
        raise UserError(f"jobs={jobs}: at least 1")


def _check_split(split: str) -> None:
    """It becomes the name of a folder."""
    if split in ("", ".", "..") or "/" in split:
        raise UserError(f"split={split} is no name of a split, such as test or train")
