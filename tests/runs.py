"""Runs with results, as training and evaluation leave them, for the tests of the leaderboard."""

import contextlib
import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import forked
import pytest

from poolbench import recipes
from poolbench.files import append_line, digest_bytes, digest_file, read_json, write_json

from leaderboard.checks import digest_of
from leaderboard.models import Submission
from leaderboard.submissions import read_submission
from leaderboard.submit import SubmitOptions
from leaderboard.suites import grade_of_whole, main_metrics, results_deviations
from leaderboard.validate import ValidateOptions, validate_files
from tasks.aggregates import aggregates
from tasks.grade import standing
from tasks.lock import pinned
from tasks.registry import load_tasks, suite_of

ROOT = Path(__file__).parent.parent
CONTACT = "somebody@private.example"


def make_run(folder: Path, scale: str = "small", **changes: Any) -> Path:
    """A complete run with results on every task of its suite, official where the lock file pins the data (the fixture
    `pinned_data`; the demo's are always); `changes` replace fields of run.json."""
    write_json(folder / "run.json", {**run_json(folder.name, scale), **changes})
    draw = random.Random(folder.name)
    for task in load_tasks().values():
        if task.suite == suite_of(scale):
            append_line(folder / "eval_results.jsonl", result(folder.name, task.key, draw.random()))
    return folder


