"""Read a task's evaluation data as they lie on disk: webdataset folders and parquet folders.

    data = open_data(task, Path("evalsets"))        # finds the folder, reads its small text files, lists its shards
    for item in read_examples(data.shards[0], frozenset({"label"}), len(data.classnames)):
        ...                                         # an Example, or a Bad sample with the reason

What makes a whole task meaningless (no class names, a label that is not an integer) raises; what concerns one sample
or the rest of one shard is yielded as Bad, so that the caller can count and list it.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poolbench.errors import UserError
from poolbench.files import digest_bytes, digest_file, digest_json, files_in
from poolbench.shards.samples import Problem, Sample, held, read_shard

from tasks import parquet
from tasks.registry import Task

IMAGE_EXTENSIONS = ("webp", "png", "jpg", "jpeg")  # the first one that a sample has is its image
CLASSNAMES = "classnames.txt"
TEMPLATES = "zeroshot_classification_templates.txt"
DATASET_TYPE = "dataset_type.txt"
NSHARDS = "test/nshards.txt"


class MissingDataError(UserError):
    """The task's folder does not exist. It need not, where only some tasks were downloaded."""


class Example(NamedTuple):
    """One sample: the compressed picture and what was asked for with `needs`.

    `label` is -1, `captions` and `metadata` are empty where they were not asked for. `metadata` is an int64 vector.
    """

    key: str
    image: bytes
    label: int
    captions: tuple[str, ...]
    metadata: npt.NDArray[np.int64]


class Puzzle(NamedTuple):
    """One instance of WinoGAViL: which of the pictures go with the cue?

    `pictures` are the keys of the Examples that hold the candidates' pictures, `names` what they are called, `right`
    which of them are associated with the cue; all three of one length.
    """

    key: str
    cue: str
    pictures: tuple[str, ...]
    names: tuple[str, ...]
    right: tuple[bool, ...]


class Bad(NamedTuple):
    """A sample that cannot be used, or with an empty key a whole rest of a shard. `shard` is the file's name."""

    shard: str
    key: str
    reason: str


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
    retrieval = task.kind == "retrieval"
    tables = tuple(files_in(folder, "*.parquet"))
    if task.kind == "winogavil" and not tables:
        raise UserError(f"{folder} holds no parquet file, which is what {task.key} is read from")
    if tables and (task.kind == "winogavil" or not (folder / NSHARDS).is_file()):
        if not retrieval and task.kind != "winogavil":
            raise UserError(f"{folder} holds parquet files, but {task.key} is read from webdataset shards")
        return TaskData(folder, (), tables)
    shards, surplus = _tars(folder)
    texts = [folder / NSHARDS]
    declared = "classification"
    if (folder / DATASET_TYPE).is_file():
        texts.append(folder / DATASET_TYPE)
        declared = _text(folder / DATASET_TYPE).strip().lower()
    if (declared == "retrieval") != retrieval:
        raise UserError(f"{folder / DATASET_TYPE} has to say 'retrieval' for a retrieval task and only there")
    if retrieval:
        return TaskData(folder, tuple(texts), shards, surplus=surplus)
    return TaskData(
        folder,
        (*texts, folder / CLASSNAMES, folder / TEMPLATES),
        shards,
        _lines(folder / CLASSNAMES),
        _templates(folder / TEMPLATES),
        surplus,
    )


