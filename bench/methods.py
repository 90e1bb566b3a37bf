"""Selections by embeddings: rows a second, peak memory, and the share of the rate at which this machine multiplies
matrices; and, with checkouts of the authors' code, whether theirs keeps the same rows.

    python bench/methods.py [--batch 32768] [--vas <checkout>] [--ncl <checkout>] [--scratch FOLDER] [--out FILE.md]

Each is measured in a process of its own, on one core, in seconds of the processor, which others that use the machine
hardly change. The authors' functions are called as they stand; only "cuda:0" is turned into the CPU, what they import
and these functions do not need is left out, and of VAS-D what spreads the work over GPUs is replaced by two lines.
"""

import argparse
import datetime
import multiprocessing
import os
import re
import sys
import tempfile
import time
import types
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from evaluation_report import table

from poolbench.files import atomic
from poolbench.uids import from_texts

from curate.command import run
from curate.models.devices import CPU
from curate.models.targets import Targets, gram_of, named, targets_of
from curate.pool.files import list_pool
from curate.pool.parts import Part
from curate.pool.passes import Passes
from curate.scorers.neg_clip_loss import NegClipLoss
from curate.scorers.norm_sim import NormSim
from curate.scorers.rows import score_columns
from curate.scorers.vas import Vas

WIDTH, TARGETS, BATCH = 768, 100_000, 32768
FEW = 2048  # rows that are compared with all targets
SMALL = {"rows": 12_000, "targets": 3_000, "rounds": 12}  # of the comparison with the authors' code
DAY = 86400.0


class Spent(NamedTuple):
    """What one measurement took: rows, seconds of the processor, the rate in products a second, the peak in bytes."""

    rows: int
    seconds: float
    rate: float
    memory: int


class Case(NamedTuple):
    """A method on a pool.

    Attributes:
        sizes: rows of its files.
        products: multiplications with an addition of a row, by the formula.
        made: the share of them that ours makes.
        batch: of neg_clip_loss.
    """

    title: str
    method: str
    sizes: tuple[int, ...]
    products: float
    precision: type[np.floating[Any]]
    made: float = 1.0
    batch: int = BATCH


HALF = (WIDTH + CPU.strip) / (2 * WIDTH)  # of a symmetric matrix, by strips
TINY, TINY_WIDTH, ROUNDS = (500,) * 59, 512, (2, 12)  # of VAS-D: the demo's files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=BATCH, help="of neg_clip_loss; the time is in proportion to it")
    parser.add_argument("--vas", type=Path, help="checkout of ypwang61/VAS")
    parser.add_argument("--ncl", type=Path, help="checkout of ypwang61/negCLIPLoss_NormSim")
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        folder = Path(scratch)
        os.environ["POOLBENCH_CACHE"] = str(folder / "cache")
        rng = np.random.default_rng(0)
        np.save(folder / "targets.npy", vectors(TARGETS, rng))
        gram_of(_targets(folder))
        spent = {}
        for number, case in enumerate(cases(options.batch)):
            write_pool(folder / f"{number}", case.sizes, rng)
            spent[case] = new_process(measure, case, folder / f"{number}")
            print(case.title, spent[case], file=sys.stderr)
        write_pool(folder / "tiny", TINY, rng, TINY_WIDTH)
        round_ = new_process(of_a_round, folder)
        same = beside(folder / "beside", options.vas, options.ncl)
    page = "\n".join([*head(), *speed(spent, round_), *alike(same)])
    print(page)
    if options.out:
        with atomic(options.out) as file:
            file.write(page)


def cases(batch: int) -> list[Case]:
    return [
        Case("`vas`, `norm_sim` p=2", "vas", (BATCH,), WIDTH**2, np.float64, HALF),
        Case("the same, four times the rows", "vas", (BATCH,) * 4, WIDTH**2, np.float64, HALF),
        Case(f"`norm_sim` p=inf, {TARGETS:,} targets", "norm_sim", (FEW,), WIDTH * TARGETS, np.float32),
        Case(
            f"`neg_clip_loss`, batch {batch:,}, 1 partition",
            "neg_clip_loss",
            (batch,),
            WIDTH * batch,
            np.float64,
            batch=batch,
        ),
    ]


def _targets(folder: Path) -> Targets:
    path = str(folder / "targets.npy")
    return targets_of(path, named(path))


def vectors(rows: int, rng: np.random.Generator, width: int = WIDTH) -> np.ndarray:
    """Embeddings of length 1 that are as alike as those of pictures, float16 [rows, width]."""
    found = rng.normal(size=(rows, width)).astype(np.float32) + 0.4 * rng.normal(size=width).astype(np.float32)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float16)


