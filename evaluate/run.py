"""`python -m evaluate`: find what is left to do, do it, and say what came out."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tqdm import tqdm

from conf.errors import UserError
from evaluate import config as options
from evaluate.config import EvaluateConfig
from evaluate.encoder import Encoder
from evaluate.evaluators import EVALUATORS
from evaluate.pool import TaskError, scores
from evaluate.results import FILE, Conditions, Line, finished, last_lines, line_of, save
from evaluate.subject import Subject, subject_of
from evaluate.summary import brief, summary
from tasks.readers import MissingDataError, TaskData, open_data
from tasks.registry import Task, select, suite_of


@dataclass
class Report:
    """What became of the tasks: `lines` of results by key, and `problems`, why a task has none."""

    lines: dict[str, Line] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Exit status: 1 where a task has no result, or one over damaged data."""
        return int(bool(self.problems) or any(line["bad"] for line in self.lines.values()))


def run(config: EvaluateConfig) -> int:
    """Evaluate, append results as tasks finish, print the summary; returns the exit status.

    Raises:
        UserError: nothing can be evaluated: wrong options, no model, no data.
    """
    options.check(config)
    words = options.patterns(config.tasks)
    device = options.device_of(config.device)
    subject = subject_of(config)
    tasks = options.deal(select(words, suite_of(subject.scale or "")), config.part)
    if not tasks:
        print(f"part={config.part} holds no task: there are fewer tasks than parts")
        return 0
    root = options.data_folder(config.data, "demo" if all(task.suite == "demo" for task in tasks) else "main")
    report = Report()
    found = open_all(tasks, root, report)
    todo = unfinished(found, subject, config, report)
    if todo:
        evaluate(todo, subject, config, device, report)
    results = subject.out / FILE
    print(summary(tasks, report.lines, report.problems, last_lines(subject.out, subject), results))
    return report.status


def open_all(tasks: list[Task], root: Path, report: Report) -> dict[str, tuple[Task, TaskData]]:
    """The tasks that can be evaluated, with their data; the reasons for the others go into the report.

    Raises:
        UserError: none of the tasks' folders exists.
    """
    found: dict[str, tuple[Task, TaskData]] = {}
    missing = 0
    for task in tasks:
        if task.kind not in EVALUATORS:
            report.problems[task.key] = f"not evaluated: tasks of kind {task.kind} have no evaluator yet"
            continue
        try:
            found[task.key] = task, open_data(task, root)
        except MissingDataError as error:
            missing += 1
            report.problems[task.key] = f"missing: {error}"
        except UserError as error:
            report.problems[task.key] = f"failed: {error}"
    if missing and missing == sum(task.kind in EVALUATORS for task in tasks):
        first = next(task for task in tasks if task.kind in EVALUATORS)
        raise UserError(f"data={root} holds no folder of the chosen tasks; {first.key} would be {root / first.folder}")
    return found


def unfinished(
    found: dict[str, tuple[Task, TaskData]], subject: Subject, config: EvaluateConfig, report: Report
) -> dict[str, tuple[Task, TaskData]]:
    """The tasks without a result that holds for this checkpoint, these data and options; the others are reported."""
    conditions = Conditions.of(subject, config)
    before = last_lines(subject.out, subject)
    threads = options.worker_count(config.workers)
    todo = {}
    for key, (task, data) in found.items():
        if finished(before.get(key), data, subject.out, conditions, threads):
            say(f"{key}: finished before, with this checkpoint and these data")
            report.lines[key] = before[key]
        else:
            todo[key] = task, data
    return todo


def evaluate(
    todo: dict[str, tuple[Task, TaskData]],
    subject: Subject,
    config: EvaluateConfig,
    device: torch.device,
    report: Report,
) -> None:
    """Load the model, evaluate every task of `todo`, and write each result down as soon as it is there.

    Raises:
        UserError: the model cannot be loaded, or does not fit the device.
    """
    conditions = Conditions.of(subject, config)
    workers = options.worker_count(config.workers)
    where = f"on {device}, {config.precision}, {workers} workers"
    say(f"{subject.model}, {subject.checkpoint}, {where}: {len(todo)} tasks")
    try:
        encoder = Encoder.of(subject, device, config.precision, config.batch_size)
        for key, outcome in scores(todo, encoder, workers=workers, batch_size=config.batch_size, limit=config.limit):
            if isinstance(outcome, TaskError):
                report.problems[key] = f"failed: {outcome}"
                say(f"{key}: failed: {outcome}")
                continue
            task, data = todo[key]
            line = line_of(task, data, outcome, subject, conditions)
            save(subject.out, line, outcome.result.predictions, conditions)
            report.lines[key] = line
            say(brief(task, line))
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory on {device}; lower batch_size={config.batch_size}") from None


def say(text: str) -> None:
    """Print a line at once, above the progress bar; the log of a job is read while it runs."""
    tqdm.write(text)
    sys.stdout.flush()
