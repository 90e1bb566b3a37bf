"""The pairs that a CLIP model finds most alike: by a threshold, or the best fraction of the pool, of all its pairs or
among those that another filter keeps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.errors import UserError, nearest
from poolbench.options import option

from curate.selectors.base import AMONG, AtLeast, Filter

COLUMNS = {"b32": "clip_b32_similarity_score", "l14": "clip_l14_similarity_score"}


def column_of(arch: str) -> str:
    """The column of scores that an option `arch` means.

    Raises:
        UserError: there is no such column of CLIP scores.
    """
    if arch not in COLUMNS and "score" not in arch:
        raise UserError(f"filter.arch={arch} is not known; {nearest(arch, COLUMNS)}")
    return COLUMNS.get(arch, arch)


@dataclass
class Options:
    """The options, of which one of fraction and threshold is needed."""

    arch: str = option("b32 | l14, or the name of a column of scores", "l14")
    fraction: float | None = option("of the pool, 0 to 1", None)
    threshold: float | None = option("the lowest score that is kept", None)
    of: Any = option(AMONG, None)


class ClipScore(AtLeast):
    """Keeps scores at or above the threshold."""

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        super().__init__(options, of)
        self.columns = (column_of(options.arch),)
