"""What a scorer is: the columns and arrays that it makes of pictures and captions, and what they depend on.

A scorer is one module of this package, found by its name. It has a dataclass `Options`, which extends `ScorerOptions`
by options of its own, and one subclass of `Scorer`. Docs: docs/score.md.
"""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from poolbench.errors import UserError
from poolbench.files import files_in
from poolbench.options import option, output, source

from curate.pool.parts import part_or_merge
from curate.pool.scored import Conditions, Identity, Made, Record, ScoredShard, Scores, is_scored, row_of
from curate.scorers.views import OneView, Seen, add

if TYPE_CHECKING:  # torch takes seconds to import, which help and a mistake in the options need not wait for
    import torch

    from poolbench.shards.samples import Sample
    from poolbench.shards.sources import Shard

    from curate.scorers.stream import Batch

DEFAULT = "clip_similarity"
OBJECTIVES = {"clip": DEFAULT, "hyperbolic": "hyperbolic"}  # of the model that scores -> scorer

Value = TypeVar("Value")


@dataclass
class ScorerOptions:
    """The options of every scorer."""

    shards: Any = source("folder, .tar, brace pattern, URL, or a list [a,b] of them", remote=True, shards=True)
    out: str = output("folder for the metadata")
    scorer: str = option("what makes the scores: a module of curate/scorers", DEFAULT)
    objective: str = option("clip | hyperbolic: what the model was trained by, which says the scorer", "clip")
    precision: str = option("fp32 | amp_bf16", "fp32")
    device: str = option("auto | cpu | cuda:<i>, several with commas; a process for each", "auto")
    batch_size: int | None = option("samples at a time; null: 256 on a GPU, 32 on a CPU", None)
    workers: int | None = option("processes that read shards, for each device; null: as the cores allow", None)
    part: str = option("i/n: the shards i, i+n, i+2n, ...", "1/1")
    merge: int | None = option("n: score nothing, say what each of n parts lacks, and list what they left out", None)
    overwrite: bool = option("true: replace other scores of this arch, and files of other samples", False)

    def check(self) -> None:
        """Refuse what cannot be right, before anything is loaded.

        Raises:
            UserError: as said, one line.
        """
        from poolbench.models.inference import check_options

        check_options(self.precision, self.batch_size, self.workers)
        if self.objective != type(self).objective:
            raise UserError(
                f"objective={self.objective} is not what scorer={self.scorer} scores by; leave one of them out"
            )
        if Path(self.out).exists() and not Path(self.out).is_dir():
            raise UserError(f"out={self.out} is a file, not a folder")
        part_or_merge(None if self.part == "1/1" else self.part, self.merge)


