"""The pictures whose embeddings lie where those of the others that are left vary, found in rounds; see
curate/scorers/vas_d.py. NormSim_2-D keeps the same rows."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.files import digest_json
from poolbench.options import efficiency_of, option

from curate.models import devices
from curate.models.points import KEY
from curate.pool.passes import Passes
from curate.pool.quantile import scores
from curate.scorers.rows import score_columns
from curate.scorers.vas_d import VasD as Scores
from curate.selectors.base import AMONG, Filter, in_range, unscored
from curate.selectors.exactly import first_stage


@dataclass
class Options:
    """The options."""

    fraction: float = option("of the pool, 0 to 1: exactly so many rows")
    clip_fraction: float | None = option("of the pool: first keep so many by CLIP score; null: all", None)
    rounds: int = option("in which the rows that are too many are dropped; published: small 168, medium 500", 168)
    arch: str = option("whose CLIP score: b32 | l14, or the name of a column of scores", "l14")
    embedding: str = option("array of the npz", KEY)
    device: str = option(devices.EXPLAINED, "auto", efficiency=True)
    of: Any = option(AMONG, None)


class VasD(Filter):
    """Keeps the rows that are left after all rounds."""

    def __init__(self, options: Options, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        in_range("fraction", options.fraction, 0, 1)
        if options.rounds < 1:
            raise UserError(f"filter.rounds={options.rounds} must be positive")
        self.children = first_stage(options.arch, options.clip_fraction, of)
        changing = {name: value for name, value in self.effective().items() if name not in efficiency_of(Options)}
        self._folder = f"vas_d-{digest_json(changing)[:6]}"
        self.columns = (f"{self._folder}/vas_d",)

    @property
    def among(self) -> Filter | None:
        return self.children[0] if self.children else None

    def learn(self, passes: Passes) -> None:
        options = self.options
        scorer = Scores(
            self._folder, options.embedding, devices.checked(options.device), options.fraction, options.rounds
        )
        wanted, begun = scorer.find(passes, self.among)
        if begun < wanted:
            print(f"vas_d: {wanted:,} rows are asked for, {begun:,} are there to begin with", file=sys.stderr)
        score_columns(passes, scorer)
        self.state = {"rows": min(wanted, begun)}

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = scores(rows, self.columns[0]) == 1
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return unscored(rows, self.columns[0])
