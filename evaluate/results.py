"""Results on disk: a line a task in eval_results.jsonl, and the predictions behind it in predictions/<key>.parquet."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.fields import ConventionsUsed, OwnModel
from poolbench.files import append_line, atomic, digest_file
from poolbench.models.conventions import Conventions

from evaluate.config import EvaluateConfig
from evaluate.metrics import standard_error
from evaluate.metrics.columns import Metrics
from evaluate.subject import Subject
from tasks import grade
from tasks.examples import Bad
from tasks.names import unlike_known
from tasks.readers import TaskData
from tasks.registry import Task
from tasks.results import (
    FILE,
    LINE,
    METADATA,
    BadSample,
    ResultLine,
    predictions_identity,
    predictions_path,
    read_results,
)

VERSION = 1  # of what the evaluation computes; results of another version are not taken for finished


class Conditions(NamedTuple):
    """What a result depends on besides the data. Two results that share these and the data are the same result."""

    checkpoint_sha256: str
    model: str
    tag: str | None
    precision: str
    limit: int | None
    version: int = VERSION

    @classmethod
    def of(cls, subject: Subject, config: EvaluateConfig) -> "Conditions":
        return cls(subject.sha256, subject.model, subject.tag, config.precision, config.limit)

    def identity(self, data_digest: str) -> dict[str, Any]:
        """The conditions and the data together, as a results line and a predictions file both carry them."""
        return {**self._asdict(), "data_digest": data_digest}


class Scored(NamedTuple):
    """A task that was evaluated: metrics, predictions, the SHA-256 of each shard by name, bad samples, seconds."""

    metrics: Metrics
    predictions: pa.Table
    digests: dict[str, str]
    bad: list[Bad]
    seconds: float


def line_of(
    task: Task,
    data: TaskData,
    scored: Scored,
    subject: Subject,
    conditions: Conditions,
    conventions: Conventions | None,
    own: OwnModel | None,
) -> ResultLine:
    """The line of eval_results.jsonl for a task that was just evaluated.

    Args:
        conventions: how the model wants its pictures; None of one that open_clip does not know.
        own: what that told of itself.
    """
    digest = data.digest(scored.digests)
    reasons = [*subject.deviations, *_deviations(task, data, scored, conditions)]
    return ResultLine(
        key=task.key,
        dataset=task.name,
        metrics=scored.metrics,
        samples=len(scored.predictions),
        stderr=standard_error(task.main_metric, scored.predictions),
        seconds=round(scored.seconds, 3),
        data_digest=digest,
        shards=len(scored.digests),
        **grade.standing(task.key, digest, reasons, conditions.limit)._asdict(),
        bad=[BadSample(**bad._asdict()) for bad in scored.bad],
        **conditions._asdict(),
        conventions=used(conventions),
        prompts=None if subject.prompts is None else subject.prompts.digest,
        own=own,
    )


def used(conventions: Conventions | None) -> ConventionsUsed | None:
    """Conventions as lines have them."""
    return None if conventions is None else ConventionsUsed(**conventions._asdict())


def save(out: Path, line: ResultLine, predictions: pa.Table, conditions: Conditions) -> None:
    """Write a task's predictions, then append its line: a line without its predictions never exists."""
    metadata = {
        METADATA: json.dumps(conditions.identity(line.data_digest)).encode(),
        LINE: json.dumps(line.model_dump()).encode(),
    }
    with atomic(predictions_path(out, line.key), "wb") as file:
        pq.write_table(predictions.replace_schema_metadata(metadata), file)
    append_line(out / FILE, line.model_dump())


def last_lines(out: Path, subject: Subject) -> dict[str, ResultLine]:
    """The last line of each task for a model with a checkpoint, and the prompts of `subject`, by key.

    Raises:
        UserError: eval_results.jsonl holds something else than lines of results.
    """
    ours = (subject.sha256, subject.model, None if subject.prompts is None else subject.prompts.digest)
    lines = read_results(out / FILE)
    return {line.key: line for line in lines if (line.checkpoint_sha256, line.model, line.prompts) == ours}


def finished(line: ResultLine | None, data: TaskData, out: Path, conditions: Conditions, threads: int) -> bool:
    """Whether `line` is what evaluating now would give: same conditions, same data by content, predictions there.

    The files are hashed again only where everything else fits.
    """
    if line is None:
        return False
    identity = conditions.identity(line.data_digest)
    if any(getattr(line, name) != value for name, value in identity.items()):
        return False
    if predictions_identity(predictions_path(out, line.key)) != identity:
        return False
    if conditions.limit is None and line.shards != len(data.shards):
        return False
    return data.digest(digests_of(data, data.shards[: line.shards], threads)) == line.data_digest


def digests_of(data: TaskData, shards: Sequence[Path], threads: int) -> dict[str, str]:
    """Relative name -> SHA-256 of content, hashed in threads (hashing lets go of the interpreter's lock)."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        digests = list(pool.map(digest_file, shards))
    return {data.name_of(path): value for path, value in zip(shards, digests, strict=True)}


def _deviations(task: Task, data: TaskData, scored: Scored, conditions: Conditions) -> list[str]:
    """Why a result is not official; [] where it is."""
    reasons = []
    if conditions.precision != "fp32":
        reasons.append(f"precision is {conditions.precision}, pinned at fp32")
    if conditions.limit is not None:
        reasons.append(f"limit={conditions.limit}")
    if len(scored.predictions) != task.samples:
        reasons.append(f"{len(scored.predictions)} samples, pinned at {task.samples}")
    if task.classes is not None and data.classnames and len(data.classnames) != task.classes:
        reasons.append(f"{len(data.classnames)} class names, pinned at {task.classes}")
    reasons += unlike_known(task.key, data.classnames, data.templates)
    if scored.bad:
        reasons.append(f"{len(scored.bad)} unreadable, first: {_describe(scored.bad[0])}")
    if data.surplus:
        reasons.append(f"test/{data.surplus[0]} lies there, but nshards.txt says {len(data.shards)} shards")
    return reasons


def _describe(bad: Bad) -> str:
    return f"{bad.shard} {bad.key} ({bad.reason})" if bad.key else f"{bad.shard} ({bad.reason})"
