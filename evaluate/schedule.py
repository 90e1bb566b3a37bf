"""Evaluate many tasks with one model and one set of workers, giving each task's scores as soon as it is through."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from poolbench.errors import UserError, described
from poolbench.processes.world import World
from poolbench.shards.samples import Problem, commonest
from poolbench.shards.workers import Iterated, loader_of

from evaluate.encoder import Classes, Encoder
from evaluate.evaluators import EVALUATORS, Evaluator
from evaluate.heads import Heads, as_numbered, numbered
from evaluate.metrics import metrics
from evaluate.results import Scored
from evaluate.share import gathered
from evaluate.stream import Batch, EvaluationStream, Message, Unit, UnitEnd, UnitFailed, units_of
from tasks.examples import Bad
from tasks.readers import TaskData
from tasks.registry import Task


class TaskError(UserError):
    """A task that cannot be evaluated; the others go on."""


class Wanted(NamedTuple):
    """Tasks that are to be scored with one set of prompts.

    Attributes:
        tasks: key -> the task and its data; each task's kind has an evaluator.
        encoder: with these prompts; those of all sets are one model.
        heads: where zero-shot classifiers are read and written.
    """

    tasks: Mapping[str, tuple[Task, TaskData]]
    encoder: Encoder
    heads: Heads | None = None


def scores(
    wanted: Sequence[Wanted], world: World, *, workers: int, batch_size: int, limit: int | None = None
) -> Iterator[tuple[int, str, Scored | TaskError]]:
    """Yield (place in `wanted`, key, scores or why there are none) for every task, in the order in which they get
    through. Each picture is read and encoded once, however many want it.

    Every process of `world` calls this with the same tasks; the first one gets the scores, the others nothing.

    Args:
        limit: only the first so many samples of each task.

    Raises:
        UserError: another process was killed, or a batch does not fit the device; a head is another model's.
        RuntimeError: a worker was killed; see `poolbench.shards.workers.readable_errors`.
    """
    tasks = {key: pair for one in wanted for key, pair in one.tasks.items()}
    units = _units(tasks, limit)
    messages = encoded(units, wanted[0].encoder, world, workers=workers, batch_size=batch_size)
    if messages is None:
        return
    running: list[dict[str, _Running]] = []
    for place, one in enumerate(wanted):
        started, failed = _started(one, units)
        running.append(started)
        for key, error in failed.items():
            yield place, key, error
    yield from _finished(running, messages, sum(min(task.samples, limit or task.samples) for task, _ in tasks.values()))


def encoded(
    units: Sequence[Unit], encoder: Encoder, world: World, *, workers: int, batch_size: int
) -> Iterator[Message] | None:
    """The units' embeddings, made by all processes, which call this together; None on all but the first one, when
    everything is through."""
    mine = units[world.rank :: world.size]
    stream = EvaluationStream(mine, encoder.pixels, batch_size, encoder.cache)
    loader = loader_of(stream, min(workers, len(mine)), encoder.device)
    messages = gathered(world, _embedded(Iterated(loader), encoder))
    if world.first:
        return messages
    for _ in messages:
        pass
    return None


def failure(error: Exception, data: TaskData) -> TaskError:
    """What ends one task and lets the others go on: data can be wrong in ways that nobody foresaw.

    Raises:
        torch.OutOfMemoryError: the same, as it concerns them all.
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    return TaskError(str(error) if isinstance(error, UserError) else f"{data.folder}: {described(error)}")


def _started(wanted: Wanted, units: list[Unit]) -> tuple[dict[str, "_Running"], dict[str, TaskError]]:
    """The tasks, their prompts encoded, and why there are none of some."""
    encoder, heads = wanted.encoder, wanted.heads
    running: dict[str, _Running] = {}
    failed: dict[str, TaskError] = {}
    for key, (task, data) in wanted.tasks.items():
        try:
            running[key] = _Running(task, data, encoder, units)
        except Exception as error:
            failed[key] = failure(error, data)
    classifiers = {key: task.classifiers for key, task in running.items()}
    fresh = {
        key: pairs for key, pairs in classifiers.items() if pairs and heads and not _given(heads, key, pairs, encoder)
    }
    began = time.perf_counter()
    for key, problem in _prepare(classifiers, encoder):
        del running[key]
        fresh.pop(key, None)
        failed[key] = failure(problem, wanted.tasks[key][1])
    if heads is not None:
        _kept(heads, fresh, encoder, time.perf_counter() - began)
    return running, failed


def _prepare(classifiers: Mapping[str, list[Classes]], encoder: Encoder) -> Iterator[tuple[str, Exception]]:
    """Encode the prompts of all tasks together; where that fails, of each alone, to find out whose it is."""
    try:
        encoder.prepare(pair for pairs in classifiers.values() for pair in pairs)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        for key, pairs in classifiers.items():
            try:
                encoder.prepare(pairs)
            except Exception as error:
                yield key, error


def _given(heads: Heads, key: str, pairs: Sequence[Classes], encoder: Encoder) -> bool:
    """Hand a task's saved classifiers to the encoder; whether there are any."""
    saved = heads.read(key, _made_from(pairs, encoder))
    if saved is None:
        return False
    for pair, weights in zip(pairs, numbered(saved.tensors, "weights"), strict=True):
        encoder.give(*pair, weights)
    return True


