"""`python -m tasks download`: bring the tasks' data, several files at a time, each checked before it takes its name."""

import contextlib
import fcntl
import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, write_json
from poolbench.hub import STAGING, File, FullDiskError, Repository, fetch

from tasks.lock import pinned
from tasks.readers import TRAIN
from tasks.registry import Task
from tasks.repository import repository

SOURCE = ".source.json"  # in a task's folder: repository, commit and files of what lies there
CLAIM = ".download.lock"  # in a task's folder: held by the one process that may write there

_NAMED = 5  # missing files that are named; the others are counted

Item = TypeVar("Item")
Due = Mapping[str, Sequence[File]]  # by task key


class _StoppedError(Exception):
    """The download was given up while a file was on its way."""


def download(tasks: Sequence[Task], root: Path, *, jobs: int, offline: bool, train: bool = False) -> dict[str, str]:
    """Bring what is missing or wrong of the data of `tasks` below `root`; print a line for each task that is whole.

    Args:
        jobs: files that are fetched at a time.
        offline: fetch and write nothing, only tell what is missing.
        train: the training splits, too, where the repositories have them.

    Returns:
        Task key -> why its data are not whole.

    Raises:
        UserError: the disk has no room for what is missing.
    """
    problems: dict[str, str] = {}
    sources: dict[str, Repository] = {}
    with contextlib.ExitStack() as claims:
        for task in tasks:
            try:
                source = _source(task, root, offline, train)
                if not offline:
                    claims.enter_context(_claimed(root / task.folder))
                sources[task.key] = source
            except UserError as error:
                problems[task.key] = str(error)
        here = [task for task in tasks if task.key in sources]
        due = dict(_missing(here, sources, root, jobs))
        problems |= _told(due) if offline else _fetch(here, sources, due, root, jobs)
        for task in here:
            if task.key not in problems:
                if not offline:
                    _record(root / task.folder, sources[task.key])
                print(_summary(task, sources[task.key], train), flush=True)
    return problems


def _source(task: Task, root: Path, offline: bool, train: bool) -> Repository:
    """What the task's folder has to hold: as locked, else as the Hub says now, or offline as it said then.

    Training splits are not locked; they are those of the locked commit.

    Raises:
        UserError: offline, and neither tells.
    """
    locked = pinned(task.key)
    if locked is not None and not train:
        return Repository(locked.repo, locked.revision, locked.licence, locked.files)
    if offline:
        found = _recorded(task, root)
    else:
        found = repository(task, train=train, revision=None if locked is None else locked.revision)
    training = [file for file in found.files if _trains(file)] if train else []
    tested = [file for file in found.files if not _trains(file)] if locked is None else locked.files
    return replace(found, files=(*tested, *training))


def _trains(file: File) -> bool:
    return file.name.startswith(f"{TRAIN}/")


def _recorded(task: Task, root: Path) -> Repository:
    """What the last download into the task's folder was told by the Hub.

    Raises:
        UserError: there was none.
    """
    path = root / task.folder / SOURCE
    if not path.is_file():
        raise UserError(f"{path.parent} holds no finished download ({SOURCE}), and offline none is fetched")
    record = read_json(path)
    try:
        files = tuple(File(**fields) for fields in record["files"])
        return Repository(record["repo"], record["commit"], record["licence"], files)
    except (KeyError, TypeError):
        raise UserError(f"{path} is damaged; a download that is not offline writes it anew") from None


@contextlib.contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Keep other downloads out of a task's folder for as long as the block lasts, or the process.

    Raises:
        UserError: another one is at work there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / CLAIM).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another download is at work in {folder}; wait for its end") from None
        except OSError:  # some cluster file systems lock nothing; a digest still tells what two downloads spoilt
            pass
        yield


def _missing(
    tasks: Sequence[Task], sources: Mapping[str, Repository], root: Path, jobs: int
) -> Iterator[tuple[str, list[File]]]:
    """Each task's files that are not there as they should be. Those that are there are hashed, in threads."""
    with ThreadPoolExecutor(jobs) as pool:
        for task in tasks:
            files = sources[task.key].files
            found = pool.map(lambda file, task=task: file.problem(root / task.folder / file.name), files)
            yield task.key, [file for file, problem in zip(files, found, strict=True) if problem is not None]


