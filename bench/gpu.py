"""Everything that needs a GPU, within ten minutes, on a machine with one (or several) and without a network.

    bench/gpu.sh pack [--python 3.12] [--bundle FOLDER]
    bench/gpu.sh run  [--minutes 9.5] [--only PART ...] [--out FILE.md] [--bundle FOLDER]
    bench/gpu.sh run --device cpu --tiny        the rehearsal: the same code path on a CPU, in sizes of minutes

`pack` makes bench/gpu_bundle/ where there is a network: wheels for the machine's Python and small real data, below 64
MiB. `run` needs torch 2.11 or newer, torchvision, numpy, pyarrow, scipy and pandas of the machine, and the bundle.

Each part (bench/gpu_parts.py, bench/gpu_speed.py) is a process of its own with a time limit; what it has found until it
fails or is ended stays, and why it ended is a row. The page is written anew after each part, so that it is there
whenever the command is killed. Checks of behaviour run side by side; what is timed runs alone, behind them.

The page is one table; some rows of a rehearsal on two busy cores, whose figures say nothing:

| part | what | found | beside it | verdict |
|---|---|---|---|---|
| device | matrix product, fp32 | 0.1492 TFLOP/s | - | - |
| train | stopped by SIGTERM behind step 18, continued | the same bits | run twice: the same bits | ok |
| train | precision=fp32 | loss 2.773 | 2.773 | ok |
| evaluate | cifar10 | 0.1875 in fp32 | 0.2500 in amp_bf16 | ok |
| nccl | gloo, gathered features, DistributedDataParallel | largest difference 0 | one process alone | ok |
| memory | ViT-Ti-32-64, fp32, batch 16 | 0.891 GB | 0.137 GB planned: 6.51 of it | - |
| columns | vas | the same rows | on the CPU | ok |
| rates | vas | 1,504 rows/s | 0.0562 TFLOP/s of the product in fp64: 3% of it | - |
| evaluate | - | - | - | **failed**: its time limit of 90 s is over |
"""

import argparse
import contextlib
import datetime
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import gpu_bundle
from gpu_bundle import ROOT, BundleError, Unpacked

BUNDLE = ROOT / "bench" / "gpu_bundle"
HEAD = ("part", "what", "found", "beside it", "verdict")
GRACE = 20.0  # seconds of the whole that are kept back, for the end of what is under way


class Part(NamedTuple):
    """A process: its name, and the seconds after which it is ended."""

    name: str
    limit: float


# One after the other; the lanes of a stage side by side, the parts of a lane in order.
STAGES: tuple[tuple[tuple[Part, ...], ...], ...] = (
    ((Part("device", 60),),),
    (
        (Part("train", 150), Part("evaluate", 120), Part("score", 60)),
        (Part("nccl", 90), Part("memory", 120)),
        (Part("columns", 120),),
    ),
    (
        (
            Part("step ViT-B-32", 100),
            Part("step ViT-L-14", 120),
            Part("step ViT-B-16", 100),
            Part("loader", 120),
            Part("rates", 60),
            Part("compiled ViT-B-32", 100),
        ),
    ),
)
PARTS = [part for stage in STAGES for lane in stage for part in lane]


def main() -> int:
    options = parse()
    try:
        if options.command == "pack":
            print("\n".join(gpu_bundle.pack(options.bundle, options.python, options.pool, options.evaluation)))
            return 0
        return Run(options).whole()
    except BundleError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    pack = commands.add_parser("pack", help="make the bundle, where there is a network", allow_abbrev=False)
    pack.add_argument("--python", default="3.12", help="of the machine with the GPU")
    pack.add_argument("--pool", type=Path, help="folder of shards to train on; default: the embedded demo's")
    pack.add_argument("--evaluation", type=Path, help="folder of evaluation sets; default: the embedded demo's")
    run = commands.add_parser("run", help="run everything and write the table", allow_abbrev=False)
    run.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    run.add_argument("--tiny", action="store_true", help="sizes for a CPU: a rehearsal, whose figures say nothing")
    run.add_argument("--minutes", type=float, help="for everything; default: 9.5, or with --tiny 120")
    run.add_argument("--only", nargs="+", metavar="PART", help=f"some of: {', '.join(part.name for part in PARTS)}")
    run.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "gpu.md")
    run.add_argument("--work", type=Path, help="folder for what is made on the way; default: a temporary one")
    for command in (pack, run):
        command.add_argument("--bundle", type=Path, default=BUNDLE)
    options = parser.parse_args()
    if options.command == "run":
        unknown = set(options.only or ()) - {part.name for part in PARTS}
        if unknown:
            run.error(f"--only: no part is called {sorted(unknown)[0]!r}; known: {', '.join(p.name for p in PARTS)}")
        if options.minutes is None:
            options.minutes = 120.0 if options.tiny else 9.5
        if options.minutes <= 0:
            run.error("--minutes has to be more than 0")
    elif (options.pool is None) != (options.evaluation is None):
        pack.error("--pool and --evaluation go together")
    return options


