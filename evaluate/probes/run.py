"""The probes of an evaluation: which are still to do, one pass over the embeddings of both splits, a line for each."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from poolbench.errors import UserError
from poolbench.processes.world import World

from evaluate.config import EvaluateConfig
from evaluate.encoder import Encoder
from evaluate.evaluators import EVALUATORS
from evaluate.evaluators.classification import Classification
from evaluate.heads import Heads, Saved, as_numbered, numbered
from evaluate.probes.features import Split, Splits, collected, units
from evaluate.probes.fit import Fitted, Prober, Trained
from evaluate.probes.linear import Linear
from evaluate.probes.words import LINEAR, Probe, probes_of
from evaluate.results import digests_of, used
from evaluate.schedule import TaskError, encoded, failure
from evaluate.subject import Subject
from tasks.probes import CONDITIONS, FILE, ProbeLine, read_probes
from tasks.readers import TRAIN, TaskData, open_labelled
from tasks.registry import Task
from tasks.results import BadSample

VERSION = 1  # of what probes compute; lines of another version are not taken for finished


class Due(NamedTuple):
    """Probes of a task that have no line yet."""

    task: Task
    test: TaskData
    train: TaskData
    probes: tuple[Probe, ...]


class Plan(NamedTuple):
    """What is to do, by task, and the lines that are there; which tasks have no training split, and which a damaged
    one."""

    due: dict[str, Due]
    lines: list[ProbeLine]
    without: dict[str, str]
    damaged: dict[str, str]


def plan(found: Mapping[str, tuple[Task, TaskData]], subject: Subject, config: EvaluateConfig, threads: int) -> Plan:
    """Look for training splits and for lines of an earlier run, where probes are asked for.

    Raises:
        UserError: the file of probes holds something else.
    """
    due: dict[str, Due] = {}
    lines: list[ProbeLine] = []
    without: dict[str, str] = {}
    damaged: dict[str, str] = {}
    probes = probes_of(config.probes)
    if not probes:
        return Plan(due, lines, without, damaged)
    before = [line for line in read_probes(subject.out / FILE) if line.checkpoint_sha256 == subject.sha256]
    for key, (task, test) in found.items():
        if EVALUATORS[task.kind] is not Classification:
            continue
        if not (test.folder / TRAIN).is_dir():
            without[key] = f"no probes, as it has no training split: {test.folder / TRAIN} does not exist"
            continue
        try:
            train = open_labelled(test.folder, TRAIN)
        except UserError as error:
            damaged[key] = f"probes failed: {error}"
            continue
        kept = [_kept(before, task, probe, subject, config) for probe in probes]
        if any(kept):
            here = _digests(test, train, threads)
            kept = [line if line and (line.data_digest, line.train_digest) == here else None for line in kept]
        lines += [line for line in kept if line]
        left = tuple(probe for probe, line in zip(probes, kept, strict=True) if line is None)
        if left:
            due[key] = Due(task, test, train, left)
    return Plan(due, lines, without, damaged)


def seeds_of(probe: Probe, config: EvaluateConfig) -> list[int]:
    """A seed for each draw; the probe of all pictures needs one, for its validation part."""
    return [config.probe_seed + number for number in range(1 if probe.shots is None else config.probe_draws)]


def probe_tasks(
    due: Mapping[str, Due],
    encoder: Encoder,
    world: World,
    subject: Subject,
    config: EvaluateConfig,
    *,
    workers: int,
    batch_size: int,
    heads: Heads | None = None,
) -> Iterator[tuple[str, ProbeLine | TaskError]]:
    """Train the probes and yield each one's line as soon as it is there, or why a task has none; on the first process.

    Every process calls this with the same tasks. Embeddings come from the encoder's cache where it has them.

    Raises:
        UserError: another process was killed, or a batch does not fit the device.
    """
    if not due:
        return
    both = {key: (one.test, one.train) for key, one in due.items()}
    messages = encoded(units(both), encoder, world, workers=workers, batch_size=batch_size)
    if messages is None:
        return
    for key, splits in collected(both, messages):
        if isinstance(splits, Exception):
            yield key, failure(splits, due[key].test)
            continue
        try:
            for line in _lines(due[key], splits, encoder, subject, config, heads):
                yield key, line
        except Exception as error:
            yield key, failure(error, due[key].test)
    if heads is not None:
        heads.tell()


def _lines(
    due: Due, splits: Splits, encoder: Encoder, subject: Subject, config: EvaluateConfig, heads: Heads | None
) -> Iterator[ProbeLine]:
    names = due.test.classnames
    text = encoder.classifier(names, due.test.templates) if any(probe.head != LINEAR for probe in due.probes) else None
    prober = Prober(due.task, splits, len(names), text, encoder.device)
    shared = _of_splits(due, splits)
    for probe in due.probes:
        began = time.perf_counter()
        made_from = {
            "probe": str(probe),
            "seeds": seeds_of(probe, config),
            "training split": splits.train.digest,
            "prompts": encoder.prompts_digest(names, due.test.templates) if probe.head != LINEAR else None,
            "probes": VERSION,
        }
        saved = heads.read(due.task.key, made_from, str(probe)) if heads is not None else None
        fitted = prober.fit(probe, seeds_of(probe, config), None if saved is None else _trained(saved))
        seconds = round(time.perf_counter() - began, 3)
        if heads is not None and saved is None:
            decays = [draw.weight_decay for draw in fitted.draws]
            heads.write(due.task.key, made_from, _tensors(fitted.linears), seconds, str(probe), decays)
        yield ProbeLine(
            **shared,
            **_conditions(probe, subject, config),
            **_of_fit(fitted),
            seconds=seconds,
            conventions=used(encoder.conventions),
            own=encoder.own,
        )


def _tensors(linears: Sequence[Linear]) -> dict[str, torch.Tensor]:
    return {
        **as_numbered("weights", [one.weights for one in linears]),
        **as_numbered("biases", [one.biases for one in linears]),
    }


def _trained(saved: Saved) -> list[Trained]:
    parts = (numbered(saved.tensors, name) for name in ("weights", "biases"))
    return [Trained(Linear(*pair), decay) for *pair, decay in zip(*parts, saved.notes, strict=True)]


def _of_splits(due: Due, splits: Splits) -> dict[str, Any]:
    """The fields of a line that all probes of a task share."""
    return {
        "key": due.task.key,
        "dataset": due.task.name,
        "samples": len(splits.test.keys),
        "train_samples": len(splits.train.keys),
        "leaked": splits.leaked(),
        "data_digest": splits.test.digest,
        "train_digest": splits.train.digest,
        "shards": len(due.test.shards),
        "train_shards": len(due.train.shards),
        "bad": [*_bad("test", splits.test), *_bad(TRAIN, splits.train)],
    }


def _of_fit(fitted: Fitted) -> dict[str, Any]:
    return {
        "metrics": fitted.mean(),
        "sd": fitted.sd(),
        "stderr": fitted.stderr,
        "draws": fitted.draws,
        "short_classes": fitted.short_classes,
    }


def _bad(name: str, split: Split) -> list[BadSample]:
    return [BadSample(shard=f"{name}/{bad.shard}", key=bad.key, reason=bad.reason) for bad in split.bad]


def _conditions(probe: Probe, subject: Subject, config: EvaluateConfig) -> dict[str, Any]:
    """The fields that tasks.probes.CONDITIONS names."""
    values = (
        *(probe.head, probe.shots, seeds_of(probe, config)),
        *(subject.sha256, subject.model, subject.tag, config.precision, VERSION),
    )
    return dict(zip(CONDITIONS, values, strict=True))


def _kept(
    before: Sequence[ProbeLine], task: Task, probe: Probe, subject: Subject, config: EvaluateConfig
) -> ProbeLine | None:
    """The last line of a probe under these conditions."""
    wanted = _conditions(probe, subject, config)
    alike = [line for line in before if line.key == task.key and line.model_dump(include=set(CONDITIONS)) == wanted]
    return alike[-1] if alike else None


def _digests(test: TaskData, train: TaskData, threads: int) -> tuple[str, str] | None:
    """Those of both splits as they lie there; None where a file cannot be read, which the pass over it will tell."""
    try:
        test_digest, train_digest = (data.digest(digests_of(data, data.shards, threads)) for data in (test, train))
    except OSError:
        return None
    return test_digest, train_digest


def probe_cache(subject: Subject, part: str) -> Path:
    """Where embeddings lie for as long as probes are made of them, where cache= names no folder that keeps them."""
    return subject.out / f".probes-{part.replace('/', '-of-')}"
