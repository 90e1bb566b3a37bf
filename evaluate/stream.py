"""One pool of workers for all tasks: every shard is read once, every picture decoded once.

A unit of work is one shard of one task. Units are dealt round-robin to the workers of a single DataLoader, in the order
of the tasks, so that tasks finish one after the other. Each unit gives Batches and then one UnitEnd or UnitFailed.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from conf.errors import UserError
from conf.files import digest_file
from tasks.readers import Bad, Example, TaskData, read_examples


@dataclass(frozen=True)
class Unit:
    """Files of one task that one worker reads in order, at most `limit` samples of them."""

    task: str
    index: int
    paths: tuple[Path, ...]
    needs: frozenset[str]
    classes: int
    limit: int | None


class Batch(NamedTuple):
    """Samples of one unit, in order.

    `images` uint8 [n, 3, h, w], `labels` int64 [n] (-1 where not needed), `captions` one tuple a sample, `metadata`
    int64 [n, fields].
    """

    task: str
    unit: int
    keys: list[str]
    images: torch.Tensor
    labels: torch.Tensor
    captions: list[tuple[str, ...]]
    metadata: torch.Tensor


class UnitEnd(NamedTuple):
    """A unit is read: SHA-256 of each file that was opened, by path, and the samples that could not be used."""

    task: str
    unit: int
    digests: dict[str, str]
    bad: list[Bad]


class UnitFailed(NamedTuple):
    """The task cannot be evaluated, and why."""

    task: str
    reason: str


Message = Batch | UnitEnd | UnitFailed


def units_of(key: str, data: TaskData, needs: frozenset[str], limit: int | None) -> list[Unit]:
    """One unit a shard. With a limit the whole task is one unit: which samples are first must not depend on timing."""
    groups = [(path,) for path in data.shards] if limit is None else [data.shards]
    return [Unit(key, index, paths, needs, len(data.classnames), limit) for index, paths in enumerate(groups)]


class EvaluationStream(IterableDataset[Message]):
    """The messages of all units, or in a worker of a DataLoader those of the worker's share."""

    def __init__(self, units: Sequence[Unit], pixels: Callable[[bytes], torch.Tensor], batch_size: int) -> None:
        super().__init__()
        self._units = list(units)
        self._pixels = pixels
        self._batch_size = batch_size

    def __iter__(self) -> Iterator[Message]:
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        for unit in self._units[start::step]:
            try:
                yield from self._read(unit)
            except UserError as error:
                yield UnitFailed(unit.task, str(error))
            except OSError as error:
                yield UnitFailed(unit.task, f"{error.filename or unit.task} cannot be read: {error.strerror or error}")

    def _read(self, unit: Unit) -> Iterator[Message]:
        digests: dict[str, str] = {}
        bad: list[Bad] = []
        samples: list[tuple[Example, torch.Tensor]] = []
        left = unit.limit
        for path in unit.paths:
            if left == 0:
                break
            digests[str(path)] = digest_file(path)  # reads the file into the page cache; the samples come from there
            for item in read_examples(path, unit.needs, unit.classes):
                decoded = self._decode(path.name, item)
                if isinstance(decoded, Bad):
                    bad.append(decoded)
                else:
                    samples.append(decoded)
                if len(samples) == self._batch_size:
                    yield _batch(unit, samples)
                    samples = []
                if left is not None:
                    left -= 1  # a bad sample takes its place among the first ones
                    if left == 0:
                        break
        if samples:
            yield _batch(unit, samples)
        yield UnitEnd(unit.task, unit.index, digests, bad)

    def _decode(self, shard: str, item: Example | Bad) -> tuple[Example, torch.Tensor] | Bad:
        if isinstance(item, Bad):
            return item
        try:
            return item, self._pixels(item.image)
        except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes; the reason is kept
            reason = (str(error).splitlines() or [""])[0]
            return Bad(shard, item.key, f"the picture cannot be decoded: {type(error).__name__}: {reason}")


def loader_of(stream: EvaluationStream, workers: int, device: torch.device) -> DataLoader[Message]:
    """A loader over the stream; with `workers` = 0 everything happens in this process."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_leave_interrupts_to_the_parent,
        # A worker's messages stay in order; those of different workers need none, and a slow shard holds up nobody.
        in_order=False,
        pin_memory=device.type == "cuda",
    )


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(message: Any) -> Any:
    return message


def _batch(unit: Unit, samples: Sequence[tuple[Example, torch.Tensor]]) -> Batch:
    """Stack samples.

    Raises:
        UserError: their metadata vectors differ in length.
    """
    examples = [example for example, _ in samples]
    if len({example.metadata.shape for example in examples}) > 1:
        raise UserError(f"{unit.task}: .npy vectors of different lengths near sample {examples[0].key}")
    return Batch(
        unit.task,
        unit.index,
        [example.key for example in examples],
        torch.stack([pixels for _, pixels in samples]),
        torch.tensor([example.label for example in examples]),
        [example.captions for example in examples],
        torch.from_numpy(np.stack([example.metadata for example in examples])),
    )
