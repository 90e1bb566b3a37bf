"""A table of attributes of pictures, for `attributes=` of an audit: what models that packages carry say of them.

python -m curate.attributes shards=pool out=attributes.parquet
python -m curate.attributes shards='pool/{00000..01287}.tar' out=attributes.parquet attributes=[nsfw,faces] part=3/16

Such models are wrong now and then, and more often about some people than about others; docs/audits.md says what their
answers are and are not. The same command again looks through what is missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.options import option, output, source

from curate.scorers.attributes import Options


@dataclass
class AttributesOptions:
    """The options; docs/audits.md says more."""

    shards: Any = source("folder, .tar, brace pattern, URL, or a list [a,b] of them", remote=True, shards=True)
    out: str = output("parquet file for the table, written when every shard has been looked through")
    attributes: Any = option("of nsfw, faces, listed_faces those that are wanted, [a,b]; null: all", None)
    face_side: int = option("faces are looked for in pictures of this longer side, in pixels", 640)
    gender_confidence: float = option("from which on the gender of a face makes a group", 0.99)
    work: str | None = output("folder for what is found shard by shard, which stays; null: <out>.shards", None)
    workers: int | None = option("processes that read shards; null: as the cores allow", None)
    part: str = option("i/n: the shards i, i+n, i+2n, ...", "1/1")
    merge: int | None = option("n: look through nothing, say what each of n parts lacks, and write the table", None)
    overwrite: bool = option("true: replace what was found otherwise, or of other samples", False)


def attributes(options: AttributesOptions) -> int:
    """The command: exit status 1 where samples or shards were left out.

    Raises:
        UserError: wrong options, no shards, or a package that is missing.
    """
    if Path(options.out).is_dir():
        raise UserError(f"out={options.out} is a folder; name the parquet file")
    if Path(options.out).suffix != ".parquet":
        raise UserError(f"out={options.out} is to be a .parquet file")
    shared = ("shards", "attributes", "face_side", "gender_confidence", "workers", "part", "merge", "overwrite")
    work = options.work or f"{options.out}.shards"
    scoring = Options(out=work, **{name: getattr(options, name) for name in shared})
    scoring.check()
    import torch  # which help and most mistakes do without, as does what runs scorers

    from curate.scorers.attribute_table import Tabled
    from curate.scorers.run import score

    return score(Tabled(scoring, Path(options.out)), scoring, torch.device(scoring.device))


COMMAND = Command(AttributesOptions, attributes)

if __name__ == "__main__":
    COMMAND.start()
