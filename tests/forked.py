"""Python commands as processes that start in a tenth of a second: forked from a server that has imported everything.

    done = forked.run("-m", "train", "--help")          # as subprocess.run([sys.executable, ...])
    process = forked.start("tests/run_train.py", ...)   # as subprocess.Popen

All test processes of a session share the server, tests/fork_server.py. A command whose environment differs from the
server's in what is read at an import, gets an interpreter of its own.
"""

import contextlib
import fcntl
import os
import pickle
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ports import free_port

ROOT = Path(__file__).parent.parent
_FOLDER = "POOLBENCH_FORK_SERVER"  # names a folder for the session's socket; pytest's processes inherit it
_AT_IMPORT = re.compile(  # not PYTHON_EXEC, which is torchrun's
    r"PYTHON[A-Z]+|(LD|LC|OMP|MKL|TORCH|TORCHINDUCTOR|HF|TRANSFORMERS|FSSPEC|OPENCV)_.*|LANG|POOLBENCH_(STALL|PATIENCE)"
)
_held: tuple[socket.socket, dict[str, str]] | None = None


class Process:
    """A command that runs; the attributes are those of subprocess.Popen[str], as far as tests need them."""

    def __init__(self, path: Path, request: dict[str, Any], inherit: bool = False) -> None:
        self.args = request["words"]
        self.returncode: int | None = None
        pipes = [] if inherit else [os.pipe(), os.pipe()]
        self.stdout, self.stderr = (os.fdopen(end, encoding="utf-8") for end, _ in pipes) if pipes else (None, None)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123
            self._connection = _ask(path, request, [nothing.fileno(), *([end for _, end in pipes] or (1, 2))])
        for _, end in pipes:
            os.close(end)
        self.pid = int.from_bytes(_exactly(self._connection, 8), "big")

    def poll(self) -> int | None:
        """The exit status, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, once it has ended."""
        if self.returncode is None:
            self._connection.settimeout(timeout)
            try:
                status = self._connection.recv(8, socket.MSG_WAITALL)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            assert len(status) == 8, "the fork server died"
            self.returncode = int.from_bytes(status, "big", signed=True)
            self._connection.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote to both streams, once it has ended."""
        read = ["", ""]

        def take(number: int, stream: IO[str]) -> None:
            read[number] = stream.read()

        threads = [threading.Thread(target=take, args=pair, daemon=True) for pair in enumerate(self._streams)]
        for thread in threads:
            thread.start()
        self.wait(timeout)
        for thread in threads:
            thread.join(timeout)
            if thread.is_alive():  # a child of it holds the stream
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return read[0], read[1]

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(15)

    def kill(self) -> None:
        self.send_signal(9)

    @property
    def _streams(self) -> list[IO[str]]:
        return [stream for stream in (self.stdout, self.stderr) if stream is not None]

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.wait()
        for stream in self._streams:
            stream.close()


Command = Process | subprocess.Popen[str]


def start(
    *words: str | Path,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    new_session: bool = False,
    inherit: bool = False,
) -> Command:
    """`python <words>`; `words` are -m and a module, -c and code, or a script's path.

    Both streams are pipes, or those of this process where it is to inherit them.
    """
    environment = dict(os.environ if env is None else env)
    given = [str(word) for word in words]
    path, known = _server()
    if _read_at_imports(environment) != known:
        return subprocess.Popen(
            [sys.executable, *given], cwd=cwd, env=environment, start_new_session=new_session, text=True,
            stdin=subprocess.DEVNULL, **({} if inherit else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}),
        )  # fmt: skip
    request = {"words": given, "cwd": str(cwd), "environment": environment, "new_session": new_session}
    return Process(path, request, inherit)


def interpreter() -> Path:
    """A program that does as the interpreter does, for what starts it by its name: torchrun by $PYTHON_EXEC."""
    path = server().with_name("python")
    if not path.exists():
        mine = path.with_name(f"python-{os.getpid()}")
        mine.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {ROOT}/tests/forked_python.py "$@"\n')
        mine.chmod(0o755)
        mine.rename(path)
    return path


def popen(command: Sequence[str], env: Mapping[str, str]) -> Command:
    """subprocess.Popen, for code that starts sys.executable and leaves it its streams."""
    assert command[0] == sys.executable
    return start(*command[1:], env=env, inherit=True)


def run(
    *words: str | Path,
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float | None = None,
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """What `python <words>` comes to."""
    process = start(*words, cwd=cwd, env=env)
    try:
        output, errors = process.communicate(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    done = subprocess.CompletedProcess(process.args, process.wait(), output, errors)
    if check:
        done.check_returncode()
    return done


def world(size: int, *words: str | Path, env: Mapping[str, str] | None = None) -> list[Command]:
    """So many processes of one command that find each other as those of torchrun do; nobody watches over them."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size)}
    environment = {**(os.environ if env is None else env), **place}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(size)]
    return [start(*words, env=environment | rank) for rank in ranks]


@contextlib.contextmanager
def session() -> Iterator[None]:
    """For as long as the tests run, a folder where they find the server; the first to need it starts it."""
    with tempfile.TemporaryDirectory(prefix="poolbench-tests-") as folder:
        os.environ[_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[_FOLDER]


def server() -> Path:
    """The server's socket."""
    return _server()[0]


def _server() -> tuple[Path, dict[str, str]]:
    """The server's socket, and the variables that it had at its imports. Held on to until this process ends."""
    global _held
    path = Path(os.environ[_FOLDER]) / "socket"
    if _held is None:
        with (path.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                connection = _ask(path, {}, [])
            except OSError:
                path.unlink(missing_ok=True)
                _start_server(path)
                connection = _ask(path, {}, [])
        _held = connection, pickle.loads((path.parent / "environment").read_bytes())
    return path, _held[1]


def _read_at_imports(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if _AT_IMPORT.fullmatch(key)}


def _start_server(path: Path) -> None:
    (path.parent / "environment").write_bytes(pickle.dumps(_read_at_imports(os.environ)))
    with (path.parent / "log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests/fork_server.py"), str(path)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", (path.parent / "log").read_text()


def _ask(path: Path, request: dict[str, Any], files: list[int]) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    content = pickle.dumps(request)
    socket.send_fds(connection, [len(content).to_bytes(8, "big")], files)
    connection.sendall(content)
    return connection


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = connection.recv(count, socket.MSG_WAITALL)
    assert len(found) == count, "the fork server died"
    return found
