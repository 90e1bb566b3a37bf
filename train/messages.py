"""Data workers that send messages about whole shards, for evaluating and scoring."""

import signal
from collections.abc import Iterator
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, IterableDataset

from conf.errors import UserError

Message = TypeVar("Message")


def loader_of(stream: IterableDataset[Message], workers: int, device: torch.device) -> DataLoader[Message]:
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


def readable_errors(messages: Iterator[Message]) -> Iterator[Message]:
    """The messages of a loader.

    Raises:
        UserError: a worker was killed.
    """
    try:
        yield from messages
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UserError("a worker was killed, probably for memory; lower workers= or batch_size=") from error


def _leave_interrupts_to_the_parent(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unchanged(message: Any) -> Any:
    return message
