"""Processes that look after each other, so that a job ends as a whole: when one fails, is stopped, or is not heard of
any more, the others end too, where a collective operation would let them wait for many minutes.

Each process writes a heartbeat to the job's store. The first one reads all of them, the others read the first one's.
"""

import json
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from conf.errors import UserError, tell

BEAT = 2.0  # seconds between two heartbeats
SILENCE = 40.0  # seconds, after which a process counts as gone
GRACE = 10.0  # seconds in which a process that knows of the end may come to it by itself
_SUSPENDED = 10.0  # seconds between two of its own looks, after which a process was not running itself
_PATIENCE = 3.0  # seconds to find out whether another process failed first


class _End(NamedTuple):
    """Who ended the job, with which exit status, and why."""

    rank: int
    status: int
    reason: str


class Watch:
    """Watches over the processes that share a store at `address` and `port`, from `start` to `leave`.

    `job` tells one run of these processes from the next.
    """

    def __init__(self, job: str, address: str, port: int, rank: int, size: int) -> None:
        self._job, self._rank, self._size = job, rank, size
        # A connection of its own: another one may be held for minutes by an operation that waits.
        self._store = TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=60))
        self._others = range(1, size) if rank == 0 else range(1)
        self._beats = 0
        self._values: dict[int, bytes] = {}
        self._heard: dict[int, float] = {}
        self._hosts: dict[int, str] = {}
        self._spoke = time.monotonic()
        self._end: _End | None = None
        self._left = threading.Event()
        self._store.set(self._key("host", rank), socket.gethostname())
        self._store.set(self._key("beat", rank), "0")

    def start(self) -> None:
        """Begin to watch; the other processes have made their Watch by now."""
        hosts = self._store.multi_get([self._key("host", rank) for rank in self._others])
        self._hosts = {rank: host.decode() for rank, host in zip(self._others, hosts, strict=True)}
        self._heard = dict.fromkeys(self._others, time.monotonic())
        for task in (self._speak, self._look):
            threading.Thread(target=task, daemon=True).start()

    def leave(self) -> None:
        """This process comes to its end in order."""
        self._left.set()

    def fail(self, error: BaseException) -> None:
        """Tell the others that `error` ends this process, and the user once. Still running GRACE later, it is ended.

        Raises:
            SystemExit: the user knows all there is to know of `error`.
        """
        mine = _End(self._rank, _status(error), "" if isinstance(error, SystemExit) else _line(error))
        unforeseen = not isinstance(error, UserError | SystemExit)
        if unforeseen:
            self._await_end()  # a broken connection is what another process's end looks like from here
        first = self._tell(mine)
        alone = first.rank == self._rank
        if isinstance(error, UserError) and (alone or first.reason != mine.reason):
            tell(error)  # at once: what started the processes may end them all when one of them leaves
        if self._rank == 0:
            time.sleep(2 * BEAT)  # its end may be that of the store, which the others have to ask before
        if not unforeseen or (not alone and first.status != 1):
            raise SystemExit(first.status) from None

    def _await_end(self) -> None:
        end = time.monotonic() + _PATIENCE
        while self._end is None and time.monotonic() < end:
            time.sleep(BEAT / 20)

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

    def _speak(self) -> None:
        """Beat, and take down what there is to hear. A store that does not answer holds up this thread only."""
        while not self._left.wait(BEAT):
            try:
                self._beats += 1
                self._store.set(self._key("beat", self._rank), str(self._beats))
                values = self._store.multi_get([self._key("beat", rank) for rank in self._others])
                now = time.monotonic()
                for rank, value in zip(self._others, values, strict=True):
                    if self._values.get(rank) != value:
                        self._values[rank], self._heard[rank] = value, now
                if self._end is None and self._store.check([self._key("end")]):
                    self._end = self._read_end()
                self._spoke = now
            except RuntimeError:
                pass

    def _look(self) -> None:
        """End this process when it has to."""
        looked = time.monotonic()
        while not self._left.wait(BEAT):
            now = time.monotonic()
            if now - looked > _SUSPENDED:  # and so most likely were the others
                self._spoke = now
                self._heard = dict.fromkeys(self._others, now)
            looked = now
            gone = [rank for rank, heard in self._heard.items() if now - min(heard, self._spoke) > SILENCE]
            if self._end is None and gone:
                reason = f"nothing was heard of it for {SILENCE:.0f} s; it ran on host {self._hosts[gone[0]]}"
                self._quit(self._tell(_End(gone[0], 1, reason)))
            if self._end is not None and not self._left.wait(GRACE):
                self._quit(self._end)

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
        return "/".join(("watch", self._job, *map(str, parts)))


def _status(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    return 2 if isinstance(error, UserError) else 1


def _line(error: BaseException) -> str:
    """An error as one line."""
    text = str(error).strip().splitlines()
    return text[0] if isinstance(error, UserError) else f"{type(error).__name__}: {text[0] if text else ''}"
