"""Which training pictures a probe sees: a matter of seed and keys alone, whatever the order of shards and samples."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

VALIDATION = 0.1  # share of each class that chooses the weight decay


class Draw:
    """One shuffle of each class of a training split.

    The first pictures of a class are its validation part, the next ones its shots; so those of a smaller number of
    shots are among those of a larger one.
    """

    def __init__(self, keys: Sequence[str], labels: npt.NDArray[np.int64], seed: int) -> None:
        """`keys` and `labels`, int64 [n], of the split. Samples that share a key keep the order that they come in."""
        hashes = [hashlib.sha256(f"{seed}/{key}".encode(errors="surrogatepass")).digest() for key in keys]
        order = np.array(sorted(range(len(keys)), key=hashes.__getitem__), np.int64)
        order = order[np.argsort(labels[order], kind="stable")]
        _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        places = np.arange(len(order)) - np.repeat(starts, counts)  # of each one in its class
        held = np.where(counts > 1, np.maximum(1, np.round(VALIDATION * counts)), 0).astype(np.int64)
        self._order = order
        self._held = np.repeat(held, counts)
        self._places = places - self._held

    def validation(self, most: int | None = None) -> Rows:
        """Rows of the validation part, ascending: a tenth of each class, one at least, none of a class of one.

        Args:
            most: at most so many of each class.
        """
        chosen = self._places < 0
        if most is not None:
            chosen &= self._places + self._held < most
        return np.sort(self._order[chosen])

    def training(self, shots: int | None = None) -> Rows:
        """Rows of the others, ascending: all, or `shots` of each class and as many as there are of a smaller one."""
        chosen = self._places >= 0
        if shots is not None:
            chosen &= self._places < shots
        return np.sort(self._order[chosen])
