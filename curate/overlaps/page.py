"""The overlap as one HTML document: what was looked at, what would be found, and pairs of pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from poolbench.overlap_report import OverlapReport
from poolbench.shards.samples import Sample, read_shard
from poolbench.shards.sources import Shard

from curate.overlaps.hits import Hit
from curate.report.page import Fact, SheetCell, cut, document, percent
from curate.report.sheet import SIDE, data_url, small

_GAP = 8  # pixels between the two pictures of a pair
_PAPER = (127, 127, 127)


def page(report: OverlapReport, hits: Sequence[Hit], cells: Sequence[SheetCell], warnings: Sequence[str]) -> str:
    """The whole document; the same text for the same report and pictures."""
    by, other = report.by_hash, report.by_embedding
    embedded = "" if other is None else f", or where their embeddings have a cosine of {other.cosine:g} or more"
    return document(
        Path(__file__).parent / "page.html",
        report=report,
        note="Pictures, not captions, are compared. Two are called the same where their hashes differ in at most "
        f"{by.distance} of {by.bits} bits{embedded}; whether they are is for eyes to judge.",
        facts=_facts(report),
        sets=_sets(report, hits),
        edits_note=f"Copies of {by.positives:,} evaluation pictures, made here and edited as training pictures may be.",
        cells=cells,
        cells_note=f"{len(cells):,} of {len(hits):,} pairs, from the nearest to the farthest; the training picture is "
        "on the left.",
        warnings=warnings,
    )


def _facts(report: OverlapReport) -> list[Fact]:
    by = report.by_hash
    found = [
        Fact("training samples", f"{report.samples:,}"),
        Fact("left out", f"{report.left_out:,}"),
        Fact("evaluation pictures", f"{sum(one.pictures for one in report.sets):,}"),
        Fact("bits that may differ", f"{by.distance} of {by.bits}"),
    ]
    if by.false_positives is not None:
        found.append(Fact(f"of {by.negatives:,} other pictures called hits", percent(by.false_positives)))
    if report.by_embedding is not None:
        found.append(Fact("cosine at least", f"{report.by_embedding.cosine:g}"))
    return found


def _sets(report: OverlapReport, hits: Sequence[Hit]) -> list[list[str]]:
    rows = []
    for one in report.sets:
        mine = [hit for hit in hits if hit.set == one.name]
        shown, samples = len({(hit.evaluation_shard, hit.key) for hit in mine}), len({hit.uid for hit in mine})
        rows.append([one.name, *(f"{count:,}" for count in (one.pictures, shown, samples, one.blank, one.left_out))])
    return rows


def chosen(hits: Sequence[Hit], count: int) -> list[Hit]:
    """So many hits, evenly from the nearest to the farthest."""
    order = sorted(hits, key=lambda hit: (hit.far, hit.uid, hit.set, hit.key))
    if len(order) <= count:
        return order
    return (
        [order[round(place * (len(order) - 1) / (count - 1))] for place in range(count)] if count > 1 else order[:count]
    )


def cells(hits: Sequence[Hit], shards: Mapping[str, Shard], tars: Mapping[str, Path]) -> list[SheetCell]:
    """Both pictures of each hit, beside each other.

    Args:
        shards: the training shards, by the names that hits have; tars: those of the evaluation sets.
    """
    training = _training({hit.uid: shards[hit.shard] for hit in hits})
    evaluation = _evaluation({(hit.evaluation_shard, hit.key) for hit in hits}, tars)
    found = []
    for hit in hits:
        ours, caption = training.get(hit.uid, (None, ""))
        pair = _pair(ours, evaluation.get((hit.evaluation_shard, hit.key)))
        far = [] if hit.distance is None else [f"{hit.distance} bits"]
        far += [] if hit.cosine is None else [f"cosine {hit.cosine:.3f}"]
        found.append(SheetCell(pair, cut(caption), f"{', '.join(far)} · {hit.set}, {hit.key} · {hit.uid}"))
    return found


def _training(wanted: Mapping[str, Shard]) -> dict[str, tuple[Image.Image | None, str]]:
    """Picture and caption of training samples by uid; a shard is read once."""
    found: dict[str, tuple[Image.Image | None, str]] = {}
    for shard in dict.fromkeys(wanted.values()):
        for sample in read_shard(shard.path, shard.size):
            if not isinstance(sample, Sample):
                continue
            try:
                uid = str(sample.record()["uid"]).lower()
            except ValueError:
                continue
            if uid in wanted and uid not in found:
                caption = sample.members.get("txt", b"").decode("utf-8", "replace")
                found[uid] = _shown(sample), caption
    return found


def _evaluation(wanted: set[tuple[str, str]], tars: Mapping[str, Path]) -> dict[tuple[str, str], Image.Image | None]:
    found: dict[tuple[str, str], Image.Image | None] = {}
    for name in sorted({shard for shard, _ in wanted}):
        for sample in read_shard(str(tars[name])):
            if isinstance(sample, Sample) and (name, sample.key) in wanted:
                found[name, sample.key] = _shown(sample)
    return found


def _shown(sample: Sample) -> Image.Image | None:
    try:
        return small(sample.picture())
    except Exception:  # see curate/report/sheet.py
        return None


def _pair(ours: Image.Image | None, theirs: Image.Image | None) -> str:
    """Two pictures beside each other, "" where one is missing."""
    if ours is None or theirs is None:
        return ""
    both = Image.new("RGB", (2 * SIDE + _GAP, SIDE), _PAPER)
    for image, left in ((ours, 0), (theirs, SIDE + _GAP)):
        scale = SIDE / max(image.size)
        grown = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        both.paste(grown, (left + (SIDE - grown.width) // 2, (SIDE - grown.height) // 2))
    return data_url(both)
