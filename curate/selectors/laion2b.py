"""The rule that LAION-2B was made by: English, and a CLIP B/32 score of at least 0.28."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from poolbench.options import option

from curate.models.captions import is_english
from curate.models.languages import check_detector
from curate.pool.passes import Passes
from curate.pool.quantile import scores
from curate.selectors.base import Filter, unscored
from curate.selectors.clip_score import COLUMNS

SCORE = 0.28


@dataclass
class Options:
    """The options."""

    language: str = option("what tells English, see curate/models/languages.py; as published: cld3", "cld3")


class Laion2b(Filter):
    """Keeps English captions of pictures that they fit."""

    columns = ("text", COLUMNS["b32"])

    def learn(self, passes: Passes) -> None:
        check_detector(self.options.language)

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        kept: np.ndarray = (scores(rows, COLUMNS["b32"]) >= SCORE) & rows["text"].is_valid().to_numpy()
        kept[kept] = is_english(rows["text"].filter(pa.array(kept)), self.options.language)
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {"rows without a caption": rows["text"].null_count, **unscored(rows, COLUMNS["b32"])}
