"""What of a pool's file is clustered: the embeddings of rows with a usable caption, or a draw of them."""

import numpy as np

from curate.models.captions import usable_captions
from curate.pool.files import File, read

KEY = "l14_img"  # the array that the published clusters are of


def drawn(file: File, embedding: str, language: str, ratio: float, seed: int, order: str) -> np.ndarray:
    """The embeddings of a file that are clustered, in the precision in which they are stored; numbers only.

    Args:
        ratio: share of them that is drawn, with replacement, by `seed` and the file's number.
        order: digest of what the number depends on, the files before this one; it makes no difference by itself.

    Raises:
        BadFile: the file cannot be read, or lacks the captions or the embeddings.
    """
    pieces = [
        rows.arrays[embedding][usable_captions(rows.table["text"], language)]
        for rows in read(file, ["text"], [embedding])
    ]
    found = np.concatenate(pieces) if pieces else np.empty((0, 0))
    found = found[np.isfinite(found).all(axis=1)]
    if ratio == 1 or not len(found):
        return found
    draws = np.random.default_rng([seed, file.number])
    return found[draws.integers(len(found), size=int(len(found) * ratio))]
