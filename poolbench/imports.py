"""Imports of large libraries, in less time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """For a block that imports what stays until the process ends: nothing is collected in it, nor looked through later.

    torch and open_clip leave a million objects. Python's garbage collector looks through all of them again and again
    while they come, at each collection of the oldest generation after that, and when the process ends: together a
    third of the time of these imports. Processes that are forked later share their memory for longer, too.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
