"""The options of `python -m evaluate`, typed and checked."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolbench.command import part_of
from poolbench.errors import UserError
from poolbench.models.inference import check_options
from poolbench.models.names import PYTHON, brings_weights, python_parts
from poolbench.options import output, source

from evaluate.probes.words import probes_of
from evaluate.prompts import prompts_of
from tasks.registry import Task, words_of


@dataclass
class EvaluateConfig:
    """See conf/evaluate.yaml for what each key means."""

    run: str | None = source(default=None)
    model: str | None = source(default=None, remote=True)
    checkpoint: str | None = source(default=None)
    data: str | None = source(default=None)
    out: str | None = output(default=None)
    tasks: Any = None  # str or list of str
    limit: int | None = None
    part: str = "1/1"
    precision: str = "fp32"
    cache: str | None = output(default=None)
    workers: int | None = None
    batch_size: int | None = None
    device: str = "auto"
    probes: Any = None  # words as probes_of reads them
    probe_draws: int = 5
    probe_seed: int = 0
    heads: str | None = output(default=None)
    prompts: Any = None  # words as evaluate.prompts.prompts_of reads them


def check(config: EvaluateConfig) -> None:
    """Raise UserError for options that contradict each other or are out of range."""
    if config.run is None and config.model is None:
        raise UserError("run= is needed, or model= and checkpoint=")
    if config.run is not None and (config.model is not None or config.checkpoint is not None):
        raise UserError("run= already says which model and checkpoint; leave model= and checkpoint= out")
    if config.model is not None and config.checkpoint is None and not brings_weights(config.model):
        raise UserError("checkpoint= is needed with model=: a file or one of open_clip's pretrained tags")
    if config.model is not None and config.model.startswith(PYTHON):
        python_parts(config.model)
    if config.run is None and config.out is None:
        raise UserError("out= is needed with model=: the folder for the results")
    if config.limit is not None and config.limit < 1:
        raise UserError(f"limit={config.limit}: at least one sample a task is needed")
    if probes_of(config.probes) and config.limit is not None:
        raise UserError(
            "probes= and limit= do not go together: a probe is tested on the whole test split; leave one out"
        )
    if probes_of(config.probes) and config.prompts is not None:
        raise UserError("probes= and prompts= do not go together: heads of probes are trained; leave one out")
    prompts_of(config.prompts)
    if config.probe_draws < 1 or config.probe_seed < 0:
        raise UserError("probe_draws= is at least 1, probe_seed= at least 0")
    check_options(config.precision, config.batch_size, config.workers)


def patterns(value: Any) -> list[str]:
    """The value of `tasks=`, a text or a list of texts, as a list of words, which commas part; [] for none.

    Raises:
        UserError: it holds something else than words.
    """
    words = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise UserError(f"tasks={value} is not a word or a list of words such as [vtab,imagenet1k]")
    return [part for word in words for part in words_of(word)]


def deal(tasks: list[Task], part: str) -> list[Task]:
    """The tasks of part "i/n" (i from 1), the same on every machine, in their old order.

    Longest first, each task goes to the part that has the least cost so far.

    Raises:
        UserError: `part` is not of the form i/n with 1 <= i <= n.
    """
    index, count = part_of(part)
    loads = [0] * count
    chosen = set()
    for task in sorted(tasks, key=lambda task: (-task.cost, task.key)):
        lightest = loads.index(min(loads))
        loads[lightest] += task.cost
        if lightest == index - 1:
            chosen.add(task.key)
    return [task for task in tasks if task.key in chosen]


def data_folder(data: str | None, suite: str) -> Path:
    """The folder of `data=`; without it, the embedded evaluation sets of the demo suite, made if need be.

    Raises:
        UserError: it does not exist, or is needed and not given.
    """
    if data is None:
        if suite != "demo":
            raise UserError("data= is needed: the folder that holds the tasks' folders")
        from demodata.pool import build

        return build().evaluation
    if not Path(data).is_dir():
        raise UserError(f"data={data} is not a folder")
    return Path(data)
