"""Our evaluation and the original harness on the same sets, model and machine, whole processes in turn.

    python bench/evaluate_suite.py harness=<checkout> python=<its interpreter> [case=suite|tower] [out=FILE.md]
    python bench/evaluate_suite.py case=alone [classes=10] [out=FILE.md]

The checkout is of https://github.com/mlfoundations/datacomp. Its environment needs the torch, torchvision, Pillow and
open_clip_torch of ours, and webdataset==0.2.31, numpy<2.4, scikit-learn, datasets, pandas, wilds==2.0.0, and
clip_benchmark==1.4.0 installed with --no-deps, as that release asks for an older torch.

Cases: `suite`, 40 small sets, where start-up and prompts weigh; `tower`, few tasks with many pictures, where the image
tower does. Both are run unless one is named. `alone` is what `suite` does of ours, without the harness: where our time
goes, and what the towers take of it in a process that does nothing else.

sets= is the folder for the sets and checkpoints, which are written where they are not there yet (a temporary folder
without it). Runs on Linux.
"""

import datetime
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import evaluation_report as report
import numpy as np
import torch
from evaluation_report import Aim, Outcome, Pace, Side
from evaluation_sets import NAMES, TEMPLATES, Pictures, picture, write_sets
from machine import machine
from processes import Ran, measured

from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error
from poolbench.files import atomic, read_json, read_lines
from poolbench.models.clip import create, tokenizer_of
from poolbench.models.transforms import Pixels, Scale, evaluation_transform
from poolbench.recipes import EVALUATION_PRECISIONS as PRECISIONS

from tasks.registry import Task, select

ROOT = Path(__file__).resolve().parent.parent
PEER = ("suite", "tower")  # cases that the original harness is needed for
CASES = (*PEER, "alone")
TOWER_TASKS = ["cifar10", "vtab/eurosat", "vtab/dtd"]
SUITE_SIDES, TOWER_SIDES = (256, 500), (64, 96)  # pixels of the pictures
PROFILE = "phases.json"  # of bench/evaluation_profile.py, below the results
MORE = 4  # times as many pictures in the larger sets of `tower`


@dataclass
class Options:
    """`harness` is the checkout, `python` its interpreter; `images` are pictures of each task, `tower_images` those of
    each task in the smaller sets of `tower`; `precision` is ours in `suite`, and `classes` caps the classes of a task
    there, so that prompts weigh less than in reality (None: as many as the real tasks have)."""

    harness: str | None = None
    python: str | None = None
    sets: str | None = None
    case: str | None = None
    model: str = "ViT-S-32-alt"
    tower_model: str = "ViT-B-32"
    precision: str = "fp32"
    images: int = 58
    classes: int | None = None
    tower_images: int = 64
    repeats: int = 3
    out: str | None = None


class Section(NamedTuple):
    """A case's part of the page."""

    aims: list[Aim]
    lines: list[str]


class Scene(NamedTuple):
    """What both evaluate: tasks whose sets lie below `sets`, and a model with a checkpoint."""

    tasks: list[Task]
    sets: Path
    model: str
    checkpoint: Path


class Profile(NamedTuple):
    """A run of ours, and its seconds by phase."""

    ran: Ran
    phases: dict[str, float]


def main() -> None:
    words, options = parse(sys.argv[1:], Options)
    if words:
        raise UserError(f"{words[0]!r} is not key=value")
    check(options)
    write(options)


def write(options: Options) -> None:
    """Run the cases and print the page of results; with out= it becomes a file as well."""
    cases = PEER if options.case is None else (options.case,)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary if options.sets is None else options.sets).resolve()
        work = Path(temporary) / "runs"
        run_case = {"suite": suite, "tower": tower, "alone": alone}
        sections = [run_case[case](options, root, work / case) for case in cases]
    aims = [aim for section in sections for aim in section.aims]
    body = [line for section in sections for line in section.lines]
    page = "\n".join([*heading(options), *report.aims_table(aims), "", *body])
    print(page)
    if options.out is not None:
        with atomic(options.out) as file:
            file.write(page)


