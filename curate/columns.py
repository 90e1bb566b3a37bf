"""The columns of scores that a pool has, and columns that others made of it.

python -m curate.columns pool=metadata
python -m curate.columns pool=metadata import=judgements.parquet name=judge [by=uid|key] [take='[score]']

Without import=, a line for each column: the pool's own and those made of it, by what, of how many files, how many rows
have no number. With import=, a parquet or CSV file, or a folder of them, becomes columns of the pool; rows are found by
`uid` (32 hex digits) or by `key` (of webdataset). docs/curate.md says how selections use them.
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
from poolbench.text import aligned

from curate.pool.files import list_pool
from curate.pool.inventory import inventory
from curate.pool.passes import Passes
from curate.take_in import Taking, take_in


@dataclass
class ColumnsConfig:
    """The options."""

    pool: str = source("folder or URL of the pool's metadata", remote=True)
    columns: str | None = output("folder of columns that are made of the pool; null: <pool>/columns", None)
    import_: str | None = source("parquet or CSV file, or folder of them, to take in; null: list what there is", None)
    name: str | None = option("by which the imported columns are known, as <name>/<column>", None)
    by: str = option("uid | key: the column by which rows are found in both", "uid")
    keys: str | None = source("with by=key: parquet files that have key and uid, where the pool's have no key", None)
    take: Any = option("columns to import, [a,b]; null: all", None)
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
    with Passes(files, None, config.workers or cores()) as passes:
        if config.import_ is None:
            print(aligned(inventory(passes)))
        else:
            command = shlex.join(["python", "-m", "curate.columns", *arguments])
            take_in(passes, Taking(config.import_, config.name or "", config.by, config.keys, config.take, command))
    for why in passes.bad.values():
        print(f"left out: {why}", file=sys.stderr)
    return 1 if passes.bad else 0


if __name__ == "__main__":
    exit_on_user_error(lambda: main(sys.argv[1:]))
