"""The pictures that are most like the targets, by the p-norm of all similarities or by the largest; see
curate/scorers/norm_sim.py. Without targets, against the rows that are left: vas_d."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.errors import UserError
from poolbench.options import option, source

from curate.models import devices
from curate.models.points import KEY
from curate.models.targets import EXPLAINED, IMAGENET, name_of, named, ordered, targets_of
from curate.pool.chosen import Needs, joined
from curate.scorers.norm_sim import NORMS, NormSim, folder_of
from curate.scorers.rows import RowScorer
from curate.selectors.base import AMONG, Filter
from curate.selectors.exactly import Exactly


@dataclass
class Options:
    """The options."""

    fraction: float = option("of the pool, 0 to 1: exactly so many rows")
    p: Any = option(
        "2 | inf: a product with a matrix of the embeddings' width for each row, or with every target", "inf"
    )
    targets: Any = source(EXPLAINED, IMAGENET)
    embedding: str = option("array of the npz, of the model that made the targets", KEY)
    device: str = option(devices.EXPLAINED, "auto", efficiency=True)
    of: Any = option(AMONG, None)


class BySimilarity(Exactly):
    """Keeps the best by NormSim."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        options.targets = ordered(options.targets)
        self._p = str(options.p).removesuffix(".0")
        if self._p not in NORMS:
            raise UserError(f"filter.p={options.p} is not known; it is one of {', '.join(NORMS)}")
        options.p = self._p
        folder = folder_of(name_of(options.targets), options.embedding, self._p)
        self.columns = (f"{folder}/norm_sim_{self._p}",)

    @property
    def sources(self) -> Needs:
        return joined([super().sources, Needs((), (self.options.embedding,))])

    def scorer(self) -> RowScorer:
        device = devices.checked(self.options.device)
        found = named(self.options.targets)
        targets = targets_of(self.options.targets, found)
        self.state = {"targets_sha256": targets.digest, "targets": targets.rows, **found.warned()}
        return NormSim(targets, self.options.embedding, self._p, device)
