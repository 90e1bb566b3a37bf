"""The benchmark's basic filter: English, more than a few words, and a picture that is neither small nor a strip."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from poolbench.options import option

from curate.models.captions import is_english, long_enough
from curate.models.languages import check_detector, is_numeric
from curate.pool.passes import Passes
from curate.selectors.base import Filter

SIDE, RATIO = 200, 3.0  # pixels of the shorter side at least, longer by shorter side at most


@dataclass
class Options:
    """The options."""

    language: str = option("what tells English, see curate/models/languages.py; as published: fasttext", "fasttext")


class Basic(Filter):
    """Keeps English captions of three words and six characters or more, with pictures of 200 pixels or more, 3:1 at
    most."""

    columns = ("text", "original_width", "original_height")

    @property
    def light(self) -> bool:
        return is_numeric(self.options.language)

    @property
    def slow(self) -> bool:
        return True

    def learn(self, passes: Passes) -> None:
        check_detector(self.options.language)

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = good_size(rows) & long_enough(rows["text"])
        kept[kept] = is_english(rows["text"].filter(pa.array(kept)), self.options.language)  # the dear rule, last
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {"rows without a caption": rows["text"].null_count}


def good_size(rows: pa.Table) -> np.ndarray:
    """Which pictures are large and square enough, bool [rows]; a size that is missing is neither."""
    width = np.asarray(rows["original_width"].to_numpy(), dtype=np.float64)
    height = np.asarray(rows["original_height"].to_numpy(), dtype=np.float64)
    shorter, longer = np.minimum(width, height), np.maximum(width, height)
    with np.errstate(divide="ignore", invalid="ignore"):
        good: np.ndarray = (shorter >= SIDE) & (longer / shorter <= RATIO)
    return good
