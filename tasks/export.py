"""`python -m tasks export`: a data set of clip_benchmark, or of the Hub, as a folder that evaluations read."""

import io
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from tqdm import tqdm

from poolbench.errors import UserError, nearest
from poolbench.files import atomic, claimed, files_in
from poolbench.shards.writer import SampleWriter

from tasks.datasets import TABLES, Dataset, DatasetSample, kind_of
from tasks.names import unlike_known
from tasks.readers import CLASSNAMES, DATASET_TYPE, NSHARDS, TEMPLATES
from tasks.registry import Task, load_tasks

SHARD_SAMPLES = 10_000
SHARD_BYTES = 10**9  # of pictures; the one that reaches it is the shard's last


@dataclass
class Written:
    """What an export wrote."""

    samples: int = 0
    shards: int = 0
    pictures: int = 0
    untouched: int = 0  # of them, those that are as the data set has them, byte for byte
    blank: int = 0  # captions that hold nothing and were left out


def task_named(dataset: str, task: str | None, fitting: str | None, language: str) -> Task | None:
    """The task that an export is for: the one that was named, else the one that fits; None where there is none.

    Raises:
        UserError: no such task, or one of another kind; none is named where the files alone do not tell it.
    """
    tasks = load_tasks()
    if task is None and dataset == TABLES:
        raise UserError(f"dataset={dataset} needs task=<key>: the task that is to read it says what the files hold")
    if task is None:
        return tasks.get(fitting or "") if language == "en" else tasks.get(key_of(dataset, language))
    if task not in tasks:
        raise UserError(f"task={task}: there is no such task; {nearest(task, tasks)}")
    if dataset != TABLES and tasks[task].kind != kind_of(dataset):
        kind = kind_of(dataset)
        raise UserError(f"task={task} is of the kind {tasks[task].kind}, dataset={dataset} of the kind {kind}")
    return tasks[task]


def key_of(dataset: str, language: str) -> str:
    """The key that a task would have which reads the export of a data set that none of ours has."""
    return dataset if language == "en" else f"{dataset}-{language}"


def folder_of(dataset: str, task: Task | None, language: str) -> str:
    """The folder of an export: a task's, or the one where a task of the key `key_of` looks."""
    if task is not None:
        return task.folder
    return f"wds_{key_of(dataset, language).replace('/', '-')}_test"


def part_of(split: str) -> str:
    """The folder of a split within that of its data set: what is trained on lies in `train`."""
    return "train" if split == "trainval" else split


def here(folder: Path, split: str) -> str | None:
    """What lies there already of a split, None where nothing does.

    Raises:
        UserError: something that an export does not go with.
    """
    if files_in(folder, "*.parquet"):
        raise UserError(f"{folder} holds parquet files, as the hub has them; choose another out=")
    for above in (folder.parent, folder):
        if above.exists() and not above.is_dir():
            raise UserError(f"{above} is a file; choose another out=")
    place = folder / part_of(split)
    if not place.exists():
        return None
    if not (place / Path(NSHARDS).name).is_file():
        raise UserError(f"{place} is there without {Path(NSHARDS).name}, so it is no whole split; take it away")
    shards = files_in(place, "*.tar")
    size = tqdm.format_sizeof(sum(path.stat().st_size for path in shards), "B")
    return f"{place} is there already: {len(shards)} shards, {size}; take it away to export it anew"


def export(data: Dataset, folder: Path) -> Written:
    """Write a data set below `folder`; its split takes its name there when it is whole.

    Raises:
        UserError: a sample cannot be read or does not fit, or the folder is another data set's.
    """
    texts, place = _texts(data), folder / part_of(data.split)
    _check_texts(folder, texts)
    staged = folder.with_name(f".{folder.name}-{place.name}.part")
    with claimed(staged, wait=0):
        try:
            for old in staged.glob("[!.]*"):  # of a process that was killed
                old.unlink()
            written = _write(data, staged)
            for name, text in texts.items():
                with atomic(folder / name) as file:
                    file.write(text)
            if place.exists():
                raise UserError(f"{place} has come while this export was at work; which of the two is it to be?")
            (staged / ".lock").unlink()
            staged.rename(place)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return written


def notes(key: str, task: Task | None, data: Dataset, written: Written) -> Iterator[str]:
    """What is to be said of an export: where results over it will not be those of the task.

    Args:
        key: that a task would have, where there is none yet.
    """
    if written.blank:
        yield f"{written.blank} captions are blank and were left out"
    if task is None:
        yield f"no task reads it yet; a file in tasks/main/ with the key {key} makes one (docs/add_a_task.md)"
        return
    if part_of(data.split) == "test" and written.samples != task.samples:
        yield f"{written.samples:,} samples, but {task.key} has {task.samples:,}: its results will be unofficial"
    for line in unlike_known(task.key, data.classnames, data.templates):
        yield f"{line}: its results will be unofficial"


