"""Whether a submission is what it says it is: every number that follows from others is computed again.

    python -m leaderboard validate runs/*/submission.json
    python -m leaderboard validate runs/mine/submission.json subset=mine.npy pool=/pool/metadata
    python -m leaderboard validate runs/mine/submission.json --recheck mnist,vtab/pets --data /evalsets

A refusal is one line that names the file and the field. What cannot be checked from the file alone (that the
checkpoint was trained on that data, that the metrics are those of the checkpoint) needs evidence: docs/submit.md.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from leaderboard.evidence import (
    Finding,
    check_again,
    check_pool,
    check_predictions,
    check_subset,
    checkpoint_of,
    same,
)
from leaderboard.models import FORMAT, ResultLine, Submission, TaskResult, problems
from poolbench import recipes
from poolbench.errors import UserError, nearest
from poolbench.files import digest_json, files_in
from poolbench.options import option, source
from tasks.aggregates import AGGREGATES_VERSION, aggregates
from tasks.grade import WITHOUT_REASON, Grade, grade_of, worst
from tasks.lock import is_pinned
from tasks.registry import Task, load_tasks, suite_of, words_of

LONGEST = 500  # characters of a text that has no stricter limit of its own
_MOST_LINES = 20  # refusals of one file
_LARGEST = 4 * 2**20  # bytes of a file; one with every metric of every task has 60 kB
_OF_ONE_FILE = ("predictions", "subset", "pool", "recheck", "data", "checkpoint")


@dataclass
class ValidateOptions:
    """The options of `validate`."""

    against: str | None = source("folder of accepted submissions, none of which may come again", None)
    predictions: str | None = source("folder of the predictions; null: predictions/ beside the file, if there", None)
    subset: str | None = source("subset file to check the submission's digest and size by", None)
    pool: str | None = source("what the subset is a part of: sorted .npy of uids, or folder of parquets", None)
    recheck: str | None = option("tasks to evaluate again, separated by commas", None)
    data: str | None = source("folder of the evaluation sets for that; null: the embedded ones", None)
    checkpoint: str | None = source("file of weights for that; null: the one that run.json beside the file names", None)


class Checked(NamedTuple):
    """A submission, None where the file could not be read as one, and the reasons to refuse it."""

    submission: Submission | None
    refusals: list[str]


Claim = tuple[str, str]  # a track, and the checkpoint that is on it: each at most once


def dashed(arguments: Sequence[str]) -> list[str]:
    """Arguments with `--key value` and `--key=value` turned into `key=value`.

    Raises:
        UserError: a `--key` without a value behind it.
    """
    words, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--help":
            return [word]
        if word.startswith("--") and "=" not in word:
            if not rest or rest[0].startswith("--"):
                raise UserError(f"{word} needs a value")
            word = f"{word}={rest.pop(0)}"
        words.append(word.removeprefix("--"))
    return words


def validate_files(paths: Sequence[str | Path], options: ValidateOptions | None = None) -> int:
    """Print "<file>: ok" and what else it was held against, or its refusals, one a line.

    Returns:
        Exit status: 1 where any file is refused.

    Raises:
        UserError: no file is named, options contradict each other, or evidence cannot be read.
    """
    options = options or ValidateOptions()
    _check_options(paths, options)
    claims = {} if options.against is None else _claims_in(Path(options.against))
    status = 0
    for path in map(Path, paths):
        submission, refusals = read_submission(path)
        used: list[str] = []
        if submission is not None and not refusals:
            refusals = _duplicates(path, submission, claims)
        if submission is not None and not refusals:
            used, refusals = _evidence(path, submission, options)
        lines = [f"{path}: {refusal}" for refusal in refusals] or [f"{path}: ok", *(f"  {line}" for line in used)]
        print("\n".join(lines), flush=True)
        status = 1 if refusals else status
    return status


def read_submission(path: str | Path) -> Checked:
    """Read and check a submission file; what is wrong with it is among the refusals, the first 20 of them."""
    submission, refusals = _read(Path(path))
    more = [f"and {len(refusals) - _MOST_LINES} more"] if len(refusals) > _MOST_LINES else []
    return Checked(submission, [*map(_shown, refusals[:_MOST_LINES]), *more])


def _read(path: Path) -> Checked:
    try:
        text = _text_of(path)
        value = json.loads(text, object_pairs_hook=_once)
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


def digest_of(submission: Submission) -> str:
    """What `digest` has to be: SHA-256 of everything else that is public, as canonical JSON."""
    return digest_json({name: value for name, value in submission.public().items() if name != "digest"})


def check(submission: Submission) -> list[str]:
    """Why a well-formed submission is refused, one line "field: reason" each; [] where it is not.

    Raises:
        ValueError: `recipe` holds NaN or infinity.
    """
    if submission.scale not in _scales():
        return [f"scale: unknown scale {submission.scale!r}; {nearest(submission.scale, _scales())}"]
    refusals = []
    if digest_of(submission) != submission.digest:
        refusals.append("digest: not that of the content; the file was edited, run submit again")
    refusals += [*_check_texts(submission), *_check_tasks(submission)]
    if any(refusal.startswith("tasks.") for refusal in refusals):
        return refusals
    return [
        *refusals,
        *_check_aggregates(submission),
        *_check_recipe(submission),
        *_check_whole(submission),
        *_check_times(submission),
    ]


def results_deviations(scale: str, results: Sequence[ResultLine | TaskResult]) -> list[str]:
    """Why the results of a run at `scale` are unofficial: each task's own reasons, and each task that is missing."""
    by_key = {result.key: result for result in results}
    lines = []
    for task in suite_tasks(scale):
        result = by_key.get(task.key)
        if result is None:
            lines.append(f"task {task.key} missing")
            continue
        reasons = list(result.deviations)
        if result.grade == "unofficial" and not reasons:
            reasons.append(WITHOUT_REASON)
        if task.main_metric is not None and result.metrics.get("main_metric") is None:
            reasons.append("has no main metric")
        lines += [f"task {task.key}: {reason}" for reason in reasons]
    return lines