def _kept(heads: Heads, fresh: Mapping[str, Sequence[Classes]], encoder: Encoder, seconds: float) -> None:
    """Save the classifiers of tasks; of the seconds each has its share by its number of classes."""
    sizes = {key: sum(len(names) for names, _ in pairs) for key, pairs in fresh.items()}
    for key, pairs in fresh.items():
        weights = as_numbered("weights", [encoder.classifier(*pair) for pair in pairs])
        heads.write(key, _made_from(pairs, encoder), weights, seconds * sizes[key] / sum(sizes.values()))
    heads.tell()


def _made_from(pairs: Sequence[Classes], encoder: Encoder) -> dict[str, list[str]]:
    return {"prompts": [encoder.prompts_digest(*pair) for pair in pairs]}


def _units(tasks: Mapping[str, tuple[Task, TaskData]], limit: int | None) -> list[Unit]:
    """The units of all tasks, those that take long first, so that none is left over at the end."""
    weighed = []
    for key, (task, data) in tasks.items():
        units = units_of(key, data, EVALUATORS[task.kind].needs, limit)
        weighed += [(task.cost / len(units), unit) for unit in units]
    return [unit for _, unit in sorted(weighed, key=lambda pair: -pair[0])]


def _embedded(messages: Iterated[Message], encoder: Encoder) -> Iterator[Message]:
    """The messages with the pictures turned into their embeddings; those of a whole unit go into the cache."""
    units: dict[tuple[str, int], list[Batch]] = {}
    with messages:
        for message in messages:
            try:
                message = _turned(message, encoder, units)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:
                message = UnitFailed(message.task, described(error))
            yield message


def _turned(message: Message, encoder: Encoder, units: dict[tuple[str, int], list[Batch]]) -> Message:
    """A message as `_embedded` gives it; `units` holds what has come of those that go into the cache."""
    if isinstance(message, Batch) and not message.embedded:
        message = message._replace(pictures=encoder.encode_images(message.pictures), embedded=True)
        if encoder.cache is not None:
            units.setdefault((message.task, message.unit), []).append(message)
    elif isinstance(message, UnitEnd):
        batches = units.pop((message.task, message.unit), [])
        if encoder.cache is not None and message.entry is not None and batches:
            keys = [key for batch in batches for key in batch.keys]
            vectors = torch.cat([batch.pictures for batch in batches])
            encoder.cache.put(message.entry, vectors, keys=keys, undecodable=message.undecodable)
    return message


def _finished(
    running: Sequence[dict[str, "_Running"]], messages: Iterator[Message], total: int
) -> Iterator[tuple[int, str, Scored | TaskError]]:
    with tqdm(total=total, unit="sample", disable=None, leave=False) as bar:
        for message in messages:
            having = [(place, tasks) for place, tasks in enumerate(running) if message.task in tasks]
            bar.update(len(message.keys) if isinstance(message, Batch) and having else 0)  # else it failed before
            for place, tasks in having:
                outcome = _taken(tasks[message.task], message)
                if outcome is not None:
                    del tasks[message.task]
                    yield place, message.task, outcome
    assert not any(running), running


def _taken(task: "_Running", message: Message) -> Scored | TaskError | None:
    """What the message brings the task to: None as long as it goes on."""
    try:
        return task.take(message)
    except Exception as error:
        return failure(error, task.data)


class _Running:
    """One task while its shards come in."""

    def __init__(self, task: Task, data: TaskData, encoder: Encoder, units: list[Unit]) -> None:
        self._task = task
        self.data = data
        self._encoder = encoder
        self.classifiers = EVALUATORS[task.kind].classifiers(task, data)
        self._left = {unit.index for unit in units if unit.task == task.key}
        self._evaluator: Evaluator | None = None
        self._digests: dict[str, str] = {}
        self._bad: list[tuple[int, Bad]] = []
        self._started = 0.0

    def take(self, message: Message) -> Scored | None:
        """Take in a message; the scores with the last one, else None.

        Raises:
            UserError: the task cannot be evaluated.
        """
        self._started = self._started or time.perf_counter()
        if isinstance(message, UnitFailed):
            raise TaskError(message.reason)
        if isinstance(message, UnitEnd):
            return self._end(message)
        if self._evaluator is None:
            self._evaluator = EVALUATORS[self._task.kind](self._task, self.data, self._encoder)
        self._evaluator.add(message, message.pictures.to(self._encoder.device))
        return None

    def _end(self, end: UnitEnd) -> Scored | None:
        self._left.remove(end.unit)
        self._digests |= {self.data.name_of(Path(name)): value for name, value in end.digests.items()}
        self._bad += [(end.unit, bad) for bad in end.bad]
        if self._evaluator is not None:
            self._evaluator.end(end)
        if self._left:
            return None
        bad = [item for _, item in sorted(self._bad, key=lambda pair: pair[0])]
        if self._evaluator is None:
            reason = commonest(Problem(*one) for one in bad)
            raise TaskError(f"{self.data.folder} holds no sample that can be read{reason}")
        predictions = self._evaluator.predictions()
        found = metrics(self._task, predictions)
        for name, value in found.items():
            if value is not None and not math.isfinite(value):
                raise TaskError(f"its metric {name} is {value}, which no result can hold")
        return Scored(found, predictions, self._digests, bad, time.perf_counter() - self._started)
