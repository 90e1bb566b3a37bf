"""MetaCLIP's matching with 500,000 entries: captions a second of a core, memory, and the public code beside ours.

    python bench/metaclip_matching.py [--captions 200000] [--rows 400000] [--checkout <folder>] [--out FILE.md]

Captions are the demo's with up to nine more words, which are as frequent as words are (Zipf); the entries are all
words, and two to four of them. With a checkout of github.com/facebookresearch/MetaCLIP, whose plain loop and automaton
(pyahocorasick has to be installed) have to find the same entries, whose function of tail shares the same t, and whose
draws as many rows but for chance.
"""

import argparse
import datetime
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from evaluation_report import table
from machine import machine
from original_metaclip import load
from pools import uid_of
from processes import measured

from poolbench.files import atomic

from curate.models.entries import Matcher, Matches, _spaced
from curate.selectors.metaclip import of_tail
from demodata.pool import build

ROOT = Path(__file__).resolve().parent.parent
ENTRIES, WORDS = 500_000, 250_000
PER_FILE = 100_000  # rows
GOAL = 50_000  # captions a second
LOOP, AUTOMATON = 40, 20_000  # captions that the public code is given
T = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=int, default=200_000)
    parser.add_argument("--rows", type=int, default=400_000, help="of the pool that a whole selection is made of")
    parser.add_argument("--checkout", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    mine = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow", "ahocorasick-rs"))
    lines = [
        "# MetaCLIP: matching and balancing",
        "",
        f"`python bench/metaclip_matching.py`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. {machine()}. {mine}.",
        "",
        *measure(options),
    ]
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines))
    print("\n".join(lines))


def measure(options: argparse.Namespace) -> list[str]:
    rng = random.Random(0)
    words = made_words(rng)
    entries, captions = made_entries(rng, words), made_captions(rng, words, max(options.captions, AUTOMATON))
    before = peak()
    seconds, matcher = timed(lambda: Matcher({"": entries}))
    grown = peak() - before
    texts = pa.chunked_array([captions])
    matcher.find(texts[:1000])
    spent, found = timed(lambda: matcher.find(texts))
    rate = len(captions) / spent
    length, named = np.mean([len(one) for one in captions]), len(found.rows) / len(captions)
    lines = [
        f"{len(entries):,} entries; {len(captions):,} captions of {length:.0f} characters that name {named:.1f} "
        "entries each. Processor seconds of one core.",
        "",
        f"- the automaton: {seconds:.1f} s, {grown / 1e6:,.0f} MB, once a process",
        f"- matching: **{rate:,.0f} captions/s**; goal {GOAL:,}: {'met' if rate >= GOAL else '**missed**'}",
        "",
    ]
    with tempfile.TemporaryDirectory() as name:
        lines += selections(options.rows, entries, captions, Path(name))
    if options.checkout is not None:
        lines += beside(options.checkout.resolve(), entries, captions, found, rate)
    return lines


