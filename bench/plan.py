"""A plan for a pool of any size, from measured rates, and whether such a plan holds.

    python bench/plan.py measure [--step select ...] [--out bench/results/plan.md]
    python bench/plan.py simulate --rows 1.28e9 --nodes 8 --cores 64

`measure` runs each step at three sizes. A line through the two smaller ones (seconds of the processor to start, and
for each row) foretells the third, which is then measured; and the line of all three is what `simulate` counts with. It
keeps them in bench/plan_rates.yaml. `simulate` walks an array of jobs through the files of a pool: elements that start,
take their files in turn, are killed now and then and lose the file under way, and a last job that merges. Runs on
Linux.
"""

import argparse
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from evaluation_report import table
from machine import machine
from PIL import Image
from pools import uid_of, write_metadata, write_shards
from processes import measured

from poolbench.files import atomic
from poolbench.shards.writer import SampleWriter

ROOT = Path(__file__).resolve().parent.parent
RATES = Path(__file__).with_name("plan_rates.yaml")
PER_FILE = 10_000  # rows of a pool's file or shard, as the published pools have them
WIDTH = 768  # numbers of an embedding
PICTURES = 16  # different ones
KILL_WAIT = 120.0  # seconds until SLURM starts a killed element again


@dataclass(frozen=True)
class Rate:
    """What a step takes: seconds of the processor for a process to start and for each row, MB at its most.

    `written` is bytes a row on the disk. `error` is by how much the two smaller sizes missed the third.
    """

    start: float
    row: float
    memory: float
    written: float
    error: float
    sizes: list[int]
    seconds: list[float]


@dataclass(frozen=True)
class Step:
    """How a step is measured: its sizes, what makes its input of a size in a folder, and its command."""

    what: str
    sizes: tuple[int, int, int]
    make: Callable[[Path, int], None]
    command: Callable[[Path], list[str]]
    out: str
    serves: bool = False  # pictures, from this machine


@dataclass(frozen=True)
class Array:
    """A simulated array: seconds until the last element and the merge are done, core hours, and files done twice."""

    seconds: float
    core_hours: float
    again: int
    ideal: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("measure")
    one.add_argument("--step", choices=STEPS, action="append", help="default: all")
    one.add_argument("--scratch", type=Path)
    one.add_argument("--out", type=Path)
    two = verbs.add_parser("simulate")
    two.add_argument("--rows", type=float, required=True)
    two.add_argument("--nodes", type=int, required=True)
    two.add_argument("--cores", type=int, required=True, help="of a node, each an element of the array")
    two.add_argument("--kept", type=float, default=0.3, help="share of the rows that are selected")
    two.add_argument("--killed", type=float, default=0.01, help="kills of an element an hour")
    two.add_argument("--spread", type=float, default=0.3, help="of the files' times: sigma of a log-normal")
    options = parser.parse_args()
    lines = measure(options) if options.verb == "measure" else simulated(options)
    print("\n".join(lines))


def measure(options: argparse.Namespace) -> list[str]:
    """Measure the steps that are asked for, and write their rates beside those of the others."""
    rates = read_rates() if RATES.exists() else {}
    for name in options.step or STEPS:
        rates[name] = rate_of(STEPS[name], options.scratch)
        with atomic(RATES) as file:
            yaml.safe_dump({key: asdict(rate) for key, rate in rates.items()}, file, sort_keys=False)
        print(name, rates[name], file=sys.stderr, flush=True)
    lines = page(rates)
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines) + "\n")
    return lines


def read_rates() -> dict[str, Rate]:
    found = yaml.safe_load(RATES.read_text(encoding="utf-8"))
    return {name: Rate(**fields) for name, fields in found.items()}


def rate_of(step: Step, scratch: Path | None) -> Rate:
    seconds, memory, written = [], 0.0, 0.0
    for size in step.sizes:
        with tempfile.TemporaryDirectory(dir=scratch) as name:
            folder = Path(name)
            step.make(folder, size)
            with serving(folder) if step.serves else unserved():
                ran = measured([sys.executable, *step.command(folder)], ROOT, folder / "log", environment(folder))
            seconds.append(ran.processor)
            memory = max(memory, ran.memory / 1e6)
            written = sum(path.stat().st_size for path in below(folder / step.out)) / size
    start, row = line(step.sizes[:2], seconds[:2])
    error = (start + row * step.sizes[2]) / seconds[2] - 1
    start, row = line(step.sizes, seconds)
    rounded = [round(value, 2) for value in seconds]
    return Rate(
        round(start, 3), float(f"{row:.4g}"), round(memory), round(written, 1), round(error, 3), [*step.sizes], rounded
    )


