"""What a run leaves behind: run.json, config.yaml, metrics.jsonl, the list of bad samples; and what it shows
meanwhile."""

import importlib.metadata
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from poolbench import recipes
from poolbench.errors import UserError
from poolbench.files import append_line, atomic, json_line, read_lines
from poolbench.run_record import (
    FORMAT,
    Bad,
    Code,
    DataOfRun,
    InitOfRun,
    RunRecord,
    SourceOfRun,
    SubsetOfRun,
    read_record,
    write_record,
)
from poolbench.shards.samples import Problem, Reasons, kind_of
from poolbench.shards.sources import Data

from train.config import TrainConfig

_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow")
_REMEMBERED = 1_000_000  # bad samples of which one process remembers that it has named them


def say(message: str) -> None:
    """Tell the user one line, without breaking a progress bar."""
    tqdm.write(message, file=sys.stderr)


def describe(
    config: TrainConfig,
    data: Data,
    subset: SubsetOfRun | None,
    world_size: int,
    device: torch.device,
    init: InitOfRun | None = None,
) -> RunRecord:
    """run.json at the start of a run."""
    return RunRecord(
        format=FORMAT,
        name=config.folder.name,
        scale=config.scale,
        status="running",
        official=not config.deviations,
        deviations=config.deviations,
        recipe=config.recipe_values,
        recipe_digest=recipes.digest(config.recipe_values),
        precision=config.precision,
        objective=config.objective,
        seed=config.seed,
        data=DataOfRun(
            sources=[SourceOfRun(**source._asdict()) for source in data.sources],
            shards=len(data.shards),
            digest=data.digest,
        ),
        subset=subset,
        init=init,
        samples_seen=0,
        steps=0,
        world_size=world_size,
        bad=Bad(samples=0, shards=0),
        code=code_version(),
        packages={name: importlib.metadata.version(name) for name in _PACKAGES},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} CPU",
        started=now(),
        finished=None,
        seconds=0.0,
        checkpoint=None,
    )


def differences(before: RunRecord, after: RunRecord) -> list[str]:
    """What the weights depend on and is not the same in two run.json, a line each."""
    lines = [
        f"recipe.{key}: {before.recipe.get(key)} -> {after.recipe.get(key)}"
        for key in sorted({*before.recipe, *after.recipe})
        if before.recipe.get(key) != after.recipe.get(key)
    ]
    for key in ("scale", "precision", "objective", "seed"):
        if getattr(before, key) != getattr(after, key):
            lines.append(f"{key}: {getattr(before, key)} -> {getattr(after, key)}")
    if before.data.digest != after.data.digest:
        old, new = (", ".join(source.spec for source in run.data.sources) for run in (before, after))
        counts = f"{before.data.shards} -> {after.data.shards} shards"
        lines.append(
            f"data: {old} -> {new} ({counts})"
            if old != new
            else f"data: other shards, sizes or weights in {new} ({counts})"
        )
    one, other = before.subset, after.subset
    if (one and one.digest) != (other and other.digest):
        lines.append(f"subset: {one and one.path} -> {other and other.path} (content differs)")
    if (before.init and before.init.sha256) != (after.init and after.init.sha256):
        files = (run.init and run.init.checkpoint for run in (before, after))
        lines.append(f"init: {' -> '.join(map(str, files))} (content differs)")
    return lines


