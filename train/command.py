"""What `python -m train` does with its configuration."""

from functools import partial

from poolbench.errors import UserError, status_of
from poolbench.imports import uncollected
from poolbench.models.names import check_name
from poolbench.processes.place import place

from train.config import TrainConfig, check


def run(config: TrainConfig) -> int:
    """Train as configured, on all GPUs of this machine or in the processes that torchrun or srun started; or tell what
    that would need.

    Raises:
        UserError: what cannot run, or no data for a scale that has no embedded default.
    """
    if config.dry_run:
        with uncollected():
            from train.dry_run import dry_run  # here and below, as torch and open_clip take seconds to load

        return dry_run(config)
    if place() is None:  # else each process would end alone here, and the others would wait for it
        check(config, 0)
        check_name(config.recipe.model)
    if config.data is None:
        if config.scale != "tiny":
            raise UserError(
                f"scale={config.scale} needs data=<folder, tar or pattern>; only scale=tiny has a pool of its own"
            )
        from demodata.pool import build

        config.data = str(build().pool)
    with uncollected():
        from poolbench.processes.world import launch

    return launch(_train, config)


def _train(config: TrainConfig) -> int:
    """One process's part, with a mistake told here: launched processes cannot hand it to the one that started them."""
    with uncollected():
        from train.loop import train

    return status_of(partial(train, config))