def line(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """Start and slope of the line of least squares; neither is below zero."""
    slope, start = np.polyfit(sizes, seconds, 1)
    if start < 0:
        return 0.0, float(np.dot(sizes, seconds) / np.dot(sizes, sizes))
    return float(start), max(0.0, float(slope))


def below(path: Path) -> list[Path]:
    return [path] if path.is_file() else [found for found in path.rglob("*") if found.is_file()]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONDONTWRITEBYTECODE": "",
        "OMP_NUM_THREADS": "1",
        "POOLBENCH_CACHE": str(folder / "cache"),
    }


# The steps.


def rows_of_pool(folder: Path, rows: int) -> None:
    write_metadata(folder / "pool", rows, PER_FILE)


def rows_with_embeddings(folder: Path, rows: int) -> None:
    rows_of_pool(folder, rows)
    rng = np.random.default_rng(0)
    for path in sorted((folder / "pool").glob("*.parquet")):
        vectors = rng.normal(size=(pq.read_metadata(path).num_rows, WIDTH)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        np.savez(path.with_suffix(".npz"), l14_img=vectors.astype(np.float16))
    np.save(folder / "targets.npy", vectors[:1000])


def shards(folder: Path, samples: int) -> None:
    write_shards(folder / "shards", samples, min(PER_FILE, samples))
    third(folder, samples)


def rows_and_third(folder: Path, rows: int) -> None:
    rows_of_pool(folder, rows)
    third(folder, rows)


def third(folder: Path, rows: int) -> None:
    """A subset file of every third row."""
    uids = sorted(int(uid_of(number), 16) for number in range(0, rows, 3))
    chosen = np.empty(len(uids), dtype="u8,u8")
    chosen["f0"], chosen["f1"] = [uid >> 64 for uid in uids], [uid & (2**64 - 1) for uid in uids]
    np.save(folder / "chosen.npy", chosen)


def photographs(count: int, width: int, height: int) -> list[bytes]:
    """JPEGs of smooth shapes and fine noise."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (height // 32, width // 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(noisy).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def addresses(folder: Path, rows: int) -> None:
    """Metadata whose addresses are those of pictures of 1,024 x 768 pixels."""
    (folder / "web").mkdir()
    for number, data in enumerate(photographs(PICTURES, 1024, 768)):
        (folder / "web" / f"{number}.jpg").write_bytes(data)
    rows_of_pool(folder / "data", rows)
    (folder / "data" / "pool").rename(folder / "data" / "metadata")


def checkpoint_and_shards(folder: Path, samples: int) -> None:
    import open_clip
    import torch

    torch.manual_seed(0)
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), folder / "weights.pt")
    (folder / "shards").mkdir()
    pictures = photographs(PICTURES, 512, 384)
    with (folder / "shards" / "00000000.tar").open("wb") as file, SampleWriter(file) as tar:
        for number in range(samples):
            described = json.dumps({"uid": uid_of(number)}).encode()
            caption = f"a photo-like picture, number {number}, of nothing in particular".encode()
            picture = pictures[number % PICTURES]
            tar.write(f"{number:09d}", {"jpg": picture, "txt": caption, "json": described})


@contextmanager
def unserved() -> Iterator[None]:
    yield


@contextmanager
def serving(folder: Path) -> Iterator[None]:
    """A web server on this machine, in a process of its own; the pool's addresses are made to name it."""
    code = (
        "import http.server,sys\n"
        "class Quiet(http.server.SimpleHTTPRequestHandler):\n"
        "    def log_message(self, *a): pass\n"
        "server=http.server.ThreadingHTTPServer(('127.0.0.1',0),Quiet)\n"
        "print(server.server_address[1],flush=True)\nserver.serve_forever()\n"
    )
    server = subprocess.Popen([sys.executable, "-c", code], cwd=folder / "web", stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    port = int(server.stdout.readline())
    for path in sorted((folder / "data" / "metadata").glob("*.parquet")):
        rows = pq.read_table(path)
        urls = pa.array([f"http://127.0.0.1:{port}/{number % PICTURES}.jpg?{number}" for number in range(len(rows))])
        pq.write_table(rows.set_column(rows.schema.get_field_index("url"), "url", urls), path)
    try:
        yield
    finally:
        server.kill()
        server.wait()


STEPS: Mapping[str, Step] = {
    "select": Step(
        "`curate filter=clip_score`, rows of metadata",
        (250_000, 500_000, 1_000_000),
        rows_of_pool,
        lambda folder: ["-m", "curate", "filter=clip_score", "filter.fraction=0.3", f"pool={folder / 'pool'}",
                        f"out={folder / 'out.npy'}", "workers=1"],
        "out.npy",
    ),
    "vas": Step(
        "`curate filter=vas`, rows with embeddings of 768 numbers",
        (20_000, 40_000, 80_000),
        rows_with_embeddings,
        lambda folder: ["-m", "curate", "filter=vas", f"filter.targets={folder / 'targets.npy'}",
                        "filter.fraction=0.3", "filter.clip_fraction=0.45", f"pool={folder / 'pool'}",
                        f"out={folder / 'out.npy'}", "workers=1"],
        "pool/columns",
    ),
    "audit": Step(
        "`curate.audit`, rows of metadata",
        (50_000, 100_000, 200_000),
        rows_and_third,
        lambda folder: ["-m", "curate.audit", f"subset={folder / 'chosen.npy'}", f"pool={folder / 'pool'}",
                        f"out={folder / 'out'}", "workers=1"],
        "out",
    ),
    "reshard": Step(
        "`curate.reshard`, samples of shards of which a third is kept",
        (2_500, 5_000, 10_000),
        shards,
        lambda folder: ["-m", "curate.reshard", f"subset={folder / 'chosen.npy'}", f"shards={folder / 'shards'}",
                        f"out={folder / 'out'}", "workers=1"],
        "out",
    ),
    "download": Step(
        "`curate.download`, pictures of 1,024 x 768 pixels from this machine",
        (500, 1_000, 2_000),
        addresses,
        lambda folder: ["-m", "curate.download", "scale=small", f"out={folder / 'data'}", "metadata=false",
                        "private_addresses=true", "processes=1"],
        "data/shards",
        serves=True,
    ),
    "score": Step(
        "`curate.score`, ViT-B-32 on one core, pictures of 512 pixels",
        (64, 128, 256),
        checkpoint_and_shards,
        lambda folder: ["-m", "curate.score", "model=ViT-B-32", f"checkpoint={folder / 'weights.pt'}",
                        f"shards={folder / 'shards'}", f"out={folder / 'out'}", "arch=b32", "workers=1"],
        "out",
    ),
}  # fmt: skip


# The simulation.


def simulate(rate: Rate, rows: float, elements: int, killed: float, spread: float, seed: int = 0) -> Array:
    """Walk `elements` through the files of a pool of `rows`.

    Element i has every file whose number is i modulo their count, as `part=i/n` has. The time of a file is log-normal
    about its mean; a kill costs the file under way, a wait and another start.

    Args:
        killed: how often an hour each is killed.
        spread: sigma of the logarithm of a file's time.
    """
    rng = np.random.default_rng(seed)
    files = max(1, round(rows / PER_FILE))
    mean = rate.row * rows / files
    ends, work, again = [], 0.0, 0
    for element in range(min(elements, files)):
        count = len(range(element, files, elements))
        times = mean * rng.lognormal(-(spread**2) / 2, spread, count)
        clock = rate.start + times.sum()
        kills = rng.poisson(killed * clock / 3600)
        lost = rng.random(kills) * mean
        clock += kills * (KILL_WAIT + rate.start) + lost.sum()
        work += rate.start * (1 + kills) + times.sum() + lost.sum()
        again += int(kills)
        ends.append(clock)
    ideal = rate.row * rows / elements
    return Array(max(ends) + rate.start, work / 3600, again, ideal)


def simulated(options: argparse.Namespace) -> list[str]:
    rates, elements = read_rates(), options.nodes * options.cores
    rows = []
    for name, rate in rates.items():
        count = options.rows
        array = simulate(rate, count, elements, options.killed, options.spread)
        rows.append(
            [
                f"`{name}`",
                f"{1 / rate.row:,.0f}",
                f"{array.core_hours:,.0f}",
                f"{array.seconds / 3600:,.2f}",
                f"{array.ideal / array.seconds:.0%}",
                f"{array.again:,}",
                f"{rate.memory * options.cores / 1e3:,.0f} GB",
                f"{rate.written * count / 1e12:,.3f} TB",
            ]
        )
    heads = [
        "step",
        "rows/s of a core",
        "core hours",
        "hours",
        "of the ideal",
        "files done twice",
        "memory of a node",
        "written",
    ]
    first = (
        f"{options.rows:,.0f} rows in {options.rows / PER_FILE:,.0f} files, {options.nodes} nodes of {options.cores} "
        f"cores, an element on each core, {options.killed:g} kills an hour and element:"
    )
    return [first, "", *table(heads, rows)]


def page(rates: Mapping[str, Rate]) -> list[str]:
    rows = [
        [
            STEPS[name].what,
            ", ".join(f"{size:,}" for size in rate.sizes),
            ", ".join(f"{value:.1f}" for value in rate.seconds),
            f"{rate.error:+.0%}",
            f"{rate.start:.1f}",
            f"{1 / rate.row:,.0f}",
            f"{rate.memory:,.0f}",
            f"{rate.written:,.0f}",
        ]
        for name, rate in rates.items()
    ]
    heads = [
        "step",
        "sizes",
        "seconds of the processor",
        "the third foretold",
        "start, s",
        "rows/s of a core",
        "memory, MB",
        "bytes written a row",
    ]
    return [
        "# Rates for a plan",
        "",
        f"`python bench/plan.py measure`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. Seconds of the processor, of "
        "all processes of the command. The third is foretold by the line through the first two.",
        "",
        f"Machine: {machine()}. Load at the end: {os.getloadavg()[0]:.1f}.",
        "",
        *table(heads, rows),
        "",
    ]


if __name__ == "__main__":
    main()
