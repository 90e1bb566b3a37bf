"""The columns of scores that a pool has, and columns that others made of it.

python -m curate.columns pool=metadata
python -m curate.columns pool=metadata import=judgements.parquet name=judge [by=uid|key] [take='[score]']
python -m curate.columns pool=metadata import=blip.parquet name=blip captions=generated [by=uid|key] [part=1/4]

Without import=, a line for each column: the pool's own and those made of it, by what, of how many files, how many rows
have no number. With import=, a parquet or CSV file, or a folder of them, becomes columns of the pool; rows are found by
`uid` (32 hex digits) or by `key` (of webdataset). With captions=, what is taken in is how alike the pool's captions are
to those that a captioner wrote of the same pictures: in parquet, CSV or JSON lines, or in the .json of shards.
docs/curate.md says how selections use them.
"""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error
from poolbench.machine import cores
from poolbench.options import option, output, source
from poolbench.text import aligned, one_line

from curate.models.devices import EXPLAINED, checked
from curate.pool.files import list_pool
from curate.pool.inventory import inventory
from curate.pool.parts import part_or_merge
from curate.pool.passes import Passes
from curate.take_in import Taking, take_in


@dataclass
class ColumnsConfig:
    """The options."""

    pool: str = source("folder or URL of the pool's metadata", remote=True)
    columns: str | None = output("folder of columns that are made of the pool; null: <pool>/columns", None)
    import_: str | None = source(
        "parquet or CSV file (captions: .jsonl, .tar, too), or a folder of them; null: list what there is",
        None,
    )
    name: str | None = option("by which the imported columns are known, as <name>/<column>", None)
    by: str = option("uid | key: the column by which rows are found in both", "uid")
    keys: str | None = source("with by=key: tables that have key and uid, where the pool's have no key", None)
    take: Any = option("columns to import, [a,b]; null: all", None)
    captions: Any = option("column of captions to compare with the pool's, a text or several; [a,b]: several", None)
    device: str = option(f"of captions=: {EXPLAINED}", "auto")
    part: str = option("i/n: the files i, i+n, ... first, for an array of n", "1/1")
    merge: int | None = option("n: make nothing, say what each of n parts lacks", None)
    workers: int | None = option("processes; null: one for each core", None)


def main(arguments: Sequence[str]) -> int:
    """List, or import; exit status 1 where a file of the pool could not be used.

    Raises:
        UserError: wrong options, or something that cannot be read.
    """
    words, config = parse(arguments, ColumnsConfig)
    if words:
        raise UserError(f"{words[0]!r} is not key=value")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"workers={config.workers} must be positive")
    files = list_pool(config.pool, config.columns)
    part = part_or_merge(None if config.part == "1/1" else config.part, config.merge)
    with Passes(files, None, config.workers or cores(), part, merge=config.merge) as passes:
        if config.import_ is None:
            _check_list(config)
            print(aligned(inventory(passes)))
        else:
            take_in(passes, _taking(config, _command(arguments)))
    for why in passes.bad.values():
        print(one_line(f"left out: {why}"), file=sys.stderr)
    return 1 if passes.bad else 0


def _check_list(config: ColumnsConfig) -> None:
    """
    Raises:
        UserError: an option of what is not asked for.
    """
    for name in ("name", "keys", "take", "captions"):
        if getattr(config, name) is not None:
            raise UserError(f"{name}= is for import=, the file or folder of columns that others made")


def _command(arguments: Sequence[str]) -> str:
    """The command line without what makes no difference to the columns, the same for all parts."""
    same = [word for word in arguments if word.partition("=")[0] not in ("part", "merge", "workers", "device")]
    return shlex.join(["python", "-m", "curate.columns", *same])


def _taking(config: ColumnsConfig, command: str) -> Taking:
    """
    Raises:
        UserError: numbers and captions at once, or a device that is not there.
    """
    if config.captions is not None and config.take is not None:
        raise UserError("either take= names columns of numbers, or captions= those of captions")
    device = "cpu" if config.captions is None else checked(config.device, "device")
    assert config.import_ is not None
    return Taking(
        config.import_, config.name or "", config.by, config.keys, config.take, command, config.captions, device
    )


if __name__ == "__main__":
    exit_on_user_error(lambda: main(sys.argv[1:]))
