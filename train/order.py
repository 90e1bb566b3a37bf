"""The order of samples: a function of seed, data and position alone.

A run draws from a fixed number of virtual streams (`recipe.streams`). Sample g of the run (counted over all batches) is
sample g // streams of stream g % streams. A stream draws shards with replacement, reads each from front to back, and
shuffles within blocks of `recipe.shuffle_buffer` samples. Nothing here knows how many processes or workers there are:
they only divide the streams among themselves. docs/order.md has the reasons.

All randomness is keyed (seed, purpose, stream, position), never carried along, so a stream can be taken up at the start
of any block with nothing but a Cursor of four integers.
"""

import bisect
import functools
import hashlib
import itertools
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from poolbench.errors import UserError
from poolbench.remote import Tally
from poolbench.shards.samples import Problem, Reasons, Sample, read_shard, shortened
from poolbench.shards.sources import Shard
from poolbench.subset import Subset

FUTILE_DRAWS = 200  # shards in a row without one usable sample, after which more will not help
UNREACHABLE = 2  # shards in a row that a store does not give after all our patience: it is down, not they
RESERVE = 16  # samples of a block kept for those that turn out not to decode
_SHARD, _SHUFFLE, CROP, SPARE = range(4)  # purposes of random numbers


class Item(NamedTuple):
    """A caption and the bytes of its image."""

    shard: str
    key: str
    image: bytes
    caption: str


class Cursor(NamedTuple):
    """Where a block begins: its number, its first sample's position in the stream, the draw of a shard and the items
    already taken from it."""

    block: int = 0
    first: int = 0
    draw: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Plan:
    """What determines the order."""

    shards: list[Shard]
    subset: Subset | None
    seed: int
    buffer: int

    @functools.cached_property
    def totals(self) -> list[float]:
        """The running sum of the shards' weights, which all streams draw by."""
        return list(itertools.accumulate(shard.weight for shard in self.shards))


class Taken(NamedTuple):
    """A sample, the ones that stand in for it should it not decode, and what was wrong with the block's shards (told
    once, with the block's first sample)."""

    item: Item
    spares: list[Item]
    problems: list[Problem]
    shards: int  # opened for the block; told once, too
    retries: int  # of reads from a store, for the block; told once, too


def keyed(*key: int) -> random.Random:
    """A generator that depends on `key` alone. Only its `random()` may be used: Python promises that one never
    changes."""
    return random.Random(
        int.from_bytes(hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=16).digest(), "little")
    )


