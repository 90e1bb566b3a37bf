"""A submission from a run and its results.

    python -m leaderboard submit run=runs/mine method="CLIP score, top 30 %" author="A. Name" track=filtering

`writeup=` (a URL), `contact=` (private: it stays in the file and is never published), `dataset_size=` (where no subset
file says it), `audit=` (what curate.audit found of the subset) and `overlap=` (what curate.overlap found) may be
added. `push=hub repo=user/name` uploads it too, with the subset; `checkpoint=true` adds the checkpoint, `private=true`
makes a private repository. docs/submit.md tells the whole way.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from poolbench import recipes
from poolbench.errors import UserError, nearest
from poolbench.files import digest_file, write_json
from poolbench.options import option, output, source
from poolbench.run_record import FILE as RUN
from poolbench.run_record import RunRecord, read_record

from leaderboard.audits import audit_of
from leaderboard.checks import LONGEST, check, digest_of
from leaderboard.models import FORMAT, TRACKS, AnyModel, Submission, TaskResult, problems
from leaderboard.overlaps import overlap_of
from leaderboard.probes import ProbeResult, probes_of_run
from leaderboard.push import PushOptions, push_file
from leaderboard.suites import grade_of_whole, main_metrics, results_deviations, suite_tasks
from tasks.aggregates import AGGREGATES_VERSION, aggregates
from tasks.lock import why_unpinned
from tasks.registry import suite_of
from tasks.results import FILE, ResultLine, predictions_path, read_results

# Of run.json: what a submission says otherwise, or not at all, such as paths of the machine.
_NOT_COPIED: Any = {
    **dict.fromkeys(("name", "format", "status", "official", "deviations", "checkpoint", "data", "conventions"), True),
    "init": True,
    "objective": True,  # any but CLIP's is among the deviations
    "subset": {"path"},
}


@dataclass
class SubmitOptions:
    """The options of `submit`."""

    run: str = output("folder of the finished run, which gets submission.json")
    method: str = option("what was done, in a few words")
    author: str = option("who did it")
    track: str = option("filtering: a part of the scale's pool | byod: any data")
    writeup: str | None = option("web address of a description", None)
    contact: str | None = option("how to reach the author; is not published", None)
    dataset_size: int | None = option("samples of the dataset; null: those of the run's subset", None)
    audit: str | None = source("folder of an audit of the run's subset, or its groups.json", None)
    overlap: str | None = source("what curate.overlap wrote of the run's data: the folder, or its overlap.json", None)
    push: str | None = option("hub: upload to the Hugging Face Hub as well", None)
    repo: str | None = option("user/name there, with push=hub", None)
    checkpoint: bool = option("true: upload the checkpoint too, with push=hub", False)
    private: bool = option("true: make a private repository, with push=hub", False)


def submit_and_push(options: SubmitOptions) -> int:
    """Submit; with `push=hub` also upload the submission, the run's subset and, if asked for, its checkpoint.

    Raises:
        UserError: an option, run.json or eval_results.jsonl is missing or wrong, or the Hub did not take it.
    """
    if options.push not in (None, "hub"):
        raise UserError(f"push={options.push} is not known; push=hub uploads to the Hugging Face Hub")
    if options.push is None and (options.repo is not None or options.checkpoint or options.private):
        raise UserError("repo=, checkpoint= and private= belong to push=hub")
    if options.push and options.repo is None:
        raise UserError("push=hub needs repo=user/name")
    path = submit(options)
    return push_file([str(path)], _uploaded(options)) if options.repo is not None else 0


def submit(options: SubmitOptions) -> Path:
    """Write `<run>/submission.json` and say which grade it has; nothing is written that validate would refuse.

    Raises:
        UserError: an option, run.json or eval_results.jsonl is missing or wrong.
    """
    folder = Path(options.run)
    if options.track not in TRACKS:
        raise UserError(f"track={options.track} is no known track; {nearest(options.track, TRACKS)}")
    run = read_run(folder)
    results = [_one_line_each(result.regraded()) for result in results_of(folder, run)]
    assert run.checkpoint is not None
    probes = probes_of_run(folder, run.checkpoint.sha256, [task.key for task in suite_tasks(run.scale)])
    submission = compose(options, run, results, predictions_digests(folder, results), probes)
    refusals = check(submission)
    if refusals:
        raise UserError(f"{folder}: {refusals[0]}")
    path = folder / "submission.json"
    write_json(path, submission.model_dump(mode="json"))
    print(f"{path}: {submission.grade}")
    for line in submission.deviations:
        print(f"  {line}")
    unpinned = sum(task.grade == "unverified" for task in submission.tasks)
    if unpinned:
        print(f"  the data of {unpinned} tasks are not pinned: {why_unpinned()}")
    return path


def _uploaded(options: SubmitOptions) -> PushOptions:
    """What goes to the Hub besides the submission: the files that the run says it used and made."""
    folder = Path(options.run)
    run = read_run(folder)
    assert run.checkpoint is not None
    subset = Path(run.subset.path) if run.subset else None
    if subset is not None and not subset.is_file():
        _note(f"{subset}, the run's subset, is not here and is not uploaded")
        subset = None
    return PushOptions(
        repo=str(options.repo),
        subset=str(subset) if subset else None,
        checkpoint=str(folder / run.checkpoint.path) if options.checkpoint else None,
        private=options.private,
    )


def read_run(folder: Path) -> RunRecord:
    """run.json of a run that has a checkpoint.

    Raises:
        UserError: there is none, or it is not what training writes.
    """
    path = folder / RUN
    if not path.is_file():
        raise UserError(f"{path} does not exist; run= names the folder of a training run")
    run = read_record(folder)
    if run.scale not in recipes.scales():
        raise UserError(f"{path}: unknown scale {run.scale!r}; {nearest(run.scale, recipes.scales())}")
    if run.checkpoint is None:
        raise UserError(f"{path} names no checkpoint; finish the training first")
    return run


def results_of(folder: Path, run: RunRecord) -> list[ResultLine]:
    """The last result of each task of the suite for the run's checkpoint, in the registry's order.

    Lines that do not count are said on stderr: another checkpoint's, and those of tasks outside the suite.

    Raises:
        UserError: no results for this checkpoint, or a line that is not one of evaluation.
    """
    path = folder / FILE
    again = f"python -m evaluate run={folder} data=<evaluation sets>"
    lines = read_results(path)
    if not lines:
        raise UserError(f"{path} holds no results; first run {again}")
    assert run.checkpoint is not None
    ours = [line for line in lines if line.checkpoint_sha256 == run.checkpoint.sha256]
    if not ours:
        raise UserError(f"{path} holds results of other checkpoints only; first run {again}")
    if len(ours) < len(lines):
        _note(f"{path}: {len(lines) - len(ours)} lines of another checkpoint are left out")
    last = {line.key: line for line in ours}
    results = [last.pop(task.key) for task in suite_tasks(run.scale) if task.key in last]
    for key in last:
        _note(f"{path}: {key} is no task of the scale {run.scale} and is left out")
    if not results:
        raise UserError(f"{path} holds no result of a task of the scale {run.scale}; first run {again}")
    return results


def predictions_digests(folder: Path, results: list[ResultLine]) -> dict[str, str]:
    """Task key -> SHA-256 of its predictions, where there are any."""
    files = {result.key: predictions_path(folder, result.key) for result in results}
    return {key: digest_file(path) for key, path in files.items() if path.is_file()}


def compose(
    options: SubmitOptions,
    run: RunRecord,
    results: list[ResultLine],
    predictions: dict[str, str],
    probes: list[ProbeResult] | None = None,
) -> Submission:
    """The submission, with its grade and every reason why it is unofficial.

    Args:
        predictions: task key -> digest.
        probes: None where the run has none.

    Raises:
        UserError: an option that a submission cannot hold.
    """
    deviations = [*_run_deviations(run), *results_deviations(run.scale, results)]
    grade = grade_of_whole(deviations, results)
    assert run.checkpoint is not None
    shared = ResultLine.model_fields.keys() & TaskResult.model_fields.keys()
    copied = run.model_dump(mode="json", exclude=_NOT_COPIED)
    value = {
        **copied,
        "format": FORMAT,
        "method": options.method,
        "author": options.author,
        "writeup": options.writeup,
        "track": options.track,
        "run": run.name,
        "official": grade == "official",
        "grade": grade,
        "deviations": deviations,
        "dataset_size": _dataset_size(options, run),
        "audit": None if options.audit is None else audit_of(options.audit, run),
        "overlap": None if options.overlap is None else overlap_of(options.overlap, run, results),
        "data": {
            "sources": len(run.data.sources),
            "shards": run.data.shards,
            "bytes": sum(source.bytes for source in run.data.sources),
            "digest": run.data.digest,
        },
        "checkpoint_sha256": run.checkpoint.sha256,
        "tasks": [
            {**result.model_dump(include=shared), "predictions_sha256": predictions.get(result.key)}
            for result in results
        ],
        "aggregates": {
            "version": AGGREGATES_VERSION,
            "values": aggregates(main_metrics(results), suite_of(run.scale)),
        },
        "digest": "0" * 64,  # of everything else, so it comes last
        "private": {"contact": options.contact},
        "probes": None if probes is None else [one.model_dump() for one in probes],
    }
    submission = _typed(value, Submission, "submission")
    return submission.model_copy(update={"digest": digest_of(submission)})


def _run_deviations(run: RunRecord) -> list[str]:
    lines = list(run.deviations)
    if not run.official and not lines:
        lines.append("run marked unofficial without a reason")
    if run.status != "complete":
        lines.append("run not complete")
    return lines


def _one_line_each(result: ResultLine) -> ResultLine:
    """The result with reasons that a submission can hold: they quote names of files, which may be any text."""
    lines = ["".join(c if c.isprintable() else "?" for c in line)[: LONGEST - 100] for line in result.deviations]
    return result.model_copy(update={"deviations": lines})


def _dataset_size(options: SubmitOptions, run: RunRecord) -> int | None:
    """Samples of the dataset: the subset's size, else what the participant says."""
    if run.subset is None:
        return options.dataset_size
    if options.dataset_size not in (None, run.subset.size):
        raise UserError(f"dataset_size={options.dataset_size}: the run's subset has {run.subset.size}; leave it out")
    return run.subset.size


def _plain(model: BaseModel, *without: str) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude=set(without))


def _typed(value: Any, model: type[AnyModel], where: str) -> AnyModel:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{where}: {problems(error)[0]}") from None


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)
