"""The pictures whose embeddings lie where those of the targets vary, among the pairs that CLIP finds most alike; see
curate/scorers/vas.py."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.options import option, source

from curate.models import devices
from curate.models.points import KEY
from curate.models.targets import EXPLAINED, IMAGENET, name_of, named, ordered, targets_of
from curate.pool.chosen import Needs, joined
from curate.scorers.rows import RowScorer
from curate.scorers.vas import Vas as Scores
from curate.scorers.vas import folder_of
from curate.selectors.base import AMONG, Filter
from curate.selectors.exactly import Exactly, first_stage


@dataclass
class Options:
    """The options."""

    fraction: float = option("of the pool, 0 to 1: exactly so many rows")
    clip_fraction: float | None = option("of the pool: first keep so many by CLIP score; null: all", None)
    arch: str = option("whose CLIP score: b32 | l14, or the name of a column of scores", "l14")
    targets: Any = source(EXPLAINED, IMAGENET)
    embedding: str = option("array of the npz, of the model that made the targets", KEY)
    device: str = option(devices.EXPLAINED, "auto", efficiency=True)
    of: Any = option(AMONG, None)


class Vas(Exactly):
    """Keeps the best by variance alignment score among the best by CLIP score."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        options.targets = ordered(options.targets)
        self.children = first_stage(options.arch, options.clip_fraction, of)
        self.columns = (f"{folder_of(name_of(options.targets), options.embedding)}/vas",)

    @property
    def among(self) -> Filter | None:
        return self.children[0] if self.children else None

    @property
    def sources(self) -> Needs:
        return joined([super().sources, Needs((), (self.options.embedding,))])

    def scorer(self) -> RowScorer:
        device = devices.checked(self.options.device)
        found = named(self.options.targets)
        targets = targets_of(self.options.targets, found)
        self.state = {"targets_sha256": targets.digest, "targets": targets.rows, **found.warned()}
        return Scores(targets, self.options.embedding, device)