class Run:
    """All parts, and the page."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._began = time.monotonic()
        self._rows: dict[str, list[list[str]]] = {part.name: [] for part in PARTS}
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self._running: set[int] = set()  # process groups
        signal.signal(signal.SIGTERM, self._ended)

    def _ended(self, number: int, frame: object) -> None:
        """End with all that was started; the page of the parts that are through is there."""
        for group in tuple(self._running):
            end_group(group)
        os._exit(128 + number)

    def whole(self) -> int:
        """Run the parts; 1 where one of them failed."""
        with tempfile.TemporaryDirectory(prefix="gpu-", ignore_cleanup_errors=True) as temporary:
            work = (self._options.work or Path(temporary)).resolve()
            work.mkdir(parents=True, exist_ok=True)
            unpacked = gpu_bundle.unpack(self._options.bundle.resolve(), work)
            self._notes = unpacked.notes
            self._write()
            for stage in STAGES:
                lanes = [[part for part in lane if part.name in self._chosen] for lane in stage]
                with ThreadPoolExecutor(len(lanes)) as pool:
                    for done in [pool.submit(self._lane, lane, work, unpacked) for lane in lanes]:
                        done.result()
        print(self._page())
        return int(any("failed" in row[-1] for rows in self._rows.values() for row in rows))

    @property
    def _chosen(self) -> set[str]:
        return set(self._options.only or [part.name for part in PARTS])

    def _lane(self, lane: Sequence[Part], work: Path, unpacked: Unpacked) -> None:
        for part in lane:
            began = time.monotonic()
            rows = self._part(part, work, unpacked)
            with self._lock:
                self._rows[part.name] = rows
                self._write()
            bad = sum("failed" in row[-1] for row in rows)
            said = f"{bad} failed" if bad else "done"
            print(f"{part.name}: {said}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    def _part(self, part: Part, work: Path, unpacked: Unpacked) -> list[list[str]]:
        """The rows of a part, the last of which says why it failed, if it did."""
        left = self._options.minutes * 60 - GRACE - (time.monotonic() - self._began)
        if left < 5:
            return [[part.name, "-", "-", "-", f"not run: the {self._options.minutes:g} minutes are over"]]
        name = part.name.replace(" ", "-")
        scene = self._scene(work, unpacked)
        (work / f"{name}.scene.json").write_text(json.dumps(scene))
        found, log = work / f"{name}.rows.jsonl", work / f"{name}.log"
        words = [part.name, str(work / f"{name}.scene.json"), str(found)]
        limit = max(part.limit, left) if self._options.tiny else min(part.limit, left)
        why = self._process([sys.executable, str(ROOT / "bench" / "gpu_parts.py"), *words], log, scene, limit)
        lines = found.read_text().splitlines() if found.is_file() else []
        rows = [[part.name, *json.loads(line)] for line in lines]
        if why is None and not rows:
            why = "it found nothing"
        return rows if why is None else [*rows, [part.name, "-", "-", "-", f"**failed**: {why}"]]

    def _process(self, command: Sequence[str], log: Path, scene: dict[str, Any], limit: float) -> str | None:
        """Run a part to its end, or end it with all that it started; why it failed, None where it did not."""
        environment = os.environ | scene["environment"]
        with log.open("w") as file:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
            self._running.add(process.pid)
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                return f"its time limit of {limit:.0f} s is over"
            finally:
                end_group(process.pid)  # what it may have left behind, too
                self._running.discard(process.pid)
                process.wait()
        return None if status == 0 else f"exit status {status}: {last_line(log)}"

    def _scene(self, work: Path, unpacked: Unpacked) -> dict[str, Any]:
        """What a part is told, as gpu_parts.Scene has it."""
        places = [str(unpacked.site), str(ROOT), str(ROOT / "bench")]
        environment = {
            "PYTHONPATH": os.pathsep.join(places),
            "POOLBENCH_CACHE": str(work / "cache"),
            "HF_HUB_OFFLINE": "1",
            "HYDRA_FULL_ERROR": "1",
            "WANDB_MODE": "disabled",
            "OMP_WAIT_POLICY": "passive",
        }
        if self._options.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        return {
            "device": self._options.device,
            "tiny": self._options.tiny,
            "work": str(work),
            "pool": str(unpacked.pool),
            "evaluation": str(unpacked.evaluation),
            "peer": str(peer_python(work, unpacked, places)),
            "environment": environment,
        }

    def _write(self) -> None:
        out: Path = self._options.out
        out.parent.mkdir(parents=True, exist_ok=True)
        new = out.with_name(f".{out.name}.{os.getpid()}")
        new.write_text(self._page() + "\n", encoding="utf-8")
        new.replace(out)

    def _page(self) -> str:
        rows = [row for rows in self._rows.values() for row in rows]
        table = ["| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |" for row in rows]
        what = "A rehearsal in tiny sizes: its figures say nothing. " if self._options.tiny else ""
        minutes = (time.monotonic() - self._began) / 60
        return "\n".join(
            [
                "# On a GPU",
                "",
                f"`bench/gpu.sh {' '.join(shown(sys.argv[1:]))}`, {datetime.datetime.now(datetime.UTC):%d %B %Y}, "
                f"{minutes:.1f} minutes. {what}{'; '.join(self._notes)}.",
                "",
                f"| {' | '.join(HEAD)} |",
                f"|{'---|' * len(HEAD)}",
                *table,
            ]
        )


def end_group(group: int) -> None:
    """End a process and all that it started, as far as they live."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def peer_python(work: Path, unpacked: Unpacked, places: Sequence[str]) -> Path:
    """An interpreter in whose environment open_clip_train finds the webdataset that it reads shards with."""
    path = work / "peer-python"
    found = os.pathsep.join([str(unpacked.peer), *places])
    path.write_text(f'#!/bin/sh\nPYTHONPATH={found!r} exec {sys.executable!r} "$@"\n')
    path.chmod(0o755)
    return path


def last_line(log: Path) -> str:
    """What a process said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


def shown(words: Sequence[str]) -> list[str]:
    """A command line without what is of one machine only."""
    found, rest = [], iter(words)
    for word in rest:
        name, equals, _ = word.partition("=")
        if name not in ("--out", "--work", "--bundle"):
            found.append(word)
        elif not equals:
            next(rest, None)
    return found


if __name__ == "__main__":
    sys.exit(main())
