"""What `python -m train` can be told, typed. Keys of `recipe` change the result, keys of `efficiency` must not."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from poolbench import recipes
from poolbench.errors import UserError, nearest
from poolbench.options import output, source
from poolbench.recipes import EVALUATION_PRECISIONS

PRECISIONS = ("fp32", "amp", "amp_bf16")
OBJECTIVES = ("clip", "hyperbolic")
SLOW_BFLOAT16 = "amp_bf16 is 4 to 15 times slower than fp32 on a CPU without a unit for it, as this one; precision=fp32"
WANDB_MODES = ("online", "offline", "disabled")


@dataclass
class Recipe:
    """A training recipe; conf/scale/*.yaml pins one per scale."""

    model: str = MISSING  # open_clip's name
    batch_size: int = MISSING  # samples of a step, over all processes
    samples: int = MISSING  # samples seen in the whole run
    learning_rate: float = MISSING
    warmup: int = MISSING  # steps
    beta1: float = MISSING
    beta2: float = MISSING
    eps: float = MISSING
    weight_decay: float = MISSING
    crop_scale: list[float] = MISSING  # least and most share of the area kept
    shuffle_buffer: int = MISSING  # samples
    streams: int = MISSING


@dataclass
class Efficiency:
    """Speed and safety; conf/efficiency/default.yaml explains each key."""

    workers: int | None = None
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    keep_every: int | None = None
    compile: bool = False
    accumulate: int = 1
    activation_checkpointing: bool = False


@dataclass
class Wandb:
    mode: str = "disabled"
    project: str = "poolbench"


@dataclass
class Evaluation:
    """What to score each checkpoint on; the run's weights are the same whatever this says."""

    tasks: Any = None  # str or list of str
    data: str | None = source(default=None)
    limit: int | None = None
    precision: str = "fp32"

    @property
    def words(self) -> tuple[str, ...]:
        """The words of `tasks`, which commas part; () where nothing is to be evaluated."""
        given = [] if self.tasks is None else [self.tasks] if isinstance(self.tasks, str) else self.tasks
        return tuple(part.strip() for word in given for part in word.split(","))


@dataclass
class TrainConfig:
    """The whole command; conf/train.yaml explains each key."""

    scale: str = MISSING
    recipe: Recipe = field(default_factory=Recipe)
    data: Any = source(default=None, remote=True, shards=True)  # str or list of str
    weights: list[float] | None = None
    subset: str | None = source(default=None)
    init: str | None = source(default=None)
    name: str | None = None
    out: str = output(default="runs")
    seed: int = 0
    precision: str = "amp_bf16"
    objective: str = "clip"
    resume: bool = True
    max_bad_share: float = 0.01
    efficiency: Efficiency = field(default_factory=Efficiency)
    wandb: Wandb = field(default_factory=Wandb)
    evaluate: Evaluation = field(default_factory=Evaluation)
    dry_run: bool = False
    world_size: int | None = None  # processes
    rate: float | None = None  # samples a second of one device
    memory: float | None = None  # GB of one device

    @property
    def folder(self) -> Path:
        """Where the run lives."""
        return Path(self.out) / (self.name or f"{self.scale}-seed{self.seed}")

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole run; the last batch may be smaller, so that the budget is exact."""
        return -(-self.recipe.samples // self.recipe.batch_size)

    @property
    def recipe_values(self) -> dict[str, Any]:
        """The recipe as plain values, as run.json and its digest hold it."""
        return asdict(self.recipe)

    @property
    def deviations(self) -> list[str]:
        """Why this run is not official, a line each; [] where it is."""
        lines = recipes.deviations(self.scale, self.recipe_values)
        if self.scale == "xlarge" and self.precision == "amp":
            lines.append("precision is amp: float16 loses accuracy at xlarge, pinned at amp_bf16 or fp32")
        if self.init is not None:
            lines.append("init is given: training starts from those weights, by the recipe from random ones")
        if self.objective != "clip":
            lines.append(f"objective is {self.objective}, pinned at clip")
        return lines


def check(config: TrainConfig, world_size: int) -> None:
    """Refuse what cannot run, before anything is written.

    Args:
        world_size: processes that share a batch; 0 where they are not known yet.

    Raises:
        UserError: a value out of its range, or a batch that the processes cannot share evenly; all of them in one line.
    """
    found = problems(config, world_size)
    if found:
        raise UserError("; ".join(found))


def problems(config: TrainConfig, world_size: int) -> list[str]:
    """Everything in `config` that cannot run in `world_size` processes, a line each; [] where all is well."""
    recipe = config.recipe
    low, high = (*recipe.crop_scale, 0.0, 0.0)[:2]
    counts = [
        f"recipe.{key}={getattr(recipe, key)} must be at least 1"
        for key in ("batch_size", "samples", "shuffle_buffer", "streams")
        if getattr(recipe, key) < 1
    ]
    # Steps and shares can be told of a batch only.
    rest = counts or [*_warmup_problems(config), *_share_problems(config, world_size)]
    return [
        *_one_of("precision", config.precision, PRECISIONS),
        *_one_of("objective", config.objective, OBJECTIVES),
        *_one_of("wandb.mode", config.wandb.mode, WANDB_MODES),
        *_false(
            len(recipe.crop_scale) == 2 and 0 < low <= high <= 1,
            f"recipe.crop_scale={recipe.crop_scale} must be [least, most] with 0 < least <= most <= 1",
        ),
        *_efficiency_problems(config.efficiency),
        *_false(0 <= config.max_bad_share <= 1, f"max_bad_share={config.max_bad_share} must lie between 0 and 1"),
        *_false(
            config.name is None or (config.name != "" and "/" not in config.name and not config.name.startswith(".")),
            f"name={config.name!r} must be a plain folder name",
        ),
        *_evaluation_problems(config.evaluate),
        *_dry_run_problems(config),
        *rest,
    ]


def _false(right: bool, otherwise: str) -> list[str]:
    return [] if right else [otherwise]


def _one_of(key: str, value: str, known: tuple[str, ...]) -> list[str]:
    return [] if value in known else [f"{key}={value} is not known; {nearest(value, known)}"]


def _warmup_problems(config: TrainConfig) -> list[str]:
    warmup = config.recipe.warmup
    return _false(
        0 <= warmup <= config.steps,
        f"recipe.warmup={warmup} must lie between 0 and the {config.steps} steps of the run",
    )


def _efficiency_problems(options: Efficiency) -> list[str]:
    return [
        *(
            f"efficiency.{key}={getattr(options, key)} must be at least 1"
            for key in ("checkpoint_every", "keep_checkpoints", "keep_every", "accumulate")
            if getattr(options, key) is not None and getattr(options, key) < 1
        ),
        *_false(
            options.workers is None or options.workers >= 0, f"efficiency.workers={options.workers} must be 0 or more"
        ),
    ]


def _evaluation_problems(options: Evaluation) -> list[str]:
    """What can be told without the registry of tasks; evaluation.check_tasks asks that."""
    tasks = options.tasks
    given = [tasks] if isinstance(tasks, str) else tasks or []
    if not (isinstance(given, list) and all(isinstance(word, str) for word in given) and all(options.words)):
        return [f"evaluate.tasks={tasks} is not a word or a list of words such as [vtab,imagenet1k]"]
    return [
        *_false(
            options.data is None or bool(options.words),
            "evaluate.data= is given without evaluate.tasks=, which says what to evaluate",
        ),
        *_false(options.data is None or Path(options.data).is_dir(), f"evaluate.data={options.data} is not a folder"),
        *_false(options.limit is None or options.limit >= 1, f"evaluate.limit={options.limit} must be at least 1"),
        *_one_of("evaluate.precision", options.precision, EVALUATION_PRECISIONS),
    ]


def _dry_run_problems(config: TrainConfig) -> list[str]:
    values = {key: getattr(config, key) for key in ("world_size", "rate", "memory")}
    given = {key: value for key, value in values.items() if value is not None}
    if not config.dry_run:
        return [f"{key}= is for dry_run=true; a run has what its launcher and its machine give it" for key in given]
    return [f"{key}={value} must be more than 0" for key, value in given.items() if not value > 0]


def _share_problems(config: TrainConfig, world_size: int) -> list[str]:
    """Every batch, the smaller last one too, must fall to the processes and their micro-batches in equal parts."""
    accumulate = config.efficiency.accumulate
    batch, last = config.recipe.batch_size, config.recipe.samples % config.recipe.batch_size

    def fits(parts: int) -> bool:
        return batch % parts == 0 and last % parts == 0

    if accumulate < 1 or world_size < 1 or fits(world_size * accumulate):
        return []
    what = f"batches of {batch}" + (f" and a last one of {last}" if last else "")
    sizes = [n for n in range(1, max(batch, 2 * world_size) + 1) if fits(n * accumulate)]
    if not sizes:
        return [f"efficiency.accumulate={accumulate} does not divide {what}"]
    below = max((n for n in sizes if n <= world_size), default=None)
    above = min((n for n in sizes if n >= world_size), default=None)
    near = " or ".join(str(n) for n in sorted({below, above} - {None}))  # type: ignore[type-var]
    micro = f" with efficiency.accumulate={accumulate}" if accumulate > 1 else ""
    return [f"{world_size} processes{micro} cannot share {what} evenly; use {near} processes"]
