"""`python -m tasks verify`: do a folder's data fit the registry and, where there is one, the lock file?"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from poolbench.errors import UserError, described
from poolbench.files import digest_file
from poolbench.processes.pool import Pool
from poolbench.shards.pictures import rgb

from tasks.examples import Bad, Example, counts
from tasks.languages import open_task
from tasks.lock import pinned
from tasks.names import unlike_known
from tasks.readers import TRAIN, TaskData, open_labelled, read_examples
from tasks.registry import Task

# What each kind's samples have to bring; evaluators need the same of them.
_NEEDS: dict[str, frozenset[str]] = {
    "retrieval": frozenset({"captions"}),
    "winogavil": frozenset({"puzzles"}),
    "caption_selection": frozenset({"choices"}),
    "winoground": frozenset({"pairs"}),
    "multilabel": frozenset({"labels"}),
    "fairness": frozenset({"metadata"}),
    "worst_group": frozenset({"label", "metadata"}),
    "fmow": frozenset({"label", "metadata"}),
    "iwildcam": frozenset({"label", "metadata"}),
}
_SHOWN = 5  # bad samples that are named; the others are counted


@dataclass
class Found:
    """What a shard holds: keys of its samples, the SHA-256 of each picture where asked for, how often labels occur,
    and what is wrong in it."""

    digest: str
    keys: list[str] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)
    bad: list[Bad] = field(default_factory=list)


def verify(tasks: Sequence[Task], root: Path, *, images: bool, jobs: int) -> int:
    """Print a line for each task whose data are right and all that is wrong of the others; returns how many are wrong.

    Args:
        images: decode every picture as well.
        jobs: processes that read shards at a time.
    """
    if jobs > 1:
        import webdataset.tariterators  # noqa: F401 (what reads shards, with torch: forked, the processes share it)
    wrong = 0
    with Pool(jobs) if jobs > 1 else ThreadPoolExecutor(1) as pool:
        for task in tasks:
            problems, notes = _check(task, root, images, pool)
            wrong += bool(problems)
            lines = [
                f"{task.key}: {'wrong' if problems else 'ok'}, {', '.join(notes)}" if notes else f"{task.key}: wrong"
            ]
            print("\n".join([*lines, *(f"  {problem}" for problem in problems)]), flush=True)
    return wrong


def _check(task: Task, root: Path, images: bool, pool: Executor) -> tuple[list[str], list[str]]:
    """All that is wrong with a task's data, and what is to be said besides."""
    try:
        data = open_task(task, root)
    except UserError as error:
        return [str(error)], []
    except Exception as error:  # a folder can be wrong in ways that nobody foresaw; the other tasks go on
        return [f"{root / task.folder}: {described(error)}"], []
    needs = _NEEDS.get(task.kind, frozenset({"label"}))
    classes = len(data.classnames)
    problems: list[str] = []
    trained = "label" in needs and (data.folder / TRAIN).is_dir()
    shards = _examined(data, needs, len(task.metadata), images, trained, pool, problems)
    samples = sum(len(shard.keys) for shard in shards)
    if not problems and samples != task.samples:
        problems.append(f"{samples} samples, the registry says {task.samples}")
    if task.classes is not None and classes != task.classes:
        problems.append(f"{classes} class names, the registry says {task.classes}")
    if data.surplus:
        problems.append(f"test/{data.surplus[0]} lies there, but nshards.txt says {len(data.shards)} shards")
    problems += _bad(shards)
    repeated = [key for key, count in Counter(key for shard in shards for key in shard.keys).items() if count > 1]
    if repeated:
        problems.append(f"{len(repeated)} keys occur more than once, the first is {repeated[0]}")
    whole = len(shards) == len(data.shards)
    unlike = _lock_problem(task, data, shards) if whole else []
    if unlike or not whole or pinned(task.key) is None:  # pinned data are right in their names, too
        problems += unlike_known(task.key, data.classnames, data.templates)
    problems += unlike
    notes = [f"{samples} samples", *([f"{classes} classes"] if classes else [])]
    empty = classes - len(set().union(*(shard.labels for shard in shards))) if needs & {"label", "labels"} else 0
    notes += [f"{empty} classes without a sample"] if empty else []
    if trained:
        told, wrong = _training(data.folder, [one for shard in shards for one in shard.pictures], images, pool)
        notes, problems = [*notes, *told], [*problems, *wrong]
    return problems, [*notes, "pinned" if pinned(task.key) else f"not pinned{_source(task)}"]


def _source(task: Task) -> str:
    return "" if task.counted is None else f" ({task.samples} samples by {task.counted})"


