"""One set of workers for all tasks: every shard is read once, every picture decoded once.

A unit of work is one shard of one task. Units are dealt round-robin to the workers of a single DataLoader. Each unit
gives Batches and then one UnitEnd or UnitFailed.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from poolbench.errors import UserError, described
from poolbench.files import digest_file

from evaluate.cache import Cache, Entry
from tasks.examples import Bad, Example, Puzzle, counts
from tasks.readers import TaskData, read_examples


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

    `pictures` uint8 [n, 3, h, w], or float32 [n, d] where they are `embedded` already; `labels` int64 [n] (-1 where
    not needed), `captions` one tuple a sample, `metadata` int64 [n, fields], `digests` the SHA-256 of each encoded
    picture where "digest" is needed.
    """

    task: str
    unit: int
    keys: list[str]
    pictures: torch.Tensor
    embedded: bool
    labels: torch.Tensor
    captions: list[tuple[str, ...]]
    metadata: torch.Tensor
    digests: tuple[bytes, ...] = ()


class UnitEnd(NamedTuple):
    """A unit is read.

    Attributes:
        digests: SHA-256 of each file that was opened, by path.
        bad: the samples that could not be used.
        puzzles: of a task that consists of them.
        entry: the name under which the embeddings of the unit belong into the cache, None where they do not.
        undecodable: what the cache has to know besides: position among the unit's pictures -> why it has no embedding.
    """

    task: str
    unit: int
    digests: dict[str, str]
    bad: list[Bad]
    puzzles: list[Puzzle]
    entry: str | None
    undecodable: dict[str, str]


class UnitFailed(NamedTuple):
    """The task cannot be evaluated, and why."""

    task: str
    reason: str


Message = Batch | UnitEnd | UnitFailed


def units_of(key: str, data: TaskData, needs: frozenset[str], limit: int | None) -> list[Unit]:
    """One unit a shard.

    The whole task is one unit with a limit, as which samples are first must not depend on timing, and where it
    consists of puzzles, as they share pictures.
    """
    whole = limit is not None or "puzzles" in needs
    groups = [data.shards] if whole else [(path,) for path in data.shards]
    return [Unit(key, index, paths, needs, len(data.classnames), limit) for index, paths in enumerate(groups)]


class EvaluationStream(IterableDataset[Message]):
    """The messages of all units, or in a worker of a DataLoader those of the worker's share."""

    def __init__(
        self,
        units: Sequence[Unit],
        pixels: Callable[[bytes], torch.Tensor],
        batch_size: int,
        cache: Cache | None = None,
    ) -> None:
        super().__init__()
        self._units = list(units)
        self._pixels = pixels
        self._batch_size = batch_size
        self._cache = cache

    def __iter__(self) -> Iterator[Message]:
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        for unit in self._units[start::step]:
            reader = _Reader(unit)
            try:
                yield from self._read(unit, reader)
            except UserError as error:
                yield UnitFailed(unit.task, str(error))
            except OSError as error:
                yield UnitFailed(
                    unit.task, f"{error.filename or reader.path} cannot be read: {error.strerror or error}"
                )
            except Exception as error:  # data can be wrong in ways that nobody foresaw; the other tasks go on
                yield UnitFailed(unit.task, f"{reader.path} cannot be read: {described(error)}")

    def _read(self, unit: Unit, reader: "_Reader") -> Iterator[Message]:
        name, entry = self._find(unit, reader)
        picture = self._decoded if entry is None else _Recalled(entry)
        undecodable: dict[str, str] = {}
        samples: list[tuple[Example, torch.Tensor]] = []
        for position, (shard, example) in enumerate(reader):
            found = picture(position, example)
            if isinstance(found, str):
                undecodable[str(position)] = found
                reader.bad.append(Bad(shard, example.key, found))
                continue
            digest = hashlib.sha256(example.image).digest() if "digest" in unit.needs else b""
            samples.append((example._replace(image=digest), found))
            if len(samples) == self._batch_size:
                yield _batch(unit, samples, entry is not None)
                samples = []
        if samples:
            yield _batch(unit, samples, entry is not None)
        due = name if entry is None else None
        yield UnitEnd(unit.task, unit.index, reader.digests, reader.bad, reader.puzzles, due, undecodable)

    def _find(self, unit: Unit, reader: "_Reader") -> tuple[str | None, Entry | None]:
        """The name of the unit's embeddings in the cache, and those if they are there. A part of a task has none."""
        if self._cache is None or unit.limit is not None:
            return None, None
        digests = [reader.digest(path) for path in unit.paths]
        name = self._cache.name("pictures", [digests, "puzzles" in unit.needs])
        return name, self._cache.get(name)

    def _decoded(self, position: int, example: Example) -> torch.Tensor | str:
        """Pixels, or why there are none."""
        try:
            return self._pixels(example.image)
        except Exception as error:  # Pillow's decoders raise many kinds on damaged bytes; the reason is kept
            reason = (str(error).splitlines() or [""])[0].partition(" <_io.BytesIO")[0]
            return f"the picture cannot be decoded: {type(error).__name__}: {reason}"


@dataclass
class _Reader:
    """Iterates over (shard, Example) of a unit; what else the files hold is collected meanwhile."""

    unit: Unit
    digests: dict[str, str] = field(default_factory=dict)
    bad: list[Bad] = field(default_factory=list)
    puzzles: list[Puzzle] = field(default_factory=list)
    path: Path | None = None  # the file that is being read

    def digest(self, path: Path) -> str:
        """SHA-256 of a file; hashing reads it into the page cache, from where its samples come then."""
        self.path = path
        if str(path) not in self.digests:
            self.digests[str(path)] = digest_file(path)
        return self.digests[str(path)]

    def __iter__(self) -> Iterator[tuple[str, Example]]:
        unit, left = self.unit, self.unit.limit
        seen: dict[str, str] = {}
        for path in unit.paths:
            if left == 0:
                return
            self.digest(path)
            for item in read_examples(path, unit.needs, unit.classes, seen):
                if isinstance(item, Example):
                    yield path.name, item
                elif isinstance(item, Puzzle):
                    self.puzzles.append(item)
                else:
                    self.bad.append(item)
                if left is not None and counts(item, unit.needs):
                    left -= 1  # a bad sample takes its place among the first ones
                    if left == 0:
                        return


class _Recalled:
    """The embeddings of a unit's pictures from the cache, one after the other."""

    def __init__(self, entry: Entry) -> None:
        self._undecodable: dict[str, str] = entry.notes["undecodable"]
        self._keys = iter(zip(entry.notes["keys"], torch.from_numpy(entry.vectors), strict=True))

    def __call__(self, position: int, example: Example) -> torch.Tensor | str:
        """The embedding, or why there is none."""
        reason = self._undecodable.get(str(position))
        if reason is not None:
            return reason
        key, vector = next(self._keys, (None, torch.empty(0)))
        if key != example.key:
            raise UserError(f"the cache holds sample {key} where the shard has {example.key}; leave cache= out")
        return vector


def _batch(unit: Unit, samples: Sequence[tuple[Example, torch.Tensor]], embedded: bool) -> Batch:
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
        torch.stack([picture for _, picture in samples]),
        embedded,
        torch.tensor([example.label for example in examples]),
        [example.captions for example in examples],
        torch.from_numpy(np.stack([example.metadata for example in examples])),
        tuple(example.image for example in examples) if "digest" in unit.needs else (),
    )
