"""Whether a submission is what it says it is: every number that follows from others is computed again.

    python -m leaderboard validate runs/*/submission.json

A refusal is one line that names the file and the field. What cannot be checked from the file alone (that the
checkpoint was trained on that data, that the metrics are those of the checkpoint) rests on the digests in it.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from conf import recipes
from conf.errors import UserError, nearest
from conf.files import read_json
from leaderboard.models import ResultLine, Submission, TaskResult, problems
from tasks.aggregates import AGGREGATES_VERSION, aggregates
from tasks.registry import Task, load_tasks, suite_of

_TOLERANCE = 1e-9  # between an aggregate as written and as computed again


class Checked(NamedTuple):
    """A submission, None where the file could not be read as one, and the reasons to refuse it."""

    submission: Submission | None
    refusals: list[str]


def validate_files(paths: Sequence[str | Path]) -> int:
    """Print "<file>: ok" or its refusals, one a line. The exit status is 1 where any file is refused.

    Raises:
        UserError: no file is named.
    """
    if not paths:
        raise UserError("validate needs the submission files to check: python -m leaderboard validate FILE...")
    status = 0
    for path in paths:
        refusals = read_submission(path).refusals
        print("\n".join(f"{path}: {refusal}" for refusal in refusals or ["ok"]))
        status = 1 if refusals else status
    return status


def read_submission(path: str | Path) -> Checked:
    """Read and check a submission file; whatever is wrong with it is among the refusals."""
    try:
        value = read_json(path)
        unfit = list(_not_json(value, "the file"))
    except UserError as error:
        return Checked(None, [str(error).removeprefix(str(path)).strip(" :")])
    except (OSError, RecursionError) as error:
        return Checked(None, [f"cannot be read: {getattr(error, 'strerror', None) or 'nested too deeply'}"])
    if unfit:
        return Checked(None, unfit)
    try:
        submission = Submission.model_validate(value)
    except ValidationError as error:
        return Checked(None, problems(error))
    return Checked(submission, check(submission))


def check(submission: Submission) -> list[str]:
    """Why a well-formed submission is refused, one line "field: reason" each; [] where it is not."""
    if submission.scale not in recipes.scales():
        return [f"scale: unknown scale {submission.scale!r}; {nearest(submission.scale, recipes.scales())}"]
    refusals = [*_check_tasks(submission)]
    if refusals:
        return refusals
    return [*_check_aggregates(submission), *_check_recipe(submission), *_check_official(submission)]


def results_deviations(scale: str, results: Sequence[ResultLine | TaskResult]) -> list[str]:
    """Why the results of a run at `scale` are not official: each task's own reasons, and each task that is missing."""
    by_key = {result.key: result for result in results}
    lines = []
    for task in suite_tasks(scale):
        result = by_key.get(task.key)
        if result is None:
            lines.append(f"task {task.key} missing")
            continue
        reasons = list(result.deviations)
        if not result.official and not reasons:
            reasons.append("marked unofficial without a reason")
        if task.main_metric is not None and result.metrics.get("main_metric") is None:
            reasons.append("has no main metric")
        lines += [f"task {task.key}: {reason}" for reason in reasons]
    return lines


def suite_tasks(scale: str) -> list[Task]:
    """The tasks a run at `scale` is scored on, in the registry's order."""
    return [task for task in load_tasks().values() if task.suite == suite_of(scale)]


def main_metrics(results: Sequence[ResultLine | TaskResult]) -> dict[str, float | None]:
    """Task key -> main metric."""
    return {result.key: result.metrics.get("main_metric") for result in results}


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


def _check_tasks(submission: Submission) -> Iterator[str]:
    suite = {task.key: task for task in suite_tasks(submission.scale)}
    seen = set()
    for result in submission.tasks:
        field = f"tasks.{result.key}"
        if result.key in seen:
            yield f"{field}: the task is there twice"
        elif result.key not in suite:
            yield f"{field}: no task of the scale {submission.scale}; {nearest(result.key, suite)}"
        else:
            yield from (f"{field}.{line}" for line in _check_result(suite[result.key], result))
        seen.add(result.key)


def _check_result(task: Task, result: TaskResult) -> Iterator[str]:
    for name, value in result.metrics.items():
        if value is None:
            continue
        if name.startswith("count_"):
            if value < 0:
                yield f"metrics.{name}: {value} is a negative count"
        elif not 0 <= value <= 1:
            yield f"metrics.{name}: {value} is not between 0 and 1"
    yield from _check_main_metric(task, result)
    if not result.official:
        return
    if result.deviations:
        yield "official: true, but deviations are listed"
    if result.limit is not None:
        yield f"official: true, but limit is {result.limit}"
    if result.samples != task.samples:
        yield f"official: true, but {result.samples} samples instead of {task.samples}"


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


def _check_aggregates(submission: Submission) -> Iterator[str]:
    written = submission.aggregates
    if written.version != AGGREGATES_VERSION:
        yield f"aggregates.version: {written.version} is not known, this program has {AGGREGATES_VERSION}"
        return
    right = aggregates(main_metrics(submission.tasks), suite_of(submission.scale))
    for name in sorted({*right, *written.values}):
        if name not in right or name not in written.values:
            yield f"aggregates.values.{name}: {'unknown' if name not in right else 'missing'}"
        elif not _same(written.values[name], right[name]):
            yield f"aggregates.values.{name}: {written.values[name]} does not follow from the tasks, {right[name]}"


def _same(one: float | None, other: float | None) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= _TOLERANCE


def _check_recipe(submission: Submission) -> Iterator[str]:
    if recipes.digest(submission.recipe) != submission.recipe_digest:
        yield "recipe_digest: not the digest of recipe"
    if not submission.official:
        return
    for line in recipes.deviations(submission.scale, submission.recipe):
        yield f"recipe: official is true, but {line}"
    if submission.samples_seen != submission.recipe.get("samples"):
        yield (
            f"samples_seen: official is true, but {submission.samples_seen} is not the recipe's "
            f"{submission.recipe.get('samples')}"
        )


def _check_official(submission: Submission) -> Iterator[str]:
    if submission.official and submission.deviations:
        yield "official: true, but deviations are listed"
    if not submission.official and not submission.deviations:
        yield "official: false, but no deviation says why"
    for line in results_deviations(submission.scale, submission.tasks):
        if line not in submission.deviations:
            yield f"deviations: {line!r} is not listed"
    if submission.subset is not None and submission.dataset_size != submission.subset.size:
        yield f"dataset_size: {submission.dataset_size} is not the subset's size, {submission.subset.size}"
