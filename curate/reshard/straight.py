"""Copy samples of a local shard straight from the system's memory of it: their headers are made from the index, many at
once, and their contents are written from where the file is mapped, which saves a copy.

Nothing but the system looks into the mapped bytes, so that a shard that is cut off meanwhile is an error and not the
end of the process.
"""

import binascii
import errno
import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from poolbench.shards.members import BLOCK

from curate.reshard.stored import Index, local_stamp
from curate.reshard.tars import BLANK, BLANK_SUM, NAME_LIMIT, expect

_WINDOW = 8 * 2**20  # bytes that are mapped at a time
_AHEAD = 32  # windows that the disk is asked for beforehand
_ROWS = 1024  # whose headers are made together
_PAGE = mmap.PAGESIZE
_POPULATE_READ = 22  # Linux's word for "bring these pages", which Python's mmap has no name for
_DIGITS = 3 * np.arange(10, -1, -1)
_UID = 32  # letters


class Stretch(NamedTuple):
    """Rows whose samples lie in bytes `start` to `stop` of the shard; `runs` are the parts of these that are wanted."""

    first: int
    last: int
    start: int
    stop: int
    runs: list[tuple[int, int]]


def can(handle: int, rows: np.ndarray[Any, Any], index: Index) -> bool:
    """Whether these rows of a shard can be copied so: their layouts are known, and the file can be mapped."""
    if (
        rows["number"].max() >= len(index.contents.samples)
        or not index.contents.samples["layout"][rows["number"]].all()
    ):
        return False
    try:
        mmap.mmap(handle, _PAGE, mmap.MAP_SHARED, mmap.PROT_READ).close()
    except (OSError, ValueError):  # a file system that maps nothing
        return False
    return True


def straight(
    handle: int, rows: np.ndarray[Any, Any], index: Index, uids: np.ndarray[Any, Any]
) -> Iterator[list[bytes | memoryview]]:
    """The pieces of the samples with new headers, some at a time; they are good until the next ones are asked for.

    Args:
        rows: of dtype ROW, by rising offsets.
        uids: of each row.

    Raises:
        OSError: the shard is not the one of the index any more.
    """
    contents = index.contents
    firsts, counts = contents.members()
    _check(handle, index)
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS]
        numbers = part["number"]
        ends = np.cumsum(counts[numbers])
        # Of each member of each row, in order: its place in the index.
        places = np.arange(ends[-1]) + np.repeat(firsts[numbers] - (ends - counts[numbers]), counts[numbers])
        sizes = contents.sizes[places].astype(np.int64)
        kinds = [contents.layouts[layout - 1] for layout in contents.samples["layout"][numbers].tolist()]
        heads = memoryview(headers(uids[start : start + _ROWS], part["repeat"], kinds, sizes))
        yield from _windows(handle, part, ends.tolist(), (sizes + -sizes % BLOCK).tolist(), heads)
    _check(handle, index)


def headers(
    uids: np.ndarray[Any, Any], repeats: np.ndarray[Any, Any], kinds: Sequence[Sequence[str]], sizes: Any
) -> Any:
    """The headers of the members of samples, one behind the other, as tars.header makes each: u1 [512 n].

    Args:
        kinds: extensions of the members of each sample.
        sizes: int64 [n], bytes of all members.
    """
    blocks = np.tile(np.frombuffer(BLANK, np.uint8), (len(sizes), 1))
    counts = np.array([len(kind) for kind in kinds])
    halves = np.stack([uids["f0"], uids["f1"]], axis=1).astype(">u8")
    letters = np.frombuffer(binascii.hexlify(halves.tobytes()), np.uint8).reshape(-1, _UID)
    blocks[:, :_UID] = np.repeat(letters, counts, axis=0)
    alike: dict[tuple[int, tuple[str, ...]], list[int]] = {}
    for first, repeat, kind in zip((np.cumsum(counts) - counts).tolist(), repeats.tolist(), kinds, strict=True):
        alike.setdefault((repeat, tuple(kind)), []).append(first)
    for (repeat, kind), firsts in alike.items():
        for number, extension in enumerate(kind):
            ending = f"-{repeat}.{extension}".encode("utf-8", "surrogateescape")
            assert _UID + len(ending) <= NAME_LIMIT
            blocks[np.array(firsts) + number, _UID : _UID + len(ending)] = np.frombuffer(ending, np.uint8)
    blocks[:, 124:135] = _octal(sizes, 11)
    sums = (
        BLANK_SUM + blocks[:, :NAME_LIMIT].sum(axis=1, dtype=np.int64) + blocks[:, 124:135].sum(axis=1, dtype=np.int64)
    )
    blocks[:, 148:154] = _octal(sums, 6)
    return blocks.reshape(-1)