def run_json(name: str, scale: str) -> dict[str, Any]:
    """What training writes at the end of an official run."""
    recipe = recipes.pinned(scale)
    return {
        "format": 1,
        "name": name,
        "scale": scale,
        "status": "complete",
        "official": True,
        "deviations": [],
        "recipe": recipe,
        "recipe_digest": recipes.digest(recipe),
        "precision": "amp_bf16",
        "seed": 0,
        "data": {
            "sources": [
                {"spec": "/secret/{0..9}.tar", "shards": 10, "bytes": 1000, "weight": 1.0, "missing": 0},
                {"spec": "s3://secret/more", "shards": 5, "bytes": 500, "weight": 1.0, "missing": 0},
            ],
            "shards": 15,
            "digest": digest_bytes(b"data"),
        },
        "subset": {"path": "/secret/subset.npy", "digest": digest_bytes(b"subset"), "size": 3_800_000},
        "samples_seen": recipe["samples"],
        "steps": -(-recipe["samples"] // recipe["batch_size"]),
        "world_size": 8,
        "bad": {"samples": 3, "shards": 0},
        "code": {"version": "0.1.0", "commit": "a" * 40, "dirty": False},
        "packages": {"torch": "2.6.0"},
        "device": "a GPU",
        "started": "2025-01-01T00:00:00+00:00",
        "finished": "2025-01-01T04:00:00+00:00",
        "seconds": 14400.0,
        "checkpoint": {"path": "checkpoints/last.pt", "sha256": digest_bytes(name.encode())},
    }


def result(name: str, key: str, value: float, **changes: Any) -> dict[str, Any]:
    """A line of eval_results.jsonl, over the data that the task is pinned to."""
    task, locked = load_tasks()[key], pinned(key)
    digest = digest_bytes(key.encode()) if locked is None else locked.data_digest
    metrics: dict[str, float | None] = {"acc1": value, "acc5": None, "count_region:0": 17.0}
    if task.main_metric is not None:
        metrics[task.main_metric] = value
    metrics["main_metric"] = None if task.main_metric is None else value
    line = {
        "key": key,
        "dataset": task.name,
        "metrics": metrics,
        "samples": task.samples,
        "stderr": 0.01 if task.main_metric else None,
        "seconds": 1.5,
        "data_digest": digest,
        "shards": 1,
        "bad": [],
        "precision": "fp32",
        **standing(key, digest, [], None)._asdict(),
        "checkpoint_sha256": digest_bytes(name.encode()),
        "model": "ViT-B-32",
        "tag": None,
        "limit": None,
        "version": 1,
    }
    return {**line, **changes}


def evaluated_run(folder: Path, scale: str, data: Path, tasks: Sequence[str], model: str, checkpoint: Path) -> Path:
    """A run at `scale` whose checkpoint was really evaluated on `tasks`, with predictions."""
    from evaluate.config import EvaluateConfig  # here, as it takes seconds that most tests can do without
    from evaluate.run import run

    named = {"path": "model.pt", "sha256": digest_file(checkpoint)}
    recipe = {**recipes.pinned(scale), "model": model}
    told = {"recipe": recipe, "recipe_digest": recipes.digest(recipe), "checkpoint": named}
    reasons = recipes.deviations(scale, recipe)
    write_json(
        folder / "run.json",
        {**run_json(folder.name, scale), **told, "official": not reasons, "deviations": reasons},
    )
    shutil.copyfile(checkpoint, folder / "model.pt")
    settings = {"data": str(data), "out": str(folder), "tasks": list(tasks), "workers": 0, "device": "cpu"}
    assert run(EvaluateConfig(model=model, checkpoint=str(checkpoint), **settings)) == 0
    return folder


def options(run: Path, method: str = "A method", **changes: Any) -> SubmitOptions:
    values = {"author": "A. Author", "track": "filtering", "contact": CONTACT, **changes}
    return SubmitOptions(run=str(run), method=method, **values)


def edit(path: Path, change: Callable[[Any], Any], *, sealed: bool = True) -> Path:
    """Change a JSON file in place; `sealed` makes the digest of a submission fit what it says then."""
    value = read_json(path)
    change(value)
    path.write_text(json.dumps(seal(value) if sealed else value), encoding="utf-8")  # NaN allowed: one of the cases
    return path


def forge(value: Any) -> Any:
    """A submission that fits together: reasons, aggregates and digest follow from what its tasks say."""
    try:
        submission = Submission.model_validate(value)
        own = [line for line in submission.deviations if not line.startswith("task ")]
        reasons = [*own, *results_deviations(submission.scale, submission.tasks)]
        values = aggregates(main_metrics(submission.tasks), suite_of(submission.scale))
    except (ValueError, TypeError):
        return value
    grade = grade_of_whole(reasons, submission.tasks)
    graded = {"official": grade == "official", "grade": grade, "deviations": reasons}
    return seal({**value, **graded, "aggregates": {**value["aggregates"], "values": values}})


def seal(value: Any) -> Any:
    """A submission with the digest of its content, as a careful forger would write it; anything else as it is."""
    try:
        return {**value, "digest": digest_of(Submission.model_validate(value))}
    except (ValueError, TypeError):
        return value


def validated(capsys: pytest.CaptureFixture[str], *paths: Path, **given: Any) -> tuple[int, str]:
    """Exit status and output of validate, without the paths of its files; `given` are its options."""
    capsys.readouterr()
    status = validate_files(paths, ValidateOptions(**{name: str(value) for name, value in given.items()}))
    text = capsys.readouterr().out
    for path in paths:
        text = text.replace(f"{path}: ", "")
    return status, text


def of_task(value: Any, key: str) -> Any:
    """The result of a task in what a submission says."""
    (result,) = [result for result in value["tasks"] if result["key"] == key]
    return result


def edit_line(folder: Path, key: str, **changes: Any) -> None:
    """Change the result of one task, as an earlier evaluation would have written it."""
    path = folder / "eval_results.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.unlink()
    for line in lines:
        append_line(path, {**line, **changes} if line["key"] == key else line)


def drop_line(folder: Path, key: str) -> None:
    path = folder / "eval_results.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.unlink()
    for line in lines:
        if line["key"] != key:
            append_line(path, line)


def lock_all(path: Path) -> Path:
    """A lock file that pins every task of the main suite to what these runs were scored on."""
    bare = {"repo": "a/b", "revision": "c", "licence": None, "files": []}
    keys = [key for key, task in load_tasks().items() if task.suite == "main"]
    locked = {key: {**bare, "data_digest": digest_bytes(key.encode())} for key in keys}
    write_json(path, {"version": 1, "tasks": locked})
    return path


@contextlib.contextmanager
def without_lock_file() -> Iterator[None]:
    """As long as nobody has pinned a task of the main suite."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("POOLBENCH_LOCK", raising=False)
        patch.setattr("tasks.lock.PATH", Path(os.devnull) / "lock.json")
        yield


def refusals(path: Path) -> str:
    return "\n".join(read_submission(path).refusals)


def leaderboard(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return forked.run("-m", "leaderboard", *arguments)