def check(options: Options) -> None:
    """Raise UserError for what cannot be run."""
    if options.case not in (None, *CASES):
        raise UserError(f"case={options.case} is not one of {', '.join(CASES)}")
    if options.case != "alone":
        if options.harness is None or options.python is None:
            raise UserError("harness= and python= are needed, but for case=alone")
        if not (Path(options.harness) / "tasklist.yml").is_file():
            raise UserError(
                f"harness={options.harness} holds no tasklist.yml; is it a checkout of the original harness?"
            )
        if shutil.which(options.python) is None:
            raise UserError(f"python={options.python} is not an interpreter")
    if options.precision not in PRECISIONS:
        raise UserError(f"precision={options.precision} is not one of {', '.join(PRECISIONS)}")
    if (
        min(options.images, options.tower_images, options.repeats, 1 if options.classes is None else options.classes)
        < 1
    ):
        raise UserError("images=, tower_images=, repeats= and classes= have to be at least 1")


def suite(options: Options, root: Path, work: Path) -> Section:
    """40 small sets: seconds of both by task and in total, and the difference of their metrics."""
    scene, what = suite_scene(options, root)
    theirs, ours = Side([]), Side([])
    for number in range(options.repeats):
        theirs.outcomes.append(run_original(options, scene, work / f"original-{number}"))
        ours.outcomes.append(run_ours(scene, options.precision, work / f"ours-{number}"))
        say(f"suite, round {number + 1}", theirs, ours)
    lines = [
        f"## {what}",
        "",
        f"Ours in {options.precision}, the original harness in fp32.",
        "",
        *report.totals_table(theirs, ours),
        "",
        "Seconds of a task are, in the original harness, from loading the model to the metrics; in ours, from its "
        "first batch of pictures to its metrics: the prompts of all tasks are encoded before, and the pictures of "
        "the next task are decoded meanwhile.",
        "",
        *report.tasks_table(scene.tasks, theirs, ours),
        "",
    ]
    share = ours_alone(options, scene, work / "alone")
    return Section([*report.suite_aims(theirs, ours), *share.aims], [*lines, *share.lines])


def alone(options: Options, root: Path, work: Path) -> Section:
    """Ours on the 40 small sets, without the original harness."""
    scene, what = suite_scene(options, root)
    share = ours_alone(options, scene, work)
    return share._replace(lines=[f"## {what}", "", f"In {options.precision}.", "", *share.lines])


def suite_scene(options: Options, root: Path) -> tuple[Scene, str]:
    """The 40 small sets, written where they are not there yet, and what they are in words."""
    tasks = select(["all"])
    sets, classes = root / f"suite-{options.images}", "as many classes as the real tasks have"
    if options.classes is not None:
        least = {task.key: task.classes and min(task.classes, options.classes) for task in tasks}
        tasks = [task.model_copy(update={"classes": least[task.key]}) for task in tasks]
        sets, classes = root / f"{sets.name}-{options.classes}", f"at most {options.classes} classes"
    write_sets(sets, tasks, Pictures(options.images, *SUITE_SIDES))
    size = sum(path.stat().st_size for path in sets.rglob("*") if path.is_file()) / 1e6
    what = (
        f"{len(tasks)} small sets: {len(tasks) * options.images:,} samples, {size:.0f} MB\n\n{options.model}, random "
        f"weights, {options.images} samples a task, JPEGs of {SUITE_SIDES[0]} to {SUITE_SIDES[1]} pixels, {classes}, 2 "
        "to 7 templates."
    )
    return Scene(tasks, sets, options.model, checkpoint_of(options.model, root)), what


def ours_alone(options: Options, scene: Scene, work: Path) -> Section:
    """Whole runs of ours, each followed by its towers in a process of their own, and where the last one's time goes."""
    profiles, towers = [], []
    for number in range(options.repeats):
        folder = work / f"profile-{number}"
        profiles.append(profile(scene, options.precision, folder))
        towers.append(towers_alone(scene, options.precision, folder))
        times = f"{profiles[-1].ran.seconds:.1f} s, towers alone {towers[-1]['clock']:.1f} s"
        print(f"alone, round {number + 1}: {times}", file=sys.stderr, flush=True)
    phases = profiles[-1].phases
    lines = [
        "### The towers alone",
        "",
        "The same forward passes as in the run, in a process that does nothing else.",
        "",
        *report.alone_table([one.ran for one in profiles], towers),
        "",
        "### Where our time goes",
        "",
        f"The last run, {sum(phases.values()):.1f} s. The main process only, beside which the workers decode.",
        "",
        *report.phases_table(phases),
        "",
    ]
    return Section(report.alone_aims([one.ran for one in profiles], towers), lines)


