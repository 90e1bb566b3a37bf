"""The parts of bench/gpu.py that measure: rates beside the matrix product and open_clip_train, and memory beside the
plan of dry_run. They run in the processes of bench/gpu_parts.py."""

import argparse
import functools
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import end_to_end
import gpu_parts
import numpy as np
import step_alone
import torch
import train_throughput
from end_to_end import Case, Pace
from gpu_parts import MODEL, FailedError, Say, Scene
from machine import machine
from processes import measured
from throughput_report import SHARE
from throughput_work import DEVICE, StepWork, Trained
from train_throughput import BATCHES

STEPS, LEFT_OUT = 20, 5
PICTURES = 512  # 512-pixel JPEGs in the shards of the part `loader`
SIDE = 256  # of the matrices of a rehearsal
# What is asked for where (batch, precision, keys); a part of the memory of 80 GB each.
MEMORY: dict[str, list[tuple[int, str, list[str]]]] = {
    "ViT-B-32": [
        (1024, "amp_bf16", []),
        (1024, "amp_bf16", ["efficiency.activation_checkpointing=true"]),
        (1024, "amp_bf16", ["efficiency.accumulate=4"]),
        (512, "fp32", []),
    ],
    "ViT-B-16": [(256, "amp_bf16", [])],
    "ViT-L-14": [(64, "amp_bf16", []), (256, "amp_bf16", ["efficiency.activation_checkpointing=true"])],
}
_SIZES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def parts(model: str) -> dict[str, Callable[[Scene, Say], None]]:
    """By name; `model` is that of a part that is of one model."""
    return {
        "device": device,
        "memory": memory,
        "step": functools.partial(step, model=model),
        "compiled": functools.partial(compiled, model=model),
        "loader": loader,
        "rates": rates,
    }


def device(scene: Scene, say: Say) -> None:
    """What the machine is, and what it multiplies at."""
    import open_clip
    import torchvision

    say("machine", machine(), f"{torch.cuda.device_count()} GPUs")
    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}, open_clip {open_clip.__version__}"
    say("versions", f"Python {sys.version.split()[0]}, {versions}", f"CUDA {torch.version.cuda}")
    if DEVICE == "cuda":
        free, whole = torch.cuda.mem_get_info()
        say("memory of the GPU", f"{whole / 1e9:.0f} GB", f"{free / 1e9:.0f} GB free")
    for precision in step_alone.TYPES:
        say(f"matrix product, {precision}", f"{matmul(scene, precision) / 1e12:.4g} TFLOP/s")


def matmul(scene: Scene, precision: str) -> float:
    """FLOP/s."""
    return step_alone.matmul(precision, SIDE) if scene.tiny else step_alone.matmul(precision)


def step(scene: Scene, say: Say, model: str) -> None:
    """The training step of a model beside open_clip_train's, and beside the matrix product."""
    ours = trained(scene, "ours", model)
    seen(say, ours, work_of(scene, model))
    theirs = trained(scene, "peer", model)
    ratio = ours.rate / theirs.rate
    say(
        f"samples/s, ours over open_clip_train {peer_version(scene)}",
        f"{ours.rate:.1f}",
        f"{theirs.rate:.1f}: {ratio:.2f} times",
        "ok" if ratio >= 1 else "**missed**",
    )
    for name, share in list(ours.operations.items())[:5]:
        say(f"of our step: `{name}`", f"{share:.1%}")


def compiled(scene: Scene, say: Say, model: str) -> None:
    """The same of ours with efficiency.compile=true."""
    seen(say, trained(scene, "ours", model, compile=True), work_of(scene, model, compile=True))


def seen(say: Say, ours: Trained, work: StepWork) -> None:
    """Rows of our rate, and of its share of the matrix product, in which a caption's padding is no work."""
    flops = 3 * (ours.image_flops + ours.filled * ours.text_flops)
    share = ours.rate * flops / ours.matmul
    what = f"{work.precision}, batch {work.batch}{', compiled' if work.compile else ''}"
    say(f"samples/s, {what}", f"{ours.rate:.1f}", f"{ours.rate * flops / 1e12:.3g} TFLOP/s")
    goal = f"goal {SHARE:.0%} of {ours.matmul / 1e12:.3g} TFLOP/s"
    say(f"share of the matrix product, {what}", f"{share:.0%}", goal, "ok" if share >= SHARE else "**missed**")
    say(f"memory of a step, {what}", f"{ours.memory / 1e9:.2f} GB")


