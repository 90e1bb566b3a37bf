"""Samples/s of our training and of open_clip_train, on the same shards, model, precision and batch, in turn.

    python bench/train_throughput.py --peer /path/to/peer/bin/python [--case loader|model] [--rounds 3] [--out FILE.md]

The peer needs an environment of its own: `pip install torch torchvision open_clip_torch webdataset==0.2.31 pandas`,
with the torch of ours (its data pipeline does not run with webdataset 1.0). Each round trains with one and then with
the other as a whole process; the first steps, which fill the loaders, are left out. Reported: the median of the
rounds, and their ratio.
"""

import argparse
import io
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
LEFT_OUT = 4  # first steps of a run


@dataclass(frozen=True)
class Case:
    """What is trained. `model` is a name of open_clip's or a configuration of this file's."""

    name: str
    says: str
    model: str
    precision: str
    batch: int
    steps: int
    workers: int


LOADER_MODEL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 32, "head_width": 32, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}
CASES = {
    "loader": Case(
        "loader", "the loader binds: 512-pixel JPEGs, a model of one layer", "bench-loader", "fp32", 128, 24, 2
    ),
    "model": Case("model", "the model binds: ViT-B-32", "ViT-B-32", "amp_bf16", 32, 9, 1),
}


def make_shards(folder: Path, shards: int = 4, per_shard: int = 256) -> None:
    """Shards of photo-like JPEGs, 512 pixels on the longer side: smooth shapes, fine noise, about 70 kB each."""
    rng, number = np.random.default_rng(0), 0
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for _ in range(per_shard):
                height, width = (384, 512) if number % 2 else (512, 340)
                coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
                smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
                pixels = np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
                caption = f"a photo-like picture, number {number} of the benchmark, of nothing in particular"
                for extension, data in (("jpg", buffer.getvalue()), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
                number += 1


def run_ours(case: Case, shards: Path, models: Path, out: Path) -> list[float]:
    """Seconds of each step of `python -m train`."""
    code = f"import open_clip; open_clip.add_model_config({str(models)!r}); from train.__main__ import main; main()"
    options = [
        "scale=small",
        f"data={shards}",
        f"out={out}",
        "name=ours",
        f"precision={case.precision}",
        f"recipe.model={case.model}",
        f"recipe.batch_size={case.batch}",
        f"recipe.samples={case.batch * case.steps}",
        "recipe.warmup=2",
        "recipe.streams=8",
        f"efficiency.workers={case.workers}",
    ]
    run([sys.executable, "-c", code, *options], ROOT)
    lines = [json.loads(line) for line in (out / "ours" / "metrics.jsonl").read_text().splitlines()]
    return [case.batch / line["samples_per_second"] for line in lines]


def run_peer(case: Case, python: str, shards: Path, models: Path, out: Path) -> list[float]:
    """Seconds of each step of open_clip_train, from its log."""
    code = (
        f"import sys, open_clip; open_clip.add_model_config({str(models)!r}); "
        "from open_clip_train.main import main; main(sys.argv[1:])"
    )
    options = {
        "train-data": f"{shards}/{{00000..00003}}.tar",
        "dataset-type": "webdataset",
        "train-num-samples": case.batch * case.steps,
        "model": case.model,
        "precision": case.precision,
        "batch-size": case.batch,
        "workers": case.workers,
        "epochs": 1,
        "warmup": 2,
        "lr": 5e-4,
        "wd": 0.2,
        "beta2": 0.98,
        "log-every-n-steps": 1,
        "logs": out,
        "name": "peer",
    }
    flags = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    run([python, "-c", code, *flags, "--dataset-resampled", "--local-loss", "--gather-with-grad"], out)
    log = (out / "peer" / "out.log").read_text()
    return [case.batch / float(rate) for rate in re.findall(r"Batch \(t\): [\d.]+, ([\d.e+]+)/s", log)]


def run(command: list[str], folder: Path) -> None:
    """Run a process to its end; show its output where it fails."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


def rate(case: Case, seconds: list[float]) -> float:
    """Samples/s over all steps but the first."""
    kept = seconds[LEFT_OUT:]
    assert len(kept) >= case.steps - LEFT_OUT - 1, f"{len(seconds)} of {case.steps} steps were logged"
    return case.batch * len(kept) / sum(kept)


def measure(case: Case, peer: str, rounds: int) -> str:
    """One row of the table."""
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as name:
        shards, models = Path(name) / "shards", Path(name) / "models"
        shards.mkdir()
        models.mkdir()
        (models / "bench-loader.json").write_text(json.dumps(LOADER_MODEL))
        make_shards(shards)
        for number in range(rounds):
            out = Path(name) / f"round{number}"
            out.mkdir()
            ours.append(rate(case, run_ours(case, shards, models, out)))
            theirs.append(rate(case, run_peer(case, peer, shards, models, out)))
            print(f"{case.name} round {number + 1}: {ours[-1]:.1f} and {theirs[-1]:.1f} samples/s", file=sys.stderr)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    rates = [f"{statistics.median(values):.1f}" for values in (ours, theirs)]
    return f"| {' | '.join([case.says, case.precision, str(case.batch), str(case.workers), *rates, ratio])} |"


def machine() -> str:
    """The machine in words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = re.findall(r"model name\s*: (.*)", info.read_text())
        model = names[0] if names else model
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {gpu}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="python of the environment that has open_clip_train")
    parser.add_argument("--case", choices=CASES, action="append", help="default: all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    rows = [measure(CASES[name], arguments.peer, arguments.rounds) for name in arguments.case or CASES]
    head = ("what binds", "precision", "batch", "workers", "ours", "open_clip_train", "ratio (of the rounds)")
    table = "\n".join(
        [
            "# Training throughput in samples/s, ours against open_clip_train",
            "",
            f"`python bench/train_throughput.py --peer <python> --rounds {arguments.rounds}` on {machine()}.",
            "",
            f"| {' | '.join(head)} |",
            "|---" * len(head) + "|",
            *rows,
            "",
        ]
    )
    print(table)
    if arguments.out:
        arguments.out.write_text(table)


if __name__ == "__main__":
    main()
