"""Read a task's evaluation data as they lie on disk: webdataset folders and parquet folders.

    data = open_data(task, Path("evalsets"))        # finds the folder, reads its small text files, lists its shards
    for item in read_examples(data.shards[0], frozenset({"label"}), len(data.classnames)):
        ...                                         # an Example, or a Bad sample with the reason

What makes a whole task meaningless (no class names, a label that is not an integer) raises; what concerns one sample
or the rest of one shard is yielded as Bad, so that the caller can count and list it.
"""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from poolbench.errors import UserError
from poolbench.files import digest_file, digest_json, files_in
from poolbench.shards import parquet
from poolbench.shards.samples import Problem, Sample, held, read_shard

from tasks.examples import Bad, Example, Puzzle, checked_choices
from tasks.registry import Task
from tasks.tables import read_captioned, read_labelled, read_pairs, read_puzzles

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")  # the first one that a sample has is its image
CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
DATASET_TYPE = "dataset_type.txt"
# Kind -> what dataset_type.txt has to say; clip_benchmark knows no other word for captions than "retrieval". For other
# kinds it may say anything else, or be missing.
DATASET_TYPES: dict[str, tuple[str, ...]] = {
    "retrieval": ("retrieval",),
    "caption_selection": ("caption_selection", "retrieval"),
    "winoground": ("winoground",),
    "multilabel": ("multilabel",),
}
_CAPTIONED = frozenset({"retrieval", "caption_selection", "winoground"})
TABLED = frozenset({*DATASET_TYPES, "winogavil"})  # kinds that are read from parquet files, too
NSHARDS = "test/nshards.txt"
TRAIN = "train"  # the folder of a training split, beside test/


class MissingDataError(UserError):
    """The task's folder does not exist. It need not, where only some tasks were downloaded."""


@dataclass(frozen=True)
class TaskData:
    """A task's folder as it was found.

    Attributes:
        folder: where it lies.
        texts: its small text files that count for the result.
        shards: its tar or parquet files in order; the order of samples in all outputs follows from it.
        classnames: class names in the order of the labels, () for tasks without classes.
        templates: prompt templates that hold "{c}", () for tasks without classes.
        surplus: names of shards beyond the number that nshards.txt tells, which are not read.
    """

    folder: Path
    texts: tuple[Path, ...]
    shards: tuple[Path, ...]
    classnames: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    surplus: tuple[str, ...] = ()

    def digest(self, shard_digests: Mapping[str, str]) -> str:
        """SHA-256 over the sorted (file name relative to the folder, SHA-256 of content) of all files read.

        Args:
            shard_digests: relative name -> SHA-256 of the shards that were read; the text files are added here.
        """
        texts = {self.name_of(path): digest_file(path) for path in self.texts}
        return digest_of({**texts, **shard_digests})

    def name_of(self, path: Path) -> str:
        """The name under which a file of the folder enters the digest."""
        return path.relative_to(self.folder).as_posix()