def grade_of_whole(deviations: Sequence[str], results: Sequence[ResultLine | TaskResult]) -> Grade:
    """A submission's grade: the worst of its run's and its results', whose reasons are all among `deviations`."""
    return worst([grade_of(deviations, pinned=True), *(result.grade for result in results if result.grade is not None)])


def suite_tasks(scale: str) -> list[Task]:
    """The tasks a run at `scale` is scored on, in the registry's order."""
    return [task for task in load_tasks().values() if task.suite == suite_of(scale)]


def main_metrics(results: Sequence[ResultLine | TaskResult]) -> dict[str, float | None]:
    """Task key -> main metric."""
    return {result.key: result.metrics.get("main_metric") for result in results}


# Thousands of files ask for the same few recipes.
_scales = cache(recipes.scales)
_pinned = cache(recipes.pinned)


def _check_options(paths: Sequence[str | Path], options: ValidateOptions) -> None:
    if not paths:
        raise UserError("validate needs the submission files to check: python -m leaderboard validate FILE...")
    given = {field.name for field in fields(options) if getattr(options, field.name) is not None}
    for name in _OF_ONE_FILE:
        if name in given and len(paths) > 1:
            raise UserError(f"{name}= holds for one submission; {len(paths)} files are named")
    for name, needed in {"pool": "subset", "data": "recheck", "checkpoint": "recheck"}.items():
        if name in given and needed not in given:
            raise UserError(f"{name}= is of no use without {needed}=")
    for name in ("against", "predictions"):
        folder = getattr(options, name)
        if folder is not None and not Path(folder).is_dir():
            raise UserError(f"{name}={folder} is not a folder")
    if options.pool is not None and not Path(options.pool).exists():
        raise UserError(f"pool={options.pool} does not exist")


def _evidence(path: Path, submission: Submission, options: ValidateOptions) -> Finding:
    """Hold a submission against everything that is supplied, until something refuses it."""
    used: list[str] = []
    for finding in _findings(path, submission, options):
        used += finding.used
        if finding.refusals:
            return Finding(used, finding.refusals)
    return Finding(used, [])


def _findings(path: Path, submission: Submission, options: ValidateOptions) -> Iterator[Finding]:
    beside = path.parent / "predictions"
    if options.predictions is not None or files_in(beside, "*.parquet"):
        yield check_predictions(submission, beside if options.predictions is None else Path(options.predictions))
    if options.subset is not None:
        yield check_subset(submission, Path(options.subset))
        if options.pool is not None:
            yield check_pool(submission, Path(options.subset), Path(options.pool))
    if options.recheck is not None:
        checkpoint = checkpoint_of(path.parent) if options.checkpoint is None else Path(options.checkpoint)
        yield check_again(submission, checkpoint, words_of(options.recheck), options.data)


