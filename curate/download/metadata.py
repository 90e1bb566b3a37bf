"""A pool's metadata from its dataset repository on the Hub: parquet files and, if asked for, the npz beside them."""

import contextlib
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import append_line, claimed, files_in, read_json, read_lines, write_json
from poolbench.hub import STAGING, File, fetch, forbidden, inspect

from curate.pool.parts import WHOLE, Part, tell_missing

SCALES = ("small", "medium", "large", "xlarge", "datacomp_1b")
SOURCE = ".source.json"  # repository, commit and files of a folder that is whole
_FETCHED = ".fetched.jsonl"  # a line for each file that has come, so that none is read again to know it
_ASKING = ".asking"  # claimed by the part that asks the Hub
_PATIENCE = 900.0  # seconds for another part to ask


class Source(NamedTuple):
    """What a pool's repository holds at a commit."""

    repo: str
    commit: str
    files: tuple[File, ...]


class _StoppedError(Exception):
    """The download was given up while a file was on its way."""


def repository(scale: str) -> str:
    """The dataset repository of a pool's metadata."""
    return f"mlfoundations/datacomp_{scale}" if scale != "datacomp_1b" else "mlfoundations/datacomp_1b"


def bring(
    scale: str,
    folder: Path,
    *,
    npz: bool,
    jobs: int,
    part: Part = WHOLE,
    staging: Path | None = None,
    everything: bool = True,
) -> Source:
    """Bring what is missing of a pool's metadata into `folder`; of a folder that is whole the Hub is not asked.

    Files of subfolders, as the largest pool has them, come to lie in one. Each is checked against the Hub's digest.

    Args:
        part: brings its own files first.
        staging: a folder that nobody else fetches into, where the parts share `folder`.
        everything: whether a part brings those that the others have not brought yet, too.

    Raises:
        UserError: the Hub does not give them, the folder is another pool's, or the disk has no room.
    """
    with _asking(folder, part):
        source = _source(scale, folder, npz)
    for turn in range(part.of if everything else 1):
        own = Part((part.number + turn - 1) % part.of + 1, part.of).own(_dealt(source))
        _fetch(source, _missing(own, folder), folder, staging or folder, jobs, again=turn > 0)
    shutil.rmtree((staging or folder) / STAGING, ignore_errors=True)
    return source


def check_brought(scale: str, folder: Path, *, npz: bool, of: int) -> Source:
    """What `of` parts have brought.

    Raises:
        UserError: something is missing; which part lacks it, is printed.
    """
    known = recorded(folder)
    if known is None or known.repo != repository(scale) or not _covers(known, npz):
        raise UserError(f"{folder} has no such metadata: no part has begun to bring those of {repository(scale)}")
    lacking = {file.name for file in _missing(known.files, folder)}
    names = [file.name for file in _dealt(known)]
    if missing := tell_missing(names, [name not in lacking for name in names], of, "metadata files"):
        raise UserError(f"nothing is put together: {missing:,} of {len(names):,} metadata files are missing, see above")
    return known


def _dealt(source: Source) -> list[File]:
    """The files in the order in which parts take them: by kind, as the npz are the larger ones."""
    return sorted(source.files, key=lambda file: (not file.name.endswith(".parquet"), file.name))


@contextlib.contextmanager
def _asking(folder: Path, part: Part) -> Iterator[None]:
    """Of several parts one asks the Hub at a time, so that the others find its answer, and the commit in it."""
    with contextlib.nullcontext() if part is WHOLE else claimed(folder / _ASKING, _PATIENCE):
        yield


