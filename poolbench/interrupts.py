"""Ctrl-C outside of what a command does: while it imports, and while it ends, it ends the process without a word, where
Python would show a traceback of whatever is going on."""

import signal
import sys
import threading

_unheard = False


def unheard() -> None:
    """From here on Ctrl-C is not told, and ends the process all the same; ignored by a parent's wish it stays so."""
    global _unheard
    main = threading.current_thread() is threading.main_thread()  # no other may
    if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _unheard = True


def unheard_in_imports() -> None:
    """The same in a package that `python -m` imports on the way to a command in it, and nowhere else."""
    if sys.argv[0] == "-m":
        unheard()


def heard() -> None:
    """Ctrl-C is KeyboardInterrupt again."""
    global _unheard
    if _unheard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _unheard = False
