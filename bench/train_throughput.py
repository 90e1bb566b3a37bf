"""Our training and open_clip_train on the same data, models, precision and batch, in turn: loader, step, both.

    python bench/train_throughput.py --peer /path/to/peer/bin/python [--source CHECKOUT]
        [--part loader|step|both|all] [--out FILE.md]

The peer needs an environment of its own: `pip install torch torchvision open_clip_torch webdataset==0.2.31 pandas`,
with the torch of ours (its data pipeline does not run with webdataset 1.0). Without --peer ours is measured alone. With
--source it is the open_clip_train of a checkout of mlfoundations/open_clip, with that environment's packages; releases
3.3 and the main branch as of 4.2.0.dev0 are known to run.

Parts: `loader`, 512-pixel JPEGs through one worker, with nothing behind it; `step`, synthetic batches on the device;
`both`, whole trainings from shards, of which --case picks one. Each round measures one side and then the other, each in
a process of its own; what happens before the loaders are full is left out. Runs on Linux; see --help for the sizes.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import end_to_end
import throughput_report as report
from end_to_end import Case, Pace
from machine import machine
from processes import measured
from synthetic import PICTURES, make_shards
from throughput_report import Both
from throughput_work import DEVICE, LoaderWork, Read, StepWork, Trained

from poolbench.errors import UserError, exit_on_user_error
from poolbench.files import atomic, read_json
from poolbench.machine import slow_bfloat16

from train.config import PRECISIONS

T = TypeVar("T", Read, Trained, Pace)
ROOT = Path(__file__).resolve().parent.parent
PARTS = ("loader", "step", "both")
CASES = ("loader", "model", "gpu")
LOADER_BATCH, LOADER_LEFT_OUT = 128, 512  # samples
BATCHES = {"ViT-B-32": 1024, "ViT-B-16": 512, "ViT-L-14": 128}  # on a GPU of 80 GB, without recomputation
CPU_BATCH = 32
LOADER_MODEL = {  # costs next to nothing beside the decoding of its pictures
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 32, "head_width": 32, "patch_size": 56},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 1, "layers": 1},
}


class Scene(NamedTuple):
    """Where both sides find shards and model configurations, and where their runs go; `source` is a checkout of the
    peer's, None for the one of its environment."""

    shards: Path
    models: Path
    work: Path
    source: Path | None = None


