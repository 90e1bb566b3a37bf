"""Data workers that cannot go on: nobody waits for them, and one line says what to do."""

import contextlib
import multiprocessing
import multiprocessing.synchronize
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset
from torch.utils.data._utils import worker
from waiting import runs, until

from poolbench.errors import UserError
from poolbench.shards.workers import Iterated, loader_of, readable_errors, shared_bytes

FORK = multiprocessing.get_context("fork")
FAULTS = {
    "shared memory": r"shared memory .* --shm-size=8g` gives more, and workers=0 needs none",
    "bus error": r".*shared memory .* --shm-size=8g` gives more, and workers=0 needs none",
    "killed": r"DataLoader worker .*; if the memory ran out .* fewer workers .*; if shared memory .* --shm-size",
    "killed in a lock": r"DataLoader worker .*; if the memory ran out .* fewer workers .*",
    "exit": r"DataLoader worker .*; if the memory ran out .* fewer workers .*; if shared memory .* --shm-size",
    "memory": r"the memory ran out in a data worker; fewer workers need less of it$",
    "not to be sent": r"a data worker cannot hand over what it read: .*lambda.*; workers=0 does without",
}


class Faulty(IterableDataset[Any]):
    """Messages, among them one that does not arrive."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __iter__(self) -> Iterator[Any]:
        yield torch.zeros(1)
        if self.fault == "shared memory":
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        elif self.fault == "exit":
            os._exit(3)
        elif self.fault == "memory":
            raise MemoryError
        elif self.fault == "mistake":
            raise KeyError("a mistake of ours")
        elif self.fault in ("bus error", "killed"):
            os.kill(os.getpid(), signal.SIGBUS if self.fault == "bus error" else signal.SIGKILL)
        elif self.fault in ("killed in a lock", "suspended in a lock"):
            _in_a_lock(signal.SIGKILL if self.fault == "killed in a lock" else signal.SIGSTOP)
        yield (lambda: None) if self.fault == "not to be sent" else torch.zeros(100_000)
        yield torch.zeros(100_000)


def _in_a_lock(number: signal.Signals) -> None:
    """A signal to this worker as soon as it looks whether it is to end, for which it takes a lock of all processes."""

    def is_set(event: Any) -> bool:
        with event._cond:
            os.kill(os.getpid(), number)
        return False

    multiprocessing.synchronize.Event.is_set = is_set  # type: ignore[method-assign]


def outcome(fault: str, files: int | None = None) -> str:
    """What comes of reading the messages, in a process of its own: torch tells it of a dead worker wherever it is."""
    return _answer(_read, fault, files)


def _answer(work: Callable[..., None], *arguments: Any) -> str:
    """What a process that does `work` sends; it ends."""
    receiving, sending = FORK.Pipe(duplex=False)
    process = FORK.Process(target=work, args=(*arguments, sending))
    process.start()
    try:
        assert receiving.poll(240), "it hangs"
        answer = str(receiving.recv())
        process.join(240)
        assert process.exitcode == 0, "it hangs at its end"
        return answer
    finally:
        process.kill()


def _read(fault: str, files: int | None, sending: Connection) -> None:
    loader = loader_of(Faulty(fault), 1, torch.device("cpu"))
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    try:
        with readable_errors("workers"), Iterated(loader) as messages:
            list(messages)
    except Exception as error:
        sending.send(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_worker_that_cannot_go_on_is_told_in_one_line(fault: str) -> None:
    told = outcome(fault)
    assert re.search(rf"^UserError: {FAULTS[fault]}", told), told
    assert "\n" not in told


def test_a_worker_that_is_suspended_in_a_lock_holds_up_nobody() -> None:
    assert _answer(_end_suspended) == "ended"


def _end_suspended(sending: Connection) -> None:
    messages = Iterated(loader_of(Faulty("suspended in a lock"), 1, torch.device("cpu")))
    next(messages)
    (worker,) = multiprocessing.active_children()
    os.waitid(os.P_PID, worker.pid or 0, os.WSTOPPED | os.WNOWAIT)
    messages.end()
    worker.join(240)
    sending.send("ended" if worker.exitcode is not None else "still there")


class Verbose(IterableDataset[Any]):
    """Messages that fill the pipe to whoever reads them."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def __iter__(self) -> Iterator[Any]:
        (self.folder / str(os.getpid())).touch()
        while True:
            yield bytes(1_000_000)


