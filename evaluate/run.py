"""`python -m evaluate`: find what is left to do, do it, and say what came out."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from poolbench.errors import UserError, described, status_of
from poolbench.files import append_line
from poolbench.models.inference import batch_size_of, device_of, worker_count
from poolbench.processes.world import World, joined, launch, on_first
from poolbench.shards.workers import readable_errors

from evaluate import config as options
from evaluate.config import EvaluateConfig
from evaluate.encoder import Encoder
from evaluate.heads import Heads
from evaluate.probes.run import Due, plan, probe_cache, probe_tasks
from evaluate.probes.summary import probe_brief, probe_summary
from evaluate.probes.words import probes_of
from evaluate.prompts import check_prompts, prompts_of
from evaluate.results import Conditions, Scored, finished, last_lines, line_of, save
from evaluate.schedule import TaskError, Wanted, scores
from evaluate.subject import Subject, subject_of
from evaluate.summary import brief, summary
from tasks.languages import open_task
from tasks.probes import FILE as PROBES
from tasks.probes import ProbeLine
from tasks.readers import MissingDataError, TaskData
from tasks.registry import Task, select, suite_of
from tasks.results import FILE, ResultLine


@dataclass
class Report:
    """What became of the tasks with the prompts of `subject`: `lines` of results by key, and `problems`, why a task has
    none; the same of probes."""

    subject: Subject
    lines: dict[str, ResultLine] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    probes: list[ProbeLine] = field(default_factory=list)
    probe_problems: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Exit status: 1 where a task has no result, or one over damaged data."""
        bad = any(line.bad for line in self.lines.values()) or any(line.bad for line in self.probes)
        return int(bool(self.problems) or bool(self.probe_problems) or bad)

    def say(self, text: str) -> None:
        """Print a line about a task; prompts other than its own are named, as there may be several sets of them."""
        prompts = self.subject.prompts
        say(text if prompts is None else f"{prompts.name}: {text}")


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
        found, problems = open_all(tasks, root)
        sets = prompts_of(config.prompts)
        if sets:
            check_prompts(sets, found)
        subjects = [subject.with_prompts(one) for one in sets] or [subject]
        reports = [Report(one, problems=dict(problems)) for one in subjects]
        return report_all(tasks, found, reports, config, world)


def report_all(
    tasks: list[Task],
    found: dict[str, tuple[Task, TaskData]],
    reports: list[Report],
    config: EvaluateConfig,
    world: World,
) -> int:
    """Evaluate tasks with the prompts of each report's subject, and print it; the exit status. Raises as `run` does."""
    todo = [on_first(world, partial(unfinished, found, config, report)) for report in reports]
    alone = reports[0]  # with probes there are no other prompts
    probes = on_first(world, partial(plan, found, alone.subject, config, worker_count(config.workers, 1)))
    alone.probes, alone.probe_problems = probes.lines, probes.damaged
    if any(todo) or probes.due:
        evaluate([{key: found[key] for key in keys} for keys in todo], probes.due, reports, config, world)
    if not world.first:
        return 0
    for report in reports:
        subject = report.subject
        print(summary(tasks, report.lines, report.problems, last_lines(subject.out, subject), subject.out / FILE))
    if probes_of(config.probes):
        if not alone.probe_problems:
            shutil.rmtree(probe_cache(alone.subject, config.part), ignore_errors=True)
        problems = {**probes.without, **alone.probe_problems}
        print(probe_summary(tasks, alone.probes, problems, alone.subject.out / PROBES))
    return max(report.status for report in reports)


def open_all(tasks: list[Task], root: Path) -> tuple[dict[str, tuple[Task, TaskData]], dict[str, str]]:
    """The tasks that can be evaluated, with their data, and why the others cannot.

    Raises:
        UserError: none of the tasks' folders exists.
    """
    found: dict[str, tuple[Task, TaskData]] = {}
    problems: dict[str, str] = {}
    missing = 0
    for task in tasks:
        try:
            found[task.key] = task, open_task(task, root)
        except MissingDataError as error:
            missing += 1
            problems[task.key] = f"missing: {error}"
        except Exception as error:  # a folder can be wrong in ways that nobody foresaw; the other tasks go on
            reason = str(error) if isinstance(error, UserError) else f"{root / task.folder}: {described(error)}"
            problems[task.key] = f"failed: {reason}"
    if missing == len(tasks):
        where = root / tasks[0].folder
        raise UserError(f"data={root} holds no folder of the chosen tasks; {tasks[0].key} would be {where}")
    return found, problems


def unfinished(found: dict[str, tuple[Task, TaskData]], config: EvaluateConfig, report: Report) -> list[str]:
    """The tasks without a result that holds for this checkpoint, these data and options; the others are reported."""
    subject = report.subject
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
            report.say(f"{key}: finished before, with this checkpoint and these data")
            report.lines[key] = before[key]
        else:
            todo.append(key)
    return todo