def work_of(scene: Scene, model: str, compile: bool = False) -> StepWork:
    """In the rehearsal each model stands for our smallest."""
    models = str(gpu_parts.ROOT / "poolbench" / "models" / "configs")
    if scene.tiny:
        return StepWork(models, MODEL, "fp32", 8, 2, 1, compile, 1)
    return StepWork(models, model, "amp_bf16", BATCHES[model], STEPS, LEFT_OUT, compile, 1)


def trained(scene: Scene, side: str, model: str, compile: bool = False) -> Trained:
    """What bench/step_alone.py measures of a side."""
    work, out = work_of(scene, model, compile), scene.place(f"step-{model}-{side}{'-compiled' * compile}")
    out.mkdir()
    python = sys.executable if side == "ours" else scene.peer
    words = [side, json.dumps(work._asdict()), str(out / "found.json")]
    ran([python, str(gpu_parts.ROOT / "bench" / "step_alone.py"), *words], gpu_parts.ROOT, out / "log.txt")
    return Trained(**json.loads((out / "found.json").read_text()))


def peer_version(scene: Scene) -> str:
    code = "from importlib.metadata import version; print(version('open_clip_torch'))"
    done = subprocess.run([scene.peer, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "?"


def ran(command: list[str], folder: Path, log: Path) -> None:
    """Run a command of a benchmark to its end.

    Raises:
        FailedError: with what it said last.
    """
    try:
        measured(command, folder, log, train_throughput.environment("ours", None))
    except SystemExit as error:
        raise FailedError(f"{str(error).splitlines()[0][:120]}: {gpu_parts.last_line(log)}") from None


def loader(scene: Scene, say: Say) -> None:
    """Whole trainings from shards of 512-pixel JPEGs, ours and open_clip_train's."""
    from poolbench.machine import default_workers

    sizes = argparse.Namespace(part="both", source=None, pictures=64 if scene.tiny else PICTURES)
    scene.place("loader").mkdir()
    place = train_throughput.prepare(scene.place("loader"), sizes)
    if scene.tiny:
        case = Case("tiny", "a model of one layer", "bench-loader", "fp32", 8, 8, 1, 2)
    else:
        cases = end_to_end.cases("amp_bf16", DEVICE == "cuda", default_workers(1))
        case = cases["gpu" if DEVICE == "cuda" else "model"]
    paces: dict[str, Pace] = {}
    for side in ("ours", "peer"):
        out = train_throughput.new_folder(place)
        if side == "ours":
            command = end_to_end.our_command(case, place.shards, place.models, out, [])
        else:
            command = end_to_end.peer_command(case, scene.peer, place.shards, place.models, out)
        ran(command, gpu_parts.ROOT if side == "ours" else out, out / "log.txt")
        paces[side] = (end_to_end.our_pace if side == "ours" else end_to_end.peer_pace)(case, out)
        what = f"{case.says}, batch {case.batch}, {case.workers} workers"
        who = "ours" if side == "ours" else f"open_clip_train {peer_version(scene)}"
        say(f"{who}: {what}", f"{paces[side].rate:.1f} samples/s", f"waits for data {paces[side].waited:.0%}")
    ratio = paces["ours"].rate / paces["peer"].rate
    say("ours over open_clip_train, from shards", f"{ratio:.2f} times", "-", "ok" if ratio >= 1 else "**missed**")


class Asked(NamedTuple):
    """A setting whose peak of memory is looked at."""

    model: str
    batch: int
    precision: str
    keys: list[str]

    @property
    def says(self) -> str:
        return ", ".join([self.model, self.precision, f"batch {self.batch}", *(key[11:] for key in self.keys)])


def memory(scene: Scene, say: Say) -> None:
    """The peak of a step's memory, each in a process of its own, beside what dry_run=true plans for it."""
    if scene.tiny:
        settings = [Asked(MODEL, 16, "fp32", []), Asked(MODEL, 16, "fp32", ["efficiency.accumulate=2"])]
    else:
        settings = [Asked(model, *one) for model, several in MEMORY.items() for one in several]

    def both(asked: Asked) -> tuple[float, float] | FailedError:
        try:
            return planned(asked, scene), peak(asked, scene)
        except FailedError as error:
            return error

    with ThreadPoolExecutor(min(3, scene.at_once)) as pool:
        for asked, found in zip(settings, pool.map(both, settings), strict=True):
            if isinstance(found, FailedError):
                say(asked.says, "-", "-", f"**failed**: {found}")
                continue
            plan, used = found
            # On a CPU the process itself, with Python and torch, is the most of it.
            enough = "-" if scene.device == "cpu" else "ok" if used <= plan * 1.05 else "**missed**"
            say(asked.says, f"{used / 1e9:.3g} GB", f"{plan / 1e9:.3g} GB planned: {used / plan:.2f} of it", enough)


def planned(asked: Asked, scene: Scene) -> float:
    """Bytes of a device, as a user is told."""
    words = [f"recipe.model={asked.model}", f"recipe.batch_size={asked.batch}", f"precision={asked.precision}"]
    plan = ["scale=small", "dry_run=true", "world_size=1", f"out={scene.place('planned')}", *words, *asked.keys]
    told = gpu_parts.run(["-m", "train", *plan], scene)
    found = re.search(r"^device memory +([\d.]+) ?([kMGT]?)B", told, re.MULTILINE)
    if found is None:
        raise FailedError("dry_run tells no device memory")
    return float(found[1]) * _SIZES[found[2]]


def peak(asked: Asked, scene: Scene) -> float:
    """Bytes that a training step has taken at a time."""
    keys = dict(key.removeprefix("efficiency.").split("=") for key in asked.keys)
    settings = [asked.model, str(asked.batch), asked.precision, json.dumps(keys)]
    code = "import json, sys, gpu_speed as s; print(s.measured_peak(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))"
    return float(gpu_parts.run(["-c", code, *settings], scene).split()[-1])


def measured_peak(name: str, batch: int, precision: str, keys: str) -> float:
    """Bytes, in this process, of three steps; captions have the full length, as the plan has them."""
    import synthetic

    from poolbench.models.clip import create, preprocess_of

    from train.step import Stepper, make_optimizer

    more = json.loads(keys)
    model: Any = create(name, device=DEVICE)
    if more.get("activation_checkpointing"):
        model.set_grad_checkpointing()
    accumulate = int(more.get("accumulate", 1))
    optimizer = make_optimizer(model, gpu_parts.recipe())
    stepper = Stepper(model, optimizer, preprocess_of(model), precision=precision, accumulate=accumulate)
    images = synthetic.images(batch, preprocess_of(model).size)
    for tokens in synthetic.captions(3, batch, model.context_length):
        tokens[:, -1] = tokens.max()  # an end that is nowhere but at the end
        tokens[:, :-1].clamp_(max=synthetic.START - 1)
        stepper.step(images, tokens, 1e-4)
    return step_alone.peak_memory()


def rates(scene: Scene, say: Say) -> None:
    """Rows a second of columns that matrix products bind, from npz to column, and the share of the product's rate."""
    import methods

    from curate.models.targets import named, targets_of
    from curate.pool.files import list_pool
    from curate.pool.parts import Part
    from curate.pool.passes import Passes
    from curate.scorers.neg_clip_loss import NegClipLoss
    from curate.scorers.norm_sim import NormSim
    from curate.scorers.rows import score_columns
    from curate.scorers.vas import Vas

    rng, rows = np.random.default_rng(1), 512 if scene.tiny else methods.BATCH
    methods.write_pool(scene.place("rates"), (rows, rows), rng)  # the first file is for what is done once
    places = str(scene.place("targets-rates.npy"))
    np.save(places, methods.vectors(rows, rng))
    targets, width = targets_of(places, named(places)), methods.WIDTH
    cases: list[tuple[str, Any, float, str]] = [
        ("vas", Vas(targets, "l14_img", scene.device), width**2, "fp64"),
        (f"norm_sim p=inf, {rows:,} targets", NormSim(targets, "l14_img", "inf", scene.device), width * rows, "fp32"),
        ("neg_clip_loss, 1 partition", NegClipLoss("l14", 0.01, rows, 1, 0, scene.device), width * rows, "fp64"),
    ]
    products = {precision: matmul(scene, precision) for precision in ("fp64", "fp32")}
    for name, scorer, multiplied, precision in cases:
        seconds = []
        for number, file in enumerate(list_pool(str(scene.place("rates")), str(scene.place(f"made-{name[:4]}")))):
            began = time.perf_counter()
            with Passes([file._replace(number=0)], None, 1, Part(1, 1)) as passes:
                score_columns(passes, scorer)
            seconds.append(time.perf_counter() - began)
            assert number < 2
        share = 2 * multiplied * rows / seconds[-1] / products[precision]
        beside = f"{products[precision] / 1e12:.3g} TFLOP/s of the product in {precision}: {share:.0%} of it"
        say(name, f"{rows / seconds[-1]:,.0f} rows/s", beside)
