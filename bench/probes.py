"""What a linear probe costs beside the encoding of the pictures that it is trained on: seconds of the processor.

    python bench/probes.py [--count 60000] [--classes 10] [--model ViT-B-32] [--pictures 128] [--out FILE.md]

The embeddings are made up: classes that overlap, in a narrow cone of unit vectors, of as many dimensions as the
model's. Of the encoding some hundred pictures of noise are measured and the rest is reckoned; decoding comes on top of
it. One core; of the processor's seconds, which others that use the machine hardly change.
"""

import argparse
import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
import torch
from evaluation_report import table
from machine import machine
from test_probe_classifiers import cloud

from poolbench.files import atomic
from poolbench.models.clip import create
from poolbench.models.towers import Towers

from evaluate.probes.draws import Draw
from evaluate.probes.linear import Linear, Regression
from evaluate.probes.search import search

BATCH = 32


class Fits:
    """How often the optimiser asked for the loss, and with which weight decay."""

    def __init__(self) -> None:
        self.asked: list[tuple[float, int]] = []
        fit, value = Regression.fit, Regression._value

        def counted(regression: Regression, weight_decay: float, start: Linear | None = None) -> Linear:
            self.asked.append((weight_decay, 0))
            began = time.process_time()
            found = fit(regression, weight_decay, start)
            print(
                f"weight decay {self.asked[-1][0]:.2g}: {self.asked[-1][1]} evaluations, "
                f"{time.process_time() - began:.1f} s",
                flush=True,
            )
            return found

        def asked(regression: Regression, *arguments: Any) -> Any:
            self.asked[-1] = self.asked[-1][0], self.asked[-1][1] + 1
            return value(regression, *arguments)

        Regression.fit, Regression._value = counted, asked  # type: ignore[method-assign,assignment]


def encoding(name: str, pictures: int) -> float:
    """Seconds of the processor for a picture."""
    model = create(name, seed=0).eval()
    size: Any = model.visual.image_size  # type: ignore[union-attr]
    side = size[0] if isinstance(size, tuple) else size
    towers = Towers(model, torch.device("cpu"), "fp32")
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (BATCH, 3, side, side), dtype=np.uint8))
    towers.images(batch[:2])
    began = time.process_time()
    for _ in range(max(1, pictures // BATCH)):
        towers.images(batch)
    return (time.process_time() - began) / (max(1, pictures // BATCH) * BATCH)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=60_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--noise", type=float, default=1.5)
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    each = encoding(options.model, options.pictures)
    print(f"encoding: {each:.3f} s a picture", flush=True)
    features, labels = cloud(options.count + 5000, options.noise, classes=options.classes, dims=options.dims)
    train, test = slice(0, options.count), slice(options.count, None)
    draw = Draw([f"s{number}" for number in range(options.count)], labels[train].numpy(), 0)
    rows, held = torch.from_numpy(draw.training()), torch.from_numpy(draw.validation())
    fits, began = Fits(), time.process_time()
    chosen = search(Regression(features[rows], labels[rows], options.classes), features[held], labels[held])
    final = Regression(features[train], labels[train], options.classes).fit(chosen.weight_decay, chosen.linear)
    seconds = time.process_time() - began
    right = float((final.logits(features[test]).argmax(dim=1) == labels[test]).double().mean())
    whole = each * options.count
    lines = [
        ["encoding, reckoned from " + str(options.pictures), f"{whole:,.0f}", f"{each:.3f} a picture"],
        ["probe", f"{seconds:,.0f}", f"{len(fits.asked)} fits, {sum(one for _, one in fits.asked):,} evaluations"],
        ["probe / encoding", f"{seconds / whole:.3f}", f"weight decay {chosen.weight_decay:.2g}, accuracy {right:.3f}"],
    ]
    report = (
        f"# Probes: {options.count:,} embeddings of {options.dims} dimensions, {options.classes} classes\n\n"
        f"`python bench/probes.py {' '.join(sys.argv[1:])}`, {datetime.date.today():%d %B %Y}. {options.model} with "
        f"random weights, fp32. Seconds of the processor.\n\nMachine: {machine()}; torch {torch.__version__}.\n\n"
        + "\n".join(table(["", "s", ""], lines))
        + "\n"
    )
    print(report)
    if options.out is not None:
        with atomic(options.out) as file:
            file.write(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
