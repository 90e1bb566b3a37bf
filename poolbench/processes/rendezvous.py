"""The store by which the processes of a job find each other: the first one serves it, the others connect."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import cache, partial
from typing import TypeVar

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from poolbench.errors import UserError, first_line
from poolbench.processes.place import Place

ARRIVAL = 600.0  # seconds within which all processes have to come
NOTICE = 5.0  # seconds, after which it is told who is waited for
ANSWER = 40.0  # seconds in which a store that was reached has to answer
_OPERATION = timedelta(seconds=60)

Value = TypeVar("Value")


class ArrivalTimeout:
    """Waiting for processes that may come late, or never."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._began, self._told = time.monotonic(), False

    def check(self, missing: Callable[[], str], *, loud: bool) -> None:
        """Called now and then while something is `missing`: tells of it once, if `loud`.

        Raises:
            UserError: it did not come in time.
        """
        waited, place = time.monotonic() - self._began, self._place
        where = f"process {place.rank} of {place.size}"
        if waited > ARRIVAL:
            raise UserError(f"{where}: {missing()} did not come within {ARRIVAL:.0f} s; {place.advice}")
        if loud and not self._told and waited > NOTICE:
            self._told = True
            line = f"{where} waits for {missing()}, up to {ARRIVAL:.0f} s; {place.advice}"
            print(line, file=sys.stderr, flush=True)


def connect(place: Place, timeout: ArrivalTimeout) -> TCPStore:
    """A new connection to the store of the job, which the first process serves where torchrun does not.

    Raises:
        UserError: the first process did not come in time, or cannot be reached.
    """
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    served = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # by torchrun, before it started us
    try:
        if place.rank == 0 and not served:
            _answered(partial(_serve, address, port))
        else:
            _await(place, address, port, timeout)
        return _answered(partial(TCPStore, address, port, is_master=False, wait_for_workers=False, timeout=_OPERATION))
    except (RuntimeError, TimeoutError) as error:  # torch's, ours
        what = f"{address}:{port} (MASTER_ADDR, MASTER_PORT)"
        if place.rank == 0 and not served:
            hint = "is the port in use, or the address that of another machine? set MASTER_PORT, or MASTER_ADDR"
            raise UserError(f"process 0 of {place.size} cannot listen at {what}: {first_line(error)}; {hint}") from None
        raise UserError(
            f"process {place.rank} of {place.size}: process 0 does not answer at {what}: {first_line(error)}; it ended "
            "early, or the port is that of another program"
        ) from None


@cache
def _serve(address: str, port: int) -> TCPStore:
    """The store, for as long as this process lives: the others may ask it last, and the next run of a sweep again."""
    return TCPStore(address, port, is_master=True, wait_for_workers=False, timeout=_OPERATION)


def _await(place: Place, address: str, port: int, timeout: ArrivalTimeout) -> None:
    """Return once something listens there. torch's own attempts would print a traceback each."""
    pause = 0.02  # seconds
    while True:
        try:
            socket.create_connection((address, port), timeout=2).close()
            return
        except OSError as error:
            problem = error
        # One of those that wait for the first process is enough to tell of it.
        timeout.check(
            lambda problem=problem: f"process 0 at {address}:{port} ({problem.strerror or problem})",  # type: ignore[misc]
            loud=place.rank == 1,
        )
        time.sleep(pause)
        pause = min(1.0, 2 * pause)


def _answered(call: Callable[[], Value]) -> Value:
    """What `call` returns. Done beside this thread, which still hears signals: a process at the other end that is
    suspended never answers.

    Raises:
        TimeoutError: nothing came within ANSWER seconds.
        Exception: what `call` raised.
    """
    outcome: list[Value] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            outcome.append(call())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(ANSWER)
    if errors:
        raise errors[0]
    if not outcome:
        raise TimeoutError(f"no answer within {ANSWER:.0f} s")
    return outcome[0]
