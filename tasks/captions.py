"""`python -m tasks captions`: a labelled set as shards of pictures with captions, to train on.

A caption is a prompt template of the set with the name of the class. Each shard of the set becomes shards of its own,
and captions.jsonl in their folder says of which, so that the same command again does the ones that are missing.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from poolbench.errors import UserError, nearest
from poolbench.files import append_line, atomic, claimed, digest_bytes, digest_json, files_in, read_lines
from poolbench.shards.pictures import EXTENSIONS, decoding, opened
from poolbench.shards.samples import Problem, commonest
from poolbench.shards.writer import SampleWriter
from poolbench.uids import uid_of

from tasks.examples import Bad, Example
from tasks.export import SHARD_BYTES, SHARD_SAMPLES
from tasks.languages import prompted
from tasks.readers import TaskData, folder_of, open_labelled, read_examples
from tasks.registry import load_tasks

RECORD = "captions.jsonl"
ONE, ALL = "one", "all"  # of the templates, for each picture


class Wording(NamedTuple):
    """How pictures get their captions: by one template, drawn by `seed`, or by all of them in turn."""

    templates: str
    seed: int


@dataclass
class Written:
    """What was made of a shard, or of all of them."""

    pictures: int = 0
    samples: int = 0
    files: list[str] = field(default_factory=list)
    bad: list[tuple[str, str, str]] = field(default_factory=list)  # shard, key and reason of what was left out

    def add(self, other: "Written") -> None:
        self.pictures += other.pictures
        self.samples += other.samples
        self.files += other.files
        self.bad += other.bad


def labelled(task: str, root: Path | None, split: str) -> TaskData:
    """The set that `task` names: a key, whose folder lies below `root`, or a folder, there or by itself.

    Class names and templates are in the language of the task.

    Raises:
        UserError: there is no such set or split, or its samples have no labels.
    """
    folder = _folder(task, root)
    if not (folder / split).is_dir():
        there = ", ".join(sorted(path.parent.name for path in folder.glob("*/nshards.txt")))
        other = f"only {there}" if there else "nor any other"
        raise UserError(f"{folder} has no split {split}, {other}; python -m tasks export ... split={split} writes one")
    data, tasks = open_labelled(folder, split), load_tasks()
    return prompted(tasks[task], data) if task in tasks else data


def write(data: TaskData, wording: Wording, out: Path) -> Written:
    """Write the pictures of a set with captions below `out`, but for the shards that are there already.

    Raises:
        UserError: `out` holds something else, no sample is good, or a label is none.
    """
    split, texts = data.shards[0].parent, digest_json([data.classnames, data.templates])
    identity = {"split": str(split.absolute()), "texts": texts, **wording._asdict()}
    written = Written()
    with claimed(out, wait=0):
        done = _done(out, identity)
        for shard in tqdm(data.shards, unit=" shards", disable=None, leave=False):
            line = done.get(shard.name)
            if line is None or line["stamp"] != _stamp(shard) or not _all_there(out, line["files"]):
                line = {"shard": shard.name, "stamp": _stamp(shard), **asdict(_convert(data, shard, wording, out))}
                append_line(out / RECORD, line)
            written.add(Written(*(line[one.name] for one in fields(Written))))
    if not written.samples:
        raise UserError(f"{split} holds no sample to train on{commonest(map(Problem._make, written.bad))}")
    return written


def _folder(task: str, root: Path | None) -> Path:
    tasks = load_tasks()
    if task not in tasks:
        for folder in ([root / task] if root is not None else []) + [Path(task)]:
            if folder.is_dir():
                return folder
        raise UserError(f"task={task} is neither a folder nor the key of a task; {nearest(task, tasks)}")
    if tasks[task].classes is None:
        raise UserError(f"task={task} is of the kind {tasks[task].kind}, whose samples have no class names")
    if root is None:
        raise UserError(f"data= is needed with task={task}: the folder of the evaluation sets")
    return folder_of(tasks[task], root)


def _done(out: Path, identity: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The lines of the shards that were converted before, by the name of the shard.

    Raises:
        UserError: the folder holds something else.
    """
    lines = read_lines(out / RECORD)
    if not lines:
        if files_in(out, "*"):
            raise UserError(f"out={out} holds files but no {RECORD}; choose another folder")
        append_line(out / RECORD, identity)
        return {}
    changed = [f"{key} {lines[0].get(key)} -> {value}" for key, value in identity.items() if lines[0].get(key) != value]
    if changed:
        raise UserError(f"out={out} holds other captions, choose another folder; what differs: {', '.join(changed)}")
    return {line["shard"]: line for line in lines[1:]}


