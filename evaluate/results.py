"""Results on disk: a line a task in eval_results.jsonl, and the predictions behind it in predictions/<key>.parquet."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from evaluate.config import EvaluateConfig
from evaluate.metrics import standard_error
from evaluate.metrics.columns import Metrics
from evaluate.subject import Subject
from poolbench.errors import UserError
from poolbench.files import append_line, atomic, digest_file, files_in, read_lines
from tasks import grade
from tasks.names import unlike_known
from tasks.readers import Bad, TaskData
from tasks.registry import Task

VERSION = 1  # of what the evaluation computes; results of another version are not taken for finished
FILE = "eval_results.jsonl"
_METADATA = b"poolbench"  # where a predictions file says what it was made from
_LINE = b"line"  # and what line of results belongs to it

Line = dict[str, Any]


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

    def identity(self, data_digest: str) -> Line:
        """The conditions and the data together, as a results line and a predictions file both carry them."""
        return {**self._asdict(), "data_digest": data_digest}


class Scored(NamedTuple):
    """A task that was evaluated: metrics, predictions, the SHA-256 of each shard by name, bad samples, seconds."""

    metrics: Metrics
    predictions: pa.Table
    digests: dict[str, str]
    bad: list[Bad]
    seconds: float


def line_of(task: Task, data: TaskData, scored: Scored, subject: Subject, conditions: Conditions) -> Line:
    """The line of eval_results.jsonl for a task that was just evaluated."""
    digest = data.digest(scored.digests)
    reasons = [*subject.deviations, *_deviations(task, data, scored, conditions)]
    return {
        "key": task.key,
        "dataset": task.name,
        "metrics": scored.metrics,
        "samples": len(scored.predictions),
        "stderr": standard_error(task.main_metric, scored.predictions),
        "seconds": round(scored.seconds, 3),
        "data_digest": digest,
        "shards": len(scored.digests),
        **grade.standing(task.key, digest, reasons, conditions.limit)._asdict(),
        "bad": [bad._asdict() for bad in scored.bad],
        **conditions._asdict(),
    }


def regraded(line: Line) -> Line:
    """A stored line with the grade that today's lock file gives it; one without the fields for that as it is."""
    fields = ("key", "data_digest", "deviations", "limit", "official")
    if any(name not in line for name in fields):
        return line
    told = (line["key"], line["data_digest"], line["deviations"], line["limit"], line["official"], line.get("grade"))
    return {**line, **grade.regraded(*told)._asdict()}


def save(out: Path, line: Line, predictions: pa.Table, conditions: Conditions) -> None:
    """Write a task's predictions, then append its line: a line without its predictions never exists."""
    metadata = {
        _METADATA: json.dumps(conditions.identity(line["data_digest"])).encode(),
        _LINE: json.dumps(line).encode(),
    }
    with atomic(predictions_path(out, line["key"]), "wb") as file:
        pq.write_table(predictions.replace_schema_metadata(metadata), file)
    append_line(out / FILE, line)


def predictions_path(out: Path, key: str) -> Path:
    """Where a task's predictions lie."""
    return out / "predictions" / f"{key.replace('/', '-')}.parquet"


def all_lines(out: Path) -> list[Line]:
    """Every line of eval_results.jsonl, [] where there is no such file.

    Raises:
        UserError: it holds something else than lines of results.
    """
    lines: list[Line] = read_lines(out / FILE)
    for number, line in enumerate(lines, start=1):
        if not isinstance(line, dict) or not isinstance(line.get("key"), str):
            raise UserError(f"{out / FILE}, line {number}, is not a line of results; move the file away")
    return lines


def last_lines(out: Path, subject: Subject) -> dict[str, Line]:
    """The last line of each task for a model with a checkpoint, by key.

    Raises:
        UserError: eval_results.jsonl holds something else than lines of results.
    """
    ours = (subject.sha256, subject.model)
    return {line["key"]: line for line in all_lines(out) if (line.get("checkpoint_sha256"), line.get("model")) == ours}


def saved_lines(out: Path) -> list[Line]:
    """The line of every task that has predictions, as it was when they were written.

    Each lies in a file of its own that one process wrote, so this holds on every file system, however many nodes
    wrote into `out` at a time.

    Raises:
        UserError: a file is not one of predictions.
    """
    lines = []
    for path in files_in(out / "predictions", "*.parquet"):
        try:
            metadata = pq.read_schema(path).metadata or {}
            lines.append(json.loads(metadata[_LINE]))
        except (OSError, pa.ArrowException, KeyError, ValueError):
            raise UserError(f"{path} does not hold predictions with their results; evaluate the task again") from None
    return lines


def finished(line: Line | None, data: TaskData, out: Path, conditions: Conditions, threads: int) -> bool:
    """Whether `line` is what evaluating now would give: same conditions, same data by content, predictions there.

    The files are hashed again only where everything else fits.
    """
    if line is None or line.get("shards") is None:
        return False
    identity = conditions.identity(line.get("data_digest", ""))
    if any(name not in line or line[name] != value for name, value in identity.items()):
        return False
    if predictions_identity(predictions_path(out, line["key"])) != identity:
        return False
    if conditions.limit is None and line["shards"] != len(data.shards):
        return False
    shards = data.shards[: line["shards"]]
    return bool(data.digest(digests_of(data, shards, threads)) == line["data_digest"])


def digests_of(data: TaskData, shards: Sequence[Path], threads: int) -> dict[str, str]:
    """Relative name -> SHA-256 of content, hashed in threads (hashing lets go of the interpreter's lock)."""
    with ThreadPoolExecutor(max(1, threads)) as pool:
        digests = list(pool.map(digest_file, shards))
    return {data.name_of(path): value for path, value in zip(shards, digests, strict=True)}


def predictions_identity(path: Path) -> Line | None:
    """The conditions and the data that a predictions file was made from, None where it is missing or not ours."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    identity: Line | None = json.loads(metadata.get(_METADATA, b"null"))
    return identity


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
