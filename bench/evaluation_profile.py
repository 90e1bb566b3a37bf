"""Seconds of one evaluation by what its main process does; the workers decode meanwhile.

    python bench/evaluation_profile.py <file.json> <options of python -m evaluate>

The file gets the phases and the shapes of all batches that the towers had. A phase within another counts for itself
only. What is in none is "other".
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from poolbench.imports import uncollected

STARTED = time.perf_counter()


class Phases:
    """Adds up, by phase, the time between `enter` and `leave`, less that of the phases within."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = STARTED

    def enter(self, phase: str) -> None:
        self._account()
        self._stack.append(phase)

    def leave(self) -> None:
        self._account()
        self._stack.pop()

    def wrap(self, owner: Any, name: str, phase: str) -> None:
        """Let `owner.name`, a function, method or class method, count as `phase`."""
        inner: Callable[..., Any] = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            self.enter(phase)
            try:
                return inner(*arguments, **options)
            finally:
                self.leave()

        setattr(owner, name, timed)

    def until_now(self) -> dict[str, float]:
        """Seconds by phase."""
        self._account()
        return dict(self.seconds)

    def _account(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack[-1] if self._stack else "other"] += now - self._since
        self._since = now


class Batches:
    """The shapes of what the towers are given: pictures [n, 3, h, w], tokens [n, length]."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[list[int]]] = {"pictures": [], "texts": []}

    def watch(self, owner: Any, name: str, kind: str) -> None:
        """Note the shape of the second argument of `owner.name`, a function or method."""
        inner: Callable[..., Any] = getattr(owner, name)

        def noted(first: Any, tensor: Any, **options: Any) -> Any:
            self.shapes[kind].append(list(tensor.shape))
            return inner(first, tensor, **options)

        setattr(owner, name, noted)


def main() -> None:
    out, *options = sys.argv[1:]
    phases = Phases()
    phases.enter("imports of torch, open_clip and ours")
    with uncollected():
        from torch.utils.data.dataloader import DataLoader, _BaseDataLoaderIter

        from poolbench.command import compose
        from poolbench.models import towers

        from evaluate import run as evaluation
        from evaluate import schedule
        from evaluate.config import EvaluateConfig
        from evaluate.encoder import Encoder
        from evaluate.evaluators import EVALUATORS

    phases.leave()
    phases.wrap(evaluation, "subject_of", "hash of the checkpoint")
    phases.wrap(evaluation, "open_all", "text files of the sets")
    phases.wrap(Encoder, "of", "model and weights")
    phases.wrap(Encoder, "prepare", "text tower: prompts of all classes")
    phases.wrap(Encoder, "encode_texts", "text tower: captions and cues")
    phases.wrap(Encoder, "encode_images", "image tower")
    phases.wrap(evaluation, "save", "writing results")
    for kind in dict.fromkeys(EVALUATORS.values()):
        phases.wrap(kind, "predictions", "predictions")
    phases.wrap(schedule, "metrics", "metrics")
    phases.wrap(DataLoader, "__iter__", "start of the workers")
    phases.wrap(_BaseDataLoaderIter, "__next__", "waiting for pictures")
    batches = Batches()
    batches.watch(towers.Towers, "images", "pictures")
    batches.watch(towers, "encode_text", "texts")
    phases.enter("configuration")
    config = compose("evaluate", options, EvaluateConfig)
    phases.leave()
    status = evaluation.start(config)
    Path(out).write_text(json.dumps({"phases": phases.until_now(), "batches": batches.shapes}))
    sys.exit(status)


if __name__ == "__main__":
    main()
