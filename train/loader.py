"""From streams to batches: workers decode the samples of their streams, the process puts its share of each batch
together."""

import contextlib
import math
from collections.abc import Iterator
from functools import partial
from multiprocessing.sharedctypes import RawValue
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from poolbench.errors import UserError
from poolbench.processes.preemption import leave_stopping_to_parent
from poolbench.shards.samples import Problem
from poolbench.shards.workers import Iterated, begin_worker, shared_bytes

from train.crop import decode, draw_box, resized_crop
from train.order import CROP, SPARE, Cursor, Item, Plan, Stream, Taken, keyed

AHEAD = 2  # batches that the workers prepare while one is in use


class Share(NamedTuple):
    """Which part of every batch belongs to this process, and where the run begins."""

    rank: int
    world_size: int
    batch_size: int  # of all processes together
    samples: int  # of the whole run
    streams: int
    first_step: int
    cursors: dict[int, Cursor]  # by stream, of the streams already begun

    @property
    def steps(self) -> range:
        """The steps to come, up to the end of the budget."""
        return range(self.first_step, -(-self.samples // self.batch_size))

    def size(self, step: int) -> int:
        """Samples of the batch of a step over all processes; the last batch may be smaller."""
        return min(self.batch_size, self.samples - step * self.batch_size)


class Batch(NamedTuple):
    """This process's share of one global batch, in the order of the batch."""

    images: torch.Tensor  # uint8 [n, 3, size, size]; a later batch takes its memory once the next one is asked for
    texts: torch.Tensor  # int64 [n, context length]
    cursors: dict[int, Cursor]  # where this process's streams can be taken up behind this batch
    problems: list[Problem]
    shards: int  # opened by this process since the last batch
    retries: int  # of reads that failed and went well later; of no consequence but for the time


class _Chunk(NamedTuple):
    """What one worker contributes to a batch, beside the pictures. `failure` is an error that ends the run."""

    rows: list[int]
    texts: torch.Tensor
    cursors: dict[int, Cursor]
    problems: list[Problem]
    shards: int
    retries: int
    failure: str


class _Chunks(IterableDataset[_Chunk]):
    """The chunks of one worker, one for each batch from `share.first_step` on.

    `images` is uint8 [batches, n, 3, size, size], the memory of the pictures of that many batches in turn. All workers
    write into it, each its rows.
    """

    def __init__(
        self, plan: Plan, share: Share, images: torch.Tensor, crop_scale: tuple[float, float], tokenizer: Any
    ) -> None:
        self.plan, self.share, self.tokenizer = plan, share, tokenizer
        self.images, self.crop_scale = images, crop_scale

    def images_of(self, step: int) -> torch.Tensor:
        """Those of a batch, whose memory was that of an earlier one: as many before as `images` has."""
        return self.images[step % len(self.images), : self.share.size(step) // self.share.world_size]

    def __iter__(self) -> Iterator[_Chunk]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        try:
            yield from self._chunks(worker, workers)
        except UserError as error:
            # A worker's exception would reach the user wrapped in two tracebacks.
            yield _Chunk([], torch.empty(0), {}, [], 0, 0, str(error))

    def _chunks(self, worker: int, workers: int) -> Iterator[_Chunk]:
        share, streams = self.share, dict[int, Stream]()
        for step in share.steps:
            first, images = step * share.batch_size, self.images_of(step)
            rows, captions, problems, shards, retries = [], [], [], 0, 0
            for row, position in enumerate(range(share.rank, share.size(step), share.world_size)):
                place, index = divmod(first + position, share.streams)
                if self._worker_of(index, row, workers) != worker:
                    continue
                if index not in streams:
                    streams[index] = Stream(self.plan, index, share.cursors.get(index))
                taken = streams[index].take(place)
                images[row], caption, bad = self._decode(taken, index, place)
                rows.append(row)
                captions.append(caption)
                problems += bad
                shards += taken.shards
                retries += taken.retries
            cursors = {index: stream.cursor for index, stream in streams.items()}
            texts = self.tokenizer(captions) if captions else torch.empty((0, 0), dtype=torch.int64)
            yield _Chunk(rows, texts, cursors, problems, shards, retries, "")

    def _worker_of(self, index: int, row: int, workers: int) -> int:
        """Who serves a row.

        A process meets every gcd-th stream. Each is read by one worker as long as there are enough of them for all,
        else each worker reads one and decodes its share of that one's rows.
        """
        common = math.gcd(self.share.world_size, self.share.streams)
        streams = self.share.streams // common
        stream = index // common
        if streams >= workers:
            return stream % workers
        readers = range(stream, workers, streams)
        return readers[row // streams % len(readers)]

    def _decode(self, taken: Taken, stream: int, place: int) -> tuple[torch.Tensor, str, list[Problem]]:
        """Decode and crop a sample, or the first of its block's reserve that can be decoded."""
        problems = list(taken.problems)
        for item in (taken.item, *self._spares(taken.spares, stream, place)):
            try:
                image = decode(item.image)
            except ValueError as error:
                problems.append(Problem(item.shard, item.key, str(error)))
                continue
            rng = keyed(self.plan.seed, CROP, stream, place)
            box = draw_box(image.shape[1], image.shape[2], self.crop_scale, rng)
            return resized_crop(image, box, self.images.shape[-1]), item.caption, problems
        raise UserError(f"no image near {taken.item.key} of {taken.item.shard} can be decoded: {problems[-1].reason}")

    def _spares(self, spares: list[Item], stream: int, place: int) -> Iterator[Item]:
        start = int(keyed(self.plan.seed, SPARE, stream, place).random() * len(spares))
        yield from spares[start:] + spares[:start]


def batches(
    plan: Plan,
    share: Share,
    *,
    size: int,
    crop_scale: tuple[float, float],
    tokenizer: Any,
    workers: int,
    pin: bool,
) -> Iterator[Batch]:
    """Yield this process's share of every batch from `share.first_step` to the end of the budget.

    Args:
        size: side of the images in pixels.
        workers: processes that read and decode; 0 does it in this one. The batches are the same for any number.
        pin: pictures in page-locked memory, from which a GPU copies without waiting; captions are sorted into other
            memory first (poolbench/models/texts.py).

    Raises:
        UserError: the data have nothing to train on.
    """
    cursors = dict(share.cursors)
    one = (share.batch_size // share.world_size, 3, size, size)
    images = shared_bytes((AHEAD + 1, *one)) if workers else torch.empty((1, *one), dtype=torch.uint8)
    dataset = _Chunks(plan, share, images, crop_scale, tokenizer)
    with _served(dataset, workers) as chunks:
        for step in share.steps:
            parts = [next(chunks) for _ in range(max(1, workers))]
            for part in parts:
                if part.failure:
                    raise UserError(part.failure)
                cursors.update(part.cursors)
            problems = [problem for part in parts for problem in part.problems]
            shards, retries = sum(part.shards for part in parts), sum(part.retries for part in parts)
            images, texts = dataset.images_of(step), _joined(parts, share.size(step) // share.world_size)
            yield Batch(images.pin_memory() if pin else images, texts, dict(cursors), problems, shards, retries)


@contextlib.contextmanager
def _served(dataset: _Chunks, workers: int) -> Iterator[Iterator[_Chunk]]:
    """The chunks of all workers in turn. The workers end with the block, also those that wait for a slow read."""
    ended = RawValue("b", 0)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        worker_init_fn=partial(_start_worker, ended),
    )
    chunks = None
    try:
        chunks = Iterated(loader)
        yield chunks
    finally:
        ended.value = 1  # for those whose start failed in the middle, too
        if chunks is not None:
            chunks.end()


def _start_worker(ended: Any, worker: int) -> None:
    leave_stopping_to_parent(lambda: bool(ended.value))
    begin_worker()


def _joined(parts: list[_Chunk], count: int) -> torch.Tensor:
    """The captions of a batch in its order."""
    parts = [part for part in parts if part.rows]
    assert sum(len(part.rows) for part in parts) == count
    texts = torch.empty((count, *parts[0].texts.shape[1:]), dtype=torch.int64)
    for part in parts:
        texts[part.rows] = part.texts
    return texts
