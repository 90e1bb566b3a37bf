"""One side's training step on synthetic batches that lie on the device: samples/s, and where our time goes.

    <python of the side> bench/step_alone.py ours|peer '<StepWork as JSON>' <file.json>

Run by bench/train_throughput.py. Ours takes pictures as its loader gives them, uint8, and normalises them within the
step; open_clip_train takes them normalised. Captions come from host memory, as loaders give them.
"""

import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import synthetic
import torch
from throughput_work import DEVICE, StepWork, Trained
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

SIDE = 8192 if DEVICE == "cuda" else 2048  # of the matrices whose product tells what the device can do
TYPES = {"fp32": torch.float32, "amp_bf16": torch.bfloat16, "amp": torch.float16, "fp64": torch.float64}


def main() -> None:
    side, work, out = sys.argv[1], StepWork(**json.loads(sys.argv[2])), Path(sys.argv[3])
    open_clip.add_model_config(work.models)
    trained = {"ours": ours, "peer": peer}[side](work)
    out.write_text(json.dumps(trained._asdict()))


def ours(work: StepWork) -> Trained:
    """The step of `python -m train` with the pinned recipe."""
    from omegaconf import OmegaConf  # in the function, as the other side's environment lacks ours

    from poolbench.models.clip import compile_blocks, create, preprocess_of
    from poolbench.recipes import pinned

    from train.config import Recipe
    from train.step import Later, Stepper, make_optimizer

    recipe: Any = OmegaConf.merge(OmegaConf.structured(Recipe), pinned("small"))
    model = create(work.model, device=DEVICE)
    if work.compile:
        compile_blocks(model)
    options = {"precision": work.precision, "accumulate": work.accumulate}
    stepper = Stepper(model, make_optimizer(model, recipe), preprocess_of(model), **options)  # type: ignore[arg-type]
    size, context = sizes(work.model)
    batches = Batches(work, synthetic.images(work.batch, size).to(DEVICE), context)
    before = None
    for images, texts in batches:
        loss = stepper.step(images, texts, recipe.learning_rate)
        if before is not None:
            before.read()  # one step late, as train/loop.py does
        before = Later(loss.view(1))
    memory = peak_memory()
    operations = shares(lambda: stepper.step(images, texts, recipe.learning_rate))
    filled = float((texts != 0).double().mean())
    return Trained(batches.rate, matmul(work.precision), *flops(work.model), filled, operations, memory)


def peer(work: StepWork) -> Trained:
    """open_clip_train as its command line runs it, with batches of ours in the place of its data; from 4.2 on they are
    dictionaries, which its tasks bring to the device."""
    import open_clip_train.main as program

    size, context = sizes(work.model)
    images = synthetic.images(work.batch, size).to(DEVICE).float().div_(255).sub_(0.5).div_(0.25)
    batches = Batches(work, images, context, named=find_spec("open_clip.task") is not None)
    data = {"train": SimpleNamespace(dataloader=batches, set_epoch=lambda epoch: None)}
    program.get_data = lambda *arguments, **options: data
    options = {
        "dataset-type": "synthetic",
        "model": work.model,
        "precision": work.precision,
        "batch-size": work.batch,
        "epochs": 1,
        "lr": 5e-4,
        "wd": 0.2,
        "beta2": 0.98,
        "logs": "none",
        "name": "peer",
    }
    words = [*(f"--{key}={value}" for key, value in options.items()), "--local-loss", "--gather-with-grad"]
    # It writes a log below its folder though told not to, and ends at once where there is one.
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        status = program.main(words)
    if status:
        raise RuntimeError(f"open_clip_train ended with {status} before it had trained")
    return Trained(batches.rate)


class Batches:
    """The batches of both sides, which differ in their captions alone. Whoever asks for the next one has begun all
    steps before, so that the time is taken here."""

    def __init__(self, work: StepWork, images: torch.Tensor, context: int, named: bool = False) -> None:
        self.work, self.images, self.named = work, images, named
        self.num_batches = work.left_out + work.steps  # open_clip_train asks for it,
        self.num_samples = self.num_batches * work.batch  # and for this
        captions = synthetic.captions(self.num_batches, work.batch, context)
        self.captions = [tokens.pin_memory() if DEVICE == "cuda" else tokens for tokens in captions]
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Any]:
        began = 0.0
        for number, tokens in enumerate(self.captions):
            if number == self.work.left_out:
                began = finished()
            yield {"image": self.images, "text": tokens} if self.named else (self.images, tokens)
        self.seconds = finished() - began

    @property
    def rate(self) -> float:
        """Samples/s of the measured steps."""
        return self.work.steps * self.work.batch / self.seconds


def finished() -> float:
    """The time, once the device has done all it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def sizes(model: str) -> tuple[int, int]:
    """Side of the pictures in pixels, and tokens of a caption."""
    config = open_clip.get_model_config(model)
    return config["vision_cfg"]["image_size"], config["text_cfg"]["context_length"]


def matmul(precision: str, side: int = SIDE) -> float:
    """FLOP/s of the product of two large square matrices, the best of several."""
    a, b = (torch.randn(side, side, device=DEVICE).to(TYPES[precision]) for _ in range(2))
    seconds = []
    for _ in range(8):
        began = finished()
        a @ b
        seconds.append(finished() - began)
    return float(2 * side**3 / min(seconds))


def peak_memory() -> float:
    """Bytes: on a GPU the most that torch has had of it, else the most that this process has had."""
    if DEVICE == "cuda":
        return float(torch.cuda.max_memory_allocated())
    return 1024.0 * int(re.findall(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[0])


def flops(name: str) -> tuple[float, float]:
    """Floating-point operations of the image and of the text tower, forward, for one sample with a full caption."""
    size, context = sizes(name)
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
        inputs = torch.empty(1, 3, size, size), torch.empty(1, context, dtype=torch.int64)
    counts = []
    for tower, one in zip((model.encode_image, model.encode_text), inputs, strict=True):
        with FlopCounterMode(display=False) as counter:
            tower(one)
        counts.append(float(counter.get_total_flops()))
    return counts[0], counts[1]


def shares(step: Any) -> dict[str, float]:
    """The operations' shares of the time that a step takes on the device, the largest first."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if DEVICE == "cuda" else [])
    with profile(activities=activities) as profiler:
        step()
        finished()
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        on_gpu = event.self_device_time_total if event.device_type.name == "CPU" else 0
        spent[event.key] += on_gpu if DEVICE == "cuda" else event.self_cpu_time_total
    total = sum(spent.values()) or 1.0
    return {name: value / total for name, value in spent.most_common(10)}


if __name__ == "__main__":
    main()