def main() -> None:
    options = parse()
    check(options)
    write(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--peer", help="python of the environment that has open_clip_train")
    parser.add_argument("--source", type=Path, help="checkout of open_clip, measured in place of the peer's own")
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="also write the page here")
    parser.add_argument("--precision", choices=PRECISIONS, help="default: amp_bf16 where there is a unit for it")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="in the shards")
    parser.add_argument("--samples", type=int, default=4096, help="of the loader alone")
    parser.add_argument("--model", action="append", help="of the step alone; default: what suits the device")
    parser.add_argument("--batch", type=int, help="of the step alone; default: what suits device and model")
    parser.add_argument("--steps", type=int, default=20 if DEVICE == "cuda" else 4, help="of the step alone")
    parser.add_argument("--case", choices=CASES, action="append", help="of both together; default: all")
    parser.add_argument("--compile", action="store_true", help="ours with efficiency.compile=true")
    parser.add_argument("--accumulate", type=int, default=1, help="ours with efficiency.accumulate")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Raise UserError for what cannot be run."""
    if options.peer is not None and shutil.which(options.peer) is None:
        raise UserError(f"--peer={options.peer} is not an interpreter")
    if options.source is not None and options.peer is None:
        raise UserError("--source needs --peer, in whose environment it runs")
    if options.source is not None and not (options.source / "src" / "open_clip_train").is_dir():
        raise UserError(f"--source={options.source} is no checkout of open_clip: it has no src/open_clip_train")
    if min(options.rounds, options.steps, options.accumulate, options.batch or 1) < 1:
        raise UserError("--rounds, --steps, --accumulate and --batch have to be at least 1")
    if min(options.pictures, options.samples) < LOADER_BATCH:
        raise UserError(f"--pictures and --samples have to be at least {LOADER_BATCH}")
    if (options.batch or CPU_BATCH) % options.accumulate:
        raise UserError(f"--batch={options.batch or CPU_BATCH} cannot be split in --accumulate={options.accumulate}")
    if "gpu" in (options.case or ()) and DEVICE == "cpu":
        raise UserError("--case=gpu needs a GPU")


def write(options: argparse.Namespace) -> None:
    """Measure the parts and print the page of results; with --out it is a file as well, whole after each part."""
    parts, lines = PARTS if options.part == "all" else (options.part,), heading(options)
    with tempfile.TemporaryDirectory() as name:
        scene = prepare(Path(name), options)
        for part in parts:
            lines += {"loader": loader, "step": step, "both": both}[part](options, scene)
            if options.out is not None:
                with atomic(options.out) as file:
                    file.write("\n".join(lines))
    print("\n".join(lines))


def prepare(folder: Path, options: argparse.Namespace) -> Scene:
    """Write the shards, and the configurations of models that open_clip has not."""
    source = None if options.source is None else options.source.resolve()
    scene = Scene(folder / "shards", folder / "models", folder / "work", source)
    shutil.copytree(ROOT / "poolbench" / "models" / "configs", scene.models)
    (scene.models / "bench-loader.json").write_text(json.dumps(LOADER_MODEL))
    scene.work.mkdir()
    if options.part != "step":
        make_shards(scene.shards, options.pictures)
    return scene


def loader(options: argparse.Namespace, scene: Scene) -> list[str]:
    """The loader alone, on one core: a worker has one thread, and so has everything else."""
    folders = str(scene.shards), str(scene.models)
    work = LoaderWork(*folders, "bench-loader", LOADER_BATCH, options.samples, LOADER_LEFT_OUT)

    def run(side: str, python: str) -> Read:
        return Read(**run_side("loader_alone.py", side, python, work, scene, threads=1))

    return report.loader_part(in_turn("loader", options, run))


def step(options: argparse.Namespace, scene: Scene) -> list[str]:
    """The step alone: each model."""
    found = {}
    gpu, precision = DEVICE == "cuda", options.precision or default_precision()
    for model in options.model or (BATCHES if gpu else ["ViT-B-32"]):
        batch = options.batch or (BATCHES.get(model, CPU_BATCH) if gpu else CPU_BATCH)
        left_out = 5 if gpu else 1
        tuning = options.compile, options.accumulate
        work = StepWork(str(scene.models), model, precision, batch, options.steps, left_out, *tuning)

        def run(side: str, python: str, work: StepWork = work) -> Trained:
            return Trained(**run_side("step_alone.py", side, python, work, scene))

        found[work] = in_turn(f"step, {model}", options, run)
    return report.step_part(found)


def both(options: argparse.Namespace, scene: Scene) -> list[str]:
    """Loader and step together: each case."""
    from poolbench.machine import default_workers

    cases = end_to_end.cases(options.precision or default_precision(), DEVICE == "cuda", default_workers(1))
    efficiency = [f"efficiency.compile={str(options.compile).lower()}", f"efficiency.accumulate={options.accumulate}"]
    found = {}
    for case in (cases[name] for name in options.case or cases):

        def run(side: str, python: str, case: Case = case) -> Pace:
            out = new_folder(scene)
            if side == "ours":
                command = end_to_end.our_command(case, scene.shards, scene.models, out, efficiency)
            else:
                command = end_to_end.peer_command(case, python, scene.shards, scene.models, out)
            measured(command, ROOT if side == "ours" else out, out / "log.txt", environment(side, scene.source))
            return (end_to_end.our_pace if side == "ours" else end_to_end.peer_pace)(case, out)

        found[case] = in_turn(case.name, options, run)
    return report.both_part(found)


def in_turn(what: str, options: argparse.Namespace, run: Callable[[str, str], T]) -> Both[T]:
    """Both sides' outcomes of all rounds. `run` measures a side, given its interpreter."""
    outcomes = Both[T]([], [])
    for number in range(options.rounds):
        outcomes.ours.append(run("ours", sys.executable))
        rates = [f"{outcomes.ours[-1].rate:.1f}"]
        if options.peer is not None:
            outcomes.theirs.append(run("peer", interpreter(options.peer)))
            rates.append(f"{outcomes.theirs[-1].rate:.1f}")
        print(f"{what}, round {number + 1}: {' and '.join(rates)} samples/s", file=sys.stderr, flush=True)
    return outcomes


