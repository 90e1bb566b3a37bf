"""What bench/train_throughput.py asks of the processes that measure a side, and what they answer, both as JSON.

Imported in the environments of both sides, so it needs nothing of ours.
"""

from typing import NamedTuple

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
READ, DECODE, RESIZE = "read the tar, group, shuffle", "decode the JPEG", "crop and resize"
NORMALISE, TOKENISE, STACK = "to float, normalise", "tokenise", "stack the batch"
BEFOREHAND = 2  # batches that the worker is ahead by


class LoaderWork(NamedTuple):
    """What to read. `models` is a folder of configurations, `model` one of them or of open_clip's; `left_out` samples
    come before the `samples` that are measured."""

    shards: str
    models: str
    model: str
    batch: int
    samples: int
    left_out: int

    @property
    def enough(self) -> int:
        """Samples with which the worker does not come to an end while it is measured."""
        return self.left_out + self.samples + 2 * BEFOREHAND * self.batch


class Read(NamedTuple):
    """`seconds` from the first to the last of `samples`, `cpu` processor time of all processes meanwhile; `pieces`
    is processor time of the parts of the work for 1,000 samples."""

    samples: int
    seconds: float
    cpu: float
    pieces: dict[str, float]

    @property
    def rate(self) -> float:
        """Samples/s."""
        return self.samples / self.seconds

    @property
    def cpu_rate(self) -> float:
        """Samples a second of processor time."""
        return self.samples / self.cpu

    @property
    def pictures(self) -> float:
        """Pictures decoded and resized in a second of processor time."""
        return 1000 / (self.pieces[DECODE] + self.pieces[RESIZE])


class StepWork(NamedTuple):
    """What to train on: `steps` batches that are measured behind `left_out` that are not. `models` is a folder of
    configurations, `model` one of them or of open_clip's; `compile` and `accumulate` are for ours alone."""

    models: str
    model: str
    precision: str
    batch: int
    steps: int
    left_out: int
    compile: bool
    accumulate: int


class Trained(NamedTuple):
    """Samples/s. The rest is measured with ours: FLOP/s of a large matrix product, FLOPs of both towers' forward pass
    for a sample, the share of the captions that is not padding, the operations' shares of a step, and the most memory
    that it took, in bytes."""

    rate: float
    matmul: float = 0.0
    image_flops: float = 0.0
    text_flops: float = 0.0
    filled: float = 1.0
    operations: dict[str, float] = {}  # noqa: RUF012 (nobody changes it)
    memory: float = 0.0
