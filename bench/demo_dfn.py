"""Does a filtering network filter better than the model that has seen the noise? Asked of the demo's pool, half of
whose captions are another picture's.

    make demo
    POOLBENCH_CACHE=demo/cache python bench/demo_dfn.py --run demo/runs/no_filter-0 [--scratch FOLDER] [--out FILE.md]

500 right pairs are drawn, the model goes on from its weights on these alone (`train init=`), its weights are averaged
with those before (`train.average`), and each of the three models scores the pool. Measured is how much of the better
half is right, without the 500. Learning rate and steps are chosen on one draw, which is not among those reported.
"""

import argparse
import datetime
import multiprocessing
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from evaluation_report import table
from machine import machine

from poolbench.command import compose
from poolbench.files import atomic, read_json, write_json
from poolbench.machine import cores
from poolbench.models.clip import create, load, tokenizer_of
from poolbench.models.towers import Towers
from poolbench.models.transforms import WebPixels, evaluation_transform
from poolbench.models.weights import weights_named
from poolbench.run_record import read_record
from poolbench.shards.samples import Sample, read_shard
from poolbench.shards.writer import write_shard
from poolbench.uids import from_texts, mapped

from demodata.pool import build
from train.average import AverageOptions, average
from train.config import TrainConfig
from train.loop import train

PAIRS, SHARD, BATCH = 500, 50, 128
GRID = ((16, 1e-4), (16, 3e-4), (16, 1e-3), (40, 3e-4))  # steps and learning rate, compared on draw 0
DRAWS = (1, 2, 3)
MODELS = ("noisy", "tuned", "averaged")
Mask = npt.NDArray[np.bool_]
_given: list["Given"] = []  # the one, in the processes that measure


class Pool(NamedTuple):
    """The demo's pool in memory. Its pictures and captions are each there once; a sample names them by number."""

    model: str
    samples: list[Sample]
    right: Mask  # whether the caption is one of the picture's own, a sample
    emoji: npt.NDArray[Any]  # what a sample's picture shows; two looks of it are one
    pictures: torch.Tensor  # uint8 [pictures, 3, side, side]
    picture: npt.NDArray[np.int64]
    tokens: torch.Tensor
    caption: npt.NDArray[np.int64]


class Result(NamedTuple):
    """Per cent right in the better half by each model, of all but the 500 and of all emoji but theirs."""

    others: dict[str, float]
    other_emoji: dict[str, float]


class Tuning(NamedTuple):
    steps: int
    rate: float


class Given(NamedTuple):
    """What every draw begins with: the pool, the run that trained on it, and the scores of that."""

    pool: Pool
    run: Path
    noisy: npt.NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("demo/runs/no_filter-0"), help="trained on the noisy pool")
    parser.add_argument("--scratch", type=Path, help="folder that is kept: what is measured there is found again")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)  # a process each, which fork from this one
    pool = read_pool(read_record(options.run).model)
    given = Given(pool, options.run, scores(pool, options.run))
    with tempfile.TemporaryDirectory() as temporary:
        all_of = partial(in_processes, options.processes, given, options.scratch or Path(temporary))
        tunings = [Tuning(*both) for both in GRID]
        tried = dict(zip(tunings, all_of([(0, one) for one in tunings]), strict=True))
        best = max(tried, key=lambda one: tried[one].others["tuned"])
        found = all_of([(draw, best) for draw in DRAWS])
    page = "\n".join([*report(tried, best, found), ""])
    print(page, end="")
    if options.out:
        with atomic(options.out) as file:
            file.write(page)


def in_processes(count: int, given: Given, scratch: Path, works: Sequence[tuple[int, Tuning]]) -> list[Result]:
    """The results of draws and tunings, `count` at a time."""
    context = multiprocessing.get_context("fork")  # whose processes have what is given without a copy
    with ProcessPoolExecutor(count, context, _given.append, (given,)) as processes:
        folders = [scratch / f"{draw}-{one.steps}-{one.rate:g}" for draw, one in works]
        return list(processes.map(measured, *zip(*works, strict=True), folders))


def read_pool(model: str) -> Pool:
    demo = build()
    samples = [one for shard in sorted(demo.pool.glob("*.tar")) for one in read_shard(str(shard))]
    kept = [one for one in samples if isinstance(one, Sample)]
    assert len(kept) == len(samples)
    pixels = WebPixels(evaluation_transform(create(model)))
    pictures, picture = numbered([one.picture() for one in kept])
    captions, caption = numbered([one.caption() for one in kept])
    return Pool(
        model=model,
        samples=kept,
        right=np.isin(from_texts([one.record()["uid"] for one in kept]), mapped(demo.right)),
        emoji=np.array([one.record()["url"] for one in kept]),
        pictures=torch.stack([pixels(data) for data in pictures]),
        picture=picture,
        tokens=tokenizer_of(model)(captions),
        caption=caption,
    )


