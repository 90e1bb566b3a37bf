"""Look at a subset: what of the pool it keeps and what it drops, as one HTML page.

python -m curate.inspect subset.npy pool=metadata out=report.html
python -m curate.inspect subset.npy pool=metadata against=other.npy samples=shards out=report.html

The same inputs give the same page. docs/inspect.md explains it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic
from poolbench.machine import cores
from poolbench.options import option, output, source

from curate.pool.files import list_pool
from curate.pool.passes import Passes
from curate.report import page as pages
from curate.report import sections
from curate.report.gather import Question, gather
from curate.report.masked import masked_pictures
from curate.report.members import Members
from curate.report.statistics import KEPT

if TYPE_CHECKING:
    from curate.report.sheet import Sheet


@dataclass
class InspectOptions:
    """The options; docs/inspect.md says more."""

    pool: str = source("folder or URL of the pool's metadata", remote=True)
    out: str = output("file of the page, .html", "report.html")
    against: str | None = source("second subset file of the same pool", None)
    samples: Any = source("the pool's shards, for a contact sheet", None, remote=True, shards=True)
    masked: str | None = source("folder that curate.score wrote by export=, of pictures and masked ones", None)
    texts: int = option("captions of each group that words, languages and hosts are counted over", 20_000)
    seed: int = option("draws these, and the samples of the contact sheet", 0)
    workers: int | None = option("processes that read the pool; null: one for each core", None)


def inspect(words: Sequence[str], options: InspectOptions) -> int:
    """The command: write the report; exit status 1 where files or uids of the pool had to be left out.

    Raises:
        UserError: wrong options, or nothing to look at.
    """
    if len(words) != 1:
        raise UserError("name one subset file: python -m curate.inspect subset.npy pool=metadata out=report.html")
    check(options)
    report, status = inspected(words[0], options)
    with atomic(options.out) as file:
        file.write(pages.page(report))
    share = pages.percent(report.kept_share)
    shared = "" if report.other is None else f", {report.other.shared} of its uids in {report.other.name}"
    print(f"{options.out}: {report.kept:,} of {report.pool:,} rows kept ({share}){shared}")
    for line in report.warnings:
        print(line, file=sys.stderr)
    return status


def check(options: InspectOptions) -> None:
    """Refuse what cannot be right, before anything is read.

    Raises:
        UserError: as said, one line.
    """
    if options.texts < 1:
        raise UserError(f"texts={options.texts}: at least 1")
    if not 0 <= options.seed < 2**63:
        raise UserError(f"seed={options.seed}: 0 or more")
    if options.workers is not None and options.workers < 1:
        raise UserError(f"workers={options.workers} must be positive")
    out = Path(options.out)
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"out={out}: the report is a page, whose name ends in .html")
    if out.is_dir():
        raise UserError(f"out={out} is a folder; name a file")


def inspected(path: str, options: InspectOptions) -> tuple[pages.Report, int]:
    """The report on the subset in `path`, and the exit status."""
    subset = Members(path)
    other = None if options.against is None else Members(options.against)
    files = list_pool(options.pool)
    sheet = None if options.samples is None else _sheet(options.samples, path, options.seed)
    wanted = [] if sheet is None else [cell.uid for cells in sheet.cells.values() for cell in cells]
    question = Question(subset, other, options.texts, options.seed, wanted)
    # Another page asks about another subset: no result would be found again.
    with Passes(files, None, options.workers or cores()) as passes:
        found = gather(passes, question)
    report = pages.Report(
        name=Path(path).name,
        kept=found.rows[KEPT],
        pool=found.pool,
        repeats=subset.runs().longest,
        facts=sections.sizes(subset, found, len(files)),
        warnings=sections.warnings(subset, found),
        other=None if other is None else sections.beside(subset, other, found),
        distributions=sections.distributions(found),
        contrasts=sections.contrasts(found, None if other is None else (Path(path).name, Path(other.path).name)),
        sheets=[
            *([] if options.masked is None else [masked_pictures(options.masked, subset)]),
            *([] if sheet is None else [sections.contact_sheet(sheet, found)]),
        ],
        made=(
            f"Numbers are of all rows; words, languages and hosts of at most {options.texts:,} rows of each group, "
            f"drawn with seed {options.seed}. Made with python -m curate.inspect."
        ),
    )
    return report, int(bool(found.unreadable or found.malformed))


def _sheet(samples: Any, subset: str, seed: int) -> "Sheet":
    from poolbench.shards.sources import resolve
    from poolbench.subset import Subset

    from curate.report.sheet import sheet  # here, because torch takes seconds to load

    try:
        shards = resolve(samples).shards
    except UserError as error:
        raise UserError(str(error).replace("data=", "samples=")) from None
    return sheet(shards, Subset(subset), seed)


COMMAND = Command(InspectOptions, inspect, takes_words=True)

if __name__ == "__main__":
    COMMAND.start()
