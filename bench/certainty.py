"""What the columns of certainty cost: a batch of zero-shot classification without them, as first written, and as it is.

    python bench/certainty.py

Processor time of one thread for a batch of embeddings of 512 numbers, the three in turn, minima and medians of rounds.
"""

import statistics
import time
from collections.abc import Callable

import torch
from machine import machine
from torch import Tensor
from torch.nn import functional

from evaluate.embedder import LOGIT_SCALE
from evaluate.evaluators.classification import certainty_of, rank_of

WIDTH, ROUNDS, CALLS = 512, 9, 40
SIZES = ((32, 1000), (32, 100), (32, 10), (256, 1000), (256, 10))  # pictures, classes


def rank_of_booleans(scores: Tensor, targets: Tensor) -> Tensor:
    """The ranks as they were found before."""
    own = scores.gather(1, targets[:, None])
    earlier = torch.arange(scores.shape[1]) < targets[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(dim=1)


def without(features: Tensor, weights: Tensor, labels: Tensor) -> object:
    """Before there were such columns."""
    logits = LOGIT_SCALE * features @ weights
    return logits.argmax(dim=1), rank_of_booleans(logits, labels)


def first_written(features: Tensor, weights: Tensor, labels: Tensor) -> object:
    """With the columns by log_softmax and topk."""
    logits = LOGIT_SCALE * features @ weights
    predictions, ranks = logits.argmax(dim=1), rank_of_booleans(logits, labels)
    logs = functional.log_softmax(0.5 * logits, dim=1)
    shares = logs.exp()
    best = shares.topk(2, dim=1).values
    confidence = shares.gather(1, predictions[:, None])[:, 0]
    return ranks, torch.stack([confidence, best[:, 0] - best[:, 1], (shares * logs).sum(dim=1).neg_().clamp_(min=0)])


def now(features: Tensor, weights: Tensor, labels: Tensor) -> object:
    """As evaluate.evaluators.classification does it."""
    logits = LOGIT_SCALE * features @ weights
    predictions, ranks = logits.max(dim=1).indices, rank_of(logits, labels)
    return ranks, certainty_of(logits, predictions, 0.5)


def main() -> None:
    torch.set_num_threads(1)
    print(f"Machine: {machine()}. Microseconds a batch, minimum (median) of {ROUNDS} rounds.\n")
    print("| pictures | classes | without | as first written | now |\n|---|---|---|---|---|")
    sides: tuple[Callable[[Tensor, Tensor, Tensor], object], ...] = (without, first_written, now)
    for pictures, classes in SIZES:
        generator = torch.Generator().manual_seed(0)
        features = functional.normalize(torch.randn(pictures, WIDTH, generator=generator), dim=1)
        weights = functional.normalize(torch.randn(WIDTH, classes, generator=generator), dim=0)
        labels = torch.randint(0, classes, (pictures,), generator=generator)
        times: list[list[float]] = [[] for _ in sides]
        for _ in range(ROUNDS):
            for side, spent in zip(sides, times, strict=True):
                began = time.process_time()
                for _ in range(CALLS):
                    side(features, weights, labels)
                spent.append((time.process_time() - began) / CALLS * 1e6)
        cells = (f"{min(spent):.0f} ({statistics.median(spent):.0f})" for spent in times)
        print(f"| {pictures} | {classes} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
