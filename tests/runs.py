"""Runs with results, as training and evaluation leave them, for the tests of the leaderboard."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conf import recipes
from conf.files import append_line, digest_bytes, read_json, write_json
from leaderboard.submit import SubmitOptions
from leaderboard.validate import read_submission
from tasks.registry import load_tasks, suite_of

ROOT = Path(__file__).parent.parent
CONTACT = "somebody@private.example"


def make_run(folder: Path, scale: str = "small", **changes: Any) -> Path:
    """A complete, official run with results on every task of its suite; `changes` replace fields of run.json."""
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
    """A line of eval_results.jsonl."""
    task = load_tasks()[key]
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
        "data_digest": digest_bytes(key.encode()),
        "precision": "fp32",
        "official": True,
        "deviations": [],
        "checkpoint_sha256": digest_bytes(name.encode()),
        "model": "ViT-B-32",
        "limit": None,
        "version": 1,
    }
    return {**line, **changes}


def options(run: Path, method: str = "A method", **changes: Any) -> SubmitOptions:
    values = {"author": "A. Author", "track": "filtering", "contact": CONTACT, **changes}
    return SubmitOptions(run=str(run), method=method, **values)


def edit(path: Path, change: Callable[[Any], Any]) -> Path:
    """Change a JSON file in place."""
    value = read_json(path)
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")  # NaN allowed: that is one of the cases
    return path


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


def refusals(path: Path) -> str:
    return "\n".join(read_submission(path).refusals)


def leaderboard(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "leaderboard", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