def write_pool(folder: Path, sizes: Sequence[int], rng: np.random.Generator, width: int = WIDTH) -> None:
    """Files of so many rows each, as a pool has them."""
    folder.mkdir(parents=True)
    for number, rows in enumerate(sizes):
        columns: dict[str, Any] = {"uid": [f"{value:032x}" for value in rng.permutation(rows) + 2**40 * number]}
        columns["text"] = ["a caption"] * rows
        for arch in ("b32", "l14"):
            columns[f"clip_{arch}_similarity_score"] = rng.normal(0.2, 0.1, rows).astype(np.float32)
        pq.write_table(pa.table(columns), folder / f"{number:04d}.parquet")
        left = vectors(rows, rng, width)
        right = left + 0.02 * rng.normal(size=left.shape).astype(np.float32)
        np.savez(folder / f"{number:04d}.npz", l14_img=left, l14_txt=right.astype(np.float16))


def new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Measure in a process that has done nothing before."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def measure(case: Case, folder: Path) -> Spent:
    scorer: Any = NegClipLoss("l14", 0.01, case.batch, 1, 0, "cpu")
    if case.method != "neg_clip_loss":
        targets = _targets(folder.parent)
        scorer = Vas(targets, "l14_img", "cpu") if case.method == "vas" else NormSim(targets, "l14_img", "inf", "cpu")
    files = list_pool(str(folder), str(folder / "made"))
    before, began = rate(case.precision), time.process_time()
    with Passes(files, None, 1, Part(1, 1)) as passes:
        score_columns(passes, scorer)
    seconds = time.process_time() - began
    # Not what getrusage says, which begins with the size of the process that started this one.
    memory = 1024 * int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0])
    return Spent(sum(case.sizes), seconds, (before + rate(case.precision)) / 2, memory)


def of_a_round(folder: Path) -> float:
    """Seconds of the processor that a round of VAS-D takes."""
    seconds = []
    for rounds in ROUNDS:
        words = [f"filter.rounds={rounds}", "filter.clip_fraction=0.45", "filter.fraction=0.3"]
        places = [f"pool={folder / 'tiny'}", f"out={folder}/{rounds}.npy", f"columns={folder}/{rounds}", "workers=1"]
        began = time.process_time()
        assert run(["filter=vas_d", *words, *places]) == 0
        seconds.append(time.process_time() - began)
    return (seconds[1] - seconds[0]) / (ROUNDS[1] - ROUNDS[0])


def rate(precision: type[np.floating[Any]]) -> float:
    """Multiplications with an addition a second, of matrices as large as fit the cache."""
    left, right = (np.random.default_rng(0).random((1024, WIDTH)).astype(precision) for _ in range(2))
    times = []
    for _ in range(12):
        began = time.process_time()
        left @ right.T
        times.append(time.process_time() - began)
    return float(left.shape[0] * right.shape[0] * WIDTH / np.median(times))


def head() -> list[str]:
    from machine import machine  # which imports torch, and so would stand in the memory that is measured

    mine = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pyarrow", "torch"))
    return [
        "# Selections by embeddings",
        "",
        f"`python bench/methods.py`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. One core, seconds of the "
        "processor from the npz to the written column; the machine was shared with other work.",
        "",
        f"Machine: {machine()}. {mine}.",
        "",
    ]


def speed(spent: dict[Case, Spent], round_: float) -> list[str]:
    rows = [
        [
            case.title,
            np.dtype(case.precision).name,
            f"{one.rows:,}",
            f"{one.rows / one.seconds:,.0f}",
            f"{2 * one.rate / 1e9:.0f} GFLOP/s",
            f"{case.products * one.rows / one.seconds / one.rate:.0%}",
            f"{case.made * case.products * one.rows / one.seconds / one.rate:.0%}",
            f"{one.memory / 1e6:,.0f} MB",
            f"{128e6 * one.seconds / one.rows / DAY:,.2f}",
            f"{12.8e9 * one.seconds / one.rows / DAY:,.1f}",
        ]
        for case, one in spent.items()
    ]
    names = ["method", "products in", "rows", "rows/s", "matmul rate", "share of it", "of products made", "peak memory"]
    return [
        *table([*names, "128 M rows, core days", "12.8 B rows, core days"], rows),
        "",
        f"Embeddings of {WIDTH} numbers. The share is of the rate at which all products of the formula would be made; "
        "of those with a symmetric matrix ours makes little more than half, which the next column counts. The "
        "published negCLIPLoss takes 10 partitions: ten times the time. `vas_d` costs as `vas` for each round and row "
        "that is left, and once more for each row that a round drops.",
        "",
        f"`vas_d` on {len(TINY)} files of {TINY[0]} rows of {TINY_WIDTH} numbers, of which a first stage leaves 45 % "
        f"and the rounds 30 %: {round_:.2f} s a round.",
        "",
    ]


def alike(same: dict[str, str]) -> list[str]:
    if not same:
        return []
    return [
        "## Beside the authors' code",
        "",
        f"{SMALL['rows']:,} rows, {SMALL['targets']:,} targets, theirs in single precision.",
        "",
        *table(["method", "rows kept by both"], [[name, found] for name, found in same.items()]),
        "",
    ]


