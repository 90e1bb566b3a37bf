"""The parts of bench/gpu.py that check behaviour: each is a process of its own, and so are the commands that it runs.

    python bench/gpu_parts.py PART SCENE.json ROWS.jsonl

A row is written as soon as it is known: what, found, beside it, verdict. bench/gpu_speed.py has the parts that measure.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

ROOT = Path(__file__).resolve().parent.parent
MODEL = "ViT-Ti-32-64"  # of scale=tiny
COMPARED = 0.05  # by how much the loss of a run may differ where only its way of computing does
VARIANTS = (
    "precision=fp32",
    "precision=amp",
    "efficiency.activation_checkpointing=true",
    "efficiency.accumulate=4",
    "efficiency.compile=true",
)
FILTERS = {
    "vas": ["filter.clip_fraction=0.45", "filter.fraction=0.3", "targets"],
    "vas_d": ["filter.clip_fraction=0.45", "filter.fraction=0.3", "filter.rounds=4"],
    "norm_sim, p=2": ["filter.p=2", "filter.fraction=0.3", "targets"],
    "norm_sim, p=inf": ["filter.p=inf", "filter.fraction=0.3", "targets"],
    "neg_clip_loss": ["filter.fraction=0.3", "filter.partitions=2"],
}
FEW_TASKS = "cifar10,vtab/eurosat,retrieval/flickr_1k_test_image_text_retrieval"


class FailedError(Exception):
    """One line that says why a command did not do what it should."""


class Scene(NamedTuple):
    """Where things lie, and on what to run. `tiny` are sizes of a rehearsal."""

    device: str
    tiny: bool
    work: str
    pool: str
    evaluation: str
    peer: str
    environment: dict[str, str]

    @property
    def at_once(self) -> int:
        """How many commands side by side."""
        return 2 if self.tiny else max(2, len(os.sched_getaffinity(0)) // 2)

    def place(self, name: str) -> Path:
        """A file or folder of this part."""
        return Path(self.work) / name


Row = tuple[str, str, str, str]


class Say(Protocol):
    """Writes a row."""

    def __call__(self, what: str, found: str, beside: str = "-", verdict: str = "-") -> None: ...


def main() -> None:
    part, scene, rows = sys.argv[1], Scene(**json.loads(Path(sys.argv[2]).read_text())), Path(sys.argv[3])

    def say(what: str, found: str, beside: str = "-", verdict: str = "-") -> None:
        with rows.open("a") as file:
            file.write(json.dumps([what, found, beside, verdict]) + "\n")

    try:
        if scene.device == "cuda":
            import torch

            if not torch.cuda.is_available():
                raise FailedError("torch sees no GPU; --device cpu --tiny rehearses without")
        function(part)(scene, say)
    except FailedError as error:
        sys.exit(str(error))


def function(part: str) -> Callable[[Scene, Say], None]:
    """What does a part."""
    name, _, model = part.partition(" ")
    own = {"train": train, "evaluate": evaluate, "score": score, "nccl": nccl, "columns": columns}
    if name in own:
        return own[name]
    import gpu_speed

    return gpu_speed.parts(model)[name]


def train(scene: Scene, say: Say) -> None:
    """Whole trainings from shards: one, the same again, stopped, killed, and in every way of computing."""
    size = ["recipe.batch_size=16", "recipe.samples=480", "recipe.warmup=2"] if scene.tiny else []
    words = [f"data={scene.pool}", f"out={scene.place('runs')}", "scale=tiny", "efficiency.workers=2", *size]
    steps, base = 30 if scene.tiny else 512, scene.place("runs") / "base"

    def trained(name: str, *more: str) -> Path:
        run(["-m", "train", *words, f"name={name}", *more], scene)
        return scene.place("runs") / name

    with ThreadPoolExecutor(2) as pool:
        first, second = (pool.submit(trained, name) for name in ("base", "again"))
        first.result()
        twice = difference(base, second.result())
    record = json.loads((base / "run.json").read_text())
    if (record["device"].endswith("CPU")) != (scene.device == "cpu"):
        raise FailedError(f"it trained on {record['device']}, not on {scene.device}")
    what = f"{steps} steps of {record['recipe']['batch_size']}, {record['precision']}"
    say(what, f"loss {loss(base):.4g}", f"{record['world_size']} x {record['device']}", "ok")
    say("the same command twice", in_words(twice))

    says = {"stopped": "stopped by SIGTERM", "killed": "killed"}

    def interruption(name: str, number: signal.Signals) -> list[Row]:
        step = interrupted(scene, words, name, number, steps // 2)
        found, what = difference(base, scene.place("runs") / name), f"{says[name]} behind step {step}, continued"
        verdict = "ok" if found <= 10 * twice else "**missed**"
        return [(what, in_words(found), f"run twice: {in_words(twice)}", verdict)]

    def variant(number: int, name: str) -> list[Row]:
        ours, theirs = loss(trained(f"variant{number}", name)), loss(base)
        near = abs(ours - theirs) <= COMPARED * theirs
        return [(name, f"loss {ours:.4g}", f"{theirs:.4g}", "ok" if near else "**missed**")]

    jobs = {
        "stopped by SIGTERM": lambda: interruption("stopped", signal.SIGTERM),
        "killed": lambda: interruption("killed", signal.SIGKILL),
    }
    each(scene, say, jobs | {name: partial(variant, number, name) for number, name in enumerate(VARIANTS)})


def in_words(found: float) -> str:
    """What `difference` gives."""
    return "the same bits" if found == 0 else f"weights differ by {found:.2g} of the largest"


def difference(left: Path, right: Path) -> float:
    """The largest difference of the last weights of two runs, over the largest weight."""
    a, b = weights(left), weights(right)
    largest = max(float(one.abs().max()) for one in a.values())
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a) / largest


def weights(run_folder: Path) -> dict[str, Any]:
    import torch

    state: dict[str, Any] = torch.load(checkpoint(run_folder), map_location="cpu", weights_only=True)["state_dict"]
    return state


def checkpoint(run_folder: Path) -> Path:
    """The last one of a run."""
    return run_folder / str(json.loads((run_folder / "run.json").read_text())["checkpoint"]["path"])


def loss(run_folder: Path) -> float:
    """Mean of the last tenth of the steps."""
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    last = lines[-max(1, len(lines) // 10) :]
    return float(sum(line["loss"] for line in last) / len(last))


def interrupted(scene: Scene, words: Sequence[str], name: str, number: signal.Signals, behind: int) -> str:
    """Train, interrupt it once `behind` steps are logged, and let the same command go on; the step it was behind."""
    every = [f"efficiency.checkpoint_every={max(1, behind // 4)}"] if number == signal.SIGKILL else []
    command = ["-m", "train", *words, f"name={name}", *every]
    metrics, log = scene.place("runs") / name / "metrics.jsonl", scene.place(f"{name}.first.log")
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        while process.poll() is None and count(metrics) < behind:
            time.sleep(0.01)
        process.send_signal(number)
        status = process.wait()
    if status not in (75, -signal.SIGKILL):
        raise FailedError(f"exit status {status} at {number.name}: {last_line(log)}")
    step = count(metrics)
    run(command, scene)
    return str(step)


def count(path: Path) -> int:
    """Lines of a file, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def evaluate(scene: Scene, say: Say) -> None:
    """The model just trained on every task, in float32 and in bfloat16, and the demo's on the CPU as well."""
    model = [f"model={MODEL}", f"checkpoint={last(scene)}", "workers=2"]

    def evaluated(tasks: str, data: str, device: str, precision: str) -> Path:
        out = scene.place(f"evaluated-{tasks[:4]}-{device}-{precision}")
        words = [f"tasks=[{tasks}]", f"data={data}", f"out={out}", f"precision={precision}", f"device={device}"]
        run(["-m", "evaluate", *model, *words], scene)
        return out

    def beside(tasks: str, data: str, device: str, precision: str) -> list[Row]:
        left, right = evaluated(tasks, data, scene.device, "fp32"), evaluated(tasks, data, device, precision)
        return compared_tasks(left, right, f"{precision}{' on the CPU' if device != scene.device else ''}")

    def of_the_demo() -> list[Row]:
        return beside("demo", scene.evaluation, scene.device, "amp_bf16") + (
            beside("demo", scene.evaluation, "cpu", "fp32") if scene.device != "cpu" else []
        )

    def of_all() -> list[Row]:
        return beside(FEW_TASKS if scene.tiny else "all", str(small_sets(scene)), scene.device, "amp_bf16")

    each(scene, say, {"tasks=demo": of_the_demo, "tasks=all": of_all})


