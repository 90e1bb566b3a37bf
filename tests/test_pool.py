"""Pools of processes: a request to stop ends them at once, at any moment, and none outlives who started it."""

import contextlib
import multiprocessing
import os
import re
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import process as executor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from forked import ROOT
from waiting import runs, until

from poolbench import PACKAGES
from poolbench.processes.pool import Pool

FORK = multiprocessing.get_context("fork")
METHODS = pytest.mark.parametrize("method", ["fork", "spawn"])


@contextlib.contextmanager
def started(work: Callable[..., None], *arguments: Any) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that does `work`; nothing of it is left behind the block."""
    process = FORK.Process(target=_in_a_group, args=(work, *arguments))
    process.start()
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()


def _in_a_group(work: Callable[..., None], *arguments: Any) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    work(*arguments)


def note_and_wait(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    threading.Event().wait()


@METHODS
def test_an_interrupt_waits_neither_for_the_work_nor_for_a_suspended_process(method: str, tmp_path: Path) -> None:
    def work() -> None:
        with contextlib.suppress(KeyboardInterrupt), Pool(2, method) as pool:
            for _ in range(2):
                pool.submit(note_and_wait, tmp_path)
            until(lambda: len(list(tmp_path.iterdir())) == 2)
            suspended = int(min(tmp_path.iterdir()).name)
            os.kill(suspended, signal.SIGSTOP)
            os.waitid(os.P_PID, suspended, os.WSTOPPED | os.WNOWAIT)
            raise KeyboardInterrupt

    with started(work) as process:
        process.join(240)
        assert process.exitcode == 0, "it hangs"
        until(lambda: not any(runs(int(path.name)) for path in tmp_path.iterdir()))


@METHODS
def test_an_interrupt_of_all_while_a_process_starts_is_not_its_own(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = FORK.Process.start if method == "fork" else multiprocessing.get_context(method).Process.start

    def interrupted(process: Any) -> None:
        begin(process)
        os.kill(process.pid, signal.SIGINT)

    monkeypatch.setattr(multiprocessing.get_context(method).Process, "start", interrupted)
    with Pool(1, method) as pool:
        assert pool.submit(abs, -3).result() == 3


def test_a_request_to_stop_all_ends_a_process_that_has_just_started(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Forked, it has the handler of the one that started it, which may raise."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    begin = FORK.Process.start

    def asked(process: Any) -> None:
        begin(process)
        os.kill(process.pid, signal.SIGTERM)

    monkeypatch.setattr(FORK.Process, "start", asked)
    try:
        with Pool(1, "fork") as pool, pytest.raises(BrokenProcessPool):
            pool.submit(abs, -3).result()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "Traceback" not in capfd.readouterr().err


@METHODS
def test_what_comes_while_processes_start_is_heard_behind(method: str) -> None:
    with started(_interrupted_while_one_starts, method) as process:
        process.join(240)
        assert process.exitcode == 0


def _interrupted_while_one_starts(method: str) -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()  # which takes the signals that this one holds
    kind = multiprocessing.get_context(method).Process
    begin, begun = kind.start, []

    def interrupted(process: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        begin(process)
        begun.append(process)

    kind.start = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), Pool(1, method) as pool:
        pool.submit(abs, -3)
    assert begun and not signal.pthread_sigmask(signal.SIG_BLOCK, []) & {signal.SIGINT, signal.SIGTERM}


def send_half_and_wait(folder: Path) -> None:
    """Sends the length of a result and its first bytes, as a large one begins that does not fit into the pipe."""
    results = sys._getframe(1).f_locals["result_queue"]
    os.write(results._writer.fileno(), struct.pack("!i", 1000) + b"half")
    note_and_wait(folder)


@METHODS
def test_an_interrupt_does_not_wait_for_the_rest_of_a_result(method: str, tmp_path: Path) -> None:
    def work() -> None:
        with contextlib.suppress(KeyboardInterrupt), Pool(2, method) as pool:
            pool.submit(send_half_and_wait, tmp_path)
            until(lambda: list(tmp_path.iterdir()))
            raise KeyboardInterrupt

    with started(work) as process:
        process.join(240)
        assert process.exitcode == 0, "it hangs"


@METHODS
def test_no_thread_is_left_where_a_pool_was_ended_at_once(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's end takes turns with one neither with a lock nor in silence (concurrent.futures.process)."""
    close = executor._ExecutorManagerThread.join_executor_internals

    def late(manager: Any) -> None:
        time.sleep(0.2)
        close(manager)

    monkeypatch.setattr(executor._ExecutorManagerThread, "join_executor_internals", late)
    before = set(threading.enumerate())
    with contextlib.suppress(KeyboardInterrupt), Pool(1, method) as pool:
        pool.submit(abs, -3).result()
        raise KeyboardInterrupt
    assert set(threading.enumerate()) <= before


@METHODS
def test_no_process_outlives_one_that_is_killed(method: str, tmp_path: Path) -> None:
    def work() -> None:
        with Pool(2, method) as pool:
            pool.submit(note_and_wait, tmp_path).result()

    with started(work) as process:
        until(lambda: list(tmp_path.iterdir()))
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
        until(lambda: not any(runs(int(pid)) for pid in children))


def test_there_is_no_other_kind_of_pool() -> None:
    texts = {
        path: path.read_text(encoding="utf-8")
        for one in ("poolbench", *PACKAGES)
        for path in (ROOT / one).rglob("*.py")
    }
    found = {path for path, text in texts.items() if re.search(r"ProcessPoolExecutor|\.Pool\(", text)}
    assert found == {ROOT / "poolbench/processes/pool.py"}
