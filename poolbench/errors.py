"""Errors that are the user's to mend: one line that names the thing and says what to do."""

import errno
import gc
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeGuard

from poolbench.interrupts import heard, unheard
from poolbench.machine import end_with_owner
from poolbench.text import one_line

INTERRUPTED = 128 + signal.SIGINT  # the exit status of a command that Ctrl-C ended
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a full disk, a quota, a limit on the size of a file
_FULL_GPU = re.compile(r"(CUDA|HIP)\b.*out of memory|CUBLAS_STATUS_ALLOC_FAILED")


class UserError(ValueError):
    """Wrong input. The message is one line: the file or key at fault, and what to do about it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the known word closest to `word`, or a list of all where none is close."""
    import difflib  # for those alone who were mistaken: every command begins with this module

    known = sorted(set(known))
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(known)


def first_line(error: BaseException) -> str:
    """What an error says, its first line; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def described(error: BaseException) -> str:
    """One line for an error that nobody foresaw: a mistake's own, else its kind and the first line of what it says."""
    if isinstance(error, UserError):
        return str(error)
    said = first_line(error)
    return said if said == type(error).__name__ else f"{type(error).__name__}: {said}"


def no_room(error: BaseException) -> TypeGuard[OSError]:
    """Whether something could not be written because there is no room for it."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


def unwritable(error: BaseException) -> TypeGuard[OSError]:
    """Whether something could not be written because of the disk: there is no room, or it is read-only."""
    return no_room(error) or (isinstance(error, OSError) and error.errno == errno.EROFS)


def full_gpu(error: RuntimeError) -> str | None:
    """The GPU that has no memory left, as torch says it; None for any other error."""
    text = str(error)
    if not _FULL_GPU.search(text):
        return None
    number = re.search(r"GPU (\d+)", text)
    return f"cuda:{number[1]}" if number else "the GPU"


def tell(error: UserError | str) -> None:
    """Show the user a mistake."""
    print(f"error: {one_line(str(error))}", file=sys.stderr, flush=True)


def status_of(run: Callable[[], int | None]) -> int:
    """Run a command and return its exit status: its own, or 2 and one line on stderr for a user's mistake.

    A disk that cannot be written is told in a line too. A broken pipe (`python -m tasks list | head`) is not a mistake
    and prints nothing. Anything unforeseen keeps its traceback: it is our fault, and the traceback is what we need.
    """
    try:
        status = run()
        sys.stdout.flush()
        return status or 0
    except BrokenPipeError:
        _print_nothing_more()
        return 1
    except (UserError, OSError) as error:
        line = foreseen(error)
        if line is None:
            raise
        tell(line)
        try:
            sys.stdout.flush()
        except OSError:  # it is the file that cannot be written
            _print_nothing_more()
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return INTERRUPTED


def foreseen(error: BaseException) -> str | None:
    """The line for a mistake of the user's or a disk that cannot be written; None for an error that nobody foresaw."""
    if isinstance(error, UserError):
        return str(error)
    if not isinstance(error, OSError):
        return None
    if isinstance(error, PermissionError):
        return f"no permission to write or read {error.filename}; choose another folder"
    if (mistaken := _mistaken(error)) is not None:
        return f"{mistaken}; choose another"
    if error.errno == errno.ENAMETOOLONG:
        return f"{error.strerror}: {error.filename}; choose a shorter one"
    if not unwritable(error):
        return None
    way = "make room and start the same command again" if no_room(error) else "choose another folder"
    return f"{error.filename or 'a file'} cannot be written: {error.strerror}; {way}"


def _mistaken(error: OSError) -> str | None:
    """What is wrong where a file lies where a folder is to be, or the other way round; else None."""
    if error.filename is None:
        return None
    path = Path(os.fsdecode(error.filename2 or error.filename))
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder, not a file"
    if not isinstance(error, FileExistsError | NotADirectoryError):
        return None
    return _file_for_folder(path)


def absent(path: Path) -> str:
    """Why neither a file nor a folder is to be had at a path, as the end of a sentence."""
    if path.exists():
        return "is neither a file nor a folder"
    mistaken = _file_for_folder(path)
    return "does not exist" if mistaken is None else f"does not exist: {mistaken}"


def _file_for_folder(path: Path) -> str | None:
    """Which file lies at a path, or above it, where a folder is to be; None where none does."""
    file = next((one for one in (path, *path.parents) if one.is_file()), None)
    return None if file is None else f"{file} is a file, not a folder"


def _print_nothing_more() -> None:
    """Python would try once more to print what is left, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_on_user_error(run: Callable[[], int | None]) -> None:
    """Run an entry point and end the process with its exit status; see `status_of`."""
    heard()
    end_with_owner()
    try:
        status = status_of(run)
    finally:
        unheard()
    # Else Python looks once more through all that was imported for what nothing refers to: a tenth of a short command.
    gc.freeze()
    sys.exit(status)