def compared_tasks(left: Path, right: Path, beside: str) -> list[Row]:
    """A row for each task: both main metrics, which may differ by two standard errors."""
    a, b = ({line["key"]: line for line in lines(place / "eval_results.jsonl")} for place in (left, right))
    rows = []
    for key, line in a.items():
        one, other = (side["metrics"]["main_metric"] for side in (line, b[key]))
        near = abs(one - other) <= max(0.01, 2 * (line["stderr"] or 0.0))
        rows.append((key, f"{one:.4f} in fp32", f"{other:.4f} in {beside}", "ok" if near else "**missed**"))
    return rows


def small_sets(scene: Scene) -> Path:
    """Sets of all 40 tasks with real class counts and few pictures."""
    from evaluation_sets import Pictures, write_sets

    from tasks.registry import select

    chosen = select(FEW_TASKS.split(",") if scene.tiny else ["main"])
    write_sets(scene.place("sets"), chosen, Pictures(16 if scene.tiny else 64, 64, 96))
    return scene.place("sets")


def last(scene: Scene) -> Path:
    """The checkpoint of the part `train`.

    Raises:
        FailedError: it has left none.
    """
    base = scene.place("runs") / "base"
    if not (base / "run.json").is_file() or json.loads((base / "run.json").read_text())["checkpoint"] is None:
        raise FailedError("there is no model, as the part `train` has left none")
    return checkpoint(base)


