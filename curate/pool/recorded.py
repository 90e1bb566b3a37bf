"""What a scorer makes of a shard where that is no pool metadata: one file, and beside it a record of what made it.

The record is written last: a shard that has one is whole.
"""

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import BaseModel, ValidationError

from poolbench.errors import UserError
from poolbench.files import atomic, read_json, write_json
from poolbench.validation import first_refusal

from curate.pool.scored import Conditions, Made, Record, Scores

Model = TypeVar("Model", bound=BaseModel)


class RecordedShard(ABC):
    """The two files of one shard, `<name><suffix>` and `<name><suffix>.json`, for a scorer's `files_of`.

    Attributes:
        path: the first of them.
    """

    suffix: str

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.path = folder / f"{name}{self.suffix}"
        self._record = folder / f"{name}{self.suffix}.json"

    def __str__(self) -> str:
        return str(self.path)

    def record(self, made: Made) -> Record | None:
        """What made the file, None where there is none, or where it is gone or cut short.

        Raises:
            UserError: the record is of another version.
        """
        if not self._record.is_file():
            return None
        found = read_as(Record, self._record)
        try:
            return found if self._has(found.rows) else None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def in_the_way(self, made: Made, conditions: Conditions) -> str:
        """Nothing: what was made otherwise is made anew."""
        return ""

    def same_rows(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Nobody else has put rows there."""
        return True

    def write(self, made: Made, rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        """Write both files. An old record goes first: it must not stand beside another file."""
        self._record.unlink(missing_ok=True)
        with atomic(self.path, "wb") as file:
            self._save(file, rows, scores, record)
        write_json(self._record, record.model_dump(mode="json"))

    @abstractmethod
    def _has(self, rows: int) -> bool:
        """Whether the file has so many rows; may raise what numpy raises of damaged files."""

    @abstractmethod
    def _save(self, file: IO[bytes], rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None:
        """Write the file."""


def read_as(kind: type[Model], path: Path) -> Model:
    """A JSON file as what it is to be.

    Raises:
        UserError: it is no JSON, or of another version.
    """
    try:
        return kind.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(
            f"{path} is of another version ({first_refusal(error)}); choose another out=, or move the folder away"
        ) from None
