"""The benchmark's basic filter: English, more than a few words, and a picture that is neither small nor a strip."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.models.languages import check_detector, detector
from curate.selectors.base import Filter, Passes
from poolbench.options import option

WORDS, CHARACTERS = 2, 5  # a caption has more
SIDE, RATIO = 200, 3.0  # pixels of the shorter side at least, longer by shorter side at most


@dataclass
class Options:
    """The options."""

    language: str = option("what tells English, see curate/models/languages.py; as published: fasttext", "fasttext")


class Basic(Filter):
    """Keeps English captions of three words and six characters or more, with pictures of 200 pixels or more, 3:1 at
    most."""

    columns = ("text", "original_width", "original_height")

    def prepare(self, passes: Passes) -> None:
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


def long_enough(texts: pa.ChunkedArray) -> np.ndarray:
    """Which captions have enough characters (code points) and words (as str.split parts them), bool [rows]."""
    enough = pc.greater(pc.utf8_length(texts), CHARACTERS)
    enough = pc.and_(enough, pc.match_substring_regex(texts, _PATTERN))
    kept: np.ndarray = pc.fill_null(enough, False).to_numpy()
    return kept.copy()


def is_english(texts: pa.ChunkedArray, language: str) -> np.ndarray:
    """Which captions a detector calls English, bool [texts]; none may be missing."""
    found = detector(language)(texts.to_pylist()) if len(texts) else []
    return np.array([name == "en" for name in found], dtype=bool)


def _pattern() -> str:
    """A regular expression that finds more than WORDS words. What parts them is Unicode's white space and four control
    characters, which neither Arrow nor RE2 count among it."""
    blanks = "".join(f"\\x{{{code:x}}}" for code in range(sys.maxunicode + 1) if chr(code).isspace())
    return f"[^{blanks}]" + f"[{blanks}](?s:.)*?[^{blanks}]" * WORDS


_PATTERN = _pattern()
