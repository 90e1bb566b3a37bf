"""Data workers, the processes of a DataLoader: those that send messages about whole shards, for evaluating and scoring,
and of all of them why one could not go on, in one line, and what to do about it."""

import errno
import multiprocessing
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import RawArray
from multiprocessing.synchronize import Event
from typing import Any, TypeVar, cast

import torch
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, IterableDataset

from poolbench.errors import UserError, first_line
from poolbench.machine import end_with_parent
from poolbench.processes.pool import deaf_to_interrupts, held

_SHARED = "shared memory (/dev/shm) is full: `docker run --shm-size=8g` gives more, and {option}=0 needs none"
# Of a /dev/shm that is no use, or of a limit on files, which holds for it too.
_NO_SHARED = (errno.ENOSPC, errno.EFBIG, errno.ENOENT, errno.EACCES, errno.EROFS, errno.ENOSYS)

Message = TypeVar("Message")

_said: Any = None  # by a worker of this process, why it could not hand over what it read


def loader_of(stream: IterableDataset[Message], workers: int, device: torch.device) -> DataLoader[Message]:
    """A loader over the stream; with `workers` = 0 everything happens in this process."""
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_begin,
        # A worker's messages stay in order; those of different workers need none, and a slow shard holds up nobody.
        in_order=False,
        pin_memory=device.type == "cuda",
    )


def _begin(worker: int) -> None:
    begin_worker()


def _unchanged(message: Any) -> Any:
    return message


class StartError(RuntimeError):
    """Workers cannot be started, for `reason`."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def shared_bytes(shape: Sequence[int]) -> torch.Tensor:
    """Memory that the workers to come share with this process: uint8 of this shape, with anything in it.

    What is written there needs no handing over. Memory made anew for each message costs page faults, which take longer
    than writing the pages.

    Raises:
        StartError: there is no room, or another reason for which it cannot be shared.
    """
    try:
        memory = torch.empty(tuple(shape), dtype=torch.uint8)
        memory.share_memory_()  # type: ignore[no-untyped-call]
        return memory
    except RuntimeError as error:  # torch's word for whatever goes wrong, with its number at the end
        text = first_line(error)
        number = re.search(r"\(([0-9]+)\)$", text)
        raise StartError(OSError(int(number[1]) if number else errno.ENOSPC, text)) from None


class _Ending:
    """The event by which torch tells its workers to end, for the process that sets it.

    Its lock is not taken, which nobody needs where one process sets and none waits: a worker that is suspended or dies
    while it looks holds that lock for good, and torch looks whenever a worker died.
    """

    def __init__(self, shared: Event) -> None:
        self._shared, self._set = shared, False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if not self._set:
            self._shared._flag.release()  # type: ignore[attr-defined]
        self._set = True


class Iterated(Iterator[Message]):
    """The messages of a loader, its workers started; they end with the `with` block.

    Raises:
        StartError: there is no room for what they share, or for them.
    """

    def __init__(self, loader: DataLoader[Message]) -> None:
        global _said
        try:
            _said = RawArray("c", 400)
            if loader.num_workers:  # tried before, as torch leaves half a loader behind where it fails in the middle
                [multiprocessing.Queue() for _ in range(loader.num_workers + 1)]
            with held():
                self._messages = cast(Any, iter(loader))
        except OSError as error:
            raise StartError(error) from None
        self._workers: list[BaseProcess] = getattr(self._messages, "_workers", [])
        if self._workers:
            self._messages._workers_done_event = _Ending(self._messages._workers_done_event)

    def __enter__(self) -> "Iterated[Message]":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.end()

    def __next__(self) -> Message:
        try:
            message: Message = next(self._messages)
        except (OSError, EOFError, RuntimeError) as error:
            # A tensor is fetched from the worker, which may have died when the message is there.
            lost = isinstance(error, ConnectionError | EOFError | FileNotFoundError) or "ancdata" in str(error)
            if lost and self._workers and not first_line(error).startswith("Caught"):
                self.end()
                raise RuntimeError("DataLoader worker died before all of its message was there") from None
            raise
        return message

    def end(self) -> None:
        """End the workers, whatever they do; they leave at SIGTERM if it is to go without a wait."""
        if not self._workers:
            return
        if self._messages._worker_pids_set:  # else torch tells of one that ended by raising an error wherever we are
            _remove_worker_pids(id(self._messages))
            self._messages._worker_pids_set = False
        for process in self._workers:
            process.terminate()
        self._messages._shutdown_workers()
        for process in self._workers:
            process.kill()  # one that is suspended hears nothing else


def begin_worker() -> None:
    """In a worker: end it where a message cannot be handed over, which by default is dropped and waited for forever;
    leave Ctrl-C to its parent, and end it with that one, which torch does not while what it read fills a pipe."""
    Queue._on_queue_feeder_error = staticmethod(partial(_quit, _said))  # type: ignore[attr-defined]
    deaf_to_interrupts()
    end_with_parent()


def _quit(said: Any, error: Exception, message: object) -> None:
    said.value = first_line(error).encode()[:399]
    os._exit(1)  # of which the process that started us hears


@contextmanager
def readable_errors(option: str) -> Iterator[None]:
    """For whatever is done while there are workers: torch tells of one that died wherever their process happens to be.

    `option` sets how many workers there are.

    Raises:
        UserError: a worker died, or none could be started.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        advice = advice_on(error, option)
        if advice is None:
            raise
        raise UserError(advice) from error


def advice_on(error: BaseException, option: str) -> str | None:
    """What the user can do about a worker that died or could not be started; None for any other error."""
    text, said = first_line(error), _said.value.decode(errors="replace") if _said is not None else ""
    if isinstance(error, StartError):
        hint = _SHARED if error.reason.errno in _NO_SHARED else "{option}=0 needs none"
        return f"data workers cannot be started ({error}); {hint.format(option=option)}"
    if isinstance(error, MemoryError) and "DataLoader worker" in text:
        return f"the memory ran out in a data worker; fewer {option} need less of it"
    if not isinstance(error, RuntimeError) or not text.startswith("DataLoader worker"):
        return None
    # torch's shared memory is a file /torch_<numbers>, which a limit on files (ulimit -f) holds for too.
    if "Bus error" in text or ("</torch_" in said and "Too many open" not in said):
        return f"{_SHARED.format(option=option)} ({said or text})"
    if said:
        return f"a data worker cannot hand over what it read: {said}; {option}=0 does without workers"
    return (
        f"{text.rstrip('.')}; if the memory ran out (dmesg tells), fewer {option} need less of it; if "
        f"{_SHARED.format(option=option)}"
    )
