"""The filter behind DataComp-1B: what image_based and clip_score both keep; a fraction is one of the whole pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from curate.models.targets import ordered
from curate.selectors import clip_score, image_based
from curate.selectors.base import Composite, Filter, counted


@dataclass
class Options(image_based.Options, clip_score.Options):
    """Those of both filters; the published ones are arch=l14 and fraction=0.3."""


class ImageBasedIntersectClipScore(Composite):
    """Keeps what both keep."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        options.targets = ordered(options.targets)
        of_scores = clip_score.Options(options.arch, options.fraction, options.threshold, options.of)
        of_images = image_based.Options(
            options.centroids, options.targets, options.clusters, options.language, options.embedding
        )
        self.children = [clip_score.ClipScore(of_scores, of), image_based.ImageBased(of_images)]

    def count(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Pictures are compared only where the score suffices, which is a third of the work."""
        scores, images = self.children
        counts = scores.count(rows, arrays)
        return self.combine([counts, counted(images, counts > 0, rows, arrays)])

    def combine(self, counts: list[np.ndarray]) -> np.ndarray:
        both: np.ndarray = np.minimum(*counts)
        return both
