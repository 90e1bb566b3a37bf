"""What `python -m curate.reshard` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolbench.errors import UserError
from poolbench.options import option, output, source

from curate.pool.parts import part_or_merge


@dataclass
class ReshardOptions:
    """The options; docs/reshard.md says more."""

    subset: str = source("subset file, .npy: which samples are copied")
    shards: Any = source("folder, .tar, brace pattern, URL, or a list [a,b] of them", remote=True, shards=True)
    out: str = output("folder or URL of the new shards", remote=True)
    samples_per_shard: int = option("at most so many samples in a shard of the output", 10000)
    size: int | None = option("and at most so many bytes; null: any", None)
    shuffle: int | None = option("seed of a random order; null: the order of the input", None)
    workers: int | None = option("processes; null: one for each core", None)
    blur_faces: str | None = source(
        "folder or URL of the pool's metadata: blur its face_bboxes; null: copy pictures as they are",
        None,
        remote=True,
    )
    quality: int = option("of blurred JPEG and WebP pictures", 95)
    work: str | None = output("folder for what is known so far, needed where out= is a URL; null: <out>/.reshard", None)
    index: str | None = output(
        "folder of the shards' indexes, which another resharding of them finds again; null: in work=", None
    )
    part: str | None = option("i/n: every n-th shard from the i-th on; null: all, or the last step behind parts", None)
    merge: int | None = option("n: the last step behind n parts; what one has not written is told, and not made", None)
    overwrite: bool = option("true: delete an earlier resharding in out= and begin anew", False)


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
    part_or_merge(options.part, options.merge)
    if options.overwrite and (options.part is not None or options.merge is not None):
        raise UserError(
            "overwrite=true would delete what other parts write; delete out= and work= first, or do without part="
        )
    if options.index is not None and Path(options.index).is_file():
        raise UserError(f"index={options.index} is a file; name a folder")
    if "://" in options.out and not options.work:
        raise UserError(f"out={options.out} needs work=<local folder>, where an interrupted run is taken up again")
