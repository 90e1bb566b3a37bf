"""`python -m tasks download`: bring the tasks' data, several files at a time, each checked before it takes its name."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from conf.errors import UserError
from conf.files import read_json, write_json
from tasks.hub import STAGING, File, Repository, fetch, inspect
from tasks.lock import UNPINNED, pinned
from tasks.registry import Task

SOURCE = ".source.json"  # in a task's folder: repository, commit and files of what lies there


def download(tasks: Sequence[Task], root: Path, *, jobs: int, offline: bool) -> dict[str, str]:
    """Bring what is missing or wrong of the data of `tasks` below `root`; print a line for each task that is whole.

    Args:
        jobs: files that are fetched at a time.
        offline: fetch nothing, only tell what is missing.

    Returns:
        Task key -> why its data are not whole.

    Raises:
        UserError: the disk has no room for what is missing.
    """
    problems: dict[str, str] = {}
    sources: dict[str, Repository] = {}
    for task in tasks:
        try:
            sources[task.key] = _source(task, root, offline)
        except UserError as error:
            problems[task.key] = str(error)
    due = dict(_missing(tasks, sources, root, jobs))
    if offline:
        problems |= {
            key: f"{len(files)} files are missing or wrong: {files[0].name}" for key, files in due.items() if files
        }
    else:
        _check_room(root, sum(file.size for files in due.values() for file in files))
        problems |= _fetch(tasks, sources, due, root, jobs)
    for task in tasks:
        if task.key in sources and task.key not in problems:
            repository = sources[task.key]
            shutil.rmtree(root / task.folder / STAGING, ignore_errors=True)
            write_json(root / task.folder / SOURCE, asdict(repository))
            state = "pinned" if pinned(task.key) else UNPINNED
            print(
                f"{task.key}: {len(repository.files)} files of {repository.repo} at {repository.commit[:12]}, {state}"
            )
    return problems


def _source(task: Task, root: Path, offline: bool) -> Repository:
    """What the task's folder has to hold: as locked, else as the Hub says now, or offline as it said then.

    Raises:
        UserError: offline, and neither tells.
    """
    locked = pinned(task.key)
    if locked is not None:
        return Repository(locked.repo, locked.revision, locked.licence, locked.files)
    if not offline:
        return inspect(task)
    if not (root / task.folder / SOURCE).is_file():
        raise UserError(f"{root / task.folder} holds no finished download ({SOURCE}), and offline=true fetches none")
    record = read_json(root / task.folder / SOURCE)
    files = tuple(File(**fields) for fields in record["files"])
    return Repository(record["repo"], record["commit"], record["licence"], files)


def _missing(
    tasks: Sequence[Task], sources: dict[str, Repository], root: Path, jobs: int
) -> Iterator[tuple[str, list[File]]]:
    """Each task's files that are not there as they should be. Those that are there are hashed, in threads."""
    with ThreadPoolExecutor(jobs) as pool:
        for task in tasks:
            if task.key in sources:
                files = sources[task.key].files
                found = pool.map(lambda file, task=task: file.problem(root / task.folder / file.name), files)
                yield task.key, [file for file, problem in zip(files, found, strict=True) if problem is not None]


def _check_room(root: Path, needed: int) -> None:
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if needed > free:
        raise UserError(
            f"{root} has {free / 1e9:.2f} GB free, but {needed / 1e9:.2f} GB are missing; choose another data="
        )


def _fetch(
    tasks: Sequence[Task], sources: dict[str, Repository], due: dict[str, list[File]], root: Path, jobs: int
) -> dict[str, str]:
    """Fetch all that is due; a task stops at its first problem, and what was fetched stays."""
    problems: dict[str, str] = {}

    def one(task: Task, file: File) -> None:
        if task.key not in problems:
            repository = sources[task.key]
            fetch(repository.repo, repository.commit, file, root / task.folder, bar.update)

    total = sum(file.size for files in due.values() for file in files)
    with (
        ThreadPoolExecutor(jobs) as pool,
        tqdm(total=total, unit="B", unit_scale=True, disable=None if total else True, leave=False) as bar,
    ):
        work = {pool.submit(one, task, file): task.key for task in tasks for file in due.get(task.key, ())}
        try:
            for future in as_completed(work):
                try:
                    future.result()
                except UserError as error:
                    problems.setdefault(work[future], str(error))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return problems