def score(scene: Scene, say: Say) -> None:
    """Score columns of real shards on the device in both precisions, and on the CPU."""
    shard = sorted(Path(scene.pool).glob("*.tar"))[0]
    model = [f"model={MODEL}", f"checkpoint={last(scene)}", "workers=2", f"shards={shard}", "arch=b32"]

    def scored(device: str, precision: str) -> Any:
        out = scene.place(f"scored-{device}-{precision}")
        run(["-m", "curate.score", *model, f"out={out}", f"device={device}", f"precision={precision}"], scene)
        return column(out)

    own = scored(scene.device, "fp32")

    def beside(device: str, precision: str, allowed: float) -> list[Row]:
        worst = float(abs(own - scored(device, precision)).max())
        where = f"{precision} on the CPU" if device != scene.device else precision
        found = f"differ by at most {worst:.2g}"
        return [(f"{len(own):,} pairs scored in fp32", found, where, "ok" if worst <= allowed else "**missed**")]

    jobs = {"amp_bf16": partial(beside, scene.device, "amp_bf16", 0.05)}
    if scene.device != "cpu":
        jobs["fp32 on the CPU"] = partial(beside, "cpu", "fp32", 1e-4)
    each(scene, say, jobs)


def column(folder: Path) -> Any:
    """The similarity scores of a folder of metadata, float32 [n]."""
    import pyarrow.parquet as pq

    (path,) = folder.glob("*.parquet")
    return pq.read_table(path)["clip_b32_similarity_score"].to_numpy()


def nccl(scene: Scene, say: Say) -> None:
    """What several processes do together, on one GPU: a group of one that believes to be the first of two. It gathers
    features with their gradients, wraps the towers and sums gradients as always; what it gathers is its own alone, so
    that the outcome has to be that of one process."""
    import torch
    import torch.distributed as dist

    from poolbench.processes.world import World, gather, share

    device = torch.device("cuda", 0) if scene.device == "cuda" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    store: Any = dist.HashStore()  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=store, rank=0, world_size=1)
    alone = stepped(device, 1, 1)
    for accumulate in (1, 2):
        several = stepped(device, 2, accumulate)
        worst = max(float((one - other).abs().max()) for one, other in zip(alone, several, strict=True))
        ways = ", no_sync for the first of 2 micro-batches" if accumulate == 2 else ""
        say(f"{backend}, gathered features, DistributedDataParallel{ways}", f"largest difference {worst:.2g}",
            "one process alone", "ok" if worst < 1e-4 else "**missed**")  # fmt: skip
    world = World(0, 2, 1, device)
    numbers = torch.arange(4.0, device=device)
    share(world, [numbers])
    same = gather(world, {"step": 3})[0] == {"step": 3} and numbers.tolist() == [0.0, 1.0, 2.0, 3.0]
    say(f"{backend}, objects gathered, tensors broadcast", "as they were" if same else "changed", "-",
        "ok" if same else "**missed**")  # fmt: skip
    dist.destroy_process_group()
    gpus = torch.cuda.device_count()
    say("GPUs that the part `train` used together", str(gpus), "several are launched by themselves", "-")


