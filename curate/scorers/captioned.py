"""How alike a caption is to those that somebody else's captioner wrote for the same picture, as SIEVE compares them.

Mahmoud et al., 2024, "Sieve", https://arxiv.org/abs/2310.02110; the rule is that of facebookresearch/SIEVE,
sentence_similarity_inference.py.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from curate.models.devices import opened
from curate.models.sentences import model_digest, sentence_model
from curate.pool.files import File
from curate.pool.joined import Table, look_up
from curate.pool.joined_texts import KIND, texts_at
from curate.scorers.imported import Imported, opened_table

# What says of a picture that it is one: taken out of captions of both sides, one after the other, whatever the case.
PHRASES = ("an image of", "a photo of", "stock photo", "photo stock", "a photo", "an image", "image", "photo")
_PHRASES = [re.compile(phrase, re.IGNORECASE) for phrase in PHRASES]
_ROWS = 2**12  # whose captions are compared at a time


class CaptionSimilarity(Imported):
    """`caption_similarity`: the largest cosine between a row's caption and those generated for its picture, 0 where the
    one that has it is empty without PHRASES; NaN where the row has no caption, or none was generated."""

    def __init__(self, name: str, by: str, table: Path, digest: str, remake: str, device: str) -> None:
        """
        Args:
            table: names of uids or keys, and lists of captions, see curate.pool.joined_texts.
            digest: of what it was made of.
            device: cpu or cuda.
        """
        super().__init__(name, ("caption_similarity",), by, table, digest, remake)
        self.columns, self.kind, self.device = (by, "text"), KIND, device

    def identity(self) -> Any:
        return {"captions": self.digest, "by": self.by, "model": model_digest(), "phrases": list(PHRASES)}

    def valued(self, table: Table, found: np.ndarray) -> int:
        return len(found)

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        table, device = opened_table(str(self.table), self.kind), opened(self.device).where or "cpu"
        parts = [np.zeros(0, np.float32)]
        for piece in self.pieces(file):
            values = np.full(len(piece.good), np.nan, np.float32)
            found = look_up(table, piece.names)
            rows, places = np.flatnonzero(piece.good)[found >= 0], found[found >= 0]
            texts = piece.table["text"].to_pylist()
            told = np.array([texts[row] is not None for row in rows.tolist()], bool)
            rows, places = rows[told], places[told]
            for start in range(0, len(rows), _ROWS):
                some = rows[start : start + _ROWS]
                lists = texts_at(self.table, table, places[start : start + _ROWS])
                values[some] = similarities([texts[row] for row in some.tolist()], lists, device)
            parts.append(values)
        return {"caption_similarity": np.concatenate(parts)}


def stripped(text: str) -> str:
    """A caption without PHRASES; blanks around them stay."""
    for phrase in _PHRASES:
        text = phrase.sub("", text)
    return text


def similarities(texts: Sequence[str], generated: Sequence[Sequence[str]], device: str) -> np.ndarray:
    """The score of each text and the captions generated for its picture, float32 [texts]; NaN where there are none."""
    own = [stripped(text) for text in texts]
    others = [[stripped(caption) for caption in captions] for captions in generated]
    distinct = {
        text: place for place, text in enumerate(dict.fromkeys([*own, *(one for all_ in others for one in all_)]))
    }
    vectors = sentence_model(device)(list(distinct)).astype(np.float64)
    found = np.full(len(own), np.nan, np.float32)
    for row, (text, captions) in enumerate(zip(own, others, strict=True)):
        if captions:
            cosines = vectors[[distinct[caption] for caption in captions]] @ vectors[distinct[text]]
            best = int(cosines.argmax())
            found[row] = cosines[best] if captions[best] else 0.0
    return found
