"""Some pictures of scored shards beside their masked ones, for people to look at."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from poolbench.files import atomic
from poolbench.shards.pictures import opened, rgb
from poolbench.shards.samples import Sample, read_shard
from poolbench.uids import from_texts

from curate.pool.hashes import hashed
from curate.pool.masked_samples import MaskedSample, write
from curate.pool.scored import ScoredShard
from curate.scorers.base import Part
from curate.scorers.text_masks import REGIONS, TextMask

_SHARDS = 4  # that are looked into, as for the contact sheet of a report
_SIDE, _GAP = 448, 8  # pixels: a picture's longer side, and what is between the two


def exported(
    folder: str, count: int, mask: TextMask, columns: Sequence[str], every: Sequence[Part], ours: Sequence[Part]
) -> None:
    """Write `count` pictures with text and as many without beside their masked ones, each with these columns.

    They are of a few shards drawn from all, and of each those whose uids have the least hashes; so all parts of a pool
    together export what one run would.
    """
    drawn = random.Random(0).sample(list(every), min(_SHARDS, len(every)))
    total = 0
    for number, part in enumerate(drawn):
        if part not in ours:
            continue
        wanted = _chosen(part, columns, count // len(drawn) + (number < count % len(drawn)))
        Path(folder).mkdir(parents=True, exist_ok=True)
        samples = _pictures(Path(folder), part, mask, wanted)
        write(Path(folder), part.files.name, samples)
        total += len(samples)
    if total:
        print(f"{folder}: {total} pictures beside their masked ones, for python -m curate.inspect … masked={folder}")


def _chosen(part: Part, columns: Sequence[str], count: int) -> dict[str, dict[str, float | None]]:
    """The columns of `count` rows with text and as many without, by uid."""
    assert isinstance(part.files, ScoredShard)
    table = pq.read_table(part.files.parquet, columns=["uid", *columns])
    rows: list[dict[str, Any]] = [{name: _finite(value) for name, value in row.items()} for row in table.to_pylist()]
    hashes = hashed(from_texts([row["uid"] for row in rows]), seed=0)
    groups: list[list[dict[str, Any]]] = [[], []]
    for place in np.argsort(hashes, kind="stable").tolist():
        if rows[place][REGIONS] is not None:
            groups[rows[place][REGIONS] > 0].append(rows[place])
    return {row.pop("uid"): row for group in groups for row in group[:count]}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _pictures(
    folder: Path, part: Part, mask: TextMask, wanted: Mapping[str, dict[str, float | None]]
) -> list[MaskedSample]:
    """Write the pictures of the wanted uids; those of the most text first."""
    found: dict[str, MaskedSample] = {}
    for sample in read_shard(part.shard.path, part.shard.size) if wanted else ():
        uid = _uid(sample) if isinstance(sample, Sample) else ""
        if not isinstance(sample, Sample) or uid not in wanted or uid in found:
            continue
        pixels = np.asarray(rgb(opened(sample.picture())))
        masked = mask(pixels, {})
        name = f"{uid}.jpg"
        with atomic(folder / name, "wb") as file:
            _beside(pixels, masked.pixels).save(file, "JPEG", quality=90)
        text = "\n".join(line.text for line in masked.lines)
        found[uid] = MaskedSample(uid=uid, caption=sample.caption(), picture=name, scores=wanted[uid], text=text)
        if len(found) == len(wanted):
            break
    return sorted(found.values(), key=lambda one: (-(one.scores["text_share"] or 0), one.uid))


def _uid(sample: Sample) -> str:
    try:
        return str(sample.record()["uid"])
    except ValueError:
        return ""


def _beside(left: np.ndarray, right: np.ndarray) -> Image.Image:
    """Two pictures of one size beside each other, no larger than they are looked at."""
    images = [Image.fromarray(pixels) for pixels in (left, right)]
    for image in images:
        image.thumbnail((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    width, height = images[0].size
    both = Image.new("RGB", (2 * width + _GAP, height), "white")
    both.paste(images[0], (0, 0))
    both.paste(images[1], (width + _GAP, 0))
    return both
