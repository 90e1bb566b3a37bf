"""The pairs that are more alike than their pictures and captions are to those of others; see
curate/scorers/neg_clip_loss.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from poolbench.errors import UserError
from poolbench.options import option

from curate.models import devices
from curate.scorers.neg_clip_loss import NegClipLoss as Scores
from curate.scorers.rows import RowScorer
from curate.selectors.base import AMONG, Filter
from curate.selectors.exactly import Exactly


@dataclass
class Options:
    """The options."""

    fraction: float = option("of the pool, 0 to 1: exactly so many rows")
    arch: str = option("whose embeddings: <arch>_img and <arch>_txt of the npz; b32 | l14", "l14")
    temperature: float = option("of the model that made them; OpenAI's CLIP: .01", 0.01)
    batch: int = option("pairs that are compared with each other, within a file", 32768)
    partitions: int = option("random ones of a file into batches, over which the mean is taken", 10)
    seed: int = option("of the partitions", 0)
    device: str = option(devices.EXPLAINED, "auto", efficiency=True)
    of: Any = option(AMONG, None)


class NegClipLoss(Exactly):
    """Keeps the best by negCLIPLoss."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        if not (np.isfinite(options.temperature) and options.temperature > 0):
            raise UserError(f"filter.temperature={options.temperature} must be positive")
        for name in ("batch", "partitions"):
            if getattr(options, name) < 1:
                raise UserError(f"filter.{name}={getattr(options, name)} must be positive")
        if options.batch == 1:
            raise UserError("filter.batch=1 leaves nothing to compare a pair with: every score would be 0; at least 2")
        if options.seed < 0:
            raise UserError(f"filter.seed={options.seed} must be 0 or more")
        self.columns = (self._scores("cpu").column(),)

    def scorer(self) -> RowScorer:
        return self._scores(devices.checked(self.options.device))

    def _scores(self, device: str) -> Scores:
        options = self.options
        return Scores(options.arch, options.temperature, options.batch, options.partitions, options.seed, device)
