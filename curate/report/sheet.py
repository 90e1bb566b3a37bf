"""Random kept and dropped samples of a pool's shards, as thumbnails within the page."""

import base64
import heapq
import io
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from poolbench.shards.pictures import opened, rgb
from poolbench.shards.samples import IMAGE_EXTENSIONS, Sample, read_shard
from poolbench.shards.sources import Shard
from poolbench.subset import Subset
from poolbench.uids import DTYPE, split_uid

from curate.pool.hashes import hashed
from curate.report.statistics import DROPPED, KEPT

SHARDS = 4  # read for a sheet, drawn at random
CELLS = 24  # of each group
SIDE = 160  # pixels of a thumbnail's longer side


class Cell(NamedTuple):
    """One sample; `picture` is a data URL, "" where its picture cannot be shown."""

    uid: str
    caption: str
    picture: str


class Sheet(NamedTuple):
    """The samples of each group, and from how many shards and samples they were drawn."""

    cells: dict[str, list[Cell]]
    shards: int
    of_shards: int
    samples: int
    bad: int


class _Found(NamedTuple):
    order: int  # negative hash, so that a heap gives up the largest first
    number: int  # tells two samples with one uid apart
    uid: str
    sample: Sample


def sheet(shards: Sequence[Shard], subset: Subset, seed: int) -> Sheet:
    """Draw CELLS kept and CELLS dropped samples from SHARDS shards, the same for the same seed."""
    drawn = random.Random(seed).sample(list(shards), min(SHARDS, len(shards)))
    heaps: dict[str, list[_Found]] = {KEPT: [], DROPPED: []}
    samples = bad = 0
    for shard in drawn:
        for sample in read_shard(shard.path, shard.size):
            uid = _uid_of(sample) if isinstance(sample, Sample) else None
            if uid is None or not isinstance(sample, Sample):
                bad += 1
                continue
            samples += 1
            heap = heaps[KEPT if subset.count(uid) else DROPPED]
            order = -int(hashed(np.array([split_uid(uid)], DTYPE), seed)[0])
            found = _Found(order, -samples, uid, sample)
            if len(heap) < CELLS:
                heapq.heappush(heap, found)
            elif found.order > heap[0].order:
                heapq.heapreplace(heap, found)
    cells = {group: [_cell(one) for one in sorted(heap, reverse=True)] for group, heap in heaps.items()}
    return Sheet(cells, len(drawn), len(shards), samples, bad)


def _uid_of(sample: Sample) -> str | None:
    try:
        return str(sample.record()["uid"]).lower()
    except ValueError:
        return None


def _cell(found: _Found) -> Cell:
    caption = found.sample.members.get("txt", b"").decode("utf-8", "replace")
    return Cell(found.uid, caption, _thumbnail(found.sample.first_of(IMAGE_EXTENSIONS) or b""))


def small(data: bytes) -> Image.Image:
    """A picture file as large as a page shows it.

    Raises:
        Exception: whatever a decoder raises on foreign bytes, which is not documented.
    """
    image = opened(data)
    image.draft("RGB", (2 * SIDE, 2 * SIDE))
    found = rgb(image)
    found.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return found


def data_url(image: Image.Image) -> str:
    """A picture as a part of a page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _thumbnail(data: bytes) -> str:
    try:
        return data_url(small(data))
    except Exception:  # the page says that there is none
        return ""
