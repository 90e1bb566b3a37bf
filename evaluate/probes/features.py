"""The embeddings of a task's two splits, as one stream of shards brings them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from poolbench.errors import UserError

from evaluate.stream import Batch, Message, Unit, UnitFailed, units_of
from tasks.examples import Bad
from tasks.readers import TaskData

NEEDS = frozenset({"label", "digest"})


class Split(NamedTuple):
    """The samples of a split: `features` float32 [n, d] on the CPU, `labels` int64 [n], the SHA-256 of each encoded
    picture, the digest of the split's files, and the samples that could not be used."""

    keys: list[str]
    features: torch.Tensor
    labels: npt.NDArray[np.int64]
    pictures: list[bytes]
    digest: str
    bad: list[Bad]

    def by_key(self) -> "Split":
        """The same samples in the order of their keys, so that nothing depends on which shard they lay in."""
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        return self._replace(
            keys=[self.keys[row] for row in order],
            features=self.features[order],
            labels=self.labels[order],
            pictures=[self.pictures[row] for row in order],
        )


class Splits(NamedTuple):
    """The two splits of a task."""

    test: Split
    train: Split

    def leaked(self) -> int:
        """How many test pictures are in the training split too, byte for byte."""
        known = set(self.train.pictures)
        return sum(picture in known for picture in self.test.pictures)


def units(tasks: Mapping[str, tuple[TaskData, TaskData]]) -> list[Unit]:
    """One for each shard of the test and the training split of the tasks, task after task: so the embeddings of one are
    in memory at a time, or of few."""
    return [
        unit
        for key, both in tasks.items()
        for name, data in zip(_names(key), both, strict=True)
        for unit in units_of(name, data, NEEDS, None)
    ]


def collected(
    tasks: Mapping[str, tuple[TaskData, TaskData]], messages: Iterator[Message]
) -> Iterator[tuple[str, Splits | Exception]]:
    """Yield (key, its splits, or why there are none) as soon as all shards of a task are through.

    Args:
        messages: of `units(tasks)`, with embeddings.
    """
    left = {
        name: _Collected(data, len(data.shards))
        for key, both in tasks.items()
        for name, data in zip(_names(key), both, strict=True)
    }
    key_of = {name: key for key in tasks for name in _names(key)}
    for message in messages:
        key = key_of[message.task]
        if message.task not in left:
            continue  # it failed before
        if isinstance(message, UnitFailed):
            yield key, UserError(message.reason)
            for name in _names(key):
                left.pop(name, None)
            continue
        left[message.task].take(message)
        if all(left[name].whole for name in _names(key)):
            test, train = (left.pop(name) for name in _names(key))
            try:
                yield key, Splits(test.split(), train.split().by_key())
            except UserError as error:
                yield key, error


def _names(key: str) -> tuple[str, str]:
    return f"{key} (test)", f"{key} (train)"


@dataclass
class _Collected:
    """A split while its shards come in."""

    data: TaskData
    left: int
    batches: list[Batch] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    bad: list[tuple[int, Bad]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return self.left == 0

    def take(self, message: Message) -> None:
        if isinstance(message, Batch):
            self.batches.append(message._replace(pictures=message.pictures.cpu()))
        elif not isinstance(message, UnitFailed):
            self.digests |= {self.data.name_of(Path(name)): value for name, value in message.digests.items()}
            self.bad += [(message.unit, bad) for bad in message.bad]
            self.left -= 1

    def split(self) -> Split:
        """All samples, in the order of the data.

        Raises:
            UserError: there is none.
        """
        batches = sorted(self.batches, key=lambda batch: batch.unit)
        self.batches = []
        if not batches:
            raise UserError(f"{self.data.shards[0].parent} holds no sample that can be read")
        return Split(
            [key for batch in batches for key in batch.keys],
            torch.cat([batch.pictures for batch in batches]),
            torch.cat([batch.labels for batch in batches]).numpy(),
            [digest for batch in batches for digest in batch.digests],
            self.data.digest(self.digests),
            [bad for _, bad in sorted(self.bad, key=lambda pair: pair[0])],
        )
