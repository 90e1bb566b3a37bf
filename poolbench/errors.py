"""Errors that are the user's to mend: one line that names the thing and says what to do."""

import difflib
import os
import sys
from collections.abc import Callable, Iterable


class UserError(ValueError):
    """Wrong input. The message is one line: the file or key at fault, and what to do about it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" for the known word closest to `word`, or a list of all where none is close."""
    known = sorted(known)
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


def tell(error: UserError) -> None:
    """Show the user a mistake."""
    print(f"error: {error}", file=sys.stderr, flush=True)


def status_of(run: Callable[[], int | None]) -> int:
    """Run a command and return its exit status: its own, or 2 and one line on stderr for a user's mistake.

    A broken pipe (`python -m tasks list | head`) is not a mistake and prints nothing. Anything unforeseen keeps its
    traceback: it is our fault, and the traceback is what we need.
    """
    try:
        status = run()
        sys.stdout.flush()
        return status or 0
    except UserError as error:
        tell(error)
        return 2
    except PermissionError as error:
        print(f"error: no permission to write or read {error.filename}; choose another folder", file=sys.stderr)
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 130


def exit_on_user_error(run: Callable[[], int | None]) -> None:
    """Run an entry point and end the process with its exit status; see `status_of`."""
    sys.exit(status_of(run))