def digest_of(files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted (name relative to the task's folder, SHA-256 of content) of files, given by name."""
    return digest_json(sorted([name, sha256] for name, sha256 in files.items()))


def open_data(task: Task, root: Path) -> TaskData:
    """Find the folder of `task` below `root` and read all but its shards.

    Raises:
        MissingDataError: there is no such folder.
        UserError: the folder lacks a file, has fewer shards than it says, or is of another kind than the task.
    """
    folder = folder_of(task, root)
    tables = tuple(files_in(folder, "*.parquet"))
    if task.kind == "winogavil" and not tables:
        raise UserError(f"{folder} holds no parquet file, which is what {task.key} is read from")
    if tables and (task.kind == "winogavil" or not (folder / NSHARDS).is_file()):
        return _open_tables(folder, tables, task)
    shards, surplus = _tars(folder)
    texts = [folder / NSHARDS]
    declared = "classification"
    if (folder / DATASET_TYPE).is_file():
        texts.append(folder / DATASET_TYPE)
        declared = _text(folder / DATASET_TYPE).strip().lower()
    _check_type(folder, declared, task)
    if task.kind in _CAPTIONED:
        return TaskData(folder, tuple(texts), shards, surplus=surplus)
    return TaskData(
        folder,
        (*texts, folder / CLASSNAMES, folder / TEMPLATES),
        shards,
        classnames_of(folder),
        templates_of(folder),
        surplus,
    )


def _open_tables(folder: Path, tables: tuple[Path, ...], task: Task) -> TaskData:
    """A folder of parquet files."""
    if task.kind not in TABLED:
        raise UserError(f"{folder} holds parquet files, but {task.key} is read from webdataset shards")
    shards = parquet.of_test(folder, tables)
    if task.kind != "multilabel":
        return TaskData(folder, (), shards)
    texts = folder / CLASSNAMES, folder / TEMPLATES
    return TaskData(folder, texts, shards, classnames_of(folder), templates_of(folder))


def open_labelled(folder: Path, split: str) -> TaskData:
    """A folder of labelled pictures in the tasks' layout, a task's or not, with the shards of one of its splits.

    Raises:
        UserError: the folder lacks a file, has fewer shards than it says, or holds captions.
    """
    declared = _text(folder / DATASET_TYPE).strip().lower() if (folder / DATASET_TYPE).is_file() else ""
    if declared in DATASET_TYPES:
        held_there = "captions, not with labels" if declared in _CAPTIONED else "several labels, not with one"
        raise UserError(f"{folder} holds pictures with {held_there}")
    texts = folder / CLASSNAMES, folder / TEMPLATES
    names, templates = classnames_of(folder), templates_of(folder)
    shards, surplus = _tars(folder, split)
    return TaskData(folder, texts, shards, names, templates, surplus)


def read_examples(
    path: Path, needs: frozenset[str], classes: int, seen: dict[str, str] | None = None
) -> Iterator[Example | Puzzle | Bad]:
    """Yield the samples of one tar or parquet file in order.

    Where "puzzles" are needed, the samples are Puzzles; each different picture is an Example once, before the first
    Puzzle that it is in.

    Args:
        path: the shard.
        needs: what every sample has to bring: "label", "captions", "choices", "labels", "metadata"; "pairs"; "puzzles".
        classes: labels have to lie in 0 .. classes-1 (looked at only where "label" or "labels" are needed).
        seen: the pictures of puzzles that an earlier file gave, by the SHA-256 of their bytes; new ones are added.

    Raises:
        UserError: something that is needed is missing from a sample or cannot be understood.
    """
    if path.suffix == ".parquet":
        yield from _read_table(path, needs, {} if seen is None else seen)
        return
    cut_off = False
    for item in read_shard(str(path)):
        if isinstance(item, Problem):
            cut_off |= not item.key
            yield Bad(path.name, item.key, item.reason)
            continue
        try:
            yield from _pair(path.name, item) if "pairs" in needs else [_example(path.name, item, needs, classes)]
        except UserError as error:
            if not cut_off:
                raise
            # The last sample of a shard that was cut off lacks members for that reason, told above.
            yield Bad(path.name, item.key, str(error))


def folder_of(task: Task, root: Path) -> Path:
    """The folder named in the registry, or the one that an export of the task as webdataset has.

    Raises:
        MissingDataError: there is neither.
    """
    exported = f"wds_{task.key.removeprefix('fairness/').replace('/', '-')}_test"
    for name in (task.folder, exported):
        if (root / name).is_dir():
            return root / name
    raise MissingDataError(f"{root / task.folder} does not exist")


def classnames_of(folder: Path) -> tuple[str, ...]:
    """The class names of a folder in the tasks' layout.

    Raises:
        UserError: it has no such file, or an empty one.
    """
    return _lines(folder / CLASSNAMES)


def templates_of(folder: Path) -> tuple[str, ...]:
    """The templates of a folder in the tasks' layout.

    Raises:
        UserError: it has no such file, or one with a line without "{c}".
    """
    path = folder / TEMPLATES
    templates = _lines(path)
    for number, template in enumerate(templates, start=1):
        if "{c}" not in template:
            raise UserError(f"{path}, line {number}, has no {{c}} for the class name")
    return templates


def _read_table(path: Path, needs: frozenset[str], seen: dict[str, str]) -> Iterator[Example | Puzzle | Bad]:
    if "puzzles" in needs:
        return read_puzzles(path, seen)
    if "pairs" in needs:
        return read_pairs(path)
    if "labels" in needs:
        return read_labelled(path, classnames_of(path.parent))
    return read_captioned(path, "choices" in needs)


def _check_type(folder: Path, declared: str, task: Task) -> None:
    """Raise UserError where dataset_type.txt speaks of another kind than the task's."""
    allowed = DATASET_TYPES.get(task.kind)
    path = folder / DATASET_TYPE
    if allowed is None:
        if any(declared in words for words in DATASET_TYPES.values()):
            raise UserError(f"{path} says {declared!r}, but {task.key} is of the kind {task.kind}")
    elif declared not in allowed:
        words = " or ".join(map(repr, allowed))
        raise UserError(f"{path} has to say {words} for a {task.kind} task such as {task.key}")


def _tars(folder: Path, split: str = "test") -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The shards <split>/0.tar .. <split>/<n-1>.tar, n from nshards.txt, and the names of tars beyond them."""
    file = folder / split / Path(NSHARDS).name
    text = _text(file).strip()
    if not text.isdecimal() or int(text) == 0:
        raise UserError(f"{file} has to hold the number of shards, not {text[:40]!r}")
    shards = tuple(file.with_name(f"{index}.tar") for index in range(int(text)))
    for shard in shards:
        if not shard.is_file():
            raise UserError(f"{shard} is missing: {split}/{file.name} says that there are {len(shards)} shards")
    known = {shard.name for shard in shards}
    surplus = [path.name for path in files_in(file.parent, "*.tar") if path.name not in known]
    return shards, tuple(surplus)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def _lines(path: Path) -> tuple[str, ...]:
    """Stripped lines. Blank ones at the end are dropped; one in between counts, as it shifts what follows."""
    lines = [line.strip() for line in _text(path).rstrip().splitlines()]
    if not lines:
        raise UserError(f"{path} is empty")
    return tuple(lines)


def _example(shard: str, sample: Sample, needs: frozenset[str], classes: int) -> Example | Bad:
    image = sample.first_of(IMAGE_EXTENSIONS)
    label = _label(shard, sample, classes) if "label" in needs else -1
    captions = _captions(shard, sample) if "captions" in needs else ()
    if "choices" in needs:
        captions, label = _choices(shard, sample)
    metadata = _metadata(shard, sample) if "metadata" in needs else np.empty(0, np.int64)
    metadata = _labels(shard, sample, classes) if "labels" in needs else metadata
    if image is None:
        return Bad(shard, sample.key, f"no picture (.{', .'.join(IMAGE_EXTENSIONS)}): {held(sample.members)}")
    return Example(sample.key, image, label, captions, metadata)


def _label(shard: str, sample: Sample, classes: int) -> int:
    text = _member(shard, sample, "cls").decode("utf-8", "replace").strip()
    try:
        label = int(text)
    except ValueError:
        raise UserError(f"{shard}: {sample.key}.cls holds {text[:40]!r}, not an integer") from None
    if not 0 <= label < classes:
        raise UserError(f"{shard}: {sample.key}.cls says {label}, but there are {classes} class names")
    return label


def _caption_text(shard: str, sample: Sample) -> str:
    try:
        return _member(shard, sample, "txt").decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{shard}: {sample.key}.txt is not UTF-8 text: {error.reason} at byte {error.start}") from None


def _captions(shard: str, sample: Sample) -> tuple[str, ...]:
    """One caption a line; lines end where `str.splitlines` says, as in the tools that export such sets."""
    text = _caption_text(shard, sample)
    captions = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not captions:
        raise UserError(f"{shard}: {sample.key}.txt holds no caption")
    return captions


def _choices(shard: str, sample: Sample) -> tuple[tuple[str, ...], int]:
    """Captions to choose among, and which is right: a line of `.txt` each, the first being right, or of `.json`
    `captions` and, where it is not the first, the place `right` from 0."""
    name = f"{shard}: {sample.key}"
    if "json" not in sample.members:
        text = _caption_text(shard, sample)
        return checked_choices(f"{name}.txt", [line.strip() for line in text.splitlines()], 0)
    try:
        record = json.loads(sample.members["json"])
    except ValueError as error:  # UnicodeDecodeError among them
        raise UserError(f"{name}.json is not JSON: {error}") from None
    captions = record.get("captions") if isinstance(record, dict) else None
    if not isinstance(captions, list) or not all(isinstance(one, str) for one in captions):
        raise UserError(f"{name}.json has no list of texts 'captions'")
    return checked_choices(f"{name}.json", [caption.strip() for caption in captions], record.get("right", 0))


def _pair(shard: str, sample: Sample) -> Iterator[Example | Bad]:
    """Two pictures, `.0.<extension>` and `.1.<extension>`, and the caption of each on the lines of `.txt`."""
    text = _caption_text(shard, sample)
    captions = tuple(line.strip() for line in text.splitlines())
    if len(captions) != 2 or not all(captions):
        raise UserError(f"{shard}: {sample.key}.txt has to hold two captions, one a line, not {len(captions)} lines")
    pictures = [sample.first_of([f"{place}.{one}" for one in IMAGE_EXTENSIONS]) for place in range(2)]
    for place, image in enumerate(pictures):
        if image is None:
            wanted = f".{place}.{f', .{place}.'.join(IMAGE_EXTENSIONS)}"
            yield Bad(shard, sample.key, f"no picture ({wanted}): {held(sample.members)}")
            return
    for place, image in enumerate(pictures):
        yield Example(f"{sample.key}/{place}", image or b"", place, captions, np.empty(0, np.int64))


def _labels(shard: str, sample: Sample, classes: int) -> npt.NDArray[np.int64]:
    """Which of several labels a sample has: `.npy` with 1 or 0 for each class, of whatever type."""
    vector, name = _array(shard, sample), f"{shard}: {sample.key}.npy"
    if vector.shape != (classes,):
        raise UserError(f"{name} is of the shape {vector.shape}, but there are {classes} class names")
    if not np.isin(vector, (0, 1)).all():
        raise UserError(f"{name} holds something else than 1 and 0 for the classes that a sample has and has not")
    return np.asarray(vector, np.int64)


def _metadata(shard: str, sample: Sample) -> npt.NDArray[np.int64]:
    vector = _array(shard, sample)
    if vector.ndim != 1 or not np.issubdtype(vector.dtype, np.integer):
        raise UserError(f"{shard}: {sample.key}.npy is not a vector of integers")
    return np.asarray(vector, np.int64)


def _array(shard: str, sample: Sample) -> npt.NDArray[Any]:
    data = _member(shard, sample, "npy")
    try:
        vector: Any = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{shard}: {sample.key}.npy is not a NumPy array: {error}") from None
    if not isinstance(vector, np.ndarray):  # an archive of several
        raise UserError(f"{shard}: {sample.key}.npy is not a NumPy array")
    return vector


def _member(shard: str, sample: Sample, extension: str) -> bytes:
    if extension not in sample.members:
        raise UserError(f"{shard}: sample {sample.key} has no .{extension}; {held(sample.members)}")
    return sample.members[extension]