def _texts(data: Dataset) -> dict[str, str]:
    """Name -> content of the small files of the folder."""
    if not data.classnames:
        return {DATASET_TYPE: f"{data.kind}\n"}
    return {
        DATASET_TYPE: f"{data.kind}\n",
        CLASSNAMES: "".join(f"{name}\n" for name in data.classnames),
        TEMPLATES: "".join(f"{template}\n" for template in data.templates),
    }


def _check_texts(folder: Path, texts: dict[str, str]) -> None:
    """Another split may lie there, and then it has to be one of the same data set."""
    for name, text in texts.items():
        path = folder / name
        if path.exists() and path.read_bytes() != text.encode():
            raise UserError(f"{path} is there with another content; take the folder away, or choose another out=")


def _write(data: Dataset, folder: Path) -> Written:
    """Write the shards of a split and their number.

    Raises:
        UserError: there is no sample, or one that cannot be read or does not fit.
    """
    written, shards = Written(), _Shards(folder)
    try:
        for sample in tqdm(data.read(), total=data.size, unit="", disable=None, leave=False):
            key = f"s{written.samples:07d}"
            members, blank = _members(data, key, sample)
            shards.add(key, members)
            written.samples += 1
            written.blank += blank
            written.pictures += len(sample.pictures)
            written.untouched += sum(picture.untouched for picture in sample.pictures)
    finally:
        shards.close()
    if not written.samples:
        raise UserError(f"dataset={data.name}: the split {data.split} holds no sample")
    written.shards = shards.count
    (folder / Path(NSHARDS).name).write_text(f"{shards.count}\n", encoding="utf-8")
    return written


def _members(data: Dataset, key: str, sample: DatasetSample) -> tuple[dict[str, bytes], int]:
    """The members of a sample by extension, and how many of its captions are blank and left out."""
    pair = len(sample.pictures) > 1
    places = (f"{place}." * pair for place in range(len(sample.pictures)))
    pictures = {f"{place}{one.extension}": one.data for place, one in zip(places, sample.pictures, strict=True)}
    if data.kind == "multilabel":
        return {**pictures, "npy": _labels(data, key, sample.target)}, 0
    if data.classnames:
        return {**pictures, "cls": _label(data, key, sample.target)}, 0
    captions, blank = _captions(data, key, sample.target)
    return {**pictures, "txt": captions}, blank


@dataclass
class _Shards:
    """Tars 0.tar, 1.tar, ... of a bounded size, of bytes that follow from the samples alone."""

    folder: Path
    count: int = 0
    _samples: int = 0
    _bytes: int = 0
    _file: IO[bytes] | None = None
    _shard: SampleWriter | None = None

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Append a sample, its members in the order of their extensions."""
        if self._file is None or self._samples >= SHARD_SAMPLES or self._bytes >= SHARD_BYTES:
            self._begin()
        assert self._shard is not None
        self._shard.write(key, dict(sorted(members.items())))
        self._bytes += sum(map(len, members.values()))
        self._samples += 1

    def close(self) -> None:
        """Bring the last one to the disk."""
        if self._file is not None and self._shard is not None:
            self._shard.__exit__(None, None, None)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self.close()
        self._file = (self.folder / f"{self.count}.tar").open("wb")
        self._shard = SampleWriter(self._file)
        self.count, self._samples, self._bytes = self.count + 1, 0, 0


def _label(data: Dataset, key: str, target: Any) -> bytes:
    try:
        label = int(target)
    except (TypeError, ValueError):
        raise UserError(f"{data.name}: the label of sample {key} is {target!r}, not an integer") from None
    if not 0 <= label < len(data.classnames):
        raise UserError(
            f"{data.name}: sample {key} has label {label}, but there are {len(data.classnames)} class names"
        )
    return str(label).encode()


def _labels(data: Dataset, key: str, target: Any) -> bytes:
    """A vector of 0 and 1, as `.npy`."""
    vector = np.asarray(target)
    if vector.shape != (len(data.classnames),) or not np.isin(vector, (0, 1)).all():
        raise UserError(f"{data.name}: the labels of sample {key} are not 0 or 1 for each of its classes")
    buffer = io.BytesIO()
    np.save(buffer, vector.astype(np.int8))
    return buffer.getvalue()


def _captions(data: Dataset, key: str, target: Any) -> tuple[bytes, int]:
    """A line for each caption, and how many of them are blank and have none."""
    if isinstance(target, str) or not all(isinstance(caption, str) for caption in target):
        raise UserError(f"{data.name}: the captions of sample {key} are no list of texts")
    lines = [" ".join(caption.splitlines()).strip() for caption in target]
    found = [line for line in lines if line]
    if not found:
        raise UserError(f"{data.name}: sample {key} has no caption")
    if data.kind != "retrieval" and len(found) < len(lines):
        raise UserError(f"{data.name}: sample {key} has a blank caption, and where it belongs is told by its place")
    return "\n".join(found).encode(), len(lines) - len(found)
