"""What painting text over costs: pictures per second with and without mask=text, on one core and on two.

    python bench/mask.py [--pictures 48] [--command] [--out FILE.md]

The pool is cut out of two photographs that scikit-learn carries, 400 x 300 pixels each, with a line of text in every
third. The model is small (ViT-Ti-32-64), so that the work of the workers is what is measured: that work alone, in
seconds of the processor, which others that use the machine hardly change. With --command also the whole command, by the
clock, on a machine that does nothing else.
"""

import argparse
import datetime
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

import numpy as np
import photographs
import torch
from evaluation_report import table
from machine import machine
from PIL import ImageDraw, ImageFont

from poolbench.files import atomic
from poolbench.models.clip import create
from poolbench.models.transforms import WebPixels, evaluation_transform
from poolbench.shards.writer import write_shard

from curate.models.onnx_models import versions
from curate.models.text_detection import DETECTOR
from curate.scorers.text_masks import Look, TextMask

MODEL, SHARDS, ROOT = "ViT-Ti-32-64", 4, Path(__file__).parent.parent
WIDTH, HEIGHT, EVERY = 400, 300, 3


def pictures(count: int) -> list[bytes]:
    """JPEGs of parts of photographs, every third with text."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        image = photographs.part(number, WIDTH, HEIGHT, rng)
        if number % EVERY == 0:
            font = ImageFont.load_default(int(rng.integers(16, 48)))
            ImageDraw.Draw(image).text((20, int(rng.integers(10, 220))), f"photo number {number}", "white", font)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue())
    return made


def of_the_worker(files: list[bytes], pixels: WebPixels) -> list[list[Any]]:
    """Milliseconds of the processor for each picture, by what is asked for."""
    rows = []
    wanted: list[tuple[str, set[str], dict[str, Any]]] = [
        ("as it is", {"plain"}, {}),
        ("masked too", {"plain", "masked"}, {}),
        ("masked too, the detector alone (`legible=0`)", {"plain", "masked"}, {"least": 0.0}),
        ("masked too, `detector_side=320`", {"plain", "masked"}, {"side": 320}),
    ]
    for name, views, options in wanted:
        how = {"detector": None, "side": 512, "least": 0.7, "fill": "ring", "ring": 8, "read": False, **options}
        look = Look(pixels, TextMask(**how), {"plain"}, {"masked"}, set())
        look(files[0], views)  # opens the networks
        spent, regions = [], []
        for data in files:
            began = time.process_time()
            seen = look(data, views)
            spent.append(1000 * (time.process_time() - began))
            regions.append(seen.facts.get("text_regions", 0))
        found = "" if name == "as it is" else f"{sum(map(bool, regions))} of {len(files)}"
        rows.append([name, f"{statistics.mean(spent):.0f}", f"{1000 / statistics.mean(spent):.1f}", found])
    return rows


def of_the_command(pool: Path, checkpoint: Path, scratch: Path) -> list[list[Any]]:
    """Pictures per second by the clock, as the command tells them itself, without starting."""
    rows = []
    for cores in (1, 2):
        for mask in ("null", "text"):
            words = [f"shards={pool}", f"checkpoint={checkpoint}", f"model={MODEL}", "arch=b32", f"mask={mask}"]
            words += [f"out={scratch / f'{cores}-{mask}'}", f"workers={0 if cores == 1 else cores}"]
            done = subprocess.run(
                [sys.executable, "-m", "curate.score", *words],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                preexec_fn=partial(_on_cores, cores),
                capture_output=True,
                text=True,
                check=True,
            )
            line = next(line for line in done.stdout.splitlines() if "samples/s" in line)
            shares = re.search(r"of the workers' time (.*)", line)
            rows.append([cores, "with" if mask == "text" else "without", line.split()[0], shares[1] if shares else ""])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=48)
    parser.add_argument("--command", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    load, files, model = os.getloadavg()[0], pictures(given.pictures), create(MODEL, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "pool").mkdir()
        for shard in range(SHARDS):
            samples = []
            for number in range(shard, len(files), SHARDS):
                about = json.dumps({"uid": f"{number:032x}"}).encode()
                samples.append((f"{number:06d}", {"jpg": files[number], "txt": b"a photo", "json": about}))
            write_shard(root / "pool" / f"{shard:05d}.tar", samples)
        torch.save({"state_dict": model.state_dict()}, root / "model.pt")
        worker = of_the_worker(files, WebPixels(evaluation_transform(model)))
        command = of_the_command(root / "pool", root / "model.pt", root) if given.command else []
    text = report(given.pictures, load, worker, command)
    print(text)
    if given.out:
        with atomic(given.out) as file:
            file.write(text)


def lines(head: list[str], rows: list[list[Any]]) -> str:
    return "\n".join(table(head, [[str(cell) for cell in row] for row in rows]))


def report(count: int, load: float, worker: list[list[Any]], command: list[list[Any]]) -> str:
    by_the_clock = f"""
## The command, by the clock

Without its start. One core: everything in one process; two: two workers beside it.

{lines(["cores", "mask=text", "samples/s", "of the workers' time"], command)}
"""
    day, words = f"{datetime.date.today():%-d %B %Y}", f"{count}{' --command' if command else ''}"
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"""# Painting text over

`python bench/mask.py --pictures {words}`, {day}. Load average as it began: {load:.1f}.

Machine: {machine()}. {packages}, {DETECTOR}.

{count} JPEGs of {WIDTH} x {HEIGHT} pixels, parts of two photographs, {-(-count // EVERY)} of them with a line of text;
model {MODEL}, float32.

## What a worker does, in time of the processor, one thread

{lines(["a picture", "ms", "pictures/s of a core", "with text found"], worker)}
{by_the_clock if command else ""}"""


def _on_cores(count: int) -> None:
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))


if __name__ == "__main__":
    main()
