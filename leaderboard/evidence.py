"""What the numbers of a submission can be held against: stored predictions, the subset file, the pool, the checkpoint.

Each check returns a line for what it looked at and the reasons to refuse the submission. What cannot be read at all is
the user's mistake, not the submission's, and raises.
"""

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from poolbench.errors import UserError
from poolbench.files import digest_file, files_below
from poolbench.run_record import read_record
from poolbench.uids import Uids, from_texts, mapped, pieces, search, uid_text, unsorted_row

from leaderboard.checks import TOLERANCE, same
from leaderboard.models import Submission, TaskResult
from tasks.registry import Task, load_tasks, select
from tasks.results import FILE, ResultLine, predictions_file, predictions_identity, predictions_path, read_results

Ints = npt.NDArray[np.int64]

RECHECK_TOLERANCE = 0.001  # between two evaluations on different devices, where a near tie may fall the other way

_ROWS = 2**20  # uids of a parquet that are in memory at a time
_NAMED = 3  # uids that a refusal names


class Finding(NamedTuple):
    """What was looked at, a line each, and the reasons to refuse the submission."""

    used: list[str]
    refusals: list[str]


# --- predictions ---


def check_predictions(submission: Submission, folder: Path) -> Finding:
    """Compute every metric of every task again of which `folder` holds the predictions.

    Raises:
        UserError: it holds those of no task.
    """
    files = {result.key: folder / predictions_file(result.key) for result in submission.tasks}
    there = [result for result in submission.tasks if files[result.key].is_file()]
    if not there:
        raise UserError(f"{folder} holds no predictions of the submission's tasks; predictions= names their folder")
    refusals = []
    for result in there:
        lines = _prediction_refusals(submission, result, files[result.key])
        refusals += [f"tasks.{result.key}.{line}" for line in lines]
    without = [key for key, file in files.items() if not file.is_file()]
    used = f"predictions: {len(there)} of {len(files)} tasks computed again"
    return Finding([used + (f"; no file for {', '.join(without)}" if without else "")], refusals)