def beside(folder: Path, vas: Path | None, ncl: Path | None) -> dict[str, str]:
    """How many of the rows that the authors' code keeps are the ones that ours keeps."""
    if not (vas or ncl):
        return {}
    import torch

    rng = np.random.default_rng(1)
    write_pool(folder, (SMALL["rows"],), rng)
    np.save(folder / "targets.npy", vectors(SMALL["targets"], rng))
    targets = torch.from_numpy(np.load(folder / "targets.npy")).float()
    read = pq.read_table(folder / "0000.parquet")
    arrays = {name: torch.from_numpy(array) for name, array in np.load(folder / "0000.npz").items()}
    uids, clip = from_texts(read["uid"].to_pylist()), read["clip_l14_similarity_score"].to_numpy()
    given, found = [f"filter.targets={folder / 'targets.npy'}"], {}
    both = ["filter.clip_fraction=0.45", "filter.fraction=0.3"]

    def first(theirs: Any) -> Any:
        return theirs.filter_by_score(clip, 0.45, None, len(uids))

    if vas:
        theirs = loaded(vas, "vas")
        chosen, matrix = first(theirs), targets.T @ targets / len(targets)
        scores = theirs.get_vas_gpu(arrays["l14_img"], matrix, 0).numpy()[chosen]
        kept = uids[chosen][theirs.filter_by_score(scores, 0.3, None, len(uids))]
        found["`vas`"] = common(kept, folder, "vas", *given, *both)
        kept = theirs_by_rounds(theirs, uids, clip, arrays["l14_img"])
        found[f"`vas_d`, {SMALL['rounds']} rounds"] = common(
            kept, folder, "vas_d", *both, f"filter.rounds={SMALL['rounds']}"
        )
    if ncl:
        theirs = loaded(ncl, "vas2")
        for p, norm in (("2", 2), ("inf", 100)):
            scores = theirs.cal_similarity_scores_norm(arrays["l14_img"], targets, 0, norm).numpy()
            kept = uids[theirs.filter_by_score(scores, 0.3, None, len(uids))]
            words = ["filter.fraction=0.3", f"filter.p={p}"]
            found[f"`norm_sim`, p={p}"] = common(kept, folder, "norm_sim", *given, *words)
        # Their exponentials of similarities above .887 are infinite at .01; one batch leaves nothing to chance.
        own, *costs = theirs.cal_new_clip_score(arrays["l14_img"], arrays["l14_txt"], 0, temperature=0.07)
        kept = uids[theirs.filter_by_score((own - sum(costs)).numpy(), 0.3, None, len(uids))]
        words = ["filter.temperature=0.07", "filter.partitions=1", "filter.fraction=0.3"]
        found["`neg_clip_loss`, one batch, T=.07"] = common(kept, folder, "neg_clip_loss", *words)
    return found


def theirs_by_rounds(theirs: Any, uids: np.ndarray, clip: np.ndarray, vectors: Any) -> np.ndarray:
    """What their loop of VAS-D keeps; both replacements are of what hands pieces to GPUs."""

    def variance(some: Any, *_: Any) -> Any:
        return some.float().T @ some.float() / len(some)

    theirs.load_all_data = lambda *_, **__: (uids, clip, vectors, variance(vectors))
    theirs.cal_target_variance = variance
    theirs.cal_vass_iter = lambda some, _, matrix, *__: theirs.get_vas_gpu(some, matrix, 0)
    kept: np.ndarray = theirs.load_uids_with_vas_d_filter(
        "", 1, "l14", None, 0.45, None, SMALL["rounds"], 0.3, batch_size=None
    )
    return kept


def common(theirs: np.ndarray, folder: Path, name: str, *words: str) -> str:
    """The rows that ours keeps, too, of how many."""
    out = folder / "ours.npy"
    places = [f"pool={folder}", f"out={out}", "workers=1", "overwrite=true"]
    assert run([f"filter={name}", *words, *places]) == 0
    ours = np.load(out)
    assert len(ours) == len(theirs) == int(SMALL["rows"] * 0.3)
    both = len(np.intersect1d(ours, theirs))
    return f"all {both:,}" if both == len(ours) else f"{both:,} of {len(ours):,}"


def loaded(checkout: Path, name: str) -> Any:
    """A module of the authors', on the CPU."""
    absent = ("fasttext", "baselines", "baselines.utils", "visualization2")
    for one in absent:
        sys.modules[one] = types.ModuleType(one)
    sys.modules["fasttext"].FastText = types.SimpleNamespace()  # type: ignore[attr-defined]
    sys.modules["baselines.utils"].download = None  # type: ignore[attr-defined]
    for kind in ("ImageCaptionVisualizer", "ScatterPlot"):
        setattr(sys.modules["visualization2"], kind, None)
    module = types.ModuleType(name)
    path = checkout / "baselines" / f"{name}.py"
    exec(compile(path.read_text(), path, "exec"), vars(module))
    quiet(module)
    return module


def quiet(module: types.ModuleType) -> None:
    """Without its prints, and with the CPU for every GPU."""
    import torch

    vars(module)["print"] = lambda *_, **__: None
    to = torch.Tensor.to
    if to.__name__ != "_to_cpu":

        def _to_cpu(self: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
            words: list[Any] = ["cpu" if isinstance(one, str) and one.startswith("cuda") else one for one in given]
            return to(self, *words, **named)

        torch.Tensor.to = _to_cpu  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    main()
