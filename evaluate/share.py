"""Processes that share an evaluation: each encodes its part of the shards, and the first one scores them all."""

import os
import pickle
import queue
import secrets
import threading
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Client, Connection, Listener

from poolbench.errors import UserError
from poolbench.processes.world import World, on_first

from evaluate.stream import Batch, Message

_WAITING = 64  # messages of the other processes that wait for the first one; further ones stay where they are


def gathered(world: World, mine: Iterator[Message]) -> Iterator[Message]:
    """On the first process the messages of all, as they come; on the others none, as they send theirs to the first.

    Embeddings travel, not pictures: a few kilobytes a sample. The processes are connected when this returns, and the
    others work from when they ask for the first message.

    Raises:
        UserError: another process died.
    """
    if world.size == 1:
        return mine
    listeners: list[Listener] = []
    address, key = on_first(world, partial(_listen, listeners))
    if not world.first:
        return _sent(mine, Client(address, authkey=key))
    with listeners[0] as listener:
        return _merged(mine, [listener.accept() for _ in range(world.size - 1)])


def _listen(listeners: list[Listener]) -> tuple[tuple[str, int], bytes]:
    key = secrets.token_bytes(32)
    listeners.append(Listener((os.environ["MASTER_ADDR"], 0), backlog=1024, authkey=key))
    return listeners[0].address, key


def _sent(mine: Iterator[Message], connection: Connection) -> Iterator[Message]:
    try:
        with connection:
            for message in mine:
                _send(connection, message)
            _send(connection, None)
    except (BrokenPipeError, ConnectionResetError):
        raise UserError("the first process of this evaluation ended early; what it printed says why") from None
    yield from ()


def _send(connection: Connection, message: Message | None) -> None:
    if isinstance(message, Batch):
        message = message._replace(pictures=message.pictures.cpu())
    # Not connection.send, under which torch hands tensors over in shared memory: the processes may be on two machines.
    connection.send_bytes(pickle.dumps(message))


def _merged(mine: Iterator[Message], connections: list[Connection]) -> Iterator[Message]:
    """Ours, and between them what the others have sent so far; then the rest of theirs."""
    waiting: queue.Queue[Message | Exception | None] = queue.Queue(_WAITING)
    for connection in connections:
        threading.Thread(target=_receive, args=(connection, waiting), daemon=True).start()
    working = len(connections)
    for message in mine:
        yield message
        while not waiting.empty():
            theirs = waiting.get()
            working -= theirs is None
            yield from _checked(theirs)
    while working:
        theirs = waiting.get()
        working -= theirs is None
        yield from _checked(theirs)


def _checked(message: Message | Exception | None) -> Iterator[Message]:
    if isinstance(message, Exception):
        raise UserError("a process of this evaluation died; what it printed says why") from message
    if message is not None:
        yield message


def _receive(connection: Connection, waiting: "queue.Queue[Message | Exception | None]") -> None:
    """Put what comes into the queue, at last None or, where the other side is gone before it said so, the error."""
    with connection:
        while True:
            try:
                message: Message | None = pickle.loads(connection.recv_bytes())
            except (EOFError, OSError) as error:
                waiting.put(error)
                return
            waiting.put(message)
            if message is None:
                return
