"""Write one shard of the output: the spans of the input that it needs, with new names, in large reads and writes."""

import os
import tarfile
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from poolbench.files import atomic, write_json
from poolbench.remote import STALL, StoreError, call, patiently, put, system_of
from poolbench.uids import mapped, uid_text

from curate.reshard.index import index_of
from curate.reshard.job import Job, pinned, planned, shards_of
from curate.reshard.plan import Order, Place
from curate.reshard.straight import can, said, straight
from curate.reshard.tars import END, expect, rename, renamed

if TYPE_CHECKING:
    from curate.reshard.faces import Faces

_SPAN = 8 * 2**20  # bytes of one read
_GAP = 2**20  # bytes that are read from a store and thrown away rather than asked for around
_AHEAD = 8  # requests to a store or a disk at once, in each worker
_PIECES = 1024  # of one write, as many as systems take
_BEHIND = 32 * 2**20  # bytes after which the system is told to begin with writing to the disk


class Done(NamedTuple):
    """A written shard; `bad` are the samples left out, as (shard of the input, uid, reason)."""

    samples: int
    bytes: int
    blurred: int
    bad: list[tuple[str, str, str]]


class Span(NamedTuple):
    """What one read brings: the rows lie in bytes `offset` to `stop` of a shard."""

    shard: int
    offset: int
    stop: int
    rows: list[Any]


def names(shard: int) -> tuple[str, str]:
    """Of a shard of the output and of its statistics."""
    return f"{shard:08d}.tar", f"{shard:08d}_stats.json"


def copy_shard(job: Job, place: Place) -> Done:
    """Write one shard, its statistics, and the note that both are whole.

    Raises:
        OSError: the input cannot be read or the output not written.
    """
    plan = planned(job)
    rows = plan[Order(len(plan), job.shuffle).rows(place.start, place.stop)]
    name, stats = names(place.shard)
    local = job.staging
    with atomic(local / name, "wb") as file:
        done = _write(job, rows, file.fileno())
    write_json(local / stats, {"successes": done.samples, "bytes": done.bytes, "blurred": done.blurred})
    if local != Path(job.out):
        for one in (name, stats):
            publish(local / one, job.out)
            (local / one).unlink()
    write_json(job.done(place.shard), done._asdict())
    return done


def publish(path: Path, out: str) -> None:
    """Put a finished file into the folder or the store of the output."""
    if "://" not in out:
        with path.open("rb") as source, atomic(Path(out) / path.name, "wb") as target:
            while part := source.read(2**22):
                target.write(part)
        return
    put(path, f"{out.rstrip('/')}/{path.name}")


def _write(job: Job, rows: np.ndarray[Any, Any], handle: int) -> Done:
    subset, output = mapped(job.subset), _Output(handle)
    local = not any("://" in path for path, _, _ in shards_of(job))
    if not local or job.shuffle is not None or job.has_faces:
        bad, blurred = _write_spans(job, rows, subset, output)
        output.put([END])
        return Done(len(rows) - len(bad), output.bytes, blurred, bad)
    for part in np.split(rows, np.flatnonzero(np.diff(rows["shard"])) + 1):
        if not _write_straight(job, part, subset, output):
            _write_spans(job, part, subset, output)
    output.put([END])
    return Done(len(rows), output.bytes, 0, [])


def _write_straight(job: Job, rows: np.ndarray[Any, Any], subset: np.ndarray[Any, Any], output: "_Output") -> bool:
    """Write rows of one local shard, where that can be done as straight.straight does it."""
    shard = int(rows["shard"][0])
    path = shards_of(job)[shard][0]
    index = index_of(job, shard)
    if index.identity() != pinned(job)[shard]:
        raise OSError(f"{path} has changed since it was indexed; overwrite=true begins anew")
    handle = os.open(path, os.O_RDONLY)
    try:
        if not can(handle, rows, index):
            return False
        for pieces in straight(handle, rows, index, subset[rows["row"]]):
            output.put(pieces)
    except OSError as error:
        raise OSError(error.errno, f"{path} {said(error)}") from None
    finally:
        os.close(handle)
    return True


