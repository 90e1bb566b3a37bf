"""A table of public models' scores in the layout of open_clip's, with numbers that are made up."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tasks.registry import Task, load_tasks

SCORED: list[Task] = [task for task in load_tasks().values() if task.suite == "main" and task.main_metric is not None]
COLUMNS = [
    *("name", "pretrained", "params (M)", "FLOPs (B)", "Average perf. on 38 datasets"),
    *sorted(task.name for task in SCORED),
]


def made_up(names: Sequence[str], seed: int = 0, noise: float = 0.03) -> dict[str, dict[str, float]]:
    """Scores of models by name and task key, to four digits: some models are better than others at nearly all tasks."""
    rng = np.random.default_rng(seed)
    hardness, spread = rng.uniform(0.1, 0.4, len(SCORED)), rng.uniform(0.05, 0.5, len(SCORED))
    rows = {}
    for name in names:
        values = hardness + spread * rng.uniform() + rng.normal(0, noise, len(SCORED))
        rows[name] = {task.key: round(float(value), 4) for task, value in zip(SCORED, values.clip(0, 1), strict=True)}
    return rows


def write_table(path: Path, rows: Mapping[str, Mapping[str, float]]) -> Path:
    """The table of models by `name/pretrained`."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for model, scores in rows.items():
            name, _, pretrained = model.partition("/")
            average = f"{np.mean(list(scores.values())):.4f}"
            told = {"name": name, "pretrained": pretrained, "params (M)": "151.28", "FLOPs (B)": "14.78"}
            cells = {task.name: f"{scores[task.key]:.4f}" for task in SCORED}
            writer.writerow({**told, "Average perf. on 38 datasets": average, **cells})
    return path
