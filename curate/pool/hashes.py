"""Numbers that look random and depend on nothing but what they are made of."""

from collections.abc import Callable, Iterator

import numpy as np


def mixed(values: np.ndarray) -> np.ndarray:
    """u8 of u8: SplitMix64's step and finalizer (Steele, Lea and Flood 2014), in which every bit of the input changes
    half of the output's."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = values ^ (values >> np.uint64(31))
    return found


def hashed(uids: np.ndarray, seed: int) -> np.ndarray:
    """A number for each uid, uniform over u8 and unlike that of another seed."""
    start = np.full(1, seed % 2**64, np.uint64)
    return mixed(uids["f0"] ^ mixed(uids["f1"] ^ mixed(start)))


def nth_smallest(arrays: Callable[[], Iterator[np.ndarray]], place: int) -> int:
    """The number at `place` of the ascending numbers of all arrays. They are uniform over u8, so that those which begin
    with the same 16 bits fit into memory."""
    counts = sum((np.bincount(one >> np.uint64(48), minlength=2**16) for one in arrays()), np.zeros(2**16, np.int64))
    bucket = int(np.searchsorted(np.cumsum(counts), place, side="right"))
    same = np.concatenate([one[one >> np.uint64(48) == np.uint64(bucket)] for one in arrays()])
    return int(np.sort(same)[place - int(counts[:bucket].sum())])
