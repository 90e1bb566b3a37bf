"""Read from any store that fsspec knows (s3://, gs://, http://) as if it never failed.

What passes (an overloaded server, a lost connection, a stalled read) is waited for, and the reading goes on at the byte
that it had reached; docs/bad_data.md has the rules.
"""

import errno
import io
import os
import random
import re
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from poolbench.retry import raised, retried, wait_asked

# fsspec and tenacity are loaded with the first store: what lies on disks does not wait for them.
if TYPE_CHECKING:
    from tenacity import RetryCallState

Value = TypeVar("Value")

PIECE = 8 * 2**20  # bytes of one read from a store, and what an open shard keeps in memory
STALL = float(os.environ.get("POOLBENCH_STALL", 30))  # seconds, after which a read is given up and made anew
PATIENCE = float(os.environ.get("POOLBENCH_PATIENCE", 120))  # seconds without a byte, after which a store is given up
LISTING = 600  # seconds for one listing of a store; a pool has a million shards at most
_PAUSES = (0.5, 30.0)  # seconds before the first and the longest before a later try, on average

_FINAL = {errno.EINVAL, errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENOSYS, errno.ENAMETOOLONG, socket.EAI_NONAME}
if hasattr(errno, "EREMCHG"):
    _FINAL.add(errno.EREMCHG)  # s3fs's word for "the bucket lies in another region"


@dataclass
class Tally:
    """What reading from a store took: reads tried again, and shards given up because the store did not answer."""

    retries: int = 0
    given_up: int = 0


class StoreError(OSError):
    """A store that has not answered for as long as we are patient. The message begins with "after"."""


def patiently(ask: Callable[[], Value], failed: Callable[[], None] = lambda: None) -> Value:
    """What a store answers, asked again after each failure that can mend itself.

    Args:
        failed: called behind each failure after which it is asked again.

    Raises:
        StoreError: none of the tries of PATIENCE seconds succeeded.
        OSError: a failure that stays: no such object, no access, no such protocol.
    """
    from tenacity import stop_after_attempt, stop_after_delay, stop_all

    stop = stop_all(stop_after_attempt(2), stop_after_delay(PATIENCE))
    try:
        return retried(ask, mends=_passes, stop=stop, pause=_pause, failed=failed, give_up=_give_up)
    except StoreError:
        raise
    except Exception as error:  # each store's library has its own kinds
        raise OSError(_reason(error)) from error


def _pause(state: "RetryCallState") -> float:
    """Seconds until the next try, at random: workers that failed together must not come back together.

    A store that says how long to wait is not asked earlier.
    """
    first, longest = _PAUSES
    own = min(first * 2.0 ** (state.attempt_number - 1), longest) * (0.5 + random.SystemRandom().random())
    return own + wait_asked(_headers(_origin(raised(state))))


def _headers(error: BaseException) -> Mapping[str, Any]:
    """The headers of an answer that a store's library (aiohttp, botocore) carries in its errors."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    found: Mapping[str, Any] = getattr(error, "headers", None) or metadata.get("HTTPHeaders") or {}
    return found


def _give_up(state: "RetryCallState") -> NoReturn:
    error = raised(state)
    spent = state.seconds_since_start or 0.0
    raise StoreError(f"after {state.attempt_number} tries in {spent:.0f} s: {_reason(error)}") from error


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    cause = _origin(error)
    status = _status(cause)
    if status is not None:
        return status in (408, 425, 429) or status >= 500
    if isinstance(cause, (FileNotFoundError, PermissionError)):
        return False
    if isinstance(cause, OSError):
        return cause.errno not in _FINAL
    kinds = {kind.__name__ for kind in type(cause).__mro__}
    if type(cause).__module__.startswith("botocore"):
        return bool(kinds & {"HTTPClientError", "ResponseParserError"})
    return type(cause).__module__ != "builtins" and "InvalidURL" not in kinds


def _origin(error: BaseException) -> BaseException:
    """What a library's OSError was made from: fsspec calls any failure over HTTP "not found"."""
    return error.__cause__ if isinstance(error, OSError) and isinstance(error.__cause__, Exception) else error


