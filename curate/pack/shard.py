"""One shard, and the metadata of its samples: pictures as they are, their captions and what is known of them."""

import json
import os
import stat
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from poolbench.arrow import OF_SAMPLES
from poolbench.files import atomic, digest_bytes, leftovers, read_json, write_json
from poolbench.shards.members import MEMBER_LIMIT, padded
from poolbench.shards.pictures import EXTENSIONS, decoding, opened, rgb
from poolbench.uids import uid_of

from curate.pack.embedded import pictures
from curate.pack.options import PARQUET
from curate.pack.plan import Plan, Task, rows_from
from curate.pack.rows import NOT_UTF8, Rejected, Wrong, captions_in
from curate.reshard.tars import END, header

SHARDS, METADATA = "shards", "metadata"
_SCHEMA = pa.schema([*OF_SAMPLES, ("key", pa.string())])
_DIGITS = 9  # of a key, at least
_REMOTE = ("http://", "https://", "s3://", "gs://")


class Item(NamedTuple):
    """A picture with a caption, not looked at yet."""

    row: int
    key: str
    where: str
    name: str
    picture: bytes
    caption: str
    url: str | None


class Done(NamedTuple):
    """A finished shard: its samples, the bytes of its tar, and what could not be used."""

    samples: int
    bytes: int
    rejected: list[Rejected]


def paths_of(plan: Plan, shard: int) -> tuple[Path, Path]:
    """The tar and the parquet of a shard."""
    out = plan.work.parent
    return out / SHARDS / f"{shard:08d}.tar", out / METADATA / f"{shard:08d}.parquet"


def done_of(plan: Plan, shard: int) -> Done | None:
    """What became of a shard, None where it is not finished."""
    path = plan.done(shard)
    if not path.exists():
        return None
    found = read_json(path)
    done = Done(found["samples"], found["bytes"], [Rejected(*one) for one in found["rejected"]])
    tar, parquet = paths_of(plan, shard)
    whole = not done.samples or (parquet.is_file() and tar.is_file() and tar.stat().st_size == done.bytes)
    return done if whole else None


def write_done(plan: Plan, shard: int, done: Done) -> None:
    """Note that a shard is finished, behind all else."""
    write_json(plan.done(shard), {**done._asdict(), "rejected": sorted(done.rejected)})


def make(task: Task, plan: Plan) -> int:
    """Make the shards of a task that are not there; how many they were.

    Raises:
        UserError: the source cannot be read.
        OSError: a shard cannot be written.
    """
    due = [shard for shard in range(task.first, task.last) if done_of(plan, shard) is None]
    if not due:
        return 0
    items = _items(plan, plan.bounds(due[0])[0], plan.bounds(due[-1])[1])
    for shard, some in groupby(items, key=lambda item: plan.shard_of(item.row)):
        if shard in due:
            _write(plan, shard, some)
    return len(due)


def write_sample(file: IO[bytes], key: str, members: dict[str, bytes]) -> None:
    """Add the members of a sample to a tar."""
    for extension, data in members.items():
        file.write(b"".join((header(f"{key}.{extension}", len(data)), data, bytes(padded(len(data)) - len(data)))))


def _write(plan: Plan, shard: int, items: Iterator[Item | Rejected]) -> None:
    tar, parquet = paths_of(plan, shard)
    for left in [*leftovers(tar), *leftovers(parquet)]:  # by a process that was killed
        left.unlink(missing_ok=True)
    rows: list[dict[str, Any]] = []
    rejected: list[Rejected] = []
    seen: dict[str, str] = {}
    with atomic(tar, "wb") as file:
        for item in items:
            if isinstance(item, Rejected):
                rejected.append(item)
                continue
            try:
                extension, record = _examined(item, plan.decode)
                if record["uid"] in seen:
                    raise ValueError(duplicate_of(seen[record["uid"]]))
            except ValueError as error:
                rejected.append(Rejected(item.row, item.where, item.name, str(error)))
                continue
            seen[record["uid"]] = item.where
            said = json.dumps(record, ensure_ascii=False).encode()
            write_sample(file, item.key, {extension: item.picture, "json": said, "txt": item.caption.encode()})
            rows.append({**record, "text": item.caption, "key": item.key})
        file.write(END)
    if rows:
        write_rows(parquet, pa.Table.from_pylist(rows, _SCHEMA))
    else:
        tar.unlink()
    write_done(plan, shard, Done(len(rows), tar.stat().st_size if rows else 0, rejected))