def _convert(data: TaskData, shard: Path, wording: Wording, out: Path) -> Written:
    """Write the samples of a shard."""
    written, stem = Written(), shard.stem.zfill(5)
    written.files = _pieces(_captioned(data, shard, wording, written), out, stem)
    for left in files_in(out, f"{stem}-*.tar"):  # of the shard as it was before
        if left.name not in written.files:
            left.unlink()
    return written


def _captioned(
    data: TaskData, shard: Path, wording: Wording, written: Written
) -> Iterator[tuple[str, Mapping[str, bytes]]]:
    """The samples of a shard by key; `written` counts them."""
    for item in read_examples(shard, frozenset({"label"}), len(data.classnames)):
        try:
            if not isinstance(item, Example):
                raise ValueError(item.reason if isinstance(item, Bad) else "no picture with a label")
            described = _described(item)
        except ValueError as error:
            written.bad.append((shard.name, item.key, str(error)))
            continue
        written.pictures += 1
        for caption in _captions(item, data, wording):
            record = {"uid": uid_of(item.image, caption), **described.fields}
            members = {described.extension: item.image, "txt": caption.encode(), "json": json.dumps(record).encode()}
            yield f"{shard.stem.zfill(5)}-{written.samples:08d}", members
            written.samples += 1


class _Described(NamedTuple):
    extension: str
    fields: dict[str, Any]  # of the sample's .json


def _described(example: Example) -> _Described:
    """What the beginning of a picture tells of it.

    Raises:
        ValueError: it is no picture.
    """
    with decoding():
        image = opened(example.image)
    size = {"original_width": image.width, "original_height": image.height}
    return _Described(EXTENSIONS.get(image.format or "", "jpg"), {"sha256": digest_bytes(example.image), **size})


def _captions(example: Example, data: TaskData, wording: Wording) -> list[str]:
    """The captions of a picture; which template it draws depends on its content and the seed alone."""
    chosen = data.templates
    if wording.templates == ONE:
        draw = int(digest_bytes(f"{wording.seed}:{digest_bytes(example.image)}".encode()), 16)
        chosen = (data.templates[draw % len(data.templates)],)
    return [template.replace("{c}", data.classnames[example.label]) for template in chosen]


def _pieces(samples: Iterable[tuple[str, Mapping[str, bytes]]], out: Path, stem: str) -> list[str]:
    """Write tars of a bounded size, each whole or not at all; their names."""
    names: list[str] = []
    rest = iter(samples)
    for first in rest:
        names.append(f"{stem}-{len(names):03d}.tar")
        with atomic(out / names[-1], "wb") as file, SampleWriter(file) as shard:
            size = 0
            for count, (key, members) in enumerate(chain([first], rest), start=1):
                shard.write(key, members)
                size += sum(map(len, members.values()))
                if count >= SHARD_SAMPLES or size >= SHARD_BYTES:
                    break
    return names


def _all_there(folder: Path, names: Iterable[str]) -> bool:
    return all((folder / name).is_file() for name in names)


def _stamp(shard: Path) -> list[int]:
    status = shard.stat()
    return [status.st_size, status.st_mtime_ns]
