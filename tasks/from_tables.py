"""A set in parquet files, as the Hub has it, for `python -m tasks export dataset=parquet`."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from poolbench.errors import UserError
from poolbench.files import files_in
from poolbench.shards import parquet
from poolbench.shards.pictures import decoding, opened

from tasks.datasets import TABLES, Dataset, DatasetSample, Opened, Picture, encoded
from tasks.examples import Bad, Example
from tasks.names import Names, packaged
from tasks.readers import CLASSNAMES, DATASET_TYPES, TEMPLATES, classnames_of, templates_of
from tasks.registry import Task
from tasks.tables import read_captioned, read_labelled, read_pairs


def build(task: Task, root: Path, split: str) -> Dataset:
    """The data set of the parquet files of a split below `root`, read as those of a task.

    Its class names and templates are those of the small files in `root`, else those that are known for the task.

    Raises:
        UserError: the task is of a kind that is not exported, or there is no such file, or split, or class name.
    """
    if task.kind not in DATASET_TYPES:
        kinds = ", ".join(DATASET_TYPES)
        raise UserError(f"dataset={TABLES}: task={task.key} is of the kind {task.kind}; exported are {kinds}")
    tables = _tables(root, split)
    names, templates = _lists(task, root) if task.kind == "multilabel" else ((), ())
    size = sum(map(parquet.row_count, tables))
    return Dataset(TABLES, split, names, templates, task.kind, size, partial(_samples, task.kind, tables, names))


def _tables(root: Path, split: str) -> tuple[Path, ...]:
    """The files of a split, in the folder itself or where repositories and conversions of the Hub have them."""
    for folder in (root, root / "data", root / split):
        paths = files_in(folder, "*.parquet")
        if paths and split != "test" and folder.name != split and not parquet.splits_of(paths):
            told = f"{paths[0].name} tells no split, as {split}-00000-of-00001.parquet does"
            raise UserError(f"{folder}: {told}, so split={split} would hold the samples of split=test")
        if paths:
            return parquet.of_split(folder, paths, split)
    raise UserError(f"root={root} holds no parquet file, nor do folders data and {split} in it")


def _lists(task: Task, root: Path) -> tuple[Names, Names]:
    """Class names and templates."""
    known = packaged().get(task.key, {})
    names = () if (root / CLASSNAMES).is_file() else known.get("classnames", ())
    templates = () if (root / TEMPLATES).is_file() else known.get("templates", ())
    return names or classnames_of(root), templates or templates_of(root)


def _samples(kind: str, tables: tuple[Path, ...], names: Names) -> Iterator[DatasetSample]:
    """The samples, whose pictures stay as they are where shards may hold their format."""
    pictures: list[Picture] = []
    for path in tables:
        for item in _examples(kind, path, names):
            if isinstance(item, Bad):
                raise UserError(f"{path}: the sample {item.key} cannot be read: {item.reason}")
            pictures.append(_picture(path, item))
            if kind == "winoground" and item.label == 0:  # the first of two
                continue
            yield DatasetSample(tuple(pictures), item.metadata if kind == "multilabel" else item.captions)
            pictures.clear()


def _examples(kind: str, path: Path, names: Names) -> Iterator[Example | Bad]:
    if kind == "multilabel":
        return read_labelled(path, names)
    return read_pairs(path) if kind == "winoground" else read_captioned(path, kind == "caption_selection")


def _picture(path: Path, example: Example) -> Picture:
    try:
        with decoding():
            image = opened(example.image)
            return encoded(image, [Opened(image, lambda: example.image)])
    except ValueError as error:
        raise UserError(f"{path}: the sample {example.key} cannot be read: {error}") from None
