"""What `python -m curate.pack` takes."""

from dataclasses import dataclass
from pathlib import Path

from poolbench.errors import UserError, nearest
from poolbench.options import option, output, source

from curate.pool.parts import part_or_merge

TABLE, COCO, PAIRS, PARQUET = "table", "coco", "pairs", "parquet"
LAYOUTS = (TABLE, COCO, PAIRS, PARQUET)
FIRST, ALL = "first", "all"  # of the captions of a picture


@dataclass
class PackOptions:
    """The options; docs/pack.md says more."""

    from_: str = source(
        "folder of pictures; table of names and captions (.csv, .tsv, .jsonl, .parquet); captions_*.json of COCO; "
        "parquet files that hold pictures ('data/train-*.parquet')"
    )
    out: str = output("folder for shards/ and metadata/")
    layout: str | None = option("table | coco | pairs (x.jpg beside x.txt) | parquet; null: guessed, and told", None)
    pictures: str | None = source("folder in which the pictures lie that a table or COCO's file names", None)
    image_column: str | None = option("column of the pictures or of their names; null: guessed, and told", None)
    caption_column: str | None = option("column of the captions; null: guessed, and told", None)
    url_column: str | None = option("column of the pictures' urls; null: url, where there is one", None)
    captions: str = option("all: a sample for each caption of a picture | first: one for its first caption", ALL)
    shard_size: int = option("rows of a shard at most; shards are made alike in size", 10_000)
    decode: bool = option("false: look at the pictures' headers only, which finds none that is cut off", True)
    part: str | None = option("i/n: every n-th shard from the i-th on; merge=n ends the packing", None)
    merge: int | None = option("n: end a packing of n parts; what one has not packed is told, and not made", None)
    workers: int | None = option("processes; null: one for each core", None)


def check(options: PackOptions) -> None:
    """Refuse what cannot be right, before anything is read.

    Raises:
        UserError: as said, one line.
    """
    if options.layout is not None and options.layout not in LAYOUTS:
        raise UserError(f"layout={options.layout} is not known; {nearest(options.layout, LAYOUTS)}")
    if options.captions not in (ALL, FIRST):
        raise UserError(f"captions={options.captions} is not known; {nearest(options.captions, (ALL, FIRST))}")
    if options.shard_size < 1:
        raise UserError(f"shard_size={options.shard_size}: at least 1")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"workers={options.workers} must be positive")
    part_or_merge(options.part, options.merge)
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise UserError(f"out={options.out} is not a folder")
    if options.pictures is not None and not Path(options.pictures).is_dir():
        raise UserError(f"pictures={options.pictures} is no folder")
    above, below = Path(options.from_).resolve(), Path(options.out).resolve()
    if above == below or above in below.parents:
        raise UserError(
            f"out={options.out} lies in from={options.from_}, where the next run would find it; choose another"
        )
