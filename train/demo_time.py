"""How long `make demo` will take on this machine, told before it begins.

python -m train.demo_time seeds='0 1 2' [precision=fp32] [recipe.<key>=...]

A few training steps are taken on noise and the start of a command is timed; all else is counted in these two. A machine
that is busy now is taken to stay so.
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from poolbench.command import compose, start
from poolbench.errors import UserError
from poolbench.usage import composed_usage

from demodata.pool import is_built
from train.config import TrainConfig

_MEASURED = 3.0  # seconds of steps that are measured, or
_STEPS = 10  # so many
_CAPTIONS = ("flag", "woman firefighter: dark skin tone", "person: man running", "musical instrument")

_SAMPLES = 29_495  # of the demo's pool
# What `make demo` does besides its steps, in times that a command takes to start: what it computes is of the same kind.
_POOL = 6.0  # drawing the pool
_LOADED = 1.45  # a training step while samples are decoded beside it, in times of one alone
_RESULT = 2.0  # evaluate
_SUBMITTED = 0.5  # leaderboard submit
_REST = 6.0  # select, inspect, contact sheet, comparison, leaderboard


class Pace(NamedTuple):
    """What was measured: seconds of a training step and of a command's start."""

    step: float
    start: float


class Forecast(NamedTuple):
    """Seconds from the start of `make demo`, to the first evaluated model and to the end."""

    first: float
    end: float


def main(arguments: list[str]) -> None:
    """Measure, and print one line.

    Raises:
        UserError: no seeds, or a key that `python -m train` does not know.
    """
    words = [word for word in arguments if not word.startswith("seeds=")]
    seeds = [seed for word in arguments if word.startswith("seeds=") for seed in word.partition("=")[2].split()]
    if not seeds:
        raise UserError("seeds= is needed: one or more numbers, such as seeds='0 1 2'")
    config = compose("train", ["scale=tiny", *words], TrainConfig)
    pace = measure(config)
    told = forecast(config, len(seeds), pace, drawn=is_built())
    print(
        f"On this machine the first result comes after about {_minutes(told.first)} and the end after about "
        f"{_minutes(told.end)}:\n{2 * len(seeds)} trainings of {config.steps:,} steps, {pace.step:.2g} seconds a step"
    )


def measure(config: TrainConfig, clock: Callable[[], float] = time.perf_counter) -> Pace:
    """Take a few steps of `config` on noise."""
    began = clock()
    import torch

    from poolbench.models.clip import create, preprocess_of, tokenizer_of

    from train.step import Stepper, make_optimizer

    start = clock() - began
    recipe = config.recipe
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = create(recipe.model, device=device)
    preprocess = preprocess_of(model)
    stepper = Stepper(model, make_optimizer(model, recipe), preprocess, precision=config.precision)
    size = (recipe.batch_size, 3, preprocess.size, preprocess.size)
    images = torch.randint(0, 256, size, dtype=torch.uint8)
    texts = tokenizer_of(recipe.model)([_CAPTIONS[row % len(_CAPTIONS)] for row in range(recipe.batch_size)])
    seconds: list[float] = []
    stepper.step(images, texts, 0.0).item()  # memory is taken and kernels are chosen
    while sum(seconds) < _MEASURED and len(seconds) < _STEPS:
        before = clock()
        stepper.step(images, texts, 0.0).item()
        seconds.append(clock() - before)
    return Pace(statistics.median(seconds), start)


def forecast(config: TrainConfig, seeds: int, pace: Pace, *, drawn: bool) -> Forecast:
    """When the demo's first result and its end come, with the pool still to be drawn or `drawn` already."""
    training = config.steps * _LOADED * pace.step + pace.start
    scoring = _SAMPLES / config.recipe.batch_size * pace.step + pace.start  # small batches, pictures decoded
    result = _RESULT * pace.start
    told = pace.start + _MEASURED + (0 if drawn else _POOL * pace.start)
    first = told + training + result
    rest = scoring + (_REST + 2 * seeds * _SUBMITTED) * pace.start
    return Forecast(first, first + (2 * seeds - 1) * (training + result) + rest)


def _minutes(seconds: float) -> str:
    halves = max(1, -(-seconds // 30))  # rounded up
    return "half a minute" if halves == 1 else f"{halves / 2:g} minutes" if halves > 2 else "a minute"


if __name__ == "__main__":
    start(main, partial(composed_usage, "train"))