def test_no_worker_outlives_a_process_that_is_killed(tmp_path: Path) -> None:
    """By itself it would wait until somebody reads what it has sent."""
    receiving, sending = FORK.Pipe(duplex=False)
    process = FORK.Process(target=_read_nothing, args=(tmp_path, sending))
    process.start()
    assert receiving.poll(240)
    until(lambda: len(list(tmp_path.iterdir())) == 2)
    process.kill()
    process.join()
    workers = [int(path.name) for path in tmp_path.iterdir()]
    try:
        until(lambda: not any(runs(pid) for pid in workers))
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _read_nothing(folder: Path, sending: Connection) -> None:
    with Iterated(loader_of(Verbose(folder), 2, torch.device("cpu"))) as messages:
        next(messages)
        sending.send("begun")
        signal.pause()


def test_an_interrupt_of_all_while_a_worker_starts_is_not_its_own() -> None:
    assert _answer(_start_interrupted) == "torch.Size([1])"


def _start_interrupted(sending: Connection) -> None:
    loops = worker._worker_loop

    def interrupted(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        loops(*arguments)

    worker._worker_loop = interrupted
    with Iterated(loader_of(Faulty("none"), 1, torch.device("cpu"))) as messages:
        sending.send(next(messages).shape)


def test_an_interrupt_ends_a_suspended_worker() -> None:
    assert _answer(_interrupt_suspended) == "interrupted"


def _interrupt_suspended(sending: Connection) -> None:
    try:
        with Iterated(loader_of(Faulty("suspended in a lock"), 1, torch.device("cpu"))) as messages:
            next(messages)
            (suspended,) = multiprocessing.active_children()
            os.waitid(os.P_PID, suspended.pid or 0, os.WSTOPPED | os.WNOWAIT)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        sending.send("interrupted")


def test_a_death_that_is_told_is_not_told_again_while_the_workers_end() -> None:
    assert _answer(_end_behind_a_death) == "ended"


def _end_behind_a_death(sending: Connection) -> None:
    messages = Iterated(loader_of(Faulty("exit"), 1, torch.device("cpu")))
    with contextlib.suppress(RuntimeError):
        list(messages)
    shut_down = messages._messages._shutdown_workers

    def hear_and_shut_down() -> None:
        signal.raise_signal(signal.SIGCHLD)
        shut_down()

    messages._messages._shutdown_workers = hear_and_shut_down
    messages.end()
    sending.send("ended")


def test_a_mistake_in_a_worker_keeps_its_traceback() -> None:
    told = outcome("mistake")
    assert told.startswith("KeyError") and "a mistake of ours" in told and "test_workers.py" in told


def test_workers_that_cannot_be_started_are_told() -> None:
    told = outcome("", files=3)
    assert re.search(r"^UserError: data workers cannot be started \(.*Too many.*\); workers=0 needs none$", told), told


def test_memory_that_cannot_be_shared_is_told() -> None:
    """The limit on files holds for shared memory, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        told = r"^data workers cannot be started .* --shm-size=8g` .* workers=0 needs none$"
        with pytest.raises(UserError, match=told), readable_errors("workers"):
            shared_bytes((100, 1000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    found = shared_bytes((100, 1000))
    assert found.is_shared() and found.shape == (100, 1000) and found.dtype == torch.uint8


def test_memory_that_is_there_and_cannot_be_shared_is_no_full_one() -> None:
    """Files that may be open at once, none of which is left."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # those that there are stay open
        with pytest.raises(UserError) as told, readable_errors("workers"):
            shared_bytes((1, 1))
    assert re.fullmatch(
        r"data workers cannot be started \(.*Too many open files.*\); workers=0 needs none", str(told.value)
    )
