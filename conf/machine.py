"""What this process may use of the machine."""

import os


def cores() -> int:
    """How many cores this process may run on, which batch systems and containers make fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