def _source(scale: str, folder: Path, npz: bool) -> Source:
    """What the folder's metadata are to be, as it says itself or else the Hub."""
    known = recorded(folder)
    if known is not None and known.repo != repository(scale):
        raise UserError(f"{folder} holds the metadata of {known.repo}; choose another out= for {repository(scale)}")
    if known is not None and _covers(known, npz):
        return known
    if forbidden() and known is None and files_in(folder, "*.parquet"):
        raise UserError(f"{folder} may lack files, and HF_HUB_OFFLINE forbids to ask; metadata=false takes it as it is")
    # What was begun at one commit goes on at that one, or the rows of two would be mixed.
    source = _asked(scale, npz, known.commit if known is not None else "main")
    write_json(
        folder / SOURCE, {"repo": source.repo, "commit": source.commit, "files": list(map(asdict, source.files))}
    )
    return source


def recorded(folder: Path) -> Source | None:
    """What the folder's metadata are, or are to become; None where nothing was fetched.

    Raises:
        UserError: the record is damaged.
    """
    if not (folder / SOURCE).exists():
        return None
    found = read_json(folder / SOURCE)
    try:
        return Source(found["repo"], found["commit"], tuple(File(**fields) for fields in found["files"]))
    except (KeyError, TypeError):
        raise UserError(f"{folder / SOURCE} is damaged; delete it, and the files are checked anew") from None


def _covers(source: Source, npz: bool) -> bool:
    return not npz or any(file.name.endswith(".npz") for file in source.files)


def _asked(scale: str, npz: bool, revision: str) -> Source:
    """What the Hub says.

    Raises:
        UserError: no such repository, no answer, no metadata, or two files of one name.
    """
    repo = repository(scale)
    found = inspect(repo, revision, lambda paths: _named(repo, paths, (".parquet", ".npz") if npz else (".parquet",)))
    return Source(repo, found.commit, tuple(sorted(found.files, key=lambda file: file.name)))


def _named(repo: str, paths: Sequence[str], endings: tuple[str, ...]) -> dict[str, str]:
    """Path in the repository -> name on disk, of the metadata."""
    named = {path: Path(path).name for path in paths if path.endswith(endings)}
    names = Counter(named.values())
    for name, count in names.items():
        if count > 1:
            raise UserError(f"{repo} has two files named {name}; they cannot lie in one folder")
    for ending in endings:
        if not any(name.endswith(ending) for name in names):
            raise UserError(f"{repo} has no {ending} files: it holds no such metadata")
    return named


def _missing(files: Sequence[File], folder: Path) -> list[File]:
    """The files that are not there as they should be. One that this program fetched is known by its size."""
    fetched = {(line["name"], line["sha256"] or line["blob"]) for line in read_lines(folder / _FETCHED)}
    missing = []
    for file in files:
        path = folder / file.name
        known = (file.name, file.sha256 or file.blob) in fetched
        right = path.is_file() and path.stat().st_size == file.size if known else file.problem(path) is None
        if not right:
            missing.append(file)
        elif not known:
            append_line(folder / _FETCHED, asdict(file))
    return missing


def _fetch(source: Source, due: Sequence[File], folder: Path, staging: Path, jobs: int, again: bool) -> None:
    """Fetch some files at a time; a problem ends it, and what came stays.

    Args:
        again: whether to look once more whether a file has come in the meantime.

    Raises:
        UserError: as said.
    """
    total = sum(file.size for file in due)
    free = shutil.disk_usage(folder).free
    if total > free:
        raise UserError(f"{folder} has {free / 1e9:,.1f} GB free, and {total / 1e9:,.1f} GB of metadata are to come")
    stopped, drawing = threading.Event(), threading.Lock()
    with tqdm(total=total, unit="B", unit_scale=True, desc="metadata", disable=None if due else True) as bar:

        def tell(count: int) -> None:
            if stopped.is_set():
                raise _StoppedError
            with drawing:
                bar.update(count)

        def one(file: File) -> None:
            if again and not _missing([file], folder):
                return
            fetch(source.repo, source.commit, file, staging, tell).replace(folder / file.name)
            append_line(folder / _FETCHED, asdict(file))

        threads = ThreadPool(min(jobs, max(len(due), 1)))  # of daemons, which do not hold up an interrupted process
        try:
            for _ in threads.imap_unordered(one, due):
                pass
        finally:
            stopped.set()
            threads.terminate()
