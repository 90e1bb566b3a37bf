"""The towers of one evaluation alone: the same forward passes in a process that does nothing else.

    python bench/evaluation_towers.py <file.json> <profile.json> <model> <checkpoint> <precision>

The profile is of bench/evaluation_profile.py, which lists the shapes of all batches. Pictures and tokens are random.
The file gets the seconds of the passes by the clock and of the processor.
"""

import json
import sys
import time
from pathlib import Path

import torch

from poolbench.models.clip import load
from poolbench.models.inference import device_of
from poolbench.models.towers import Towers


def main() -> None:
    out, profile, name, checkpoint, precision = sys.argv[1:]
    batches = json.loads(Path(profile).read_text())["batches"]
    device = device_of("cuda" if torch.cuda.is_available() else "cpu")
    model = load(name, checkpoint, device=device)
    towers = Towers(model, device, precision)
    pictures = [torch.randint(256, shape, dtype=torch.uint8) for shape in batches["pictures"]]
    texts = [torch.randint(1, 400, shape) for shape in batches["texts"]]
    began, used = time.perf_counter(), time.process_time()
    towers.texts(texts)
    for batch in pictures:
        towers.images(batch)
    seconds = {"clock": time.perf_counter() - began, "processor": time.process_time() - used}
    Path(out).write_text(json.dumps(seconds))


if __name__ == "__main__":
    main()