def stepped(device: Any, world_size: int, accumulate: int) -> list[Any]:
    """Weights after a few steps with the pinned recipe, of the first of `world_size` processes, and the losses."""
    import torch
    from synthetic import captions, images

    from poolbench.models.clip import create, preprocess_of

    from train.step import Stepper, make_optimizer

    model: Any = create(MODEL, device=device)
    settings: dict[str, Any] = {"precision": "fp32", "world_size": world_size, "accumulate": accumulate}
    stepper = Stepper(model, make_optimizer(model, recipe()), preprocess_of(model), **settings)
    side = preprocess_of(model).size
    batches = captions(4, 32, model.context_length)
    losses = [stepper.step(images(32, side), tokens, 1e-4) for tokens in batches]
    return [*(value.detach().cpu() for value in model.parameters()), torch.stack(losses).cpu()]


def recipe() -> Any:
    """The pinned one of scale=small."""
    from omegaconf import OmegaConf

    from poolbench.recipes import pinned

    from train.config import Recipe

    return OmegaConf.merge(OmegaConf.structured(Recipe), pinned("small"))


def columns(scene: Scene, say: Say) -> None:
    """Selections that are products of embeddings: the same rows on the device and on the CPU."""
    import methods
    import numpy as np

    rng, rows = np.random.default_rng(0), 512 if scene.tiny else 8192
    methods.write_pool(scene.place("embedded"), (rows, rows // 2), rng)
    np.save(scene.place("targets.npy"), methods.vectors(rows, rng))

    def kept(name: str, device: str) -> bytes:
        place = scene.place(f"{name.replace(', p=', '-')}-{device}")
        given = [f"filter.targets={scene.place('targets.npy')}" if one == "targets" else one for one in FILTERS[name]]
        given += [f"filter={name.partition(',')[0]}", f"filter.device={device}", f"pool={scene.place('embedded')}"]
        run(["-m", "curate", *given, f"out={place}.npy", f"columns={place}", "workers=1"], scene)
        return Path(f"{place}.npy").read_bytes()

    def beside(name: str) -> list[Row]:
        same = kept(name, scene.device) == (kept(name, "cpu") if scene.device != "cpu" else kept(name, "auto"))
        return [(name, "the same rows" if same else "other rows", "on the CPU", "ok" if same else "**missed**")]

    each(scene, say, {name: partial(beside, name) for name in FILTERS})


def each(scene: Scene, say: Say, jobs: Mapping[str, Callable[[], list[Row]]]) -> None:
    """Say the rows of each job as soon as it is through, several of them at a time; of one that fails, why."""
    with ThreadPoolExecutor(scene.at_once) as pool:
        running = {pool.submit(job): name for name, job in jobs.items()}
        for done in as_completed(running):
            try:
                for row in done.result():
                    say(*row)
            except FailedError as error:
                say(running[done], "-", "-", f"**failed**: {error}")


def run(words: Iterable[str], scene: Scene) -> str:
    """Run Python to its end; what it printed.

    Raises:
        FailedError: with what it said last.
    """
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise FailedError(f"exit status {done.returncode} of {' '.join(command[1:4])} …: {told(done.stderr)}")
    return done.stdout


def last_line(log: Path) -> str:
    """What a process said last."""
    return told(log.read_text(errors="replace"))


def told(output: str) -> str:
    """The line of an output that says why it ended: the last that names an error, else the last."""
    found = [line.strip() for line in output.splitlines() if line.strip()] or ["it said nothing"]
    errors = [line for line in found if re.match(r"[\w.]*(Error|Exception|error)\b:", line)]
    return (errors or found)[-1][:300]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
