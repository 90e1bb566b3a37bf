"""Shards for scoring: workers read, decode and tokenize whole shards while the towers run."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import IO, Any, NamedTuple

import torch
from torch.utils.data import IterableDataset, get_worker_info

from poolbench.remote import StoreError, Tally
from poolbench.shards.samples import Problem, Sample, open_shard, read_samples, shortened, told_once
from poolbench.shards.sources import Shard

from curate.scorers.views import PLAIN, Seen, add


class Batch(NamedTuple):
    """Samples of one shard, in order.

    Attributes:
        rows: their metadata.
        views: by name their pictures, uint8 [n, 3, side, side]; facts: by name n numbers or texts; see views.Seen.
        tokens: of their captions, int64 [n, length]; of length 0 where they are not read.
        wanted: names of the products that are to be made of them.
        busy: seconds that they took their worker; seconds: what for in particular.
    """

    shard: int
    rows: list[dict[str, Any]]
    views: dict[str, torch.Tensor]
    tokens: torch.Tensor
    facts: dict[str, list[Any]]
    wanted: list[str]
    busy: float
    seconds: dict[str, float]

    @property
    def pictures(self) -> torch.Tensor:
        """The pictures as they are, uint8 [n, 3, side, side]."""
        return self.views[PLAIN]


class End(NamedTuple):
    """A shard is read; `bad` holds (key, reason) of what has no row, `lacking` of what has one with a problem."""

    shard: int
    bad: list[tuple[str, str]]
    lacking: list[tuple[str, str]]


class Failed(NamedTuple):
    """A shard that could not be read to its end for now, and why."""

    shard: int
    reason: str


Message = Batch | End | Failed


class ScoreStream(IterableDataset[Message]):
    """The messages of all shards, or in a worker of a DataLoader those of the worker's share.

    Args:
        shards: each with the names of the products that it lacks.
        parted, row_of, look, tokenizer: see base.Scorer.
    """

    def __init__(
        self,
        shards: Sequence[tuple[Shard, Sequence[str]]],
        parted: Callable[[Sample], Sequence[Sample]],
        row_of: Callable[[Sample], dict[str, Any]],
        look: Callable[[bytes, Set[str]], Seen],
        tokenizer: Any,
        batch_size: int,
    ) -> None:
        super().__init__()
        self._shards, self._batch_size = list(shards), batch_size
        self._parted, self._row_of, self._look, self._tokenizer = parted, row_of, look, tokenizer

    def __iter__(self) -> Iterator[Message]:
        info = get_worker_info()
        first, step = (0, 1) if info is None else (info.id, info.num_workers)
        for number in range(first, len(self._shards), step):
            try:
                yield from self._read(number, *self._shards[number])
            except StoreError as error:
                yield Failed(number, f"cannot be read {error}")
            except OSError as error:
                yield Failed(number, f"cannot be read: {error}")

    def _read(self, number: int, shard: Shard, wanted: Sequence[str]) -> Iterator[Message]:
        bad: list[Problem] = []
        lacking: list[Problem] = []
        usable: list[_Usable] = []
        names, began = frozenset(wanted), time.perf_counter()
        with open_shard(shard.path, shard.size, Tally()) as file:
            for sample in self._samples(file, shard.name):
                found = sample if isinstance(sample, Problem) else self._usable(shard.name, sample, names)
                if isinstance(found, Problem):
                    bad.append(found)
                    continue
                usable.append(found)
                if found.seen.problem:
                    lacking.append(Problem(shard.name, sample.key, found.seen.problem))
                if len(usable) == self._batch_size:
                    yield self._batch(number, usable, wanted, began)
                    usable, began = [], time.perf_counter()
        if usable:
            yield self._batch(number, usable, wanted, began)
        yield End(number, _listed(bad), _listed(lacking))

    def _samples(self, file: IO[bytes], name: str) -> Iterator[Sample | Problem]:
        for sample in read_samples(file, name):
            yield from (sample,) if isinstance(sample, Problem) else self._parted(sample)

    def _batch(self, number: int, usable: "list[_Usable]", wanted: Sequence[str], began: float) -> Batch:
        seconds: dict[str, float] = {}
        for one in usable:
            add(seconds, one.seen.seconds)
        rows, seen = [one.row for one in usable], [one.seen for one in usable]
        views = {name: torch.stack([one.views[name] for one in seen]) for name in seen[0].views}
        facts = {name: [one.facts[name] for one in seen] for name in seen[0].facts}
        tokens = self._tokens(rows)
        return Batch(number, rows, views, tokens, facts, list(wanted), time.perf_counter() - began, seconds)

    def _tokens(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        if self._tokenizer is None:
            return torch.empty((len(rows), 0), dtype=torch.int64)
        tokens: torch.Tensor = self._tokenizer([shortened(row["text"]) for row in rows])
        words = getattr(self._tokenizer, "cache", {})
        if len(words) > 2**20:
            words.clear()  # open_clip's tokenizer remembers every word it has met
        return tokens

    def _usable(self, shard: str, sample: Sample, wanted: Set[str]) -> "_Usable | Problem":
        """The row of a sample and what is seen of its picture, or why it cannot be scored."""
        try:
            return _Usable(self._row_of(sample), self._look(sample.picture(), wanted))
        except ValueError as error:
            return Problem(shard, sample.key, str(error))


class _Usable(NamedTuple):
    row: dict[str, Any]
    seen: Seen


def _listed(problems: Sequence[Problem]) -> list[tuple[str, str]]:
    return [(_storable(one.key), _storable(one.reason)) for one in told_once(problems)]


def _storable(text: str) -> str:
    """A member's name that is not UTF-8 is text with lone surrogates; JSON's escapes of them are text again."""
    return text.encode("utf-8", "backslashreplace").decode()
