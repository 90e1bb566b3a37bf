"""What `python -m evaluate` does with its configuration."""

from pathlib import Path

from poolbench.command import part_of
from poolbench.imports import uncollected
from poolbench.models.names import brings_weights, check_name
from poolbench.processes.place import place

from evaluate.config import EvaluateConfig, check, data_folder, patterns
from evaluate.subject import newest_of
from tasks.registry import select


def run(config: EvaluateConfig) -> int:
    """Evaluate as configured, on all GPUs of this machine or in the processes that torchrun or srun started."""
    if place() is None:  # else each process would end alone here, and the others would wait for it
        foresee(config)
    with uncollected():
        from evaluate.run import start  # with torch and open_clip, which take seconds to load

    return start(config)


def foresee(config: EvaluateConfig) -> None:
    """Tell mistakes at once that need no model to be found.

    Raises:
        UserError: as evaluating itself would raise it.
    """
    check(config)
    select(patterns(config.tasks))
    part_of(config.part)
    if config.run is not None:
        newest_of(Path(config.run))
    elif config.model is not None and not brings_weights(config.model):
        check_name(config.model)
    if config.data is not None:
        data_folder(config.data, "main")
