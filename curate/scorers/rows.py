"""Scores of a pool's rows by what its metadata says of them: made once, kept beside the pool, found by any selection.

How they are kept stands in curate/pool/columns.py.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from poolbench.errors import UserError

from curate.pool import columns
from curate.pool.files import File, read_columns
from curate.pool.origins import Origin
from curate.pool.passes import Passes, light
from curate.pool.places import is_remote
from curate.pool.work import writing_results

_WAY_OUT = "name another folder by columns="


class RowScorer(ABC):
    """What makes columns of a file's rows. Instances are pickled to workers.

    Attributes:
        name: of the folder below `columns/`.
        columns: that it reads, of the parquet or made of it.
        arrays: of the npz.
        makes: the float32 columns that it gives.
        version: raised by a change that gives other numbers.
        light: whether Arrow and numpy do its work, see curate.pool.passes.light.
        remake: how to make them anew, for messages.
    """

    name: str
    columns: tuple[str, ...] = ()
    arrays: tuple[str, ...] = ()
    makes: tuple[str, ...]
    version: ClassVar[int] = 1
    light: ClassVar[bool] = False
    remake = "start the selection that made it again"

    @abstractmethod
    def identity(self) -> Any:
        """All that its numbers depend on besides the file, JSON-able."""

    @abstractmethod
    def score(self, file: File) -> Mapping[str, np.ndarray]:
        """Each column of `makes`, float32 [rows of the parquet, those with malformed uids too]; NaN where a row has no
        number.

        Raises:
            BadFile: the file cannot be scored.
        """

    def column(self, place: int = 0) -> str:
        """The name by which a selection reads a column of `makes`, whatever other folders have."""
        return f"{self.name}/{self.makes[place]}"


def score_columns(passes: Passes, scorer: RowScorer) -> None:
    """Make what is missing of a scorer's columns, and what is of another identity or of the file as it was.

    A file that cannot be scored is noted among the passes' bad ones. Each is written whole, so that a second run
    continues; parts of an array do their own files first, and the same file twice is harmless.

    Raises:
        UserError: nowhere to write them, or see Passes.map.
    """
    folder = columns_folder(passes.files, scorer.name)
    with writing_results(folder, _WAY_OUT):
        passes.each(score_file, scorer, done=lambda file: is_made(file, scorer))


def columns_folder(files: Sequence[File], name: str) -> str:
    """Where the columns of this name are written, made where it is missing.

    Raises:
        UserError: the pool is in a store that is only read, or its folder cannot be written to.
    """
    folder = f"{files[0].made[0]}/{name}"
    if re.match("https?:", folder):
        raise UserError(f"{folder} cannot be written: name a local folder for columns made of the pool, by columns=")
    if not is_remote(folder):
        with writing_results(folder, _WAY_OUT):
            Path(folder).mkdir(parents=True, exist_ok=True)
    return folder


def is_made(file: File, scorer: RowScorer) -> bool:
    """Whether a file has the columns of this scorer, made of the file as it is."""
    try:
        return columns.origin_of(_path(file, scorer)) == origin_of(file, scorer)
    except columns.UnusableColumn:
        return False


def origin_of(file: File, scorer: RowScorer) -> Origin:
    """What a file's columns are made by as things are now. Made columns that they are made of are known by theirs."""
    inputs = {name: columns.origin_digest(file.made, file.name, name) for name in scorer.columns}
    return Origin(
        scorer=scorer.name,
        version=scorer.version,
        identity=json.loads(json.dumps(scorer.identity())),  # as it is read again: lists, no tuples
        makes=list(scorer.makes),
        inputs={name: digest for name, digest in inputs.items() if digest is not None},
        size=file.size,
        stamp=file.stamp,
        remake=scorer.remake,
    )


@light
def score_file(file: File, scorer: RowScorer) -> None:
    """Make the columns of one file, unless another part has in the meantime.

    Raises:
        BadFile: it cannot be scored.
    """
    if is_made(file, scorer):
        return
    origin, found = origin_of(file, scorer), scorer.score(file)
    columns.write(_path(file, scorer), (table["uid"] for table, _ in read_columns(file, ["uid"])), found, origin)


def _path(file: File, scorer: RowScorer) -> str:
    return columns.path_of(f"{file.made[0]}/{scorer.name}", file.name)