def _write_spans(
    job: Job, rows: np.ndarray[Any, Any], subset: np.ndarray[Any, Any], output: "_Output"
) -> tuple[list[tuple[str, str, str]], int]:
    """Write rows by reading their spans and looking at each header; returns samples left out and how many are blurred.

    Samples left out are told as in Done.
    """
    faces, shards, bad, changed = _faces(job), shards_of(job), [], 0
    for span, data in _read(job, rows):
        pieces: list[bytes | memoryview] = []
        free = 0  # before it, pieces may refer to the bytes
        for row, offset, length, size, repeat, *_ in span.rows:
            start = offset - span.offset
            blocks = data[start : start + length]
            uid = uid_text(subset[row])
            key = f"{uid}-{repeat}"
            boxes = faces.of(row - repeat) if faces else ()
            try:
                if faces and len(boxes):
                    pieces += faces.hidden(blocks, key, boxes, job.quality)
                    changed += 1
                elif size == length and start >= free and not data.readonly:
                    rename(blocks, key)
                    pieces.append(blocks)
                else:
                    pieces += renamed(blocks, key)
            except tarfile.TarError as error:
                raise OSError(f"{shards[span.shard][0]} has changed since it was indexed: {error}") from None
            except ValueError as error:
                bad.append((shards[span.shard][1], uid, str(error)))
            free = max(free, start + length)
        output.put(pieces)
    return bad, changed


class _Output:
    """A shard of the output that is being written.

    Attributes:
        bytes: written so far.
    """

    def __init__(self, handle: int) -> None:
        self._handle, self._begun = handle, 0
        self.bytes = 0

    def put(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all pieces, many at once."""
        for start in range(0, len(pieces), _PIECES):
            some = pieces[start : start + _PIECES]
            total = sum(map(len, some))
            left = total - os.writev(self._handle, some)
            while left:
                left -= os.write(self._handle, memoryview(b"".join(some))[-left:])
            self.bytes += total
        self._to_disk()

    def _to_disk(self) -> None:
        """Let the system write what it has not begun to, and forget what it has written; otherwise both wait for the
        end. Linux starts writing dirty pages that it is advised to drop."""
        if self.bytes - self._begun < _BEHIND or not hasattr(os, "posix_fadvise"):
            return
        os.posix_fadvise(self._handle, 0, self.bytes, os.POSIX_FADV_DONTNEED)
        self._begun = self.bytes


def _faces(job: Job) -> "Faces | None":
    """Imported only where faces are blurred: Arrow and Pillow load slowly."""
    if not job.has_faces:
        return None
    from curate.reshard.faces import Faces

    return Faces(job.faces)


def spans(rows: np.ndarray[Any, Any], gap: int) -> Iterator[Span]:
    """Join rows that follow each other in the input, at most `gap` bytes apart, into reads."""
    span: Span | None = None
    for row in rows.tolist():
        _, offset, length, _, _, shard, _ = row
        stop = offset + length
        if (
            span is not None
            and span.shard == shard
            and span.offset <= offset <= span.stop + gap
            and stop - span.offset <= _SPAN
        ):
            span.rows.append(row)
            span = span._replace(stop=max(span.stop, stop))
            continue
        if span is not None:
            yield span
        span = Span(shard, offset, stop, [row])
    if span is not None:
        yield span


def _read(job: Job, rows: np.ndarray[Any, Any]) -> Iterator[tuple[Span, memoryview]]:
    """Each span and its bytes, which the next one may overwrite."""
    paths = [path for path, _, _ in shards_of(job)]
    if not any("://" in path for path in paths):
        yield from _read_local(paths, list(spans(rows, gap=0)))
        return
    with ThreadPoolExecutor(_AHEAD) as threads:
        waiting: deque[tuple[Span, Any]] = deque()
        for span in spans(rows, _GAP):
            waiting.append((span, threads.submit(_fetch, paths[span.shard], span)))
            if len(waiting) > _AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _read_local(paths: Sequence[str], reads: Sequence[Span]) -> Iterator[tuple[Span, memoryview]]:
    buffer, handle, opened = bytearray(_SPAN), -1, -1
    try:
        for place, span in enumerate(reads):
            if span.shard != opened:
                if handle >= 0:
                    os.close(handle)
                handle, opened = os.open(paths[span.shard], os.O_RDONLY), span.shard
            for later in reads[place + _AHEAD : place + _AHEAD + 1]:
                if later.shard == opened:
                    expect(handle, later.offset, later.stop - later.offset)
            length = span.stop - span.offset
            data = memoryview(buffer if length <= len(buffer) else bytearray(length))[:length]
            got = 0
            while got < length and (more := os.preadv(handle, [data[got:]], span.offset + got)):
                got += more
            if got < length:
                raise OSError(f"{paths[span.shard]} has changed since it was indexed: it is shorter")
            yield span, data
    finally:
        if handle >= 0:
            os.close(handle)


def _fetch(path: str, span: Span) -> memoryview:
    def ask() -> bytes:
        system, name = system_of(path)
        data: bytes = call(system, "cat_file", name, start=span.offset, end=span.stop, seconds=STALL)
        return data

    try:
        data = patiently(ask)
    except StoreError as error:
        raise OSError(f"{path} cannot be read {error}") from None
    if len(data) != span.stop - span.offset:
        raise OSError(f"{path}: {len(data):,} bytes came for a part of {span.stop - span.offset:,}")
    return memoryview(data)
