"""Reading shards: what each part of it costs, and the whole loader beside that of an earlier commit, in turn.

    python bench/read_shards.py [--before <checkout>] [--rounds 9] [--samples 2048] [--out FILE.md]

All sides read the same shards of 512-pixel JPEGs of about 70 kB and captions, with one thread. `--before` is a checkout
of the earlier commit; without it the parts are measured alone. Runs on Linux.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from evaluation_report import ratios, spread, table
from machine import machine
from synthetic import PICTURES, make_shards
from throughput_work import LoaderWork
from train_throughput import LOADER_BATCH, LOADER_LEFT_OUT, LOADER_MODEL

from poolbench.files import atomic
from poolbench.shards.samples import read_samples

ROOT = Path(__file__).resolve().parent.parent
GOAL = 0.97  # of the loader's rate of the commit before
ALL, BEFORE = "all of it: `read_samples`", "`read_samples` of the commit before"


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as name:
        shards, models = Path(name) / "shards", Path(name) / "models"
        make_shards(shards, PICTURES)
        models.mkdir()
        (models / "bench-loader.json").write_text(json.dumps(LOADER_MODEL))
        lines = [*heading(options), *parts(shards, options)]
        if options.before is not None:
            work = LoaderWork(str(shards), str(models), "bench-loader", LOADER_BATCH, options.samples, LOADER_LEFT_OUT)
            lines += loaders(work, options)
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines))
    print("\n".join(lines))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--before", type=Path, help="checkout of the commit before")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--samples", type=int, default=2048, help="of the loader, in each round")
    parser.add_argument("--out", type=Path, help="also write the page here")
    return parser.parse_args()


def heading(options: argparse.Namespace) -> list[str]:
    mine = ", ".join(f"{name} {version(name)}" for name in ("webdataset", "torch", "pillow"))
    before = " --before <checkout>" if options.before is not None else ""
    return [
        "# Reading shards",
        "",
        f"`python bench/read_shards.py{before}`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. In turn, medians of "
        f"{options.rounds} rounds with their range; processor time, with one thread. Load average as it began: "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        f"Machine: {machine()}. Python {platform.python_version()}, {mine}.",
        "",
    ]


def parts(shards: Path, options: argparse.Namespace) -> list[str]:
    """The reading alone."""
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for folder in [ROOT, *([options.before] if options.before is not None else [])]:
            code = "import read_shards, sys; read_shards.measure(sys.argv[1], sys.argv[2:] == [])"
            words = [sys.executable, "-c", code, str(shards), *(["before"] if folder != ROOT else [])]
            for name, value in json.loads(output(words, folder, folder)).items():
                found.setdefault(name, []).append(value)
    return [
        "## The reading alone",
        "",
        f"Microseconds a sample of two members, {PICTURES:,} samples, from files that the system holds in memory.",
        "",
        *table(("what", "µs a sample"), [(name, _microseconds(values)) for name, values in found.items()]),
        "",
    ]


def measure(shards: str, parts: bool) -> None:
    """Print, as JSON, what reading takes: ours by its parts, or all of it as the poolbench in sight has it."""
    readers: dict[str, Callable[[IO[bytes]], Iterable[Any]]] = {BEFORE: lambda file: read_samples(file, "")}
    if parts:
        from webdataset.tariterators import tarfile_samples

        from poolbench.shards.members import read_members

        readers = {
            "`tarfile` alone, as a stream": _plain,
            "and headers that raise, and bounds: `read_members`": read_members,
            ALL: lambda file: read_samples(file, ""),
            "webdataset's own `tarfile_samples`": lambda file: tarfile_samples([{"url": file.name}]),
        }
    found = {}
    for name, reader in readers.items():
        took = 0.0
        for path in sorted(Path(shards).glob("*.tar")):
            with path.open("rb", buffering=2**20) as file:
                began = time.process_time()
                for _ in reader(file):
                    pass
                took += time.process_time() - began
        found[name] = took / PICTURES
    print(json.dumps(found))


def _plain(file: IO[bytes]) -> Iterable[bytes]:
    with tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is not None
            yield content.read()


def loaders(work: LoaderWork, options: argparse.Namespace) -> list[str]:
    """The loader of training, ours and the one before."""
    rates: dict[Path, list[float]] = {ROOT: [], options.before: []}
    for number in range(options.rounds):
        # Now the one first, now the other: what else the machine does is never quite even.
        for folder in sorted(rates, reverse=bool(number % 2)):
            answer = Path(work.shards).with_name("answer.json")
            words = [sys.executable, "bench/loader_alone.py", "ours", json.dumps(work._asdict()), str(answer)]
            output(words, folder, folder)
            read = json.loads(answer.read_text())
            rates[folder].append(read["samples"] / read["cpu"])
    share = ratios(rates[ROOT], rates[options.before])
    rows = [
        (name, f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})")
        for name, values in (("the commit before", rates[options.before]), ("now", rates[ROOT]))
    ]
    return [
        "## The loader of training",
        "",
        f"`bench/loader_alone.py`: {work.samples:,} samples a round through one worker, decoded, cropped, tokenised.",
        "",
        *table(("loader", "samples a second of processor time"), rows),
        "",
        f"Of the rate before, now has {spread(share)}; goal {GOAL}: "
        f"{'met' if statistics.median(share) >= GOAL else '**missed**'}.",
        "",
    ]


def output(words: list[str], folder: Path, package: Path) -> str:
    """What a command prints that finds poolbench in `package`."""
    paths = os.pathsep.join(map(str, (package, ROOT / "bench")))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    return subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _microseconds(values: list[float]) -> str:
    scaled = [value * 1e6 for value in values]
    return f"{statistics.median(scaled):.0f} ({min(scaled):.0f} to {max(scaled):.0f})"


if __name__ == "__main__":
    main()