def write_rows(path: Path, table: pa.Table) -> None:
    """Write the metadata of a shard."""
    with atomic(path, "wb") as file:
        pq.write_table(table, file)


def duplicate_of(where: str) -> str:
    """Why a sample is left out that another one, which comes earlier, is the same as."""
    return f"a duplicate: the same picture and caption as {where}"


def _examined(item: Item, decode: bool) -> tuple[str, dict[str, Any]]:
    """The extension of a picture, and what the sample's .json says.

    Raises:
        ValueError: the picture is none that shards have, or not a whole one.
    """
    if not item.picture:
        raise ValueError("empty picture")
    with decoding():
        image = opened(item.picture)
        kind, width, height = image.format or "", image.width, image.height
        if decode and kind in EXTENSIONS:
            _decode(image)
    if kind not in EXTENSIONS:
        raise ValueError(f"unsupported format {kind}: save it as JPEG, PNG or WebP")
    uid, sha256 = uid_of(item.picture, item.caption), digest_bytes(item.picture)
    record = {"uid": uid, "url": item.url, "sha256": sha256, "original_width": width, "original_height": height}
    return EXTENSIONS[kind], record


def _decode(image: Image.Image) -> None:
    """Decode all of a picture; of a JPEG all bytes, but to an eighth of its size, which shows as well whether it is
    cut off."""
    image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
    rgb(image)


def _items(plan: Plan, start: int, stop: int) -> Iterator[Item | Rejected]:
    """A picture for each caption of rows."""
    if plan.layout.kind != PARQUET:
        yield from _read_items(plan, start, stop)
        return
    for one in pictures(plan, start, stop):
        for number, caption in enumerate(one.captions):
            key = f"{one.row:0{_DIGITS}d}" + (f"-{number}" if len(one.captions) > 1 else "")
            if isinstance(caption, Wrong):
                yield Rejected(one.row, one.where, one.name, caption.reason)
            elif not one.data:
                held = f"its bytes are not in the parquet: only its name {one.name}" if one.name else "no picture"
                yield Rejected(one.row, one.where, one.name, held)
            else:
                yield Item(one.row, key, one.where, one.name, one.data, caption, one.url)


def _read_items(plan: Plan, start: int, stop: int) -> Iterator[Item | Rejected]:
    """The same of pictures in files of their own."""
    folder = plan.layout.pictures
    for number, row in rows_from(plan, start, stop):
        name = os.fsencode(row.file).decode(errors="backslashreplace")
        try:
            caption = row.caption if row.caption is not None else _caption(folder, row.caption_file or "")
            picture = _content(folder, row.file)
        except ValueError as error:
            yield Rejected(number, row.where, name, str(error))
        else:
            yield Item(number, f"{number:0{_DIGITS}d}", row.where, name, picture, caption, row.url)


def _caption(folder: str, name: str) -> str:
    """The content of a .txt.

    Raises:
        ValueError: it cannot be read, or is no caption.
    """
    try:
        text = _content(folder, name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(NOT_UTF8) from None
    caption = captions_in(text)[0]
    if isinstance(caption, Wrong):
        raise ValueError(caption.reason)
    return caption


def _content(folder: str, name: str) -> bytes:
    """What a file holds.

    Raises:
        ValueError: it cannot be read, is no file, or larger than what shards hold.
    """
    if name.startswith(_REMOTE):
        raise ValueError("a url instead of a file: python -m curate.download brings pictures from their urls")
    try:
        # Not held up by a pipe, of which nobody says anything.
        handle = os.open(os.path.join(folder, name), os.O_RDONLY | os.O_NONBLOCK)  # noqa: PTH118
        with os.fdopen(handle, "rb", buffering=0) as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("no file, but a pipe or a device")
            if status.st_size > MEMBER_LIMIT:
                raise ValueError(f"larger than {MEMBER_LIMIT // 2**20} MiB: {status.st_size:,} bytes")
            return file.read()
    except FileNotFoundError:
        raise ValueError("there is no such file") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None