def _told(due: Due) -> dict[str, str]:
    problems = {}
    for key, files in due.items():
        if files:
            names = [file.name for file in files[:_NAMED]] + ["..."] * (len(files) > _NAMED)
            problems[key] = f"{len(files)} files are missing or wrong: {', '.join(names)}"
    return problems


def _fetch(tasks: Sequence[Task], sources: Mapping[str, Repository], due: Due, root: Path, jobs: int) -> dict[str, str]:
    """Fetch all that is due; a task stops at its first problem, and what was fetched stays.

    Raises:
        UserError: the disk has no room.
    """
    _check_room(tasks, due, root)
    problems: dict[str, str] = {}
    stopped, drawing = threading.Event(), threading.Lock()
    total = sum(file.size for files in due.values() for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, disable=None if total else True, leave=False) as bar:
        fetched = 0

        def tell(count: int) -> None:
            nonlocal fetched
            if stopped.is_set():
                raise _StoppedError
            with drawing:
                fetched += count
                bar.update(count)

        def one(item: tuple[Task, File]) -> None:
            task, file = item
            if task.key not in problems:
                fetch(sources[task.key].repo, sources[task.key].commit, file, root / task.folder, tell)

        try:
            work = [(task, file) for task in tasks for file in due[task.key]]
            for (task, _), error in _in_threads(work, one, jobs):
                if isinstance(error, FullDiskError):
                    raise UserError(_no_room(root, total - fetched, str(error)))
                if isinstance(error, UserError):
                    problems.setdefault(task.key, str(error))
                elif error is not None:
                    raise error
        finally:
            stopped.set()
    return problems


def _in_threads(work: Sequence[Item], do: Callable[[Item], None], jobs: int) -> Iterator[tuple[Item, Exception | None]]:
    """Do all of `work` and yield each item when it is done, with what it raised.

    The threads are daemons: those of an executor would hold up the end of an interrupted process until a slow server
    has answered.
    """
    waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Item, Exception | None]] = queue.SimpleQueue()
    for item in work:
        waiting.put(item)

    def serve() -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                item = waiting.get_nowait()
                try:
                    do(item)
                    done.put((item, None))
                except Exception as error:
                    done.put((item, error))

    for _ in range(min(jobs, len(work))):
        threading.Thread(target=serve, daemon=True).start()
    for _ in work:
        yield done.get()


def _check_room(tasks: Sequence[Task], due: Due, root: Path) -> None:
    """Raises UserError where the disk has less room than what is due needs, beside what interrupted downloads left."""
    needed = sum(file.size for files in due.values() for file in files)
    staged = [path for task in tasks for path in (root / task.folder / STAGING).glob("*")]
    needed -= sum(path.stat().st_size for path in staged)
    if needed > 0 and needed > shutil.disk_usage(root).free:
        raise UserError(_no_room(root, needed, "the disk is too small; choose another data="))


def _no_room(root: Path, needed: int, reason: str) -> str:
    free = shutil.disk_usage(root).free
    amounts = f"{_bytes(needed)} are still to be fetched, {_bytes(free)} are free"
    return f"no room in {root}: {amounts}; {reason}; what was fetched stays"


def _record(folder: Path, repository: Repository) -> None:
    """Write down what lies in a folder that is whole. Of small files the Hub told no SHA-256."""
    shutil.rmtree(folder / STAGING, ignore_errors=True)
    files = tuple(replace(file, sha256=file.sha256 or digest_file(folder / file.name)) for file in repository.files)
    write_json(folder / SOURCE, asdict(replace(repository, files=files)))


def _summary(task: Task, repository: Repository, train: bool) -> str:
    size = _bytes(sum(file.size for file in repository.files))
    state = "pinned" if pinned(task.key) else "not pinned"
    split = ", no training split there" if train and not any(map(_trains, repository.files)) else ""
    where = f"{repository.repo} at {repository.commit[:12]}"
    return f"{task.key}: {len(repository.files)} files, {size}, {where}, {state}{split}"


def _bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B")
