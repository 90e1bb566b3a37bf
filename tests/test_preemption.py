"""Requests to stop that come while a process waits."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from waiting import until

from poolbench.processes.preemption import GracePeriodOver, Preemption, preemption_signals


@pytest.fixture
def preemption() -> Iterator[Preemption]:
    with preemption_signals() as preemption:
        preemption.defer()
        yield preemption


@pytest.fixture
def silent() -> Iterator[int]:
    """A pipe from which nothing comes."""
    reading, writing = os.pipe()
    yield reading
    os.close(reading)
    os.close(writing)


def asleep() -> bool:
    """Whether the main thread waits for something."""
    stat = Path(f"/proc/self/task/{threading.main_thread().native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "S"


def asks_once_asleep(preemption: Preemption) -> threading.Thread:
    """A thread that takes a request to stop itself, as it may where the main one is about to hear of something else."""

    def ask() -> None:
        until(asleep)
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    return threading.Thread(target=ask)


def test_a_request_that_another_thread_takes_is_heard(preemption: Preemption, silent: int) -> None:
    asking = asks_once_asleep(preemption)
    with pytest.raises(GracePeriodOver), preemption.waiting(0.5):
        asking.start()
        os.read(silent, 1)
    asking.join()
    assert preemption.asked == signal.SIGTERM


def test_what_clears_up_is_not_interrupted_again(preemption: Preemption, silent: int) -> None:
    cleared = []
    with pytest.raises(GracePeriodOver), preemption.waiting(0):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            os.read(silent, 1)
        finally:
            signal.raise_signal(signal.SIGALRM)  # another look
            cleared.append(True)
    assert cleared


def test_a_request_before_the_wait_leaves_what_comes_in_time(preemption: Preemption) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    with preemption.waiting(60):
        signal.raise_signal(signal.SIGALRM)  # a look, before the time is up
    assert preemption.asked == signal.SIGTERM
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