def _prediction_refusals(submission: Submission, result: TaskResult, path: Path) -> list[str]:
    """Why a task's result does not follow from its predictions, the worst thing alone or all numbers that differ."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from evaluate.metrics import metrics, standard_error

    if result.predictions_sha256 is not None and digest_file(path) != result.predictions_sha256:
        return [f"predictions_sha256: not the digest of {path}"]
    identity = predictions_identity(path)
    if identity is None:
        return [f"predictions_sha256: {path} is no file of predictions"]
    written = {"checkpoint_sha256": submission.checkpoint_sha256} | result.model_dump(
        include={"data_digest", "precision", "limit"}
    )
    for name, value in written.items():
        if identity.get(name) != value:
            return [f"{name}: {value}, but {path} is of {identity.get(name)}; evaluate the task again"]
    rows = pq.read_metadata(path).num_rows
    if rows != result.samples:
        return [f"samples: {result.samples}, but {path} holds {rows}"]
    try:
        task, table = load_tasks()[result.key], pq.read_table(path)
        right, stderr = metrics(task, table), standard_error(task.main_metric, table)
    except (ArithmeticError, LookupError, OSError, RuntimeError, ValueError, TypeError, pa.ArrowException) as error:
        return [f"metrics: do not follow from {path}: {type(error).__name__}: {' '.join(str(error).split())}"]
    lines = [
        f"metrics.{name}: {result.metrics.get(name)} is not what the predictions give, {right.get(name)}"
        for name in sorted({*right, *result.metrics})
        if (name in right) != (name in result.metrics) or not same(result.metrics[name], right[name])
    ]
    if not same(result.stderr, stderr):
        lines.append(f"stderr: {result.stderr} is not what the predictions give, {stderr}")
    return lines


# --- subset and pool ---


def check_subset(submission: Submission, path: Path) -> Finding:
    """Whether a subset file is the one that the submission names.

    Raises:
        UserError: there is no such file.
    """
    if submission.subset is None:
        return Finding([], ["subset: null, but a subset file is supplied"])
    if not path.is_file():
        raise UserError(f"subset={path} does not exist")
    if digest_file(path) != submission.subset.digest:
        return Finding([], [f"subset.digest: not the digest of {path}"])
    try:
        uids = mapped(path)
    except UserError as error:
        return Finding([], [f"subset: {error}"])
    if len(uids) != submission.subset.size:
        return Finding([], [f"subset.size: {submission.subset.size}, but {path} holds {len(uids)} uids"])
    row = unsorted_row(uids)
    if row is not None:
        return Finding([], [f"subset: {path} is not sorted at row {row}"])
    repeats = sum(int((~new).sum()) for _, _, new in pieces(uids))
    return Finding([f"subset: {len(uids):,} uids, {repeats:,} of them repeats, digest and order as they should be"], [])


def check_pool(submission: Submission, subset: Path, pool: Path) -> Finding:
    """Whether each uid of a subset file, which `check_subset` found good, is one of the pool's.

    One byte a uid of the subset is in memory, the rest is streamed.

    Args:
        pool: a sorted `.npy` of uids, or a folder of parquets with a column `uid`.

    Raises:
        UserError: the pool cannot be read.
    """
    if submission.track != "filtering":
        return Finding([f"pool: not compared, the track {submission.track} may hold any data"], [])
    uids = mapped(subset)
    found = np.zeros(len(uids), np.bool_)
    for rows in _rows_in_folder(uids, pool) if pool.is_dir() else _rows_in_list(uids, pool):
        found[rows] = True
    missing = 0
    named: list[str] = []
    for start, part, new in pieces(uids):
        rows = start + np.flatnonzero(~found[start : start + len(part)] & new)
        missing += len(rows)
        named += [uid_text(uid) for uid in uids[rows[: _NAMED - len(named)]]]
    if missing:
        more = f" and {missing - len(named):,} more" if missing > len(named) else ""
        return Finding([], [f"subset: {missing:,} uids are not in the pool {pool}: {', '.join(named)}{more}"])
    return Finding([f"pool: every uid of the subset is in {pool}"], [])


def _matches(uids: Uids, rows: Ints, wanted: Uids) -> npt.NDArray[np.bool_]:
    matches: npt.NDArray[np.bool_] = (rows < len(uids)) & (uids[np.minimum(rows, len(uids) - 1)] == wanted)
    return matches


def _rows_in_list(uids: Uids, pool: Path) -> Iterator[Ints]:
    """Rows of `uids` that a sorted file of uids holds too."""
    listed = mapped(pool)
    row = unsorted_row(listed)
    if row is not None:
        raise UserError(f"pool={pool} is not sorted at row {row}; np.sort it")
    for start, wanted, _ in pieces(uids):
        yield start + np.flatnonzero(_matches(listed, search(listed, wanted), wanted))


def _rows_in_folder(uids: Uids, pool: Path) -> Iterator[Ints]:
    """First rows of those `uids` that the parquets in a folder hold too."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = sorted(path for path in files_below(pool) if path.suffix == ".parquet")
    if not paths:
        raise UserError(f"pool={pool} holds no .parquet file")
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(_ROWS, columns=["uid"]):
                    listed = from_texts(batch.column("uid").to_pylist())
                    listed = listed[np.argsort(listed["f0"])]  # what is looked up in a row then lies close together
                    rows = search(uids, listed)
                    yield rows[_matches(uids, rows, listed)]
        except (OSError, LookupError, ValueError, TypeError, pa.ArrowException) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} is not pool metadata with a column uid of 32 hex digits: {reason}") from None


# --- the checkpoint ---