def open_labelled(folder: Path, split: str) -> TaskData:
    """A folder of labelled pictures in the tasks' layout, a task's or not, with the shards of one of its splits.

    Raises:
        UserError: the folder lacks a file, has fewer shards than it says, or holds captions.
    """
    if (folder / DATASET_TYPE).is_file() and _text(folder / DATASET_TYPE).strip().lower() == "retrieval":
        raise UserError(f"{folder} holds pictures with captions, not with labels")
    texts = folder / CLASSNAMES, folder / TEMPLATES
    names, templates = _lines(texts[0]), _templates(texts[1])
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
        needs: which of "label", "captions", "metadata" every sample has to bring, or "puzzles".
        classes: labels have to lie in 0 .. classes-1 (looked at only where "label" is needed).
        seen: the pictures of puzzles that an earlier file gave, by the SHA-256 of their bytes; new ones are added.

    Raises:
        UserError: something that is needed is missing from a sample or cannot be understood.
    """
    if path.suffix == ".parquet":
        yield from _read_puzzles(path, {} if seen is None else seen) if "puzzles" in needs else _read_pairs(path)
        return
    cut_off = False
    for item in read_shard(str(path)):
        if isinstance(item, Problem):
            cut_off |= not item.key
            yield Bad(path.name, item.key, item.reason)
            continue
        try:
            yield _example(path.name, item, needs, classes)
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


def _templates(path: Path) -> tuple[str, ...]:
    templates = _lines(path)
    for number, template in enumerate(templates, start=1):
        if "{c}" not in template:
            raise UserError(f"{path}, line {number}, has no {{c}} for the class name")
    return templates


def _example(shard: str, sample: Sample, needs: frozenset[str], classes: int) -> Example | Bad:
    image = sample.first_of(IMAGE_EXTENSIONS)
    label = _label(shard, sample, classes) if "label" in needs else -1
    captions = _captions(shard, sample) if "captions" in needs else ()
    metadata = _metadata(shard, sample) if "metadata" in needs else np.empty(0, np.int64)
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


def _captions(shard: str, sample: Sample) -> tuple[str, ...]:
    """One caption a line; lines end where `str.splitlines` says, as in the tools that export such sets."""
    text = _member(shard, sample, "txt").decode("utf-8", "replace")
    captions = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not captions:
        raise UserError(f"{shard}: {sample.key}.txt holds no caption")
    return captions


def _metadata(shard: str, sample: Sample) -> npt.NDArray[np.int64]:
    data = _member(shard, sample, "npy")
    try:
        vector = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise UserError(f"{shard}: {sample.key}.npy is not a NumPy array: {error}") from None
    if vector.ndim != 1 or not np.issubdtype(vector.dtype, np.integer):
        raise UserError(f"{shard}: {sample.key}.npy is not a vector of integers")
    return np.asarray(vector, np.int64)


def _member(shard: str, sample: Sample, extension: str) -> bytes:
    if extension not in sample.members:
        raise UserError(f"{shard}: sample {sample.key} has no .{extension}; {held(sample.members)}")
    return sample.members[extension]


def _read_pairs(path: Path) -> Iterator[Example | Bad]:
    """Image-text pairs: a column of pictures, and one of captions or of lists of them, under the names and in the types
    that published sets have; the Hub's own conversion has `image` {bytes, path} and `caption`."""
    schema = parquet.schema_of(path)
    pictures, captions = parquet.column(path, schema, parquet.IMAGES, "pictures"), parquet.caption_columns(path, schema)
    parquet.check_type(path, schema.field(pictures), parquet.is_picture, "binary, or a struct with binary 'bytes'")
    for name in captions:
        parquet.check_type(path, schema.field(name), parquet.is_caption, "text, or a list of text")
    for row, record in parquet.rows(path, (pictures, *captions)):
        image, called = parquet.picture(record[pictures])
        key = called or f"{path.stem}-{row}"
        texts = tuple(text for column in captions for text in parquet.texts(record[column]))
        if not texts:
            raise UserError(f"{path}, row {row}, holds no caption")
        if not image:
            named = f", only the path {called}" if called else ""
            yield Bad(path.name, key, f"no picture in the column {pictures!r}{named}")
            continue
        yield Example(key, image, -1, texts, np.empty(0, np.int64))


def _read_puzzles(path: Path, seen: dict[str, str]) -> Iterator[Example | Puzzle | Bad]:
    """WinoGAViL of the Hub's parquet conversion: `cue`, `candidates` and `associations` (lists of names, the second a
    part of the first) and `candidate_images`, a list of {bytes, path} or of binary."""
    columns = ("candidate_images", "candidates", "cue", "associations")
    schema = parquet.schema_of(path)
    for name in columns:
        parquet.column(path, schema, (name,), "puzzles")
    wanted = "a list of binary or of structs with binary 'bytes'"
    parquet.check_type(path, schema.field(columns[0]), parquet.is_pictures, wanted)
    for name in columns[1:]:
        parquet.check_type(path, schema.field(name), parquet.is_caption, "text, or a list of text")
    for row, record in parquet.rows(path, columns):
        key = f"{path.stem}-{row}"
        names = tuple(parquet.texts(record["candidates"], blank=True))
        images = [parquet.picture(image)[0] for image in record["candidate_images"] or ()]
        associations = set(parquet.texts(record["associations"], blank=True))
        right = tuple(name in associations for name in names)
        cue = " ".join(parquet.texts(record["cue"], blank=True))
        if len(images) != len(names) or not all(images):
            yield Bad(path.name, key, f"{sum(map(bool, images))} pictures for {len(names)} candidates")
        elif not cue.strip() or not any(right):
            yield Bad(path.name, key, "no cue, or no candidate that goes with it")
        else:
            digests = [digest_bytes(image) for image in images]
            for name, digest, image in zip(names, digests, images, strict=True):
                if digest not in seen:
                    seen[digest] = f"{name}-{digest[:16]}"
                    yield Example(seen[digest], image, -1, (), np.empty(0, np.int64))
            yield Puzzle(key, cue, tuple(seen[digest] for digest in digests), names, right)
