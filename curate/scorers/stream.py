"""Shards for scoring: workers read, decode and tokenize whole shards while the towers run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from poolbench.remote import StoreError, Tally
from poolbench.shards.samples import Problem, Sample, open_shard, read_samples, shortened, told_once
from poolbench.shards.sources import Shard


class Batch(NamedTuple):
    """Samples of one shard, in order: their metadata, pictures uint8 [n, 3, side, side], tokens int64 [n, length], of
    length 0 where captions are not read."""

    shard: int
    rows: list[dict[str, Any]]
    pictures: torch.Tensor
    tokens: torch.Tensor


class End(NamedTuple):
    """A shard is read; `bad` holds (key, reason) of what has no row."""

    shard: int
    bad: list[tuple[str, str]]


class Failed(NamedTuple):
    """A shard that could not be read to its end for now, and why."""

    shard: int
    reason: str


Message = Batch | End | Failed


class ScoreStream(IterableDataset[Message]):
    """The messages of all shards, or in a worker of a DataLoader those of the worker's share."""

    def __init__(
        self,
        shards: Sequence[Shard],
        row_of: Callable[[Sample], dict[str, Any]],
        pixels: Callable[[bytes], torch.Tensor],
        tokenizer: Any,
        batch_size: int,
    ) -> None:
        """See Scorer for what reads the samples."""
        super().__init__()
        self._row_of = row_of
        self._shards, self._batch_size = list(shards), batch_size
        self._pixels, self._tokenizer = pixels, tokenizer

    def __iter__(self) -> Iterator[Message]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, len(self._shards), step):
            try:
                yield from self._read(number, self._shards[number])
            except StoreError as error:
                yield Failed(number, f"cannot be read {error}")
            except OSError as error:
                yield Failed(number, f"cannot be read: {error}")

    def _read(self, number: int, shard: Shard) -> Iterator[Message]:
        bad: list[Problem] = []
        usable: list[_Usable] = []
        with open_shard(shard.path, shard.size, Tally()) as file:
            for sample in read_samples(file, shard.name):
                found = (
                    sample if isinstance(sample, Problem) else _usable(shard.name, sample, self._row_of, self._pixels)
                )
                if isinstance(found, Problem):
                    bad.append(found)
                    continue
                usable.append(found)
                if len(usable) == self._batch_size:
                    yield self._batch(number, usable)
                    usable = []
        if usable:
            yield self._batch(number, usable)
        yield End(number, [(_storable(one.key), _storable(one.reason)) for one in told_once(bad)])

    def _batch(self, number: int, usable: "list[_Usable]") -> Batch:
        pictures = torch.stack([one.picture for one in usable])
        if self._tokenizer is None:
            return Batch(
                number, [one.row for one in usable], pictures, torch.empty((len(usable), 0), dtype=torch.int64)
            )
        tokens = self._tokenizer([shortened(one.row["text"]) for one in usable])
        words = getattr(self._tokenizer, "cache", {})
        if len(words) > 2**20:
            words.clear()  # open_clip's tokenizer remembers every word it has met
        return Batch(number, [one.row for one in usable], pictures, tokens)


class _Usable(NamedTuple):
    row: dict[str, Any]
    picture: torch.Tensor


def _usable(
    shard: str, sample: Sample, row_of: Callable[[Sample], dict[str, Any]], pixels: Callable[[bytes], torch.Tensor]
) -> _Usable | Problem:
    """The metadata and picture of a sample, or why it cannot be scored."""
    try:
        return _Usable(row_of(sample), pixels(sample.picture()))
    except ValueError as error:
        return Problem(shard, sample.key, str(error))


def _storable(text: str) -> str:
    """A member's name that is not UTF-8 is text with lone surrogates; JSON's escapes of them are text again."""
    return text.encode("utf-8", "backslashreplace").decode()
