"""Whole trainings from shards, ours and open_clip_train's, in turn."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import synthetic


@dataclass(frozen=True)
class Case:
    """What is trained. `model` is a name of open_clip's or a configuration of this benchmark's; the first `left_out`
    steps, in which the loaders hand out what they read during the start, are not counted."""

    name: str
    says: str
    model: str
    precision: str
    batch: int
    steps: int
    workers: int
    left_out: int = 4


class Pace(NamedTuple):
    """Samples/s of a training, and the share of its time that it waited for data."""

    rate: float
    waited: float


def cases(precision: str, gpu: bool, workers: int) -> dict[str, Case]:
    """What can be trained on this machine; `workers` are those that suit it."""
    loader = "the loader binds: 512-pixel JPEGs, a model of one layer"
    found = [
        Case("loader", loader, "bench-loader", "fp32", 128, 24, 2),
        Case("model", "the model binds: ViT-B-32", "ViT-B-32", precision, 32, 9, 1),
    ]
    if gpu:
        left_out = 2 * workers + 6  # each worker of open_clip_train reads two whole batches beforehand
        says = "ViT-B-32 on the GPU, 512-pixel JPEGs"
        found.append(Case("gpu", says, "ViT-B-32", precision, 512, left_out + 50, workers, left_out))
    return {case.name: case for case in found}


def our_command(case: Case, shards: Path, models: Path, out: Path, efficiency: list[str]) -> list[str]:
    """`python -m train` with what the peer has, and keys of `efficiency` that it has not."""
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
        *efficiency,
    ]
    return [sys.executable, "-c", code, *options]


def our_pace(case: Case, out: Path) -> Pace:
    """From metrics.jsonl."""
    lines = [json.loads(line) for line in (out / "ours" / "metrics.jsonl").read_text().splitlines()]
    return _pace(case, [(case.batch / line["samples_per_second"], line["data_wait"]) for line in lines])


def peer_command(case: Case, python: str, shards: Path, models: Path, out: Path) -> list[str]:
    """open_clip_train with the same recipe."""
    code = (
        f"import sys, open_clip; open_clip.add_model_config({str(models)!r}); "
        "from open_clip_train.main import main; main(sys.argv[1:])"
    )
    options = {
        "train-data": synthetic.shard_pattern(shards),
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
    return [python, "-c", code, *flags, "--dataset-resampled", "--local-loss", "--gather-with-grad"]


def peer_pace(case: Case, out: Path) -> Pace:
    """From its log."""
    found = re.findall(
        r"Data \(t\): ([\d.]+) Batch \(t\): [\d.]+, ([\d.e+]+)/s", (out / "peer" / "out.log").read_text()
    )
    return _pace(case, [(case.batch / float(rate), float(waited)) for waited, rate in found])


def _pace(case: Case, steps: list[tuple[float, float]]) -> Pace:
    """Over all steps but the first, each with its seconds and those of them waited."""
    kept = steps[case.left_out :]
    assert len(kept) >= case.steps - case.left_out - 1, f"{len(steps)} of {case.steps} steps were logged"
    seconds = sum(second for second, _ in kept)
    return Pace(case.batch * len(kept) / seconds, sum(waited for _, waited in kept) / seconds)