def tower(options: Options, root: Path, work: Path) -> Section:
    """Many small pictures: pictures/s of both, ours in bfloat16 beside it, and memory at two numbers of pictures."""
    tasks = select(TOWER_TASKS)
    checkpoint = checkpoint_of(options.tower_model, root)
    counts = (options.tower_images, MORE * options.tower_images)
    sides = {name: (Side([]), Side([])) for name in ("original", *PRECISIONS)}
    for number in range(options.repeats):
        for index, count in enumerate(counts):
            sets = root / f"tower-{count}"
            write_sets(sets, tasks, Pictures(count, *TOWER_SIDES))
            scene = Scene(tasks, sets, options.tower_model, checkpoint)
            sides["original"][index].outcomes.append(run_original(options, scene, work / f"original-{count}-{number}"))
            for precision in PRECISIONS:
                outcome = run_ours(scene, precision, work / f"{precision}-{count}-{number}")
                sides[precision][index].outcomes.append(outcome)
            say(f"tower, {count} pictures a task, round {number + 1}", *(pair[index] for pair in sides.values()))
    few, many = (len(tasks) * count for count in counts)
    paces = {name: Pace(*pair, many - few) for name, pair in sides.items()}
    lines = [
        f"## The image tower: {many:,} pictures",
        "",
        f"{options.tower_model}, random weights, {len(tasks)} tasks, JPEGs of {TOWER_SIDES[0]} to {TOWER_SIDES[1]} "
        "pixels, whose decoding costs next to nothing. Pictures/s are those that the larger sets have more, over "
        "the seconds that their run took longer: start-up and prompts fall out. GB is the peak of all processes.",
        "",
        *report.pace_table(paces, (few, many)),
        "",
        f"Every metric over the {many:,} pictures:",
        "",
        *report.precision_table(tasks, paces),
        "",
    ]
    return Section(report.tower_aims(paces), lines)


def checkpoint_of(model_name: str, root: Path) -> Path:
    """Random weights, written once.

    The embeddings of fresh weights all point nearly the same way, so that every picture gets the same class. Their
    means over some pictures and prompts are moved to zero, through the biases before the last projections.
    """
    path = root / f"{model_name}.pt"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    model: Any = create(model_name).eval()
    transform = evaluation_transform(model)
    rng = np.random.default_rng(0)
    pixels = torch.stack([Pixels(transform)(picture(rng, Pictures(1, *SUITE_SIDES))) for _ in range(64)])
    prompts = [template.replace("{c}", str(rng.choice(NAMES))) for template in TEMPLATES * 8]
    with torch.inference_mode():
        images = model.encode_image(Scale(transform)(pixels)).mean(dim=0)
        texts = model.encode_text(tokenizer_of(model_name)(prompts)).mean(dim=0)
        model.visual.ln_post.bias -= images @ torch.linalg.pinv(model.visual.proj)
        model.ln_final.bias -= texts @ torch.linalg.pinv(model.text_projection)
    with atomic(path, "wb") as file:
        torch.save(model.state_dict(), file)
    return path


def run_ours(scene: Scene, precision: str, out: Path) -> Outcome:
    """`python -m evaluate` with its defaults."""
    ran = run([sys.executable, "-m", "evaluate", *our_options(scene, precision, out)], out)
    return Outcome(ran, {line["key"]: line for line in read_lines(out / "eval_results.jsonl")})


def run_original(options: Options, scene: Scene, out: Path) -> Outcome:
    """The original harness with its defaults."""
    file = out / "results.jsonl"
    assert options.harness is not None and options.python is not None
    interpreter = Path(shutil.which(options.python) or options.python).absolute()  # it is started in another folder
    command = [str(interpreter), str(ROOT / "bench" / "original_harness.py")]
    for name, value in (("harness", Path(options.harness).resolve()), ("sets", scene.sets), ("model", scene.model)):
        command += [f"--{name}", str(value)]
    command += ["--checkpoint", str(scene.checkpoint), "--out", str(file)]
    ran = run([*command, "--tasks", *(task.key for task in scene.tasks)], out)
    return Outcome(ran, {line["key"]: line for line in read_lines(file)})


