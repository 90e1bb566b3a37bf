"""Data workers that send messages about whole shards, for evaluating and scoring."""

import signal
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from poolbench.shards.workers import begin_worker

Message = TypeVar("Message")


def loader_of(stream: IterableDataset[Message], workers: int, device: torch.device) -> DataLoader[Message]:
    """A loader over the stream; with `workers` = 0 everything happens in this process."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_begin_worker,
        # A worker's messages stay in order; those of different workers need none, and a slow shard holds up nobody.
        in_order=False,
        pin_memory=device.type == "cuda",
    )


def _begin_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends us
    begin_worker()


def _unchanged(message: Any) -> Any:
    return message