def evaluate(
    todo: Sequence[Mapping[str, tuple[Task, TaskData]]],
    probes: dict[str, Due],
    reports: Sequence[Report],
    config: EvaluateConfig,
    world: World,
) -> None:
    """Load the model, evaluate the tasks of `todo`, which has those of each report, and train `probes`, and write each
    result down as soon as it is there.

    Raises:
        UserError: the model cannot be loaded, or does not fit the device; a worker was killed.
    """
    subject = reports[0].subject
    workers = worker_count(config.workers, world.local_size)
    batch_size = batch_size_of(config.batch_size, world.device)
    tell(world, announced(todo, probes, subject, config, world, workers))
    cache = config.cache if config.cache or not probes else str(probe_cache(subject, config.part))
    how: dict[str, Any] = {"workers": workers, "batch_size": batch_size}
    try:
        with readable_errors("workers"):
            encoder = Encoder.of(subject, world.device, config.precision, batch_size, cache, say=partial(tell, world))
            wanted = [
                Wanted(tasks, prompted(encoder, report.subject), heads_of(report.subject, config))
                for tasks, report in zip(todo, reports, strict=True)
            ]
            for place, key, outcome in scores(wanted, world, limit=config.limit, **how):
                _keep(todo[place][key], outcome, encoder, config, reports[place])
            trained = probe_tasks(probes, encoder, world, subject, config, heads=wanted[0].heads, **how)
            for key, probe in trained:
                _keep_probe(key, probe, reports[0])
    except torch.OutOfMemoryError:
        raise UserError(f"out of memory on {world.device}; lower batch_size={batch_size}") from None


def announced(
    todo: Sequence[Mapping[str, tuple[Task, TaskData]]],
    probes: Mapping[str, Due],
    subject: Subject,
    config: EvaluateConfig,
    world: World,
    workers: int,
) -> str:
    """What is evaluated, and how, in one line."""
    processes = f"{world.size} processes of " if world.size > 1 else ""
    where = f"on {world.device}, {config.precision}, {processes}{workers} workers"
    what = f"{len({key for tasks in todo for key in tasks})} tasks"
    what += f" with {len(todo)} sets of prompts" * (len(todo) > 1) + f", probes of {len(probes)}" * bool(probes)
    return f"{subject.model}, {subject.checkpoint}, {where}: {what}"


def prompted(encoder: Encoder, subject: Subject) -> Encoder:
    """The encoder with the subject's prompts."""
    return encoder if subject.prompts is None else encoder.prompted(subject.prompts.parts)


def heads_of(subject: Subject, config: EvaluateConfig) -> Heads | None:
    """Where heads of the subject are kept, None where they are not."""
    if config.heads is None:
        return None
    folder = Path(config.heads) / (Path() if subject.prompts is None else subject.prompts.folder)
    conditions = Conditions.of(subject, config)._asdict()
    return Heads(folder, {name: conditions[name] for name in ("checkpoint_sha256", "model", "tag", "precision")}, say)


def _keep(
    evaluated: tuple[Task, TaskData],
    outcome: Scored | TaskError,
    encoder: Encoder,
    config: EvaluateConfig,
    report: Report,
) -> None:
    """Write down what became of a task, or why it has no result."""
    task, data = evaluated
    subject, conditions = report.subject, Conditions.of(report.subject, config)
    if isinstance(outcome, TaskError):
        report.problems[task.key] = f"failed: {outcome}"
        report.say(f"{task.key}: failed: {outcome}")
        return
    try:
        line = line_of(task, data, outcome, subject, conditions, encoder.conventions, encoder.own)
    except OSError as error:  # one of its small files is gone by now
        report.problems[task.key] = f"failed: {data.folder}: {described(error)}"
        return
    save(subject.out, line, outcome.predictions, conditions)
    report.lines[task.key] = line
    report.say(brief(task, line))


def _keep_probe(key: str, outcome: ProbeLine | TaskError, report: Report) -> None:
    """Write down what became of a probe, or why a task has none."""
    if isinstance(outcome, TaskError):
        report.probe_problems[key] = f"probes failed: {outcome}"
        say(f"{key}: probes failed: {outcome}")
        return
    append_line(report.subject.out / PROBES, outcome.model_dump())
    report.probes.append(outcome)
    say(probe_brief(outcome))


def tell(world: World, text: str) -> None:
    """Say it once, however many processes there are."""
    if world.first:
        say(text)


def say(text: str) -> None:
    """Print a line at once, above the progress bar; the log of a job is read while it runs."""
    tqdm.write(text)
    sys.stdout.flush()
