"""What a submission says of evaluation pictures in its training data: read from curate.overlap's overlap.json, and held
against the run.

    python -m curate.overlap shards=<data of the run> subset=<subset of the run> data=/evalsets out=overlap.npy
    python -m leaderboard submit run=runs/mine ... overlap=overlap

What cannot be seen from the file is whether the shards had these pictures: the overlap.json, whose digest is kept, and
the same command again would show it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.files import digest_file
from poolbench.overlap_report import FILE, OverlapReport, read_report
from poolbench.run_record import RunRecord

from leaderboard.models import Submission
from tasks.results import ResultLine


def overlap_of(given: str, run: RunRecord, results: Sequence[ResultLine]) -> dict[str, Any]:
    """The field `overlap` of a submission.

    Args:
        given: overlap.json, or the folder in which it lies.

    Raises:
        UserError: it is none, or of other training data or other evaluation data than the run's.
    """
    path = Path(given) / FILE if Path(given).is_dir() else Path(given)
    report = read_report(path)
    _check_of_run(path, report, run)
    digests = {one.digest for one in report.sets}
    tasks = [result.key for result in results if result.data_digest in digests]
    if not tasks:
        raise UserError(f"overlap={path} looked for pictures of other evaluation data than this run was evaluated on")
    embedding = report.by_embedding
    return {
        "digest": digest_file(path),
        "samples": report.samples,
        "left_out": report.left_out,
        "found": report.found,
        "shown": report.shown,
        "tasks": tasks,
        "distance": report.by_hash.distance,
        "bits": report.by_hash.bits,
        "cosine": None if embedding is None else embedding.cosine,
    }


def _check_of_run(path: Path, report: OverlapReport, run: RunRecord) -> None:
    if report.data.digest != run.data.digest:
        raise UserError(
            f"overlap={path} is of other shards than the run's; run curate.overlap with the run's data= as shards= "
            "and with its weights="
        )
    ours, theirs = (run.subset and run.subset.digest), (report.subset and report.subset.digest)
    if ours != theirs:
        what = "another subset than the run's" if theirs and ours else "a subset" if theirs else "all of the shards"
        needed = f"subset={run.subset.path}" if run.subset else "no subset="
        raise UserError(f"overlap={path} is of {what}; run curate.overlap with {needed}")


def check_overlap(submission: Submission) -> Iterator[str]:
    """Why what a submission says of it cannot be."""
    overlap = submission.overlap
    if overlap is None:
        return
    known = {task.key for task in submission.tasks}
    unknown = [key for key in overlap.tasks if key not in known]
    if unknown:
        yield f"overlap.tasks: {ascii(unknown[0])[:80]} is no task of this submission"
    if not overlap.tasks or len(set(overlap.tasks)) < len(overlap.tasks):
        yield "overlap.tasks: none, or one twice"
    if overlap.found > overlap.samples:
        yield f"overlap.found: {overlap.found} of {overlap.samples} samples"
    if bool(overlap.found) != bool(overlap.shown):
        yield f"overlap.shown: {overlap.shown} pictures, but {overlap.found} samples show one"
    if overlap.distance > overlap.bits:
        yield f"overlap.distance: {overlap.distance} of {overlap.bits} bits"
