"""What `python -m curate.reshard` takes; the docstring of curate/reshard.py says what each option means."""

from dataclasses import dataclass

from omegaconf import MISSING

from conf.errors import UserError


@dataclass
class ReshardOptions:
    subset: str = MISSING
    shards: str = MISSING
    out: str = MISSING
    samples_per_shard: int = 10000
    size: int | None = None
    shuffle: int | None = None
    workers: int | None = None
    blur_faces: str | None = None
    quality: int = 95
    work: str | None = None
    overwrite: bool = False


def check(options: ReshardOptions) -> None:
    """Refuse what cannot be, before anything is read.

    Raises:
        UserError: a value out of its range, or one without another that it needs.
    """
    for key in ("samples_per_shard", "size", "workers"):
        value = getattr(options, key)
        if value is not None and value < 1:
            raise UserError(f"{key}={value} must be at least 1")
    if not 1 <= options.quality <= 100:
        raise UserError(f"quality={options.quality} must lie between 1 and 100")
    if "://" in options.subset:
        raise UserError(f"subset={options.subset} has to be a local file: it is searched for each sample")
    if "://" in options.out and not options.work:
        raise UserError(f"out={options.out} needs work=<local folder>, where an interrupted run is taken up again")