def profile(scene: Scene, precision: str, out: Path) -> Profile:
    """One of our runs, and its seconds by phase. The file below `out` has the shapes of all batches as well."""
    script = str(ROOT / "bench" / "evaluation_profile.py")
    ran = run([sys.executable, script, str(out / PROFILE), *our_options(scene, precision, out)], out)
    phases: dict[str, float] = read_json(out / PROFILE)["phases"]
    return Profile(ran, {**phases, "start of the interpreter, exit": ran.seconds - sum(phases.values())})


def towers_alone(scene: Scene, precision: str, out: Path) -> dict[str, float]:
    """Seconds of the forward passes of the run that `profile` left below `out`."""
    file, script = out / "towers.json", str(ROOT / "bench" / "evaluation_towers.py")
    words = [str(file), str(out / PROFILE), scene.model, str(scene.checkpoint), precision]
    run([sys.executable, script, *words], out / "towers")
    seconds: dict[str, float] = read_json(file)
    return seconds


def our_options(scene: Scene, precision: str, out: Path) -> list[str]:
    """What follows `python -m evaluate`."""
    return [
        f"model={scene.model}",
        f"checkpoint={scene.checkpoint}",
        f"data={scene.sets}",
        f"out={out}",
        f"precision={precision}",
        f"tasks=[{','.join(task.key for task in scene.tasks)}]",
    ]


def run(command: list[str], out: Path) -> Ran:
    """Run a process to its end, with threads that sleep where they wait, as there are few cores."""
    out.mkdir(parents=True)
    return measured(command, ROOT, out / "log.txt", os.environ | {"OMP_WAIT_POLICY": "passive"})


def say(what: str, *sides: Side) -> None:
    """Progress, for whoever waits."""
    print(what, *(f"{side.outcomes[-1].ran.seconds:.1f} s" for side in sides), file=sys.stderr, flush=True)


def heading(options: Options) -> list[str]:
    """Title, command, machine and versions."""
    command = " ".join(["python bench/evaluate_suite.py", *changed(options)])
    packages = ("torch", "torchvision", "open_clip_torch", "pillow", "numpy")
    mine = ", ".join(f"{name} {version(name)}" for name in packages)
    beside = " beside the original harness" if options.harness is not None else " alone"
    how = "both with their own defaults (batch, workers) and the same environment." if options.harness else ""
    return [
        f"# Evaluation: our suite{beside}",
        "",
        f"`{command}`, {datetime.datetime.now(datetime.UTC):%d %B %Y}. Whole processes in turn, from start to exit, "
        f"medians of {options.repeats}{'; ' if how else '.'}{how}",
        "",
        f"Machine: {machine()}. Ours: Python {platform.python_version()}, {mine}.{peer_versions(options, packages)}",
        "",
    ]


def peer_versions(options: Options, packages: Sequence[str]) -> str:
    """What the original harness is made of, in a sentence; nothing without it."""
    if options.harness is None or options.python is None:
        return ""
    commit = subprocess.run(
        ["git", "-C", options.harness, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    packages = (*packages, "clip_benchmark")
    code = f"from importlib.metadata import version\nprint(*map(version, {packages!r}))"
    peer = subprocess.run([options.python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    other = ", ".join(f"{name} {value}" for name, value in zip(packages, peer, strict=True))
    return f" Original harness ({commit.stdout.strip() or 'no git commit'}): {other}."


def changed(options: Options) -> list[str]:
    """The options that differ from the defaults, without what is of one machine only."""
    given = [
        f"{name}={value}"
        for name, value in vars(options).items()
        if name not in ("harness", "python", "sets", "out") and value != getattr(Options, name)
    ]
    peer = [] if options.harness is None else ["harness=<checkout>", "python=<its interpreter>"]
    return [*peer, *given]


if __name__ == "__main__":
    exit_on_user_error(main)