def _status(error: BaseException) -> int | None:
    """The HTTP status that a store's library (aiohttp, gcsfs, botocore) carries in its errors, None without one."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    found = (getattr(error, "status", None), getattr(error, "code", None), metadata.get("HTTPStatusCode"))
    return next((value for value in found if isinstance(value, int)), None)


def _reason(error: BaseException) -> str:
    """One line; the kind of error where it says nothing."""
    status = _status(_origin(error))
    if status == 404 or (status is None and isinstance(error, FileNotFoundError)):
        return "there is no such file"
    line = (str(error).strip().splitlines() or [""])[0]
    if isinstance(error, TimeoutError) and not line:
        return "the store stalled"
    what = line or type(error).__name__
    return what if status is None or str(status) in what else f"{what} (status {status})"


def system_of(url: str, **options: Any) -> tuple[Any, str]:
    """The filesystem of a URL, of fsspec's, and the URL's path there."""
    import fsspec

    found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    return found


def _synced(loop: Any, function: Callable[..., Any], *arguments: Any, timeout: float, **options: Any) -> Any:
    from fsspec.asyn import sync

    return sync(loop, function, *arguments, timeout=timeout, **options)


def call(system: Any, method: str, *arguments: Any, seconds: float, **options: Any) -> Any:
    """Call a method of a filesystem of fsspec and give it up after some seconds.

    Raises:
        TimeoutError: no answer.
    """
    if getattr(system, "async_impl", False):  # cancelled on its event loop, which closes the connection
        return _synced(system.loop, getattr(system, f"_{method}"), *arguments, timeout=seconds, **options)
    return _abandonable(lambda: getattr(system, method)(*arguments, **options), seconds)


def _abandonable(task: Callable[[], Any], seconds: float) -> Any:
    """`task()` in a thread of its own, which is left behind where it does not end in time."""
    outcome: list[Any] = [None, None]

    def run() -> None:
        try:
            outcome[0] = task()
        except Exception as error:
            outcome[1] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise TimeoutError
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


class RemoteFile(io.RawIOBase):
    """A shard in a store, read from front to back in ranges; as one stream where the server knows no ranges."""

    def __init__(self, path: str, size: int, tally: Tally) -> None:
        self._path, self._tally = path, tally
        self._size: int | None = size or None
        self._at = 0  # bytes read
        self._failures = 0  # since the last byte
        self._stream: _Stream | None = None
        self._system, self._name = None, ""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = patiently(lambda: self._fetch(len(buffer)), self._failed)
        buffer[: len(data)] = data
        self._at += len(data)
        self._failures = 0
        return len(data)

    def close(self) -> None:
        self._forget()
        super().close()

    def _failed(self) -> None:
        self._tally.retries += 1
        self._failures += 1
        self._forget()

    def _forget(self) -> None:
        """Drop what the next read could fail by once more."""
        if self._stream is not None:
            self._stream.close()
        self._stream = self._system = None

    def _fetch(self, count: int) -> bytes:
        """The next bytes, at most `count`; none at the end."""
        if self._system is None:
            self._connect()
        # A slow line that did not carry a whole piece in time may carry a part of one.
        count = min(count, PIECE >> min(self._failures, 4))
        if self._stream is not None:
            return self._stream.read(count)
        assert self._size is not None
        stop = min(self._at + count, self._size)
        if stop == self._at:
            return b""
        data: bytes = call(self._system, "cat_file", self._name, start=self._at, end=stop, seconds=STALL)
        if len(data) != stop - self._at:
            self._check_size()
            raise ConnectionError(f"{len(data):,} instead of {stop - self._at:,} bytes came at byte {self._at:,}")
        return data

    def _connect(self) -> None:
        """Find the filesystem, of which a forked process and a stalled one need a new one, and what it can do."""
        system, self._name = system_of(self._path)
        if self._failures and not getattr(system, "async_impl", False):
            system, self._name = system_of(self._path, skip_instance_cache=True)
        protocols = [system.protocol] if isinstance(system.protocol, str) else system.protocol
        if "http" in protocols:
            stream, size = _Stream.open(system, self._name)
            if stream is not None:
                self._stream = stream
                stream.skip(self._at)
            self._size = size
        elif self._size is None:
            self._size = call(system, "info", self._name, seconds=STALL)["size"]
            if self._size is None:
                raise ValueError("the store does not tell its size")
        self._system = system

    def _check_size(self) -> None:
        """Tell a shard that has shrunk since it was listed, which no further try makes longer."""
        assert self._system is not None
        self._system.invalidate_cache()
        held = call(self._system, "info", self._name, seconds=STALL)["size"]
        if held is not None and self._size is not None and held < self._size:
            raise ValueError(f"it has {held:,} bytes, {self._size:,} were listed")


class SeekableFile(RemoteFile):
    """A file in a store of which any part can be read, as patiently as shards are.

    Raises:
        OSError: its server tells no size or sends no parts of files.
    """

    def __init__(self, path: str, size: int) -> None:
        super().__init__(path, size, Tally())
        if not size:  # listings over HTTP tell none
            patiently(self._connect, self._failed)
        if not self._size:
            raise OSError("its server tells no size or sends no parts of files")
        self._length = self._size

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence]
        return self._at


def info(url: str) -> dict[str, Any] | None:
    """What a store says of a file as it is now, None where it has none.

    Raises:
        OSError: it cannot be asked.
    """

    def ask() -> dict[str, Any] | None:
        system, name = system_of(url)
        system.invalidate_cache()
        try:
            found: dict[str, Any] = call(system, "info", name, seconds=STALL)
        except FileNotFoundError as error:
            if _status(_origin(error)) not in (None, 404):
                raise
            return None
        return found if found.get("type") == "file" else None

    return patiently(ask)


def tree(url: str) -> dict[str, dict[str, Any]]:
    """What a store says of each file below a folder as it is now, by names within it; {} where there is no such folder.

    Raises:
        OSError: it cannot be listed.
    """

    def ask() -> dict[str, dict[str, Any]]:
        system, root = system_of(url)
        system.invalidate_cache()
        strict = {"on_error": "raise"} if "http" in system.protocol else {}  # else it leaves out what fails just now
        try:
            entries = call(system, "find", root, detail=True, seconds=LISTING, **strict)
        except FileNotFoundError as error:
            if _status(_origin(error)) not in (None, 404):
                raise
            return {}
        return {name.removeprefix(f"{root.rstrip('/')}/"): entry for name, entry in entries.items()}

    return patiently(ask)


def put(path: Path, url: str) -> None:
    """Write a local file into a store, whole.

    Raises:
        OSError: it cannot be written there.
    """
    patience = LISTING + path.stat().st_size / 2**20  # seconds; a MB a second at least

    def ask() -> None:
        system, name = system_of(url)
        call(system, "put_file", str(path), name, seconds=patience)

    patiently(ask)


class _Stream(NamedTuple):
    """The answer of an HTTP server that sends whole files only."""

    loop: Any
    response: Any

    @classmethod
    def open(cls, system: Any, url: str) -> "tuple[_Stream | None, int | None]":
        """Ask for one byte: a size where the server knows ranges, else the stream of the whole file, which it sends."""
        response = _synced(system.loop, _ask_for_a_byte, system, url, timeout=STALL)
        total = re.fullmatch(r"bytes (?:0-0|\*)/(\d+)", response.headers.get("Content-Range", ""))
        if response.status == 200:
            return cls(system.loop, response), None
        response.close()
        if total is None:
            raise ValueError(f"the server answers a request for a range with status {response.status} and no size")
        return None, int(total[1])

    def read(self, count: int) -> bytes:
        data: bytes = _synced(self.loop, self.response.content.read, count, timeout=STALL)
        return data

    def skip(self, count: int) -> None:
        """Pass over what an earlier stream has brought."""
        while count:
            passed = len(self.read(min(count, 2**20)))
            if not passed:
                raise ConnectionError("the server sent less than before")
            count -= passed

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.response.close)


async def _ask_for_a_byte(system: Any, url: str) -> Any:
    import aiohttp  # fsspec's own choice for HTTP

    session = await system.set_session()
    headers = {**system.kwargs.get("headers", {}), "Range": "bytes=0-0", "Accept-Encoding": "identity"}
    # A whole shard takes as long as training takes to use it up.
    limits = aiohttp.ClientTimeout(total=None, sock_connect=STALL)
    response = await session.get(system.encode_url(url), **{**system.kwargs, "headers": headers, "timeout": limits})
    if response.status != 416:  # of an empty file
        try:
            system._raise_not_found_for_status(response, url)
        except Exception:
            response.close()
            raise
    return response
