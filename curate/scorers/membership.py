"""Whether a filter keeps a row, as a column."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from curate.pool.chosen import Chooser, judged
from curate.pool.files import File
from curate.scorers.rows import RowScorer


class Membership(RowScorer):
    """`member`: 1 where a row is kept, however often, else 0; NaN where it has no good uid."""

    makes = ("member",)

    def __init__(self, digest: str, chosen: Chooser) -> None:
        """
        Args:
            digest: of what is chosen, after which the folder is called.
            chosen: has to know what it has to of the whole pool by the time that rows are scored.
        """
        self.name = f"member-{digest[:8]}"
        self._chosen = chosen

    def identity(self) -> Any:
        return self._chosen.identity()

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        parts = [np.zeros(0, np.float32)]
        for rows, counts in judged(file, self._chosen):
            part = np.full(len(rows.good), np.nan, np.float32)
            part[rows.good] = counts > 0
            parts.append(part)
        return {"member": np.concatenate(parts)}