def numbered(items: Sequence[Any]) -> tuple[list[Any], npt.NDArray[np.int64]]:
    """The different items in the order in which they come, and for each item its number among them."""
    numbers: dict[Any, int] = {}
    found = np.array([numbers.setdefault(item, len(numbers)) for item in items], np.int64)
    return list(numbers), found


def scores(pool: Pool, checkpoint: Path) -> npt.NDArray[np.float32]:
    """What python -m curate.score gives each sample, but for rounding; float32 [samples]."""
    model = load(pool.model, weights_named(str(checkpoint), pool.model).checkpoint)
    towers = Towers(model, torch.device("cpu"), "fp32")
    images = torch.cat([towers.images(part) for part in torch.split(pool.pictures, 1024)]).numpy()
    texts = torch.cat([towers.captions(part) for part in torch.split(pool.tokens, 1024)]).numpy()
    return np.asarray(np.einsum("nd,nd->n", images[pool.picture], texts[pool.caption]))


def measured(draw: int, tuning: Tuning, folder: Path) -> Result:
    """Tune on the 500 of a draw, average, and look at the better half of the rest by each of the models."""
    ((pool, run, noisy),) = _given
    if (folder / "result.json").exists():
        return Result(**read_json(folder / "result.json"))
    chosen = np.random.default_rng(draw).choice(np.flatnonzero(pool.right), PAIRS, replace=False)
    for number, part in enumerate(np.split(chosen, PAIRS // SHARD)):
        samples = [pool.samples[index] for index in part]
        path = folder / "pairs" / f"{number:05d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_shard(path, [(one.key, one.members) for one in samples])
    recipe: dict[str, Any] = {"samples": tuning.steps * BATCH, "batch_size": BATCH, "learning_rate": tuning.rate}
    recipe |= {"warmup": tuning.steps // 10, "streams": 1, "shuffle_buffer": PAIRS, "model": pool.model}
    words = [*(f"recipe.{key}={value}" for key, value in recipe.items()), f"seed={draw}", f"init={run}"]
    places = [f"data={folder}/pairs", f"out={folder}", "name=tuned"]
    config = compose("train", ["scale=tiny", "precision=fp32", "efficiency.workers=0", *words, *places], TrainConfig)
    assert train(config) == 0
    out = folder / "average.pt"
    assert average(AverageOptions(checkpoints=[str(run), f"{folder}/tuned"], out=str(out))) == 0
    by = dict(zip(MODELS, (noisy, scores(pool, folder / "tuned"), scores(pool, out)), strict=True))
    others = np.ones(len(pool.samples), bool)
    others[chosen] = False
    other_emoji = ~np.isin(pool.emoji, pool.emoji[chosen])
    found = Result(*({name: precision(pool, one, rows) for name, one in by.items()} for rows in (others, other_emoji)))
    write_json(folder / "result.json", found._asdict())
    return found


def precision(pool: Pool, by: npt.NDArray[np.float32], rows: Mask) -> float:
    """Per cent right among the better half of `rows`."""
    right = pool.right[rows][np.argsort(-by[rows], kind="stable")]
    return float(100 * right[: len(right) // 2].mean())


def report(tried: dict[Tuning, Result], best: Tuning, found: Sequence[Result]) -> Iterator[str]:
    yield "# A filtering network on the demo's pool"
    yield ""
    today = f"{datetime.datetime.now(datetime.UTC):%d %B %Y}"
    yield f"`python bench/demo_dfn.py`, {today}."
    yield f"Machine: {machine()}. torch {torch.__version__}."
    yield ""
    yield f"{PAIRS} right pairs tune the model that was trained on the whole pool, half of which is wrong. What share"
    yield "of the better half of the pool by each model's scores is right, in per cent:"
    yield ""
    yield "## Learning rate and steps, on draw 0"
    yield ""
    rows = [
        [f"{one.steps}", f"{one.rate:g}", *(f"{result.others[name]:.2f}" for name in MODELS)]
        for one, result in tried.items()
    ]
    yield from table([f"steps of {BATCH}", "learning rate", *MODELS], rows)
    yield ""
    yield f"## {best.steps} steps at {best.rate:g}, on {len(found)} other draws of {PAIRS}"
    yield ""
    parts = {f"all but the {PAIRS}": [one.others for one in found]}
    parts["all emoji but theirs"] = [one.other_emoji for one in found]
    lines = [
        [what, *(told([one[name] for one in all_]) for name in MODELS), gain(all_, "tuned"), gain(all_, "averaged")]
        for what, all_ in parts.items()
    ]
    yield from table(["measured on", *MODELS, "gain, tuned", "gain, averaged"], lines)
    yield ""
    yield "Mean ± standard deviation over the draws; a gain is that over the noisy model on the same rows."


def told(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def gain(all_: Sequence[dict[str, float]], name: str) -> str:
    gains = [one[name] - one["noisy"] for one in all_]
    return f"{statistics.mean(gains):+.2f} ± {statistics.stdev(gains):.2f}"


if __name__ == "__main__":
    main()
