"""Submissions as files: found below a folder, read, and checked; a file may be anybody's."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from poolbench.errors import UserError
from poolbench.files import files_below, once

from leaderboard.checks import check
from leaderboard.models import FORMAT, Submission, problems

_MOST_LINES = 20  # refusals of one file
_LARGEST = 4 * 2**20  # bytes of a file; one with every metric of every task has 60 kB


class Checked(NamedTuple):
    """A submission, None where the file could not be read as one, and the reasons to refuse it."""

    submission: Submission | None
    refusals: list[str]


def find(folder: Path) -> list[Path]:
    """The submission files below a folder, sorted by path.

    Raises:
        UserError: a folder cannot be read.
    """
    return sorted(path for path in files_below(folder) if f".{path.name}".endswith(".submission.json"))


def read_submission(path: str | Path) -> Checked:
    """Read and check a submission file; what is wrong with it is among the refusals, the first 20 of them."""
    submission, refusals = _read(Path(path))
    more = [f"and {len(refusals) - _MOST_LINES} more"] if len(refusals) > _MOST_LINES else []
    return Checked(submission, [*map(_shown, refusals[:_MOST_LINES]), *more])


def text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is too large for a submission.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise UserError(f"larger than {_LARGEST} bytes, which no submission is")
    return data.decode()


def _read(path: Path) -> Checked:
    try:
        text = text_of(path)
        value = json.loads(text, object_pairs_hook=once)
        # Half a surrogate pair comes from an escape only, and most files have none.
        if "\\u" in text and (unfit := list(_not_json(value, "the file"))):
            return Checked(None, unfit)
        if isinstance(value, dict) and value.get("format") != FORMAT:
            found = str(value.get("format"))[:40]
            return Checked(None, [f"format: {found}, but this version reads {FORMAT}; run submit again"])
        try:
            submission = Submission.model_validate(value)
            return Checked(submission, check(submission))
        except ValueError as error:  # pydantic's, or that of a number that is none
            told = problems(error) if isinstance(error, ValidationError) else [f"the file: {error}"]
            return Checked(None, list(_not_json(value, "the file")) or told)
    except FileNotFoundError:
        return Checked(None, ["does not exist"])
    except UserError as error:
        return Checked(None, [str(error)])
    except ValueError as error:
        return Checked(None, [f"is not JSON: {error}"])
    except (OSError, RecursionError) as error:
        return Checked(None, [f"cannot be read: {getattr(error, 'strerror', None) or 'nested too deeply'}"])


def _shown(line: str) -> str:
    """A refusal as a terminal may show it: it can quote a key of the file, which may be any text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[:2000])


def _not_json(value: Any, field: str) -> Iterator[str]:
    """Python reads NaN, infinities and broken surrogates from a file; JSON and UTF-8 have none of them."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{field}: {value} is not a JSON number; write null"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            yield f"{field}: text that is not valid Unicode"
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            name = ascii(key)[1:-1] if isinstance(key, str) else str(key)
            yield from _not_json(key, field)
            yield from _not_json(item, name if field == "the file" else f"{field}.{name}")
