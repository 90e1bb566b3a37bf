"""Which captions the published filters look at: their language, their length in words, characters and tokens."""

import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.models.languages import detector

WORDS, CHARACTERS, TOKENS = 2, 5, 1  # a caption has more
_TOKEN = r"[^ \n\r\t\v\f\x00]+"


def is_english(texts: pa.ChunkedArray, language: str) -> np.ndarray:
    """Which captions a detector calls English, bool [texts]; none may be missing."""
    found = detector(language)(texts.combine_chunks()) if len(texts) else []
    return np.array([name == "en" for name in found], dtype=bool)


def long_enough(texts: pa.ChunkedArray) -> np.ndarray:
    """Which captions have enough characters (code points) and words (as str.split parts them), bool [rows]."""
    enough = pc.greater(pc.utf8_length(texts), CHARACTERS)
    enough = pc.and_(enough, pc.match_substring_regex(texts, _PATTERN))
    kept: np.ndarray = pc.fill_null(enough, False).to_numpy()
    return kept.copy()


def usable_captions(texts: pa.ChunkedArray, language: str) -> np.ndarray:
    """Which captions the published clustering and image_based look at: English, two tokens, six characters. Bool."""
    texts = pc.fill_null(texts, "")
    usable: np.ndarray = (pc.utf8_length(texts).to_numpy() > CHARACTERS) & (token_counts(texts) > TOKENS)
    usable[usable] = is_english(texts.filter(pa.array(usable)), language)  # the dear rule, last
    return usable


def token_counts(texts: pa.ChunkedArray) -> np.ndarray:
    """How many tokens `fasttext.tokenize` makes of each text, which counts every line end as one."""
    words, ends = pc.count_substring_regex(texts, _TOKEN), pc.count_substring(texts, "\n")
    counts: np.ndarray = pc.add(words, ends).to_numpy()
    return counts


def _pattern() -> str:
    """A regular expression that finds more than WORDS words. What parts them is Unicode's white space and four control
    characters, which neither Arrow nor RE2 count among it."""
    blanks = "".join(f"\\x{{{code:x}}}" for code in range(sys.maxunicode + 1) if chr(code).isspace())
    return f"[^{blanks}]" + f"[{blanks}](?s:.)*?[^{blanks}]" * WORDS


_PATTERN = _pattern()