@dataclass
class Clock:
    """Where the time goes, in seconds: ours, and `busy` and `within` that of the workers, as their batches tell it."""

    spent: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)
    samples: int = 0
    busy: float = 0.0
    within: dict[str, float] = field(default_factory=dict)

    def take(self, batch: "Batch") -> None:
        """Count a batch, and what it cost its worker."""
        self.samples += len(batch.rows)
        self.busy += batch.busy
        add(self.within, batch.seconds)

    @contextlib.contextmanager
    def on(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        add(self.spent, {what: time.perf_counter() - began})

    def waiting(self, items: Iterator[Value]) -> Iterator[Value]:
        """The items, while the time until each comes counts as waiting."""
        while True:
            with self.on("waiting for samples"):
                item = next(items, None)
            if item is None:
                return
            yield item

    def shares(self) -> str:
        """One line: the rate, and the share of each kind of time."""
        total = max(time.perf_counter() - self.began, 1e-9)
        rate = self.samples / total
        parts = [f"{rate:,.0f} samples/s" if rate >= 10 else f"{rate:.1f} samples/s", _shares(self.spent, total)]
        if self.within:
            parts.append(f"of the workers' time {_shares(self.within, self.busy)}")
        return "; ".join(parts)


def _shares(seconds: Mapping[str, float], total: float) -> str:
    return ", ".join(f"{what} {part / max(total, 1e-9):.0%}" for what, part in seconds.items())


class Product(NamedTuple):
    """What is made and recorded for itself, so that a shard which has it is not scored for it again.

    Attributes:
        may_lack: whether a picture with a problem (see Seen) has none of its numbers; they are NaN, and the sample is
            listed with the bad ones.
        conventions: what its record says besides; None for those of the scorer.
    """

    made: Made
    identity: Identity
    may_lack: bool = False
    conventions: Mapping[str, Any] | None = None


class ShardFiles(Protocol):
    """What a shard becomes, as `curate.pool.scored.ScoredShard` has it; as text, the file that messages name."""

    name: str

    def record(self, made: Made) -> Record | None: ...
    def in_the_way(self, made: Made, conditions: Conditions) -> str: ...
    def same_rows(self, rows: Sequence[Mapping[str, Any]]) -> bool: ...
    def write(self, made: Made, rows: Sequence[Mapping[str, Any]], scores: Scores, record: Record) -> None: ...


class Part(NamedTuple):
    """A shard and the files that it becomes."""

    shard: "Shard"
    files: ShardFiles


def as_it_is(sample: "Sample") -> "tuple[Sample]":
    """A sample that is scored as one."""
    return (sample,)


class Scorer(ABC):
    """One way to score. Built in the process of each device, it tells what it makes before it loads anything large, so
    that a run which finds all its shards scored loads no model.

    Attributes:
        options: an instance of the module's `Options`.
        made: the columns and arrays that it writes, and under which name they are recorded.
        identity: what these depend on; a shard with scores of the same identity is not scored again.
        pixels: once loaded, a picture file to uint8 [3, h, w], called in the workers; raises ValueError for a bad one.
        tokenizer: once loaded, captions to int64 [n, length], called in the workers; None where they are not read.
        parted: the samples that one of a shard's is scored as; called in the workers.
        row_of: a sample to its row, with `uid`, and with `text` where captions are read; called in the workers; raises
            ValueError for one that cannot be scored.
        conventions: once loaded, what is recorded of the model besides.

    One that makes several things which are there or not for themselves has `products` instead of `made` and `identity`;
    one that needs more of a picture than it as it is has `look`.
    """

    made: Made
    identity: Identity
    pixels: "Callable[[bytes], torch.Tensor]"
    tokenizer: Any
    conventions: Mapping[str, Any] = {}
    parted: "Callable[[Sample], Sequence[Sample]]" = staticmethod(as_it_is)
    row_of: "Callable[[Sample], dict[str, Any]]" = staticmethod(row_of)

    def __init__(self, options: Any) -> None:
        self.options = options

    def __str__(self) -> str:
        """What scores, for the line that a run begins with."""
        return f"{self.identity.model} as {self.made.name}"

    @property
    def products(self) -> Sequence[Product]:
        """All that it makes."""
        return (Product(self.made, self.identity),)

    @property
    def look(self) -> Callable[[bytes, Set[str]], Seen]:
        """Once loaded, what becomes of a picture file where the products of these names are wanted; called in the
        workers, to which it is sent. It raises ValueError for a bad picture."""
        return OneView(self.pixels)

    def called(self, shard: "Shard") -> str:
        """The name of a shard, one of `shards=` alone, with folders parted by "/"; its files are called after it."""
        return shard.name

    def files_of(self, name: str) -> ShardFiles:
        """What the shard of this name becomes."""
        return ScoredShard(Path(self.options.out), name)

    def begin(self, shards: "Mapping[str, Shard]") -> None:
        """Look at the folder before anything is written there.

        Args:
            shards: all of `shards=`, whatever the part, by the names of their files.

        Raises:
            UserError: it holds metadata of other origin, beside which every sample would stand twice.
        """
        for path in files_in(Path(self.options.out), "*.parquet"):
            if path.stem not in shards and not is_scored(path):
                raise UserError(
                    f"{path} is metadata of no shard of shards=: the pool would have samples twice; choose another out="
                )

    @abstractmethod
    def load(self, device: "torch.device") -> None:
        """Load what scores onto the device, once, before the first batch.

        Raises:
            UserError: the weights cannot be loaded.
        """

    @abstractmethod
    def score(self, batch: "Batch", clock: Clock) -> Scores:
        """The columns and arrays of a batch's rows, at least those of the products that are `wanted` of them; `clock`
        is told what the time goes into.

        Raises:
            UserError: numbers that are not finite, as a diverged model gives.
        """

    def finish(self, every: Sequence[Part], ours: Sequence[Part]) -> None:  # noqa: B027 (most have nothing to do)
        """What is left to do when all of our shards, of every one that `shards=` names, are through.

        Raises:
            UserError: it cannot be done.
        """
