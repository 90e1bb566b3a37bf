"""Numbers that look random and depend on nothing but what they are made of."""

import numpy as np


def mixed(values: np.ndarray) -> np.ndarray:
    """u8 of u8: SplitMix64's step and finalizer (Steele, Lea and Flood 2014), in which every bit of the input changes
    half of the output's."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: np.ndarray = values ^ (values >> np.uint64(31))
    return found
