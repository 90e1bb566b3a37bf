"""`python -m evaluate`: find what is left to do, do it, and say what came out."""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from poolbench.errors import UserError, described, status_of
from poolbench.models.inference import batch_size_of, device_of, worker_count
from poolbench.processes.world import World, joined, launch, on_first
from poolbench.shards.workers import readable_errors

from evaluate import config as options
from evaluate.config import EvaluateConfig
from evaluate.encoder import Encoder
from evaluate.results import Conditions, finished, last_lines, line_of, save
from evaluate.schedule import TaskError, scores
from evaluate.subject import Subject, subject_of
from evaluate.summary import brief, summary
from tasks.readers import MissingDataError, TaskData, open_data
from tasks.registry import Task, select, suite_of
from tasks.results import FILE, ResultLine


@dataclass
class Report:
    """What became of the tasks: `lines` of results by key, and `problems`, why a task has none."""

    lines: dict[str, ResultLine] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Exit status: 1 where a task has no result, or one over damaged data."""
        return int(bool(self.problems) or any(line.bad for line in self.lines.values()))


def start(config: EvaluateConfig) -> int:
    """Evaluate in as many processes as there are GPUs, or in those that torchrun or srun started."""
    return launch(_status, config) if config.device == "auto" else _status(config)


def _status(config: EvaluateConfig) -> int:
    """A mistake is told here: launched processes cannot hand it to the one that started them."""
    return status_of(partial(run, config))


def run(config: EvaluateConfig) -> int:
    """One process's part: evaluate, append results as tasks finish, print the summary; returns the exit status.

    Raises:
        UserError: nothing can be evaluated: wrong options, no model, no data.
    """
    options.check(config)
    words = options.patterns(config.tasks)
    with joined() as world:
        device = device_of(str(world.device) if config.device == "auto" else config.device)
        world = world._replace(device=device)
        subject = subject_of(config)
        tasks = options.deal(select(words, suite_of(subject.scale or "")), config.part)
        if not tasks:
            tell(world, f"part={config.part} holds no task: there are fewer tasks than parts")
            return 0
        root = options.data_folder(config.data, "demo" if all(task.suite == "demo" for task in tasks) else "main")
        report = Report()
        found = open_all(tasks, root, report)
        todo = on_first(world, partial(unfinished, found, subject, config, report))
        if todo:
            evaluate({key: found[key] for key in todo}, subject, config, world, report)
        if not world.first:
            return 0
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
        try:
            found[task.key] = task, open_data(task, root)
        except MissingDataError as error:
            missing += 1
            report.problems[task.key] = f"missing: {error}"
        except Exception as error:  # a folder can be wrong in ways that nobody foresaw; the other tasks go on
            reason = str(error) if isinstance(error, UserError) else f"{root / task.folder}: {described(error)}"
            report.problems[task.key] = f"failed: {reason}"
    if missing == len(tasks):
        where = root / tasks[0].folder
        raise UserError(f"data={root} holds no folder of the chosen tasks; {tasks[0].key} would be {where}")
    return found


def unfinished(
    found: dict[str, tuple[Task, TaskData]], subject: Subject, config: EvaluateConfig, report: Report
) -> list[str]:
    """The tasks without a result that holds for this checkpoint, these data and options; the others are reported."""
    conditions = Conditions.of(subject, config)
    before = last_lines(subject.out, subject)
    threads = worker_count(config.workers, 1)
    todo = []
    for key, (_, data) in found.items():
        try:
            done = finished(before.get(key), data, subject.out, conditions, threads)
        except Exception:  # a file of the task cannot be read, which its evaluation will tell
            done = False
        if done:
            say(f"{key}: finished before, with this checkpoint and these data")
            report.lines[key] = before[key]
        else:
            todo.append(key)
    return todo


def evaluate(
    todo: dict[str, tuple[Task, TaskData]], subject: Subject, config: EvaluateConfig, world: World, report: Report
) -> None:
    """Load the model, evaluate every task of `todo`, and write each result down as soon as it is there.

    Raises:
        UserError: the model cannot be loaded, or does not fit the device; a worker was killed.
    """
    conditions = Conditions.of(subject, config)
    workers = worker_count(config.workers, world.local_size)
    batch_size = batch_size_of(config.batch_size, world.device)
    processes = f"{world.size} processes of " if world.size > 1 else ""
    where = f"on {world.device}, {config.precision}, {processes}{workers} workers"
    tell(world, f"{subject.model}, {subject.checkpoint}, {where}: {len(todo)} tasks")
    try:
        with readable_errors("workers"):
            encoder = Encoder.of(
                subject, world.device, config.precision, batch_size, config.cache, say=partial(tell, world)
            )
            outcomes = scores(todo, encoder, world, workers=workers, batch_size=batch_size, limit=config.limit)
            for key, outcome in outcomes:
                if isinstance(outcome, TaskError):
                    report.problems[key] = f"failed: {outcome}"
                    say(f"{key}: failed: {outcome}")
                    continue
                task, data = todo[key]
                try:
                    line = line_of(task, data, outcome, subject, conditions, encoder.conventions)
                except OSError as error:  # one of its small files is gone by now
                    report.problems[key] = f"failed: {data.folder}: {described(error)}"
                    continue
                save(subject.out, line, outcome.predictions, conditions)
                report.lines[key] = line
                say(brief(task, line))
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory on {world.device}; lower batch_size={batch_size}") from None


def tell(world: World, text: str) -> None:
    """Say it once, however many processes there are."""
    if world.first:
        say(text)


def say(text: str) -> None:
    """Print a line at once, above the progress bar; the log of a job is read while it runs."""
    tqdm.write(text)
    sys.stdout.flush()
