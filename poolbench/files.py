"""Files that matter are written whole or not at all, and known by their content."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from poolbench.errors import UserError, unwritable
from poolbench.options import Place, located

_UMASK = threading.Lock()


@contextlib.contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Let errors of a full or read-only disk name `path` as their file, which those of a write do not by themselves.

    What they become is one place's to say: poolbench.errors.status_of, or whoever knows better what to do.
    """
    try:
        yield
    except OSError as error:
        if re.fullmatch(r"\d+ requested and \d+ written", str(error)):  # numpy's, which does not tell why
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        if unwritable(error):
            error.filename = str(path)
        raise


@contextlib.contextmanager
def atomic(path: Path | str, mode: str = "w", durable: bool = True) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; it takes that name when the block ends well, else it disappears.

    The data is on disk before the rename, so a crash leaves the old file or the new one, never a part.

    Args:
        durable: whether to wait for the disk. Without, a crash of the machine may leave a part, which whoever reads it
            has to be able to tell; one of the process leaves none.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                if durable:
                    os.fsync(file.fileno())
            Path(temporary).chmod(0o666 & ~umask())  # mkstemp makes files that only their owner can read
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def claimed(folder: Path | str, wait: float = 30.0, shared: bool = False) -> Iterator[None]:
    """Be the only process that claims `folder`, which is made where it is missing.

    Args:
        wait: seconds to give another process that is about to end.
        shared: others may claim it at the same time, all of them shared.

    Raises:
        UserError: another process keeps writing there.
    """
    folder, end = Path(folder), time.monotonic() + wait
    file = _opened_lock(folder)
    try:
        # A lock of this process alone, unlike flock's: data workers that outlive it by seconds do not hold it.
        while not (claim := _locked(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)) or not _is_at(file, folder):
            if time.monotonic() > end:
                raise UserError(
                    f"{folder} is in use by another process; wait for its end, or choose another folder or name="
                )
            if claim:  # of a folder that the process before has taken away at its end
                file.close()
                file = _opened_lock(folder)
                continue
            time.sleep(0.2)
        yield
    finally:
        file.close()


def _opened_lock(folder: Path) -> IO[str]:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / ".lock").open("a+")  # a shared lock needs to read


def _is_at(file: IO[str], folder: Path) -> bool:
    """Whether a lock's file is the one that others find in the folder."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), (folder / ".lock").stat())
    except FileNotFoundError:
        return False


def files_below(folder: Path | str) -> Iterator[Path]:
    """Every file below a folder, in no order; links are followed, what is hidden (`.name`) is left out.

    A link to a folder that it lies in ends there, and a link to nowhere that has an ending is given like a file.

    Raises:
        UserError: a folder that cannot be read, or a link to nowhere that may have been one.
    """
    open_: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(folder), frozenset())]
    while open_:
        place, above = open_.pop()
        try:
            status = Path(place).stat()
            if (status.st_dev, status.st_ino) in above:
                continue
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        open_.append((entry.path, above | {(status.st_dev, status.st_ino)}))
                    elif entry.is_symlink() and not Path(entry.name).suffix and not Path(entry.path).exists():
                        raise UserError(f"{entry.path} is a link that leads nowhere; mend it or take it away")
                    else:
                        yield Path(entry.path)
        except OSError as error:
            raise UserError(f"{error.filename} cannot be read: {error.strerror}") from None


def files_in(folder: Path, pattern: str) -> list[Path]:
    """What a folder holds of a pattern, sorted, without what is hidden, such as the `._name` that macOS adds."""
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))


def cache() -> Path:
    """$POOLBENCH_CACHE, else the user's cache folder: what is made or downloaded once.

    Raises:
        UserError: the variable names no local folder.
    """
    named = os.environ.get("POOLBENCH_CACHE")
    if not named:
        import platformdirs

        return Path(platformdirs.user_cache_dir("poolbench"))
    return Path(located("POOLBENCH_CACHE", named, Place(writes=True, remote=False)))


def leftovers(path: Path) -> list[Path]:
    """The temporary files of writing `path` with `atomic`, which crashes left or which are being written."""
    return list(path.parent.glob(f".{path.name}.????????"))


def _locked(file: IO[str], kind: int) -> bool:
    try:
        fcntl.lockf(file, kind | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)  # some cluster file systems lock nothing
    return True


def umask() -> int:
    """The process's umask, which can only be read by setting it."""
    with _UMASK:  # another thread would find that of the moment between, and set it for good
        mask = os.umask(0)
        os.umask(mask)
    return mask


def write_json(path: Path | str, value: Any, durable: bool = True) -> None:
    """Write `value` as indented JSON; see `atomic`. NaN and infinity are refused: they are not JSON."""
    with atomic(path, durable=durable) as file:
        json.dump(value, file, indent=2, ensure_ascii=False, allow_nan=False)
        file.write("\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing, cannot be read, is not JSON or names a key twice.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=once)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that is there twice every reader would take another value.

    Raises:
        UserError: there is one.
    """
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{twice[:80]}: the key is there twice")
    return value


def json_line(value: Any) -> str:
    """`value` as one line of a JSON-lines file, its end included."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"


def append_line(path: Path | str, value: Any) -> None:
    """Append one JSON line. Processes that append to one file at a time do not mix their lines.

    What a crash left of a line is cut off first, else it would spoil this one.
    """
    with writing(path), Path(path).open("ab+") as file:
        with contextlib.suppress(OSError):  # some cluster file systems lock nothing; there a short append is atomic
            fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
        # A member of a tar whose name is not UTF-8 is text with lone surrogates, of which this makes JSON's escapes.
        file.write(json_line(value).encode(errors="backslashreplace"))


def read_lines(path: Path | str) -> list[Any]:
    """The values of a JSON-lines file, [] where it does not exist.

    Lines end with a line feed alone: texts in JSON hold U+2028 and its like as they are. A last line without an end is
    what a crash left behind and is passed over; any other bad line raises.

    Raises:
        UserError: a finished line is not JSON, or any names a key twice.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    lines, values = data.split(b"\n"), []
    for number, line in enumerate(lines, start=1):
        try:
            values.append(json.loads(line.decode(), object_pairs_hook=once))
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            if number < len(lines):
                raise UserError(f"{path}, line {number}, is not JSON: {error}") from None
    return values


def digest_bytes(data: bytes) -> str:
    """SHA-256 of `data`, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value` (sorted keys, no spaces), 64 hex digits."""
    return digest_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file's content, 64 hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
