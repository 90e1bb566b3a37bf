"""Make the demo pool with writing in its pictures, and tell where it lies.

python -m demodata.text_pool [root=<folder>]

Of every picture and caption there are four samples: under the right caption and under a wrong one, each with the
caption written into the picture and without. docs/demo_data.md says what for. `python -m train scale=tiny
data=<its pool>` trains on it.
"""

import functools
import hashlib
import importlib.metadata
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from poolbench.command import Command
from poolbench.files import cache
from poolbench.options import output
from poolbench.text import aligned
from poolbench.uids import write_subset

from demodata.credits import credits_of
from demodata.emoji import Picture, pictures, render, varied_look
from demodata.samples import (
    Sample,
    answers,
    made_once,
    sample_of,
    shown,
    write_metadata,
    write_shards,
    wrong_captions,
)
from demodata.writing import Writing, below, fitted, over

if TYPE_CHECKING:
    from PIL.Image import Image

VERSION = "demo-text-v1"  # of the content, as demodata.pool's
SIDE = 128  # pixels
# What a sample is; the first two have a right caption.
KINDS = ("plain", "written", "swapped", "overwritten")
RIGHT = KINDS[:2]


class TextPool(NamedTuple):
    """Where the pool lies.

    Attributes:
        pool: folder of webdataset shards.
        metadata: folder of the pool's metadata (parquet).
        right: the samples whose caption is right, as a subset file.
        kinds: folder of a subset file for each of KINDS, <kind>.npy; every sample is in one of them.
        credits: who made the pictures, the names and the letters, and under which licences.
    """

    pool: Path
    metadata: Path
    right: Path
    kinds: Path
    credits: Path


class _Pair(NamedTuple):
    """A picture, a caption of its own, and what is written where that caption is."""

    picture: Picture
    caption: str
    writing: Writing


@dataclass
class Options:
    """The options."""

    root: str | None = output("folder in which it is made; null: the cache", None)


def build(root: Path | None = None) -> TextPool:
    """The pool below `root`, made if it is not there yet; by default below the cache. See `made_once`.

    Raises:
        UserError: a package of the extra `demo` is missing, or `root` is no folder.
    """
    final = (root or cache()) / VERSION
    made_once(final, _make, _credits)
    return TextPool(final / "pool", final / "metadata", final / "right.npy", final / "kinds", final / "CREDITS.md")


def tell(options: Options) -> None:
    """Print the path of each part of the pool."""
    found = build(None if options.root is None else Path(options.root))
    print(aligned([(name, str(path)) for name, path in found._asdict().items()]))


def _make(folder: Path) -> None:
    pairs = _pairs(pictures(functools.partial(shown, "reading the demo pictures")))
    kinds: dict[str, dict[str, Sample]] = {kind: {} for kind in KINDS}
    for samples in _drawn(pairs):
        for kind, sample in samples.items():
            kinds[kind][sample.uid] = sample
    every = sorted((one for found in kinds.values() for one in found.values()), key=lambda sample: sample.uid)
    write_shards(folder / "pool", every, SIDE)
    write_metadata(folder / "metadata" / "demo.parquet", every, SIDE)
    (folder / "kinds").mkdir()
    for kind, found in kinds.items():
        write_subset(folder / "kinds" / f"{kind}.npy", list(found))
    write_subset(folder / "right.npy", [uid for kind in RIGHT for uid in kinds[kind]])
    (folder / "CREDITS.md").write_text(_credits(), encoding="utf-8")


def _pairs(every: Sequence[Picture]) -> list[_Pair]:
    """The pictures of the pool with each of their names, and their kinds, that can be written, in an order as good as
    shuffled."""
    forbidden = answers(every)
    found = []
    for picture in every:
        said = dict.fromkeys([*picture.names, *([picture.kind] if picture.kind else [])])
        for caption in () if picture.held_out else said:
            writing = None if caption.lower() in forbidden else _writing(caption, forbidden)
            if writing is not None:
                found.append(_Pair(picture, caption, writing))
    return sorted(found, key=lambda pair: hashlib.sha256(f"{pair.picture.code} {pair.caption}".encode()).digest())


def _writing(caption: str, forbidden: set[str]) -> Writing | None:
    """The caption as it is written, or as many of its first words as there is room for; None where no letters are for
    it, or where these words would be the name of a held-out picture."""
    words = caption.split()
    for count in range(len(words) if caption.isascii() else 0, 0, -1):
        text = " ".join(words[:count])
        writing = fitted(text, SIDE)
        if writing is not None:
            return None if text.lower() in forbidden else writing
    return None


def _drawn(pairs: Sequence[_Pair]) -> Iterator[Mapping[str, Sample]]:
    """Of each picture and caption its sample of each kind. All show the same drawing, and the two wrong ones have the
    same caption, so that what they differ in is the writing."""
    writings = {pair.caption: pair.writing for pair in pairs}
    others = wrong_captions([(pair.picture, pair.caption) for pair in pairs])
    for pair, other in zip(shown("drawing the demo pool", pairs), others, strict=True):
        look = varied_look(f"{pair.picture.code} {pair.caption}")
        drawing = _opened(render(pair.picture.svg, look, SIDE))
        plain = _png(drawing)
        yield {
            "plain": sample_of(pair.picture, pair.caption, plain),
            "written": sample_of(pair.picture, pair.caption, _png(below(drawing, pair.writing))),
            "swapped": sample_of(pair.picture, other, plain),
            "overwritten": sample_of(pair.picture, other, _png(over(drawing, writings[other]))),
        }


def _opened(png: bytes) -> "Image":
    from PIL import Image

    return Image.open(io.BytesIO(png)).convert("RGB")


def _png(image: "Image") -> bytes:
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=1)  # half the time, a tenth more bytes
    return out.getvalue()


def _credits() -> str:
    version = importlib.metadata.version
    return credits_of(
        "the pictures.",
        [f"Letters: Aileron Regular, which Pillow {version('pillow')} carries, by Sora Sagano (CC0)."],
        f"""the SVGs were drawn at {SIDE} x {SIDE} pixels by resvg (resvg-py {version("resvg-py")}), with thin grey
outlines, a little nearer or farther, most on tinted ground. On half of the pictures their caption is written, right or
wrong; half of these are smaller to make room for it.""",
    )


COMMAND = Command(Options, tell)

if __name__ == "__main__":
    COMMAND.start()
