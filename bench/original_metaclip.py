"""The functions of a checkout of github.com/facebookresearch/MetaCLIP that bench/metaclip_matching.py runs beside ours;
pyahocorasick has to be installed."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Original(NamedTuple):
    """Of MetaCLIP, the numbers of the entries in a caption, in a loop and by an automaton, and a draw from these and
    the entries' probabilities; of MetaCLIP 2, entries with their blanks, numbered, and the t of a share of matches."""

    loop: Callable[[str, list[str]], list[int]]
    automaton: Callable[[str, list[str]], list[int]]
    draw: Callable[[np.ndarray, np.ndarray], bool]
    spaced: Callable[[list[str]], list[tuple[int, str]]]
    t_of_tail: Callable[[np.ndarray, float], float]


def load(checkout: Path) -> Original:
    sys.path[:0] = [str(checkout), str(checkout / "metaclip" / "metaclip1")]
    loop, automaton, balancing = map(
        importlib.import_module, ("substr_matching", "substr_matching_ahocorasick", "balancing")
    )
    second: Any = importlib.import_module("metaclip.curation.substr_matching")
    curation: Any = importlib.import_module("metaclip.curation.curate")
    return Original(
        loop.substr_matching,
        automaton.substr_matching,
        balancing.balance_sampling,
        second.get_spaced_metadata,
        curation.p_to_t,
    )