def code_version() -> Code:
    """Version and, in a checkout, commit of this code, and whether files differ from that commit."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(here), *words], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--untracked-files=no")
    return Code(
        version=importlib.metadata.version("poolbench"),
        commit=git("rev-parse", "HEAD"),
        dirty=None if changes is None else bool(changes),
    )


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class RunLog:
    """The log of a run, written by its first process: run.json, config.yaml, metrics.jsonl and what wandb is told. On a
    resumed run it goes on behind the `step` given."""

    def __init__(self, config: TrainConfig, run: RunRecord, step: int) -> None:
        self.folder, self.run = config.folder, run
        self._seconds_before = run.seconds
        self._began = time.monotonic()
        self._metrics = self.folder / "metrics.jsonl"
        kept = [line for line in read_lines(self._metrics) if line["step"] <= step]
        with atomic(self._metrics) as file:
            file.writelines(json_line(line) for line in kept)
        with atomic(self.folder / "config.yaml") as file:
            yaml.safe_dump(asdict(config), file, sort_keys=False)
        self._wandb = _start_wandb(config)
        self._bar = tqdm(
            total=config.recipe.samples,
            initial=step * config.recipe.batch_size,
            unit=" samples",
            unit_scale=True,
            desc=self.folder.name,
            mininterval=1 if sys.stderr.isatty() else 30,
        )
        self.write()

    def write(self, **changes: Any) -> None:
        """Update run.json."""
        seconds = round(self._seconds_before + time.monotonic() - self._began, 3)
        self.run = self.run.model_copy(update={**changes, "seconds": seconds})
        write_record(self.folder, self.run)

    def log(self, metrics: dict[str, Any]) -> None:
        """Add a line to metrics.jsonl, move the progress bar, tell wandb."""
        append_line(self._metrics, metrics)
        self._bar.set_postfix(loss=f"{metrics['loss']:.3f}", bad=metrics["bad_samples"], refresh=False)
        self._bar.update(metrics["samples"] - self._bar.n)
        if self._wandb is not None:
            self._wandb.log({key: value for key, value in metrics.items() if key != "step"}, step=metrics["step"])

    def evaluated(self, step: int) -> bool:
        """Whether the line of `step` has its scores, without a failure."""
        lines = read_lines(self._metrics)
        return any(line["step"] == step and "evaluation" in line and not _failed(line) for line in lines)

    def add_scores(self, step: int, scores: dict[str, float | None], failed: bool) -> None:
        """Put the scores of a checkpoint into the line of its step, which was there before them, and tell wandb."""
        lines = read_lines(self._metrics)
        for line in lines:
            if line["step"] == step:
                line |= {"evaluation": scores, "evaluation_failed": failed}
        with atomic(self._metrics) as file:
            file.writelines(json_line(line) for line in lines)
        if self._wandb is not None:
            known = {f"evaluation/{key}": value for key, value in scores.items() if value is not None}
            self._wandb.log(known, step=step)

    def failed_evaluations(self) -> list[int]:
        """The steps whose evaluation failed, those before an interruption too."""
        return [line["step"] for line in read_lines(self._metrics) if _failed(line)]

    def close(self) -> None:
        self._bar.close()
        if self._wandb is not None:
            self._wandb.finish()


class BadLog:
    """Names each unreadable sample and shard once with each kind of reason, in bad_samples.jsonl (one file per process
    that met any)."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._path = folder / ("bad_samples.jsonl" if rank == 0 else f"bad_samples.{rank}.jsonl")
        self._named = {(line["shard"], line["key"], kind_of(line["reason"])) for line in read_lines(self._path)}
        self.reasons = Reasons()  # why, of those that this process has met itself

    def add(self, problems: Iterable[Problem]) -> None:
        for problem in problems:
            self.reasons.add(problem)
            name = (problem.shard, problem.key, kind_of(problem.reason))
            if name not in self._named and len(self._named) < _REMEMBERED:
                self._named.add(name)
                append_line(self._path, problem._asdict())


def _failed(line: dict[str, Any]) -> bool:
    return bool(line.get("evaluation_failed"))


def read_run(folder: Path) -> RunRecord | None:
    """run.json of an earlier start of this run, None where there was none.

    Raises:
        UserError: the folder holds something else, or a run.json of another format.
    """
    if not (folder / "run.json").exists():
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise UserError(f"{folder} holds files but no run.json; choose another name=")
        return None
    try:
        return read_record(folder)
    except UserError as error:
        raise UserError(f"{error}; choose another name=") from None


def _start_wandb(config: TrainConfig) -> Any:
    """A wandb run, None where it is disabled."""
    if config.wandb.mode == "disabled":
        return None
    import wandb  # here, as it takes most of a second that most runs can do without

    return wandb.init(
        project=config.wandb.project,
        name=config.folder.name,
        id=config.folder.name,
        resume="allow",
        mode=config.wandb.mode,  # type: ignore[arg-type]
        dir=config.folder,
        config=asdict(config),
    )
