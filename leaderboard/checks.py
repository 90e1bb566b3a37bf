"""Whether a submission fits together: every number in it that follows from others is computed again.

What cannot be checked from the file alone (that the checkpoint was trained on that data, that the metrics are those of
the checkpoint) needs evidence: leaderboard.evidence.
"""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache

from poolbench import recipes
from poolbench.errors import nearest
from poolbench.files import digest_json

from leaderboard.audits import check_audit
from leaderboard.models import Submission, TaskResult
from leaderboard.overlaps import check_overlap
from leaderboard.probes import check_probes
from leaderboard.suites import grade_of_whole, main_metrics, results_deviations, suite_tasks
from tasks.aggregates import AGGREGATES_VERSION, aggregates
from tasks.grade import Grade, grade_of
from tasks.lock import is_pinned
from tasks.registry import Task, suite_of

LONGEST = 500  # characters of a text that has no stricter limit of its own
TOLERANCE = 1e-9  # between a metric as written and as computed again: the order of a sum may differ, nothing else

# Thousands of files ask for the same few recipes.
_scales = cache(recipes.scales)
_pinned = cache(recipes.pinned)


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
    refusals += check_probes(submission.probes, (task.key for task in suite_tasks(submission.scale)))
    if any(refusal.startswith("tasks.") for refusal in refusals):
        return refusals
    return [
        *refusals,
        *_check_aggregates(submission),
        *_check_recipe(submission),
        *_check_whole(submission),
        *_check_times(submission),
        *check_audit(submission),
        *check_overlap(submission),
    ]


def digest_of(submission: Submission) -> str:
    """What `digest` has to be: SHA-256 of everything else that is public, as canonical JSON."""
    return digest_json({name: value for name, value in submission.public().items() if name != "digest"})


def same(one: float | None, other: float | None) -> bool:
    """Whether two metrics are the same number, or both missing."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= TOLERANCE


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