def run_side(script: str, side: str, python: str, work: Any, scene: Scene, threads: int | None = None) -> Any:
    """What a script of this folder measures in the environment of a side."""
    out = new_folder(scene)
    command = [python, str(ROOT / "bench" / script), side, json.dumps(work._asdict()), str(out / "found.json")]
    measured(command, ROOT if side == "ours" else out, out / "log.txt", environment(side, scene.source, threads))
    return read_json(out / "found.json")


def new_folder(scene: Scene) -> Path:
    """For the files of one run."""
    return Path(tempfile.mkdtemp(dir=scene.work))


def environment(side: str, source: Path | None, threads: int | None = None) -> dict[str, str]:
    """The same for both: threads that sleep where they wait, as there are few cores, and so many where it is said. A
    checkout stands before what the peer's environment has."""
    found = os.environ | {"OMP_WAIT_POLICY": "passive"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    if side == "ours" or source is None:
        return found
    return found | {"PYTHONPATH": os.pathsep.join([str(source / "src"), *filter(None, [found.get("PYTHONPATH")])])}


def interpreter(python: str) -> str:
    """An absolute path, as it is started in another folder; not the file that a link of an environment leads to."""
    return str(Path(shutil.which(python) or python).absolute())


def default_precision() -> str:
    """That of `python -m train`, but for CPUs on which nobody would train with it."""
    return "fp32" if DEVICE == "cpu" and slow_bfloat16() else "amp_bf16"


def heading(options: argparse.Namespace) -> list[str]:
    """Title, command, machine and versions."""
    packages = ("torch", "torchvision", "open_clip_torch", "pillow")
    mine = ", ".join(f"{name} {version(name)}" for name in packages)
    return [
        "# Training throughput: ours beside open_clip_train",
        "",
        f"`{command(options)}`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. In turn, medians of {options.rounds}; "
        "a ratio is ours over theirs, its range that of the rounds.",
        "",
        f"Machine: {machine()}. Ours: Python {platform.python_version()}, {mine}. {peer_versions(options, packages)}",
        "",
    ]


def command(options: argparse.Namespace) -> str:
    """The command line, without what is of one machine only."""
    words = ["python bench/train_throughput.py"]
    if options.peer is not None:
        words.append("--peer <python>")
    if options.source is not None:
        words.append("--source <checkout>")
    arguments = iter(sys.argv[1:])
    for word in arguments:
        name, equals, _ = word.partition("=")
        if name not in ("--peer", "--out", "--source"):
            words.append(word)
        elif not equals:
            next(arguments)
    return " ".join(words)


def peer_versions(options: argparse.Namespace, packages: tuple[str, ...]) -> str:
    """A sentence about the peer's environment."""
    if options.peer is None:
        return "open_clip_train was not measured."
    names = (*packages, "webdataset")
    code = (
        f"from importlib.metadata import version\nfrom open_clip.version import __version__ as own\n"
        f"print(*(own if name == 'open_clip_torch' else version(name) for name in {names!r}))"
    )
    command, variables = [interpreter(options.peer), "-c", code], environment("peer", options.source)
    found = subprocess.run(command, capture_output=True, text=True, check=False, env=variables, cwd="/")
    if found.returncode:
        raise UserError(f"--peer={options.peer} lacks a package: {found.stderr.strip().splitlines()[-1]}")
    versions = (f"{name} {value}" for name, value in zip(names, found.stdout.split(), strict=True))
    return f"open_clip_train: {', '.join(versions)}{'' if options.source is None else ' (of the checkout)'}."


if __name__ == "__main__":
    exit_on_user_error(main)