def _claims_in(folder: Path) -> dict[Claim, list[Path]]:
    """Who is on which track already. Accepted files are not checked again; one that cannot be read is told."""
    from leaderboard.build import find  # which imports this module

    claims: dict[Claim, list[Path]] = {}
    for path in find(folder):
        try:
            value = json.loads(_text_of(path))
            claims.setdefault((value["track"], value["checkpoint_sha256"]), []).append(path)
        except (OSError, RecursionError, ValueError, LookupError, TypeError):
            print(f"note: {path} is no submission and is left out", file=sys.stderr)
    return claims


def _duplicates(path: Path, submission: Submission, claims: dict[Claim, list[Path]]) -> list[str]:
    """Refuses a checkpoint that another file has on the same track; the first of several files gets it."""
    holders = claims.setdefault((submission.track, submission.checkpoint_sha256), [])
    others = [holder for holder in holders if holder.resolve() != path.resolve()]
    if others:
        return [f"checkpoint_sha256: the one of {others[0]}, which is on the track {submission.track} already"]
    holders.append(path)
    return []


def _text_of(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: it is too large for a submission.
    """
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise UserError(f"larger than {_LARGEST} bytes, which no submission is")
    return data.decode()


def _shown(line: str) -> str:
    """A refusal as a terminal may show it: it can quote a key of the file, which may be any text."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line[:2000])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that is there twice every reader would take another value.

    Raises:
        UserError: there is one.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{twice[:80]}: the key is there twice")
    return value


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


def _check_texts(submission: Submission) -> Iterator[str]:
    """Texts without a limit of their own type."""
    texts = {
        "precision": submission.precision,
        "device": submission.device,
        "code.version": submission.code.version,
        "code.commit": submission.code.commit or "",
        **{f"deviations.{number}": text for number, text in enumerate(submission.deviations)},
        **{f"packages.{name[:40]!r}": name + text for name, text in submission.packages.items()},
        "recipe": "" if submission.recipe == _pinned(submission.scale) else json.dumps(submission.recipe),
    }
    for field, text in texts.items():
        longest = 10 * LONGEST if field == "recipe" else LONGEST
        if len(text) > longest or not text.isprintable():
            yield f"{field}: must be one line of text, at most {longest} characters"


def _check_tasks(submission: Submission) -> Iterator[str]:
    suite = {task.key: task for task in suite_tasks(submission.scale)}
    if len(submission.tasks) > 2 * len(suite):  # looking for the nearest name of each would take minutes
        yield f"tasks.{len(suite)}: {len(submission.tasks)} results, but the scale has {len(suite)} tasks"
        return
    seen = set()
    for result in submission.tasks:
        field = f"tasks.{result.key[:80]}"
        if result.key in seen:
            yield f"{field}: the task is there twice"
        elif result.key not in suite:
            yield f"{field}: no task of the scale {submission.scale}; {nearest(result.key[:80], suite)}"
        else:
            yield from (f"{field}.{line}" for line in _check_result(suite[result.key], result))
        seen.add(result.key)


def _check_result(task: Task, result: TaskResult) -> Iterator[str]:
    for name, value in result.metrics.items():
        if value is None or 0 <= value <= 1:
            continue
        if not name.startswith("count_"):
            yield f"metrics.{name[:80]}: {value} is not between 0 and 1"
        elif value < 0:
            yield f"metrics.{name[:80]}: {value} is a negative count"
    if result.dataset != task.name:
        yield f"dataset: {result.dataset[:80]!r} is not {task.name!r}"
    for text in (result.precision, *result.deviations, *result.metrics):
        if len(text) > LONGEST or not text.isprintable():
            yield f"{ascii(text)[:80]}: must be one line of text, at most {LONGEST} characters"
    yield from _check_main_metric(task, result)
    yield from _check_grade(result.grade, result.official)
    yield from _check_data(result)
    if result.grade == "unofficial":
        return
    if result.deviations:
        yield f"grade: {result.grade}, but deviations are listed"
    if result.limit is not None:
        yield f"grade: {result.grade}, but limit is {result.limit}"
    if result.samples != task.samples:
        yield f"grade: {result.grade}, but {result.samples} samples instead of {task.samples}"


def _check_grade(grade: Grade, official: bool) -> Iterator[str]:
    if official != (grade == "official"):
        yield f"official: {str(official).lower()}, but grade is {grade}"


def _check_main_metric(task: Task, result: TaskResult) -> Iterator[str]:
    if "main_metric" not in result.metrics:
        yield "metrics.main_metric: missing"
        return
    main = result.metrics["main_metric"]
    if task.main_metric is None:
        if main is not None:
            yield "metrics.main_metric: must be null, the task has none"
    elif task.main_metric not in result.metrics:
        yield f"metrics.{task.main_metric}: missing, it is the main metric"
    elif result.metrics[task.main_metric] != main:
        yield f"metrics.main_metric: {main} is not {task.main_metric}, {result.metrics[task.main_metric]}"
    if result.stderr is not None and (main is None or result.stderr > 1):
        yield f"stderr: {result.stderr} is no standard error of {main}"


def _check_data(result: TaskResult) -> Iterator[str]:
    """Whether the data are what the lock file of this checkout says, and the grade what follows from it.

    A result that was submitted before the lock file named the task may still say that nothing pins its data.
    """
    right = is_pinned(result.key, result.data_digest)
    if result.pinned and right is None:
        yield "pinned: true, but the lock file of this checkout does not name the task; run submit again"
    elif result.pinned is not None and right is not None and result.pinned != right:
        yield f"pinned: {json.dumps(result.pinned)}, but the lock file says otherwise"
    elif result.grade != "unofficial" and right is False:
        yield f"data_digest: not the one of the lock file, but grade is {result.grade}"
    elif result.grade != "unofficial" and result.grade != grade_of([], result.pinned):
        yield f"grade: {result.grade}, but pinned is {json.dumps(result.pinned)}"


def _check_aggregates(submission: Submission) -> Iterator[str]:
    written = submission.aggregates
    if written.version != AGGREGATES_VERSION:
        yield f"aggregates.version: {written.version} is not known, this program has {AGGREGATES_VERSION}"
        return
    right = aggregates(main_metrics(submission.tasks), suite_of(submission.scale))
    for name in sorted({*right, *written.values}):
        if name not in right or name not in written.values:
            yield f"aggregates.values.{name[:80]}: {'unknown' if name not in right else 'missing'}"
        elif not same(written.values[name], right[name]):
            yield f"aggregates.values.{name}: {written.values[name]} does not follow from the tasks, {right[name]}"


def _check_recipe(submission: Submission) -> Iterator[str]:
    if recipes.digest(submission.recipe) != submission.recipe_digest:
        yield "recipe_digest: not the digest of recipe"
    grade = submission.grade
    if grade == "unofficial":
        return
    right = _pinned(submission.scale)
    if submission.recipe != right:
        for line in recipes.deviations(submission.scale, submission.recipe):
            yield f"recipe: grade is {grade}, but {line}"
    elif submission.recipe_digest != recipes.digest(right):
        yield f"recipe_digest: grade is {grade}, but it is not that of the pinned recipe"
    budget = {"samples_seen": right["samples"], "steps": -(-right["samples"] // right["batch_size"])}
    for name, value in budget.items():
        if getattr(submission, name) != value:
            yield f"{name}: grade is {grade}, but {getattr(submission, name)} is not the recipe's {value}"


def _check_whole(submission: Submission) -> Iterator[str]:
    """Whether the grade follows from the reasons and the tasks, and whether every reason is listed."""
    yield from _check_grade(submission.grade, submission.official)
    right = grade_of_whole(submission.deviations, submission.tasks)
    if submission.grade == "unofficial" and not submission.deviations:
        yield "grade: unofficial, but no deviation says why"
    elif submission.grade != "unofficial" and submission.deviations:
        yield f"grade: {submission.grade}, but deviations are listed"
    elif submission.grade != right:
        yield f"grade: {submission.grade}, but the tasks make it {right}"
    listed = set(submission.deviations)
    for line in results_deviations(submission.scale, submission.tasks):
        if line not in listed:
            yield f"deviations: {line!r} is not listed"
    if submission.subset is not None and submission.dataset_size != submission.subset.size:
        yield f"dataset_size: {submission.dataset_size} is not the subset's size, {submission.subset.size}"


def _check_times(submission: Submission) -> Iterator[str]:
    if submission.finished is None:
        if submission.grade != "unofficial":
            yield f"finished: null, but grade is {submission.grade}"
    elif _time(submission.finished) < _time(submission.started):
        yield f"finished: {submission.finished} is before started, {submission.started}"


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