def _octal(values: np.ndarray[Any, Any], digits: int) -> np.ndarray[Any, Any]:
    octal: np.ndarray[Any, Any] = ((values[:, None] >> _DIGITS[-digits:]) & 7) + ord("0")
    return octal


def _windows(
    handle: int, rows: np.ndarray[Any, Any], ends: Sequence[int], lengths: Sequence[int], heads: memoryview
) -> Iterator[list[bytes | memoryview]]:
    offsets = rows["offset"].tolist()
    stretches = list(_stretches(offsets, rows["span"].tolist()))
    for number, stretch in enumerate(stretches):
        for later in stretches[0 if number == 0 else number + _AHEAD : number + _AHEAD + 1]:
            for start, stop in later.runs:
                expect(handle, start, stop - start)
        base = stretch.start // _PAGE * _PAGE
        with (
            mmap.mmap(handle, stretch.stop - base, mmap.MAP_SHARED, mmap.PROT_READ, offset=base) as held,
            memoryview(held) as view,
        ):
            for start, stop in stretch.runs:
                _bring(held, start - base, stop - base)
            pieces: list[bytes | memoryview] = []
            member = ends[stretch.first - 1] if stretch.first else 0
            for row in range(stretch.first, stretch.last):
                at = offsets[row] - base
                while member < ends[row]:
                    data = at + BLOCK
                    at = data + lengths[member]
                    pieces.append(heads[member * BLOCK : member * BLOCK + BLOCK])
                    pieces.append(view[data:at])
                    member += 1
            yield pieces
            pieces.clear()  # else the file cannot be unmapped


def _stretches(offsets: Sequence[int], spans: Sequence[int]) -> Iterator[Stretch]:
    first, runs = 0, list[tuple[int, int]]()
    for row, (start, span) in enumerate(zip(offsets, spans, strict=True)):
        stop = start + span
        if runs and stop - runs[0][0] > _WINDOW:
            yield Stretch(first, row, runs[0][0], runs[-1][1], runs)
            first, runs = row, []
        if runs and start <= runs[-1][1]:
            runs[-1] = runs[-1][0], max(stop, runs[-1][1])
        else:
            runs.append((start, stop))
    if runs:
        yield Stretch(first, len(offsets), runs[0][0], runs[-1][1], runs)


def _bring(held: mmap.mmap, start: int, stop: int) -> None:
    """Map pages before they are needed, many at once, where the system knows how; else each is brought by itself."""
    if not hasattr(held, "madvise"):
        return
    begin = start // _PAGE * _PAGE
    try:
        held.madvise(_POPULATE_READ, begin, stop - begin)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise


def _check(handle: int, index: Index) -> None:
    if local_stamp(os.fstat(handle)) != index.stamp:
        raise OSError("has changed since it was indexed")


def said(error: OSError) -> str:
    """What went wrong with a shard; of pages that are not there, the system says "bad address"."""
    if error.errno == errno.EFAULT:
        return "has changed since it was indexed: it is shorter"
    return error.strerror or str(error)