def check_again(submission: Submission, checkpoint: Path, words: Sequence[str], data: str | None) -> Finding:
    """Evaluate tasks of the submission again and compare.

    Args:
        words: keys, groups or globs of tasks, as `python -m evaluate tasks=` takes them.
        data: the folder of the evaluation sets; None for the embedded ones.

    Raises:
        UserError: a word names no task of the submission, or the evaluation could not be done.
    """
    chosen = {task.key for task in select(words)}
    results = [result for result in submission.tasks if result.key in chosen]
    if not results:
        raise UserError(f"recheck={','.join(words)} names no task of the submission")
    if not checkpoint.is_file():
        raise UserError(f"checkpoint={checkpoint} does not exist")
    if digest_file(checkpoint) != submission.checkpoint_sha256:
        return Finding([], [f"checkpoint_sha256: not the digest of {checkpoint}"])
    refusals = []
    for precision, limit in dict.fromkeys((result.precision, result.limit) for result in results):
        alike = [result for result in results if (result.precision, result.limit) == (precision, limit)]
        with tempfile.TemporaryDirectory() as folder:
            command = _command(submission, checkpoint, alike, data, Path(folder))
            refusals += _compare_again(command, alike, Path(folder))
    return Finding([f"recheck: {', '.join(result.key for result in results)} evaluated again"], refusals)


def checkpoint_of(folder: Path) -> Path:
    """The checkpoint that run.json in a folder names.

    Raises:
        UserError: there is no run.json, or it names none.
    """
    try:
        checkpoint = read_record(folder).checkpoint
    except UserError as error:
        raise UserError(f"{error}; checkpoint= names the file") from None
    if checkpoint is None:
        raise UserError(f"{folder / 'run.json'} names no checkpoint; checkpoint= names the file")
    return folder / checkpoint.path


def _command(
    submission: Submission, checkpoint: Path, results: Sequence[TaskResult], data: str | None, out: Path
) -> list[str]:
    """The evaluation, as a process: it is one that anybody could have started, and ends with its memory."""
    model = submission.recipe.get("model")
    # The name comes from the submission. Other characters could make it a download, or a value that Hydra resolves.
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9_.-]+", model):
        raise UserError(f"recipe.model {str(model)[:80]!r} is no name of a model")
    first = results[0]
    return [
        *(sys.executable, "-m", "evaluate", f"model={model}", f"checkpoint={checkpoint}", f"out={out}"),
        *([] if data is None else [f"data={data}"]),
        *([] if first.limit is None else [f"limit={first.limit}"]),
        f"precision={first.precision}",
        f"tasks=[{','.join(result.key for result in results)}]",
    ]


def _compare_again(command: Sequence[str], results: Sequence[TaskResult], out: Path) -> list[str]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)  # its errors go where ours go
    lines = {line.key: line for line in read_results(out / FILE)}
    if done.returncode not in (0, 1):
        raise UserError(f"the evaluation ended with status {done.returncode}: {' '.join(command)}")
    refusals = []
    for result in results:
        if result.key in lines:
            refusals += [f"tasks.{result.key}.{line}" for line in _unlike(result, lines[result.key], out)]
        else:
            said = [line for line in done.stdout.split("\n") if line.startswith(f"{result.key}: ")]
            refusals.append(f"tasks.{result.key}: not evaluated again: {(said or ['no reason told'])[-1]}")
    return refusals


def _unlike(result: TaskResult, line: ResultLine, out: Path) -> Iterator[str]:
    for name in ("data_digest", "samples"):
        if getattr(line, name) != getattr(result, name):
            yield f"{name}: {getattr(result, name)}, but evaluated again it is {getattr(line, name)}"
    written, now = result.metrics.get("main_metric"), line.metrics["main_metric"]
    if (written is None) != (now is None):
        yield f"metrics.main_metric: {written}, but evaluated again it is {now}"
    elif written is not None and now is not None:
        tolerance = max(RECHECK_TOLERANCE, _weight(load_tasks()[result.key], out))
        if abs(written - now) > tolerance + TOLERANCE:
            yield f"metrics.main_metric: {written}, but evaluated again it is {now} (tolerance {tolerance:.4f})"


def _weight(task: Task, out: Path) -> float:
    """How far one sample can move a task's main metric: 1 / n in a mean, more where small classes or groups count."""
    import pyarrow.parquet as pq

    predictions = pq.read_table(predictions_path(out, task.key))
    classes = task.main_metric in ("mean_per_class_recall", "F1-macro_all")
    column = "label" if classes else "group"
    if column not in predictions.column_names:
        return 1 / max(len(predictions), 1)
    counts = np.unique(predictions.column(column), return_counts=True)[1]
    return float(1 / (counts.min() * (len(counts) if classes else 1)))
