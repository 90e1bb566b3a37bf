"""A process that has imported the packages and forks one for each command that tests/forked.py asks for.

    python tests/fork_server.py <socket>

It computes nothing itself, so that it has one thread, and ends with the last test process that holds on to it.
"""

import atexit
import contextlib
import gc
import importlib
import os
import pickle
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import threading
import types
from pathlib import Path
from typing import Any, NoReturn

PRELOADED = (
    "train.command", "train.loop", "train.dry_run", "evaluate.run", "evaluate.compare", "curate.command",
    "curate.scorers.run", "curate.reshard", "curate.download", "huggingface_hub.file_download", "scipy.stats",
)  # fmt: skip


def serve(path: Path) -> dict[str, Any]:
    """Answer until nobody holds on; returns in each forked process, with what it was asked to run."""
    for name in PRELOADED:
        importlib.import_module(name)
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    assert len(threads) - threads.count("jemalloc_bg_thd\n") == 1, threads  # no other one outlives a fork
    gc.collect()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(str(path))
        listener.listen(64)
        print("ready", flush=True)
        selector.register(listener, selectors.EVENT_READ)
        server = _Server(selector)
        while True:
            for key, _ in selector.select():
                if key.fileobj is not listener:
                    server.ended(key)
                    continue
                wanted = server.asked(listener.accept()[0])
                if wanted is not None:
                    return wanted
            if server.deserted:
                raise SystemExit


class _Server:
    """Who holds on to this process, and what runs for whom."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._holders = 0
        self.deserted = False

    def asked(self, connection: socket.socket) -> dict[str, Any] | None:
        """A new connection: of a test process that holds on, or for a command, which is returned in its process."""
        header, files, *_ = socket.recv_fds(connection, 8, 3)
        with connection.makefile("rb") as stream:
            wanted: dict[str, Any] = pickle.loads(stream.read(int.from_bytes(header, "big")))
        if not files:
            self._holders += 1
            self._selector.register(connection, selectors.EVENT_READ, None)
            return None
        pid = os.fork()
        if not pid:
            for key in list(self._selector.get_map().values()):
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
                else:
                    os.close(key.fd)
            connection.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return wanted
        for file in files:
            os.close(file)
        connection.sendall(pid.to_bytes(8, "big"))
        process = os.pidfd_open(pid)
        self._selector.register(process, selectors.EVENT_READ, (pid, connection))
        self._selector.register(connection, selectors.EVENT_READ, (pid, connection))
        return None

    def ended(self, key: selectors.SelectorKey) -> None:
        """A process ended, or who had asked for it, or who had held on, went away."""
        if key.data is None:
            self._selector.unregister(key.fileobj)
            self._holders -= 1
            self.deserted = not self._holders
            return
        pid, connection = key.data
        if key.fileobj is connection:  # nobody is left to wait for it
            self._selector.unregister(connection)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            connection.sendall(status.to_bytes(8, "big", signed=True))
        self._selector.unregister(key.fileobj)
        os.close(key.fd)
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection)
        connection.close()


def become(wanted: dict[str, Any]) -> None:
    """Do in this forked process what `python <words>` does in one of its own."""
    if wanted["new_session"]:
        os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["cwd"])
    tempfile.tempdir = None
    how, *words = wanted["words"]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = __builtins__
    if how == "-m":
        for name in (words[0], f"{words[0]}.__main__"):
            sys.modules.pop(name if name in PRELOADED else "", None)
        sys.path[0] = str(Path.cwd())
        sys.argv = ["-m", *words[1:]]
        runpy._run_module_as_main(words[0])  # type: ignore[attr-defined]
    elif how == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *words[1:]]
        exec(compile(words[0], "<string>", "exec"), main.__dict__)
    else:
        path = Path.cwd() / how
        sys.path[0] = str(path.resolve().parent)
        sys.argv = [how, *words]
        main.__dict__["__file__"] = str(path)
        exec(compile(path.read_bytes(), path, "exec"), main.__dict__)


def end_as(wanted: dict[str, Any]) -> NoReturn:
    """Run it and end as an interpreter does, but for taking all modules apart, which takes most of a second."""
    status = 0
    try:
        become(wanted)
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException as error:
        status = 1
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            status = -signal.SIGINT
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status & 0xFF)


if __name__ == "__main__":
    end_as(serve(Path(sys.argv[1])))