class Stream:
    """One virtual stream. `take` must be called with rising positions; positions may be left out."""

    def __init__(self, plan: Plan, index: int, cursor: Cursor | None = None) -> None:
        self._plan, self._index = plan, index
        cursor = cursor or Cursor()
        self._at = cursor  # where reading stands: the draw and the items taken from it
        self._opened = 0  # shards, since the last item or problem
        self._tally = Tally()  # of reading, since the last item or problem
        self._reader = self._read(cursor)
        self._block = _Block(cursor, self._size(cursor.block))
        self._next: _Block | None = None
        self._fill(self._block, self._block.size)

    @property
    def cursor(self) -> Cursor:
        """From which the stream can be taken up so that it goes on behind the last sample taken."""
        return self._block.start

    def take(self, position: int) -> Taken:
        """The sample at `position` of this stream.

        Raises:
            UserError: no shard has anything to train on.
        """
        while position >= self._block.start.first + self._block.size:
            following = self._following()
            self._fill(following, following.size)
            self._block, self._next = following, None
        block = self._block
        place = position - block.start.first
        # The next block fills while this one empties: reading stays even and memory at about one buffer.
        following = self._following()
        self._fill(following, following.size * (place + 1) // block.size)
        item = block.take(self._shuffled(block)[place])
        if place == 0:
            return Taken(item, block.reserve, block.problems, block.shards, block.retries)
        return Taken(item, block.reserve, [], 0, 0)

    def _following(self) -> "_Block":
        if self._next is None:
            number, first = self._block.start.block + 1, self._block.start.first + self._block.size
            # Where the next block begins is known only now that this one is whole.
            self._next = _Block(Cursor(number, first, self._at.draw, self._at.offset), self._size(number))
        return self._next

    def _size(self, block: int) -> int:
        """Blocks grow to the size of the buffer, so that the first batch does not wait for a whole one."""
        return min(self._plan.buffer, max(1, self._plan.buffer // 10) << min(block, 8))

    def _shuffled(self, block: "_Block") -> list[int]:
        if not block.order:
            rng = keyed(self._plan.seed, _SHUFFLE, self._index, block.start.block)
            ranks = [rng.random() for _ in range(block.size)]
            block.order = sorted(range(block.size), key=ranks.__getitem__)
        return block.order

    def _fill(self, block: "_Block", target: int) -> None:
        while len(block.items) < target:
            found = next(self._reader)
            block.shards += self._opened
            block.retries += self._tally.retries
            self._opened = self._tally.retries = 0
            if isinstance(found, Problem):
                block.problems.append(found)
            else:
                block.put(found)

    def _read(self, cursor: Cursor) -> Iterator[Item | Problem]:
        """Items and problems from the cursor on, without end."""
        skip, futile, unreachable = cursor.offset, 0, 0
        reasons = Reasons()  # since the last item
        for draw in itertools.count(cursor.draw):
            self._at = self._at._replace(draw=draw, offset=0)
            self._opened += skip == 0  # one taken up in its middle was counted when it was begun
            self._tally.given_up = 0
            for found in self._read_shard(draw):
                if isinstance(found, Item):
                    futile = -1
                    reasons = Reasons() if reasons else reasons
                    self._at = self._at._replace(offset=self._at.offset + 1)
                    if self._at.offset <= skip:
                        continue
                    yield found
                elif self._at.offset >= skip:
                    reasons.add(found)
                    yield found
            skip = 0
            unreachable = unreachable + 1 if self._tally.given_up else 0
            if unreachable == UNREACHABLE:
                raise UserError(
                    f"{unreachable} shards in a row could not be reached, the last was {self._shard(draw).path}"
                )
            futile += 1
            if futile >= FUTILE_DRAWS:
                what = "of the subset" if self._plan.subset else "with an image and a caption"
                raise UserError(
                    f"{futile} shards in a row held no sample {what}, the last was {self._shard(draw).path}"
                    f"{reasons.commonest()}"
                )

    def _shard(self, draw: int) -> Shard:
        totals = self._plan.totals
        point = keyed(self._plan.seed, _SHARD, self._index, draw).random() * totals[-1]
        place = min(bisect.bisect_right(totals, point), len(totals) - 1)
        return self._plan.shards[place]

    def _read_shard(self, draw: int) -> Iterator[Item | Problem]:
        path, _, size, _ = self._shard(draw)
        for sample in read_shard(path, size, self._tally):
            if isinstance(sample, Problem):
                yield sample
                continue
            times = 1
            if self._plan.subset is not None:
                try:
                    times = self._plan.subset.count(sample.record()["uid"])
                except ValueError as error:
                    yield Problem(path, sample.key, str(error))
                    continue
            if times:
                item = _item(path, sample)
                for _ in range(times):
                    yield item


class _Block:
    """Samples that are shuffled among themselves. Those taken are let go, but for the reserve."""

    def __init__(self, start: Cursor, size: int) -> None:
        self.start, self.size = start, size
        self.items: list[Item | None] = []
        self.order: list[int] = []
        self.reserve: list[Item] = []
        self.problems: list[Problem] = []
        self.shards = self.retries = 0

    def put(self, item: Item) -> None:
        self.items.append(item)
        if len(self.reserve) < RESERVE:
            self.reserve.append(item)

    def take(self, place: int) -> Item:
        item = self.items[place]
        assert item is not None, "positions of a stream must rise"
        self.items[place] = None
        return item


def _item(shard: str, sample: Sample) -> Item | Problem:
    """The image and caption of a sample, or what it lacks."""
    try:
        return Item(shard, sample.key, sample.picture(), shortened(sample.caption()))
    except ValueError as error:
        return Problem(shard, sample.key, str(error))
