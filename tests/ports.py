"""Ports for servers that are started with a number, long after it was chosen."""

import itertools
import os
import random
import socket

_LOW, _EACH = 12_000, 2_000  # below those that the system gives to whoever asks for any, which are many a second
_numbers = itertools.count(random.SystemRandom().randrange(_EACH))  # another session may run on this machine


def free_port() -> int:
    """A port that is free, and that no test of another process of the session is given."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        port = _LOW + worker % 10 * _EACH + next(_numbers) % _EACH
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return port
