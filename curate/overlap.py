"""Does the training set contain the test? Which training pictures show evaluation pictures, edited or not.

python -m curate.overlap shards=pool data=evalsets out=overlap.npy
python -m curate.overlap shards=pool data=evalsets out=overlap.npy embeddings=test pool=metadata array=b32_img

Writes the uids to leave out as a subset file, and into the folder `overlap/` beside it overlap.json, hits.csv and
index.html. docs/audits.md explains them.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from poolbench.command import Command
from poolbench.errors import UserError
from poolbench.files import atomic, digest_file, json_line, write_json
from poolbench.machine import cores
from poolbench.options import option, output, source
from poolbench.overlap_report import (
    FILE,
    FORMAT,
    ByEmbedding,
    ByHash,
    DataLookedAt,
    OverlapReport,
    SetLookedAt,
    SubsetLookedAt,
)
from poolbench.text import one_line

from curate.pool.parts import part_or_merge
from curate.pool.work import work_folder

if TYPE_CHECKING:  # torch takes seconds to import, which help and a mistake need not wait for
    from poolbench.shards.sources import Data

    from curate.overlaps.calibrate import Drawn, Threshold
    from curate.overlaps.embedded import Compared
    from curate.overlaps.hashing import Left
    from curate.overlaps.hits import Hit
    from curate.overlaps.pictures import Pictures
    from curate.overlaps.sets import EvaluationSet
    from curate.report.members import Members

_TOLD = 10  # of what was left out; left_out.jsonl lists all


@dataclass
class OverlapOptions:
    """The options; docs/audits.md says more."""

    shards: Any = source("the training shards: what train takes as data=", remote=True, shards=True)
    data: str = source("folder of the evaluation sets, as evaluate takes it")
    out: str = output("subset file, .npy, of the training samples that show an evaluation picture")
    subset: str | None = source("subset file that training is given: only its samples are looked at", None)
    weights: Any = option("the training's weights=, by which its data are known; null: none", None)
    embeddings: str | None = source("folder that curate.score scorer=targets made of the sets' test/", None)
    pool: str | None = source("the shards' metadata, with embeddings by the same model", None, remote=True)
    array: str = option("the metadata's array that is compared with embeddings=", "b32_img")
    cosine: float | None = option("of two embeddings from which on they are called one picture's; null: measured", None)
    distance: int | None = option(
        "bits of 256 in which the hashes of one picture differ, at most; null: measured", None
    )
    false_positives: float = option("share of other pictures that may lie within what is measured", 0.001)
    samples: int = option("evaluation pictures that it is measured on", 1000)
    seed: int = option("draws these", 0)
    shown: int = option("pairs on the page", 60)
    part: str | None = option("i/n: hash every n-th shard; the same command without it finds the hashes", None)
    merge: int | None = option("n: look for the hashes of n parts; shards that one has not hashed are told", None)
    work: str | None = output("folder of the hashes, to be kept; null: <out>.work, which goes at the end", None)
    workers: int | None = option("processes that read shards, and threads that search; null: as the cores allow", None)


def overlap(options: OverlapOptions) -> int:
    """The command; exit status 1 where something could not be looked at.

    Raises:
        UserError: wrong options, no shards, no evaluation sets, or none of their pictures can be used.
    """
    out, weights = _checked(options)
    from poolbench.shards.sources import resolve

    from curate.overlaps import hashes, sets
    from curate.report.members import Members

    every, subset = sets.sets_in(Path(options.data)), None if options.subset is None else Members(options.subset)
    data = _told_of_shards(lambda: resolve(options.shards, weights))
    hashes.check_installed()
    with work_folder(out, options.work, shared=options.part is not None) as work:
        status = _in(work.path, options, out, every, subset, data)
        if not status and options.part is None:
            work.remove()
    return status


def _in(
    work: Path,
    options: OverlapOptions,
    out: Path,
    every: "Sequence[EvaluationSet]",
    subset: "Members | None",
    data: "Data",
) -> int:
    from curate.overlaps import calibrate, embedded, search
    from curate.overlaps.hashing import Hashes, hashed
    from curate.overlaps.hits import hits_of
    from curate.overlaps.pictures import pictures_of

    training = hashed(Hashes, options.shards, work / "training", options.workers, options.part or "1/1", options.merge)
    if options.part is not None:
        part = part_or_merge(options.part, None)
        print(f"{work}: part {part} is hashed; merge={part.of} goes on when all are")
        return int(not all(shard.is_whole(training.made) for shard in part.own(training.shards)))
    pictures, evaluation = pictures_of(every, work, options.workers)
    drawn = calibrate.draw(pictures, options.samples, options.seed)
    threads, filled = options.workers or cores(), training.filled()
    if not filled:
        why = next((one.reason for one in training.left_out()), "there is none")
        raise UserError(f"shards={options.shards}: no sample can be looked at; {why}")
    asked, near = search.search(pictures, drawn.hashes, filled, work / "found", threads)
    others = calibrate.nearest_others(pictures, drawn, asked)
    limit = calibrate.threshold(others, options.false_positives, options.distance)
    compared = None
    if options.embeddings is not None and options.pool is not None:
        by = Path(options.embeddings), options.pool, options.array, options.cosine, options.false_positives
        compared = embedded.compare(*by, pictures, drawn, threads)
    looked = hits_of(pictures, filled, near, limit.distance, compared and compared.alike, subset)
    warnings = [*_not_in_shards(options, subset), *(compared.left_out if compared else [])]
    left = [*training.left_out(), *evaluation.left_out()]
    report = OverlapReport(
        format=FORMAT,
        data=DataLookedAt(shards=len(data.shards), bytes=sum(one.size for one in data.shards), digest=data.digest),
        subset=None if subset is None else SubsetLookedAt(digest=digest_file(subset.path), size=subset.size),
        samples=looked.samples,
        left_out=len(training.left_out()),
        sets=_sets(every, pictures),
        by_hash=_by_hash(options, pictures, drawn, limit),
        by_embedding=_by_embedding(compared),
        found=len({(hit.shard, hit.uid) for hit in looked.hits}),
        shown=len({(hit.evaluation_shard, hit.key) for hit in looked.hits}),
    )
    _written(report, looked.hits, left, warnings, out, options, data, pictures)
    return int(bool(left or (compared and compared.left_out)))


def _not_in_shards(options: OverlapOptions, subset: "Members | None") -> list[str]:
    """What is to be said of uids of the subset that no sample has.

    Raises:
        UserError: none of them was met.
    """
    if subset is None:
        return []
    distinct, seen = subset.runs().distinct, subset.seen()
    told = f"subset={options.subset}: {distinct - seen:,} of its {distinct:,} uids are in no shard that was looked at"
    if not seen:
        raise UserError(f"{told}; is it of another pool?")
    return [told] if seen < distinct else []


def _checked(options: OverlapOptions) -> tuple[Path, list[float] | None]:
    """The subset file to write, and the weights.

    Raises:
        UserError: options that cannot be right.
    """
    from poolbench.models.inference import check_options

    check_options("fp32", None, options.workers)
    part_or_merge(options.part, options.merge)
    out = Path(options.out)
    if out.suffix != ".npy":
        raise UserError(f"out={options.out} must end in .npy")
    if out.is_dir() or (out.with_suffix("").exists() and not out.with_suffix("").is_dir()):
        raise UserError(f"out={options.out}: {out.with_suffix('')} is needed as a folder; choose another name")
    if not 0 <= options.false_positives < 1:
        raise UserError(f"false_positives={options.false_positives} is no share from 0 to below 1")
    if options.cosine is not None and not -1 < options.cosine <= 1:
        raise UserError(f"cosine={options.cosine} is none of two pictures")
    if options.samples < 1 or options.shown < 0:
        raise UserError(f"samples={options.samples} shown={options.shown}: at least 1 and 0")
    from curate.overlaps.search import MOST

    if options.distance is not None and not 0 <= options.distance <= MOST:
        raise UserError(f"distance={options.distance}: from 0 to {MOST}, beyond which most are other pictures")
    if (options.embeddings is None) != (options.pool is None):
        raise UserError("embeddings= and pool= belong together: evaluation pictures' and training pictures'")
    return out, _weights(options.weights)


def _weights(given: Any) -> list[float] | None:
    try:
        return None if given is None else [float(one) for one in ([given] if isinstance(given, str) else given)]
    except ValueError:
        raise UserError(f"weights={given} are no numbers, such as weights=[1,2]") from None


def _told_of_shards(listed: Any) -> "Data":
    try:
        found: Data = listed()
    except UserError as error:
        raise UserError(str(error).replace("data=", "shards=")) from None
    return found


def _sets(every: "Sequence[EvaluationSet]", pictures: "Pictures") -> list[SetLookedAt]:
    counts = np.bincount(pictures.set_of, minlength=len(every)).tolist()
    blank = np.bincount(pictures.set_of, pictures.blank, len(every)).astype(int).tolist()
    return [
        SetLookedAt(
            name=one.name, pictures=counts[at], left_out=pictures.left_out[at], blank=blank[at], digest=one.digest()
        )
        for at, one in enumerate(every)
    ]


def _by_hash(options: OverlapOptions, pictures: "Pictures", drawn: "Drawn", limit: "Threshold") -> ByHash:
    from curate.overlaps import calibrate, hashes

    return ByHash(
        hash=hashes.version(),
        bits=hashes.BITS,
        distance=limit.distance,
        chosen=options.distance is not None,
        false_positives=limit.false_positives,
        negatives=len(drawn.pictures),
        positives=len(drawn.pictures),
        edits=calibrate.edited(pictures, drawn, limit.distance) if len(drawn.pictures) else [],
    )


def _by_embedding(compared: "Compared | None") -> ByEmbedding | None:
    if compared is None:
        return None
    return ByEmbedding(
        model=compared.maker.model,
        sha256=compared.maker.sha256,
        cosine=compared.cosine,
        pictures=compared.targets,
        samples=compared.rows,
        false_positives=compared.false_positives,
    )


def _written(
    report: OverlapReport,
    hits: "Sequence[Hit]",
    left: "Sequence[Left]",
    warnings: Sequence[str],
    out: Path,
    options: OverlapOptions,
    data: "Data",
    pictures: "Pictures",
) -> None:
    """Write the subset, the report, the hits and the page, and say what they say."""
    from curate.overlaps import page
    from curate.overlaps.hits import tars_by_name, write_hits, write_uids

    folder = out.with_suffix("")
    shards = {shard.name.removesuffix(".tar").replace("/", "_"): shard for shard in data.shards}
    chosen = page.chosen(hits, options.shown)
    told = [*warnings, *([f"{len(left):,} samples could not be looked at; left_out.jsonl lists them"] if left else [])]
    text = page.page(report, hits, page.cells(chosen, shards, tars_by_name(pictures)), told)
    write_json(folder / FILE, report.model_dump(mode="json"))
    write_hits(folder / "hits.csv", hits)
    with atomic(folder / "index.html") as file:
        file.write(text)
    (folder / "left_out.jsonl").unlink(missing_ok=True)
    if left:
        with atomic(folder / "left_out.jsonl") as file:
            file.writelines(json_line(one._asdict()) for one in left)
    uids = write_uids(out, hits)
    by = report.by_hash
    wrong = "" if by.false_positives is None else f", within which {by.false_positives:.2%} of other pictures lie"
    other = report.by_embedding
    embedded = "" if other is None else f", or by a cosine of {other.cosine:.4f}"
    print(
        f"{out}: {uids:,} uids; {report.found:,} of {report.samples:,} training samples may show {report.shown:,} of "
        f"{sum(one.pictures for one in report.sets):,} evaluation pictures, by {by.distance} of {by.bits} bits{wrong}"
        f"{embedded}"
    )
    for one in left[:_TOLD]:
        print(one_line(f"left out: {one.shard}{' ' if one.key else ''}{one.key}: {one.reason}"), file=sys.stderr)
    for line in told:
        print(line, file=sys.stderr)
    print(folder / "index.html")


COMMAND = Command(OverlapOptions, overlap)

if __name__ == "__main__":
    COMMAND.start()