def _examined(
    data: TaskData,
    needs: frozenset[str],
    fields: int,
    images: bool,
    pictures: bool,
    pool: Executor,
    problems: list[str],
) -> list[Found]:
    """What the shards hold that can be read; of the others, what is wrong comes to `problems`."""
    classes = len(data.classnames)
    work = [pool.submit(examine, shard, needs, classes, fields, images, pictures) for shard in data.shards]
    pairs = zip(data.shards, work, strict=True)
    return [shard for path, future in pairs if (shard := _result(path, future, problems)) is not None]


def _training(folder: Path, tested: Sequence[bytes], images: bool, pool: Executor) -> tuple[list[str], list[str]]:
    """What is to be said of a training split, and all that is wrong with it.

    Args:
        tested: the SHA-256 of each picture of the test split.
    """
    try:
        data = open_labelled(folder, TRAIN)
    except UserError as error:
        return [], [str(error)]
    problems: list[str] = []
    shards = _examined(data, frozenset({"label"}), 0, images, True, pool, problems)
    problems += [f"{TRAIN}/{line}" for line in _bad(shards)]
    keys = Counter(key for shard in shards for key in shard.keys)
    repeated = [key for key, count in keys.items() if count > 1]
    if repeated:
        problems.append(f"{TRAIN}: {len(repeated)} keys occur more than once, the first is {repeated[0]}")
    if data.surplus:
        problems.append(f"{TRAIN}/{data.surplus[0]} lies there, but nshards.txt says {len(data.shards)} shards")
    notes = [f"{keys.total()} samples to train probes on"]
    empty = len(data.classnames) - len(set().union(*(shard.labels for shard in shards)))
    notes += [f"{empty} classes without one"] if empty else []
    known = {one for shard in shards for one in shard.pictures}
    leaked = sum(one in known for one in tested)
    return [*notes, *([f"{leaked} test pictures among them"] if leaked else [])], problems


def examine(
    shard: Path, needs: frozenset[str], classes: int, fields: int, images: bool, pictures: bool = False
) -> Found:
    """Read a shard from end to end.

    Args:
        fields: numbers that a metadata vector has to hold.
        images: decode every picture.
        pictures: note the digest of each.

    Raises:
        UserError: what cannot be understood, see `tasks.readers.read_examples`.
    """
    found = Found(digest_file(shard))
    for item in read_examples(shard, needs, classes):
        if not isinstance(item, Bad) and counts(item, needs):
            found.keys.append(item.key)
        if isinstance(item, Bad):
            found.bad.append(item)
        elif isinstance(item, Example):
            found.labels.update(np.flatnonzero(item.metadata).tolist() if "labels" in needs else [item.label])
            if pictures:
                found.pictures.append(hashlib.sha256(item.image).digest())
            if "metadata" in needs and len(item.metadata) != fields:
                found.bad.append(
                    Bad(shard.name, item.key, f".npy holds {len(item.metadata)} numbers instead of {fields}")
                )
            if images and (reason := _undecodable(item.image)) is not None:
                found.bad.append(Bad(shard.name, item.key, reason))
    return found


def _undecodable(picture: bytes) -> str | None:
    try:
        with Image.open(io.BytesIO(picture)) as image:
            rgb(image)
    except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes
        return f"the picture cannot be decoded: {type(error).__name__}"
    return None


def _result(path: Path, future: "Future[Found]", problems: list[str]) -> Found | None:
    try:
        return future.result()
    except (UserError, OSError) as error:
        problems.append(str(error))
    except BrokenExecutor:
        raise UserError("a process that read shards was killed, as when memory runs out; try fewer jobs=") from None
    except Exception as error:  # a shard can be wrong in ways that nobody foresaw
        problems.append(f"{path}: {described(error)}")
    return None


def _bad(shards: Iterable[Found]) -> list[str]:
    bad = [item for shard in shards for item in shard.bad]
    lines = [f"{item.shard} {item.key or '(the rest of it)'}: {item.reason}" for item in bad[:_SHOWN]]
    return lines + ([f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else [])


def _lock_problem(task: Task, data: TaskData, shards: Sequence[Found]) -> list[str]:
    """Which file is not the one of the lock file, if the task is in it."""
    locked = pinned(task.key)
    digests = {data.name_of(path): shard.digest for path, shard in zip(data.shards, shards, strict=True)}
    if locked is None or data.digest(digests) == locked.data_digest:
        return []
    here = digests | {data.name_of(path): digest_file(path) for path in data.texts}
    there = {file.name: file.sha256 for file in locked.files}
    names = sorted(name for name in here | there if here.get(name) != there.get(name))
    return [f"{len(names)} files are not those of the lock file, the first is {names[0]}"]
