"""Evaluation sets in the tasks' layout on disk: a folder each, `test/<n>.tar`, or parquet files with pictures.

Nothing but pictures is read. Of a set it is told which digest its data have, as evaluation computes it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from poolbench.errors import UserError
from poolbench.files import digest_file, digest_json, files_in
from poolbench.shards import parquet
from poolbench.shards.samples import Problem, read_shard
from poolbench.shards.writer import write_shard

NSHARDS, TYPE = "test/nshards.txt", "dataset_type.txt"
_TEXTS = ("classnames.txt", "zeroshot_classification_templates.txt")
_PUZZLES = "candidate_images"  # the column of WinoGAViL, lists of pictures
_PAIRS = "winoground"  # what TYPE says of a set whose samples have two pictures each
_CAPTIONED = ("retrieval", "caption_selection", _PAIRS)  # what it says of sets without classes


class EvaluationSet(NamedTuple):
    """A set: its folder, and its tars or parquet files."""

    folder: Path
    files: list[Path]

    @property
    def name(self) -> str:
        return self.folder.name

    def digest(self) -> str:
        """SHA-256 over the sorted (name within the folder, SHA-256) of the files that evaluation reads, which is
        `data_digest` of its results."""
        files = [*self._texts(), *self.files]
        return digest_json(sorted([file.relative_to(self.folder).as_posix(), digest_file(file)] for file in files))

    @property
    def paired(self) -> bool:
        """Whether its samples have two pictures each."""
        return self._declared() == _PAIRS

    def _declared(self) -> str:
        path = self.folder / TYPE
        return path.read_text(encoding="utf-8", errors="replace").strip().lower() if path.is_file() else ""

    def _texts(self) -> list[Path]:
        if self.files[0].suffix == ".parquet":
            labelled = not set(parquet.LABELS).isdisjoint(parquet.schema_of(self.files[0]).names)
            return [self.folder / name for name in _TEXTS if labelled and (self.folder / name).is_file()]
        names = (NSHARDS, TYPE) if self._declared() in _CAPTIONED else (NSHARDS, TYPE, *_TEXTS)
        return [self.folder / name for name in names if (self.folder / name).is_file()]


def sets_in(data: Path) -> list[EvaluationSet]:
    """The evaluation sets in a folder, sorted by name.

    Raises:
        UserError: no such folder, or no set in it.
    """
    if not data.is_dir():
        raise UserError(f"data={data} is no folder; it is where the evaluation sets lie, as tasks download makes it")
    folders = [path for path in sorted(data.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    found = [EvaluationSet(folder, files) for folder in folders if (files := _files(folder))]
    if not found:
        raise UserError(f"data={data} holds no evaluation set: no <set>/test/<n>.tar and no <set>/*.parquet")
    return found


def _files(folder: Path) -> list[Path]:
    """What evaluation reads of a set, and tars beyond the number that it tells."""
    tables = files_in(folder, "*.parquet")
    if tables and (not (folder / NSHARDS).is_file() or _PUZZLES in parquet.schema_of(tables[0]).names):
        return list(parquet.of_test(folder, tables))
    tars = files_in(folder / "test", "*.tar")
    if not tars:
        return []
    number = folder / NSHARDS
    text = number.read_text(encoding="utf-8", errors="replace").strip() if number.is_file() else ""
    if not text.isdecimal():
        raise UserError(f"{folder / NSHARDS} has to hold the number of shards, as tasks download writes it")
    shards = [folder / "test" / f"{index}.tar" for index in range(int(text))]
    missing = next((shard for shard in shards if not shard.is_file()), None)
    if missing is not None:
        raise UserError(f"{missing} is missing: {folder / NSHARDS} says that there are {len(shards)} shards")
    return shards


def as_tars(one: EvaluationSet, work: Path) -> list[Path]:
    """The tars of a set, in which each picture is a sample; those of parquet files and of pairs are copied into some
    below `work`, `<set>/test/<file>.tar`.

    Raises:
        UserError: a file to be copied that is damaged, or a parquet file without a column of pictures.
    """
    tars = one.files[0].suffix == ".tar"
    if tars and not one.paired:
        return one.files
    pictures, found = _of_pairs if tars else _of_table, []
    for file in one.files:
        tar = work / one.name / "test" / f"{file.stem}.tar"
        if not tar.is_file() or tar.stat().st_mtime_ns < file.stat().st_mtime_ns:
            tar.parent.mkdir(parents=True, exist_ok=True)
            making = tar.with_suffix(".making")
            write_shard(making, ((key, {"jpg": data}) for key, data in pictures(file)))
            making.replace(tar)
        found.append(tar)
    return found


def _of_pairs(path: Path) -> Iterator[tuple[str, bytes]]:
    for sample in read_shard(str(path)):
        if isinstance(sample, Problem):
            raise UserError(f"{path}: {sample.key or 'the rest of it'}: {sample.reason}")
        for place, data in enumerate(sample.pair()):
            yield f"{sample.key}-{place:02d}", data or b""  # which is told as a picture that cannot be looked at


def _of_table(path: Path) -> Iterator[tuple[str, bytes]]:
    schema = parquet.schema_of(path)
    several, pair = _PUZZLES in schema.names, set(parquet.PAIR) <= set(schema.names)
    single = () if several or pair else (parquet.column(path, schema, parquet.IMAGES, "pictures"),)
    columns = single or (parquet.PAIR if pair else (_PUZZLES,))
    fits = parquet.is_pictures if several else parquet.is_picture
    for column in columns:
        parquet.check_type(path, schema.field(column), fits, "pictures as binary, or as structs with binary 'bytes'")
    for row, record in parquet.rows(path, columns):
        values = record[_PUZZLES] or () if several else [record[column] for column in columns]
        for number, value in enumerate(values):
            yield f"{row:07d}" if single else f"{row:07d}-{number:02d}", parquet.picture(value)[0]
