"""Files below a local folder or a folder of a store, by one name: where the columns of a pool lie.

A file is written whole or not at all: a local one is renamed, stores put theirs so. What a store has listed is taken
for true until `forget`, which whoever begins to look calls. What reads stores takes a tenth of a second to import: only
those wait for it who have one.
"""

import contextlib
import io
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

from poolbench.files import atomic

_listed: dict[str, dict[str, "State"]] = {}  # of places in stores, their files


class State(NamedTuple):
    """Of a file: bytes, and what changes when it is written anew."""

    size: int
    version: str


def is_remote(place: str) -> bool:
    """Whether it is in a store."""
    return "://" in place


def forget() -> None:
    """Look anew at what lies in stores: it may have been written since."""
    _listed.clear()


def state_of(path: str) -> State | None:
    """A file as it is, None where there is none.

    Raises:
        OSError: it cannot be looked at.
    """
    if not is_remote(path):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = Path(path).stat()
            if stat.S_ISREG(status.st_mode):
                return State(status.st_size, f"{status.st_mtime_ns} {status.st_ino}")
        return None
    for place, files in _listed.items():
        if path.startswith(f"{place}/"):
            return files.get(path)
    from poolbench.remote import info

    found = info(path)
    return None if found is None else _state(found)


def folders_of(place: str) -> list[str]:
    """The names of the folders at a place, sorted; none where it does not exist.

    Raises:
        OSError: they cannot be listed.
    """
    if not is_remote(place):
        paths = Path(place).iterdir() if Path(place).is_dir() else ()
        names = {path.name for path in paths if path.is_dir()}
    else:
        from poolbench.remote import tree

        if place not in _listed:
            _listed[place] = {f"{place}/{name}": _state(found) for name, found in tree(place).items()}
        names = {
            path.removeprefix(f"{place}/").split("/")[0] for path in _listed[place] if "/" in path[len(place) + 1 :]
        }
    return sorted(name for name in names if not name.startswith("."))


def opened(path: str, size: int) -> IO[bytes] | pa.NativeFile:
    """A file to read from, any part of it. A local one is Arrow's own, whose pieces are Arrow's memory, which it gives
    back.

    Args:
        size: its bytes, as a listing of the store gave them; 0 where it gave none.
    """
    if not is_remote(path):
        return pa.OSFile(path)
    from poolbench.remote import PIECE, SeekableFile

    return io.BufferedReader(SeekableFile(path, size), PIECE)


@contextlib.contextmanager
def writing(path: str) -> Iterator[IO[Any]]:
    """A file to write bytes to, which is there, whole, when the block ends well.

    Raises:
        OSError: it cannot be written.
    """
    if not is_remote(path):
        with atomic(path, "wb") as file:
            yield file
        return
    from poolbench.remote import put

    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) / "file"
        with local.open("wb") as file:
            yield file
        put(local, path)
    forget()


def _state(found: dict[str, Any]) -> State:
    version = next((str(found[key]) for key in ("ETag", "etag", "LastModified", "mtime") if key in found), "")
    return State(int(found.get("size") or 0), version)
