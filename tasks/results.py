"""What an evaluation leaves: a line a task in eval_results.jsonl, and the predictions behind it.

    read_results(run / FILE)                  # [ResultLine(key="vtab/pets", ...), ...]
    predictions_path(run, "vtab/pets")        # run/predictions/vtab-pets.parquet

Evaluation writes them, and the leaderboard, which knows of evaluation nothing but its metrics, reads them too.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from poolbench.errors import UserError
from poolbench.fields import AnyText, ConventionsUsed, Count, Digest, OwnModel, Strict
from poolbench.files import files_in, read_lines
from poolbench.validation import first_problem

from tasks.grade import Grade, regraded

FILE = "eval_results.jsonl"
# What a result depends on besides the data: where two lines share these and the data, they are the same result.
CONDITIONS = ("checkpoint_sha256", "model", "tag", "precision", "limit", "version")
METADATA = b"poolbench"  # the key under which a predictions file says what it was made from ...
LINE = b"line"  # ... and what line of results belongs to it


class BadSample(Strict):
    """A sample that could not be used, or with an empty key a whole rest of a shard."""

    shard: AnyText
    key: AnyText
    reason: AnyText


class ResultLine(Strict):
    """One line of eval_results.jsonl. Lines of earlier versions lack the fields that have a default."""

    key: str
    dataset: str
    metrics: dict[str, float | None]
    samples: Count
    stderr: float | None
    seconds: float
    data_digest: Digest
    shards: Count
    pinned: bool | None = None
    official: bool
    grade: Grade | None = None
    deviations: list[AnyText]
    bad: list[BadSample]
    checkpoint_sha256: Digest
    model: str
    tag: str | None
    precision: str
    limit: int | None
    version: int
    conventions: ConventionsUsed | None = None
    prompts: Digest | None = None
    own: OwnModel | None = None

    def regraded(self) -> "ResultLine":
        """The line with the grade that today's lock file gives it."""
        told = (self.key, self.data_digest, self.deviations, self.limit, self.official, self.grade)
        return self.model_copy(update=regraded(*told)._asdict())


def read_results(file: Path) -> list[ResultLine]:
    """Every line of results, [] where there is no such file.

    Raises:
        UserError: a line is not one, or has a field that is not known.
    """
    return [result_line(value, f"{file}, line {number},") for number, value in enumerate(read_lines(file), start=1)]


def result_line(value: Any, where: str) -> ResultLine:
    """A line from its plain values.

    Raises:
        UserError: they are not those of a line; it begins with `where`.
    """
    try:
        return ResultLine.model_validate(value)
    except ValidationError as error:
        problem = first_problem(error, ResultLine)
        raise UserError(f"{where} is not a line of results: {problem}; mend it or move the file away") from None


def saved_results(out: Path) -> list[ResultLine]:
    """The line of every task that has predictions, as it was when they were written.

    Each lies in a file of its own that one process wrote, so this holds on every file system, however many nodes
    wrote into `out` at a time.

    Raises:
        UserError: a file is not one of predictions.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = []
    for path in files_in(out / "predictions", "*.parquet"):
        try:
            value = json.loads((pq.read_schema(path).metadata or {})[LINE])
        except (OSError, pa.ArrowException, KeyError, ValueError):
            raise UserError(f"{path} does not hold predictions with their results; evaluate the task again") from None
        lines.append(result_line(value, f"{path}: what it holds"))
    return lines


def predictions_file(key: str) -> str:
    """The name of a task's file of predictions."""
    return f"{key.replace('/', '-')}.parquet"


def predictions_path(out: Path, key: str) -> Path:
    """Where a task's predictions lie."""
    return out / "predictions" / predictions_file(key)


def predictions_identity(path: Path) -> dict[str, Any] | None:
    """The conditions and the data that a predictions file was made from, None where it is missing or not ours."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        identity: Any = json.loads(metadata.get(METADATA, b"null"))
    except (OSError, ValueError, pa.ArrowException):
        return None
    return identity if isinstance(identity, dict) else None
