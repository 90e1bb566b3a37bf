"""Processes that look after each other, so that a job ends as a whole: when one fails, is stopped, or is not heard of
any more, the others end too, where a collective operation would let them wait for many minutes.

Each process writes a heartbeat to the job's store, from the moment it has reached it. The first one reads all of them,
the others read the first one's.
"""

import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from poolbench.errors import INTERRUPTED, UserError, described, foreseen, tell
from poolbench.processes.rendezvous import ArrivalTimeout

INTERVAL = 2.0  # seconds between two heartbeats
TIMEOUT = 40.0  # seconds, after which a process counts as gone
GRACE = 10.0  # seconds in which a process that knows of the end may come to it by itself
_SUSPENDED = 10.0  # seconds between two of its own looks, after which a process was not running itself
_NAMED = 8  # of the processes that are waited for
_LIMIT = 45  # seconds for a process that failed to come to its end in whatever way
_PATIENCE = 3.0  # seconds to find out whether another process failed first


class RefusedError(UserError):
    """A process that does not belong to the others, which go on without it."""


class _End(NamedTuple):
    """Who ended the job, with which exit status, and why."""

    rank: int
    status: int
    reason: str


class Heartbeat:
    """This process's heartbeat, and its watch over the others that share a store, from `start` to `leave`.

    `job` tells one run of these processes from the next. `store` is a connection of its own: another one may be held
    for minutes by an operation that waits.
    """

    def __init__(self, job: str, store: TCPStore, rank: int, size: int) -> None:
        self._job, self._store, self._rank, self._size = job, store, rank, size
        self._silent = set(range(1, size) if rank == 0 else range(1)) - {rank}  # and not heard of so far
        self._beats = 0
        self._values: dict[int, bytes] = {}
        self._heard: dict[int, float] = {}
        self._hosts: dict[int, str] = {}
        self._sent = time.monotonic()
        self._end: _End | None = None
        self._refused = ""
        self._met = threading.Event()  # all processes have come, or this one is not to be among them
        self._left = threading.Event()

    def start(self) -> None:
        """Begin to beat, and to watch those that have come."""
        for task in (self._send, self._watch):
            threading.Thread(target=task, daemon=True).start()

    def meet(self, timeout: ArrivalTimeout) -> None:
        """Return once all processes have come.

        Raises:
            UserError: they did not in time.
            RefusedError: this process does not belong to them.
        """
        while not self._met.wait(INTERVAL / 4):
            timeout.check(self._missing, loud=self._rank == 0)
        if self._refused:
            self.leave()
            raise RefusedError(self._refused)

    def _missing(self) -> str:
        silent = sorted(self._silent)  # for a moment none, where the last one is just coming
        more = f" and {len(silent) - _NAMED} more" if len(silent) > _NAMED else ""
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        return f"process {', '.join(map(str, silent[:_NAMED]))}{more}, to come to {where}"

    def leave(self) -> None:
        """This process comes to its end in order."""
        self._left.set()

    def fail(self, error: BaseException) -> None:
        """Tell the others that `error` ends this process, and the user once. Still running GRACE later, it is ended.

        Raises:
            SystemExit: the user knows all there is to know of `error`.
        """
        signal.alarm(_LIMIT)  # which ends this process also where it hangs behind its last line of Python
        line = foreseen(error)
        said = "" if isinstance(error, SystemExit) else line or described(error)
        mine = _End(self._rank, _status(error), said)
        unforeseen = line is None and not isinstance(error, SystemExit)
        if unforeseen:
            self._await_end()  # a broken connection is what another process's end looks like from here
        first = self._tell(mine)
        alone = first.rank == self._rank
        if line is not None and (alone or first.reason != mine.reason):
            tell(line)  # at once: what started the processes may end them all when one of them leaves
        if self._rank == 0:
            time.sleep(2 * INTERVAL)  # its end may be that of the store, which the others have to ask before
        if not unforeseen or (not alone and first.status != 1):
            raise SystemExit(first.status) from None

    def _await_end(self) -> None:
        end = time.monotonic() + _PATIENCE
        while self._end is None and time.monotonic() < end:
            time.sleep(INTERVAL / 20)

    def _tell(self, mine: _End) -> _End:
        """Be the one that ends the job, or find out who was."""

        def ask() -> None:
            with suppress(RuntimeError):  # torch's, for a connection that is gone
                if self._store.add(self._key("ends"), 1) == 1:
                    self._store.set(self._key("end"), json.dumps(mine))
                self._end = self._read_end()

        if self._end is None:
            asking = threading.Thread(target=ask, daemon=True)  # a store that is gone may never answer
            asking.start()
            asking.join(GRACE)
        self._end = self._end or mine
        return self._end

    def _read_end(self) -> _End:
        return _End(*json.loads(self._store.get(self._key("end"))))

    def _send(self) -> None:
        """Beat, and take down what there is to hear. A store that does not answer holds up this thread only."""
        pause, here = 0.01, False
        while not self._left.is_set():
            with suppress(RuntimeError):  # torch's, for a connection that is gone
                here = here or self._arrive()
                if self._refused:
                    self._met.set()
                    return
                self._beats += 1
                self._store.set(self._key("beat", self._rank), str(self._beats))
                self._listen()
                if not self._met.is_set() and self._store.add(self._key("arrived"), 0) >= self._size:
                    self._met.set()
                self._sent = time.monotonic()
            pause = INTERVAL if self._met.is_set() else min(INTERVAL / 4, 1.5 * pause)
            self._left.wait(pause)

    def _arrive(self) -> bool:
        """Say that we are here; False where we are not to be."""
        size = self._store.compare_set(self._key("size"), "", str(self._size)).decode()
        if int(size) != self._size:
            self._refused = f"process {self._rank} is to be one of {self._size}, but others one of {size}"
        elif self._store.add(self._key("here", self._rank), 1) > 1:
            self._refused = f"there is another process {self._rank} of {size}: give each one a number of its own"
        else:
            self._store.set(self._key("host", self._rank), socket.gethostname())
            self._store.set(self._key("beat", self._rank), "0")
            self._store.add(self._key("arrived"), 1)
        return not self._refused

    def _listen(self) -> None:
        """Take down who has come, who is alive, and whether the job has ended."""
        for rank in [rank for rank in self._silent if self._store.check([self._key("beat", rank)])]:
            self._hosts[rank] = self._store.get(self._key("host", rank)).decode()
            self._silent.discard(rank)
        others = list(self._hosts)
        values = self._store.multi_get([self._key("beat", rank) for rank in others]) if others else []
        now = time.monotonic()
        for rank, value in zip(others, values, strict=True):
            if self._values.get(rank) != value:
                self._values[rank], self._heard[rank] = value, now
        if self._end is None and self._store.check([self._key("end")]):
            self._end = self._read_end()

    def _watch(self) -> None:
        """End this process when it has to."""
        looked = time.monotonic()
        while not self._left.wait(INTERVAL):
            now = time.monotonic()
            if now - looked > _SUSPENDED:  # and so most likely were the others
                self._sent = now
                self._heard = dict.fromkeys(self._hosts, now)
            looked = now
            if self._end is None and (gone := self._gone(now)) is not None:
                host = f"; it ran on host {self._hosts[gone]}" if gone in self._hosts else ""
                self._quit(self._tell(_End(gone, 1, f"nothing was heard of it for {TIMEOUT:.0f} s{host}")))
            if self._end is not None and not self._left.wait(GRACE):
                self._quit(self._end)

    def _gone(self, now: float) -> int | None:
        """The first process that is not heard of any more: where the store is not either, the one that serves it."""
        unheard = [rank for rank, heard in list(self._heard.items()) if now - min(heard, self._sent) > TIMEOUT]
        return min(unheard, default=0 if now - self._sent > TIMEOUT and self._rank else None)

    def _quit(self, end: _End) -> None:
        if end.rank != self._rank:
            self._say(end)
        sys.stdout.flush()
        os._exit(end.status)

    def _say(self, end: _End) -> None:
        """Tell of a process that failed or is gone, once. One with another status has told the user itself."""
        if end.status == 1 and self._rank in (0, *([1] if end.rank == 0 else [])):
            print(f"error: process {end.rank} of {self._size}: {end.reason}", file=sys.stderr, flush=True)

    def _key(self, *parts: object) -> str:
        return "/".join(("heartbeat", self._job, *map(str, parts)))


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return 1 if foreseen(error) is None else 2
