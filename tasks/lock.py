"""Which data the tasks are pinned to: tasks/lock.json, written by `python -m tasks lock` from what the Hub says.

Until someone has written it with a network, no task of the main suite is pinned: data are checked against the
registry's counts and the known names alone, and downloads, checks and results say so. The demo's data are made by the
project, so tasks/demo/lock.json pins them; it is written from a folder that holds them.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, write_json
from poolbench.hub import File, Repository, endpoint, fetch

from tasks.readers import NSHARDS, digest_of, open_data
from tasks.registry import Task
from tasks.repository import repository

PATH = Path(__file__).parent / "lock.json"
DEMO = Path(__file__).parent / "demo" / "lock.json"
VERSION = 1


@dataclass(frozen=True)
class Locked:
    """The data of one task as they were when they were pinned.

    Attributes:
        repo: the dataset repository, or the pip packages that the data are made of.
        revision: commit, "" without a repository.
        licence: as the repository's card says, None where it says nothing.
        files: all that the task reads, each with its SHA-256.
        data_digest: what an evaluation over exactly these files records as `data_digest`.
    """

    repo: str
    revision: str
    licence: str | None
    files: tuple[File, ...]
    data_digest: str


def lock_file() -> Path:
    """The lock file of the main suite: tasks/lock.json, or what POOLBENCH_LOCK names."""
    named = os.environ.get("POOLBENCH_LOCK")
    return Path(named) if named else PATH


def pinned(key: str) -> Locked | None:
    """What a task is pinned to; None where it is not.

    Raises:
        UserError: a lock file is damaged, or the one that POOLBENCH_LOCK names does not exist.
    """
    return _main(os.environ.get("POOLBENCH_LOCK")).get(key) or load_lock(DEMO).get(key)


def is_pinned(key: str, data_digest: str) -> bool | None:
    """Whether a task's data are the pinned ones, by their digest; None where nothing pins them."""
    locked = pinned(key)
    return None if locked is None else data_digest == locked.data_digest


def unpinned(tasks: Sequence[Task]) -> str | None:
    """The line that says how many of `tasks` are not pinned, None where all are."""
    count = sum(pinned(task.key) is None for task in tasks)
    return f"{count} of {len(tasks)} tasks are not pinned: {why_unpinned()}" if count else None


def why_unpinned() -> str:
    """Why a task is not pinned, and what to do."""
    file = lock_file()
    missing = f"the lock file {file.name} does not name them" if file.exists() else "there is no lock file"
    return f"{missing}; python -m tasks lock pins them"


@cache
def _main(named: str | None) -> Mapping[str, Locked]:
    """The lock file of the main suite; `named` is what POOLBENCH_LOCK names. Asked for thousands of times a board."""
    file = lock_file()
    if named and not file.exists():
        raise UserError(f"POOLBENCH_LOCK={file} does not exist; python -m tasks lock writes it")
    return load_lock(file)


@cache
def load_lock(path: Path = PATH) -> Mapping[str, Locked]:
    """The lock file by task key, {} where there is none.

    Raises:
        UserError: it is not a lock file of this version.
    """
    if not path.exists():
        return {}
    content = read_json(path)
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise UserError(f"{path} is not a lock file of version {VERSION}; python -m tasks lock writes one")
    try:
        return {key: _read(entry) for key, entry in content["tasks"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error!r}); python -m tasks lock writes it anew") from None


def lock(tasks: Sequence[Task], path: Path, data: Path | None = None) -> dict[str, str]:
    """Pin `tasks` to what the Hub holds now, or the folder `data`; other tasks in the file stay as they are.

    Args:
        data: the folder of evaluation sets that holds those that are made of pip packages.

    Returns:
        Task key -> why it could not be pinned.
    """
    locked = dict(load_lock(path))
    problems = {}
    for task in tasks:
        try:
            locked[task.key] = _locked(repository(task)) if data is None else _locked_here(task, data)
            print(f"{task.key}: {locked[task.key].repo} at {locked[task.key].revision}", flush=True)
        except UserError as error:
            problems[task.key] = str(error)
    if len(problems) < len(tasks):
        entries = {key: _entry(locked[key]) for key in sorted(locked)}
        # What is made of packages is the same whenever it is pinned, and so is its file.
        origin = {"created": datetime.now(UTC).isoformat(timespec="seconds"), "endpoint": endpoint()}
        write_json(path, {"version": VERSION, **(origin if data is None else {}), "tasks": entries})
        load_lock.cache_clear()
        _main.cache_clear()
    return problems


def _locked(repository: Repository) -> Locked:
    """The Hub tells no SHA-256 of small files; they are fetched for it.

    Raises:
        UserError: the shards are not those that the repository's own count tells.
    """
    files = []
    with tempfile.TemporaryDirectory() as folder:
        for file in repository.files:
            if file.sha256 is None:
                path = fetch(repository.repo, repository.commit, file, Path(folder))
                file = File(file.path, file.name, file.size, digest_file(path))
                if file.name == NSHARDS:
                    _check_shards(repository, path.read_text(encoding="utf-8", errors="replace").strip())
            files.append(file)
    digest = digest_of({file.name: file.sha256 or "" for file in files})
    return Locked(repository.repo, repository.commit, repository.licence, tuple(files), digest)


def _locked_here(task: Task, root: Path) -> Locked:
    """A task whose data were made of pip packages, as they lie below `root`."""
    data = open_data(task, root)
    files = sorted((data.name_of(path), path) for path in (*data.texts, *data.shards))
    found = tuple(File(name, name, path.stat().st_size, digest_file(path)) for name, path in files)
    digest = digest_of({file.name: file.sha256 or "" for file in found})
    return Locked(str(task.source), "", None, found, digest)


def _check_shards(repository: Repository, told: str) -> None:
    """An evaluation reads the shards 0 .. told-1; with others its digest would never be that of the lock file."""
    numbers = sorted(int(Path(file.path).stem) for file in repository.files if file.path.endswith(".tar"))
    if not told.isdecimal() or numbers != list(range(int(told))):
        raise UserError(f"{repository.repo} holds {len(numbers)} shards, but its {NSHARDS} tells {told[:40]!r}")


def _entry(locked: Locked) -> dict[str, Any]:
    files = [{"path": file.path, "name": file.name, "size": file.size, "sha256": file.sha256} for file in locked.files]
    return {**asdict(locked), "files": files}


def _read(entry: dict[str, Any]) -> Locked:
    files = tuple(File(**fields) for fields in entry["files"])
    if not all(isinstance(file.sha256, str) and isinstance(file.size, int) for file in files):
        raise TypeError("a file without size or SHA-256")
    return Locked(entry["repo"], entry["revision"], entry["licence"], files, entry["data_digest"])
