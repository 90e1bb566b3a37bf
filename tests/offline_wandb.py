"""What wandb has kept of a run in `wandb.mode=offline`."""

import time
from pathlib import Path

PATIENCE = 300  # seconds; wandb's own process writes the file, and may do so after the run has ended


def holds(run: Path, word: str) -> bool:
    """Whether the one log of a run's folder comes to hold a word."""
    (log,) = (run / "wandb").glob("offline-run-*/*.wandb")
    end = time.monotonic() + PATIENCE
    while word.encode() not in log.read_bytes():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