def made_words(rng: random.Random) -> list[str]:
    """Words of one to five syllables, the most frequent first, of which the demo's own are."""
    own = [word for caption in demo_captions() for word in caption.replace(",", " ").replace(":", " ").split()]
    starts, ends = ("", "b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "st", "tr", "w"), "aeiou"
    made = dict.fromkeys(own)
    while len(made) < WORDS:
        made[
            "".join(rng.choice(starts) + rng.choice(ends) for _ in range(rng.randint(1, 5)))
            + rng.choice("nrst ").strip()
        ] = None
    return list(made)


def made_entries(rng: random.Random, words: Sequence[str]) -> list[str]:
    made = dict.fromkeys(words)
    while len(made) < ENTRIES:
        made[" ".join(words[int(len(words) ** rng.random()) - 1] for _ in range(rng.choice((2, 2, 3, 4))))] = None
    return list(made)


def demo_captions() -> list[str]:
    paths = sorted(build().metadata.glob("*.parquet"))
    return [text for path in paths for text in pq.read_table(path, columns=["text"])["text"].to_pylist()]


def made_captions(rng: random.Random, words: Sequence[str], count: int) -> list[str]:
    demo = demo_captions()
    return [
        f"{rng.choice(demo)}{rng.choice((' ', ', ', ': '))}"
        + " ".join(words[int(len(words) ** rng.random()) - 1] for _ in range(rng.randrange(10)))
        + rng.choice(("", ".", "!", " - photo"))
        for _ in range(count)
    ]


def selections(rows: int, entries: Sequence[str], captions: Sequence[str], folder: Path) -> list[str]:
    """A whole selection, by its command, of a quarter of the rows and of all."""
    (folder / "entries.json").write_text(json.dumps(entries))
    cells = []
    for some in (rows // 4, rows):
        pool = folder / str(some)
        pool.mkdir()
        for start in range(0, some, PER_FILE):
            numbers = range(start, min(start + PER_FILE, some))
            texts = [captions[number % len(captions)] for number in numbers]
            columns = {"uid": [uid_of(number) for number in numbers], "text": texts}
            pq.write_table(pa.table(columns), pool / f"{start:09d}.parquet")
        command = [sys.executable, "-m", "curate", "filter=metaclip", f"filter.metadata={folder}/entries.json"]
        command += [f"pool={pool}", f"out={pool}.npy", "workers=1"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        ran = measured(command, ROOT, folder / "log", {**os.environ, "OMP_NUM_THREADS": "1"})
        spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        kept = len(np.load(f"{pool}.npy", mmap_mode="r"))
        cells.append(
            (
                f"{some:,}",
                f"{kept:,}",
                f"{spent:.1f}",
                f"{some / spent:,.0f}",
                f"{ran.memory / 1e6:,.0f} MB",
            )
        )
    return [
        "A whole selection, counting and then drawing, and making the automaton, with one worker:",
        "",
        *table(("rows", "kept", "s", "rows/s", "memory"), cells),
        "",
    ]


def beside(checkout: Path, entries: list[str], captions: list[str], found: Matches, rate: float) -> list[str]:
    """The public code on the same captions; exits where it finds something else."""
    original = load(checkout)
    ours = np.split(found.entries, np.searchsorted(found.rows, np.arange(1, len(captions))))
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    if [_spaced(letter, True).decode() for letter in letters] != [spaced for _, spaced in original.spaced(letters)]:
        sys.exit("blanks are put around other letters")
    original.loop("", entries), original.automaton("", entries)
    cells = [("ours", f"{len(captions):,}", f"{rate:,.0f}")]
    for name, function, count in (
        ("its loop", original.loop, LOOP),
        ("its automaton, pyahocorasick", original.automaton, AUTOMATON),
    ):
        seconds, theirs = timed(partial(_each, function, captions[:count], entries))
        for row, one in enumerate(theirs):
            if sorted(one) != ours[row].tolist():
                sys.exit(f"{name} finds something else in {captions[row]!r}")
        cells.append((name, f"{count:,}", f"{count / seconds:,.0f}"))
    counts = np.bincount(found.entries, minlength=len(entries))
    for tail in (0.01, 0.06, 0.3):
        if original.t_of_tail(counts, tail) != of_tail(counts, tail):
            sys.exit(f"t of the tail {tail} is another one")
    return [
        "Beside the public code, which finds the same entries in each caption, and the same t of 1, 6 and 30 %:",
        "",
        *table(("", "captions", "captions/s"), cells),
        "",
        drawn(original.draw, ours, counts),
        "",
    ]


def drawn(balance: Callable[..., bool], ours: Sequence[np.ndarray], counts: np.ndarray) -> str:
    """How many rows the public draws keep, beside what is expected of ours."""
    probability = T / np.maximum(counts, T)
    random.seed(0)
    kept = sum(balance(one, probability) for one in ours)
    each = np.array([1 - np.prod(1 - probability[one]) for one in ours])
    error = np.sqrt((each * (1 - each)).sum())
    if abs(kept - each.sum()) > 4 * error:
        sys.exit(f"its draws keep {kept:,} rows, {each.sum():,.0f} are expected")
    return f"Its draws with t = {T} keep {kept:,} rows; ours are expected to keep {each.sum():,.0f} ± {error:,.0f}."


def _each(function: Callable[..., Any], captions: Sequence[str], entries: Any) -> list[Any]:
    return [function(text, entries) for text in captions]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds, and what the work makes."""
    started = time.process_time()
    made = work()
    return time.process_time() - started, made


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
