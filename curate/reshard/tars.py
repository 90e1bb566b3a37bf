"""Find the samples of a tar without reading their pictures, and write their members under new names.

What counts as a sample, and as damage, is what poolbench.shards says; there every byte is read, here the
headers, the captions and the .json members. Headers are written anew, the same for the same name and size whatever
tool made the pool.
"""

import os
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, Protocol

from poolbench.shards.members import (
    BLOCK,
    MEMBER_LIMIT,
    NAMING,
    NO_END,
    StrictTarInfo,
    check_tail,
    cut_off,
    damaged,
    long_name,
    long_size,
    padded,
    sized,
    usual_header,
)
from poolbench.shards.samples import TOO_LARGE, Keys, Problem, Sample, held, split_name
from poolbench.uids import split_uid

END = bytes(2 * BLOCK)  # of a tar
NAME_LIMIT = 100  # bytes; a longer name takes a second header
AHEAD = 4 * 2**20  # bytes that the disk is asked for beforehand
WINDOW = 16 * 1024  # bytes; a caption, a .json and the next sample's first header come with one read
_READ = ("json", "txt")  # extensions of which the content is looked at
_REGULAR = tarfile.REGULAR_TYPES
BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
BLANK_SUM = int(BLANK[148:154], 8) - 11 * ord("0")  # without the digits of its size


class Stored(NamedTuple):
    """A sample in a tar.

    Attributes:
        offset: byte of its first header.
        span: bytes from there to its end.
        size: bytes that it takes with new headers.
        members: extension and bytes of each.
    """

    key: str
    uid: tuple[int, int]
    offset: int
    span: int
    size: int
    members: tuple[tuple[str, int], ...]


class Member(NamedTuple):
    """A regular file of a tar: `start` is the byte of its first header, `data` of its content; `content` is that of a
    .json or .txt, None for others."""

    stem: str
    extension: str
    start: int
    data: int
    size: int
    content: bytes | None

    @property
    def end(self) -> int:
        return self.data + padded(self.size)


class Tar(Protocol):
    """What `members` reads from, at rising offsets."""

    def at(self, offset: int, count: int) -> bytes:
        """So many bytes, fewer at the end."""

    def reaches(self, offset: int) -> bool:
        """Whether there are so many bytes."""


class OpenTar:
    """A local tar, of which only what is asked for is read."""

    def __init__(self, handle: int) -> None:
        self._handle, self._size = handle, os.fstat(handle).st_size
        self._start, self._held, self._expected = 0, b"", 0

    def at(self, offset: int, count: int) -> bytes:
        while self._expected < min(offset + AHEAD, self._size):
            expect(self._handle, self._expected, AHEAD)
            self._expected += AHEAD
        place = offset - self._start
        if not 0 <= place <= len(self._held) - count:
            self._start, self._held, place = offset, os.pread(self._handle, max(count, WINDOW), offset), 0
        return self._held[place : place + count]

    def reaches(self, offset: int) -> bool:
        return offset <= self._size


class TarStream:
    """A tar in a store, read from front to back: a request for each sample would take longer."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at = file, 0

    def at(self, offset: int, count: int) -> bytes:
        if not self.reaches(offset):
            return b""
        data = self._file.read(count)
        self._at += len(data)
        return data

    def reaches(self, offset: int) -> bool:
        while self._at < offset:
            passed = len(self._file.read(min(offset - self._at, 2**20)))
            if not passed:
                return False
            self._at += passed
        return True


class HeldTar:
    """A part of a tar in memory."""

    def __init__(self, blocks: memoryview) -> None:
        self._blocks = blocks

    def at(self, offset: int, count: int) -> bytes:
        return bytes(self._blocks[offset : offset + count])

    def reaches(self, offset: int) -> bool:
        return offset <= len(self._blocks)


class BetweenError(tarfile.ReadError):
    """What is wrong stands between two members: the tar ends without its mark, or there is more behind it."""


def scan(tar: Tar, shard: str) -> Iterator[Stored | Problem]:
    """The samples of a tar in order, and a Problem for each that cannot be used or for what is damaged.

    The sample that the damage cuts into is left out.
    """
    group: list[Member] = []
    keys = Keys()
    try:
        for member in members(tar):
            if group and member.stem != group[0].stem:
                yield _sample(shard, group, keys)
                group = []
            group.append(member)
    except tarfile.TarError as error:
        yield Problem(shard, "", str(error))
        if not isinstance(error, BetweenError):
            return
    if group:
        yield _sample(shard, group, keys)


def _sample(shard: str, group: Sequence[Member], keys: Keys) -> Stored | Problem:
    first, last = group[0], group[-1]
    try:
        uid = split_uid(_uid(group, keys))
    except ValueError as error:
        return Problem(shard, first.stem, str(error))
    size = sum(BLOCK + padded(member.size) for member in group)
    held_ = tuple((member.extension, member.size) for member in group)
    return Stored(first.stem, uid, first.start, last.end - first.start, size, held_)


def _uid(group: Sequence[Member], keys: Keys) -> str:
    extensions = [member.extension for member in group]
    if sum(member.size for member in group) > MEMBER_LIMIT:
        raise ValueError(f"{TOO_LARGE}: {held(set(extensions))}")
    for place, extension in enumerate(extensions):
        if extension in extensions[:place]:
            raise ValueError(f"two members .{extension}")
        if len(extension.encode(errors="surrogateescape")) > NAME_LIMIT // 2:  # the rest is for uid and repeat
            raise ValueError(f"the extension .{extension[:20]}... is too long")
    if apart := keys.apart(group[0].stem, extensions):
        raise ValueError(apart)
    # A picture is not read; whether it is there is seen from its size.
    contents = {one.extension: one.content if one.content is not None else b"."[: one.size] for one in group}
    sample = Sample(group[0].stem, contents)
    uid = str(sample.record()["uid"])
    sample.picture()
    sample.caption()
    return uid


def members(tar: Tar, stop: int = -1) -> Iterator[Member]:
    """The regular files of a tar (ustar, GNU or pax) that are data, up to its end mark, or to byte `stop`.

    Raises:
        tarfile.TarError: damaged header, early end, a sparse member, or something behind the end mark.
    """
    at, start, told, told_size = 0, 0, "", None
    while at != stop:
        header = tar.at(at, BLOCK)
        if not header:
            raise BetweenError(NO_END)
        try:
            name, size, kind = _parse(header)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            _check_tail(tar, at)
            return
        except tarfile.HeaderError as error:
            raise damaged(header, at, error) from None
        size = sized(kind, size, None if kind in NAMING else told_size)
        data, at = at + BLOCK, at + BLOCK + padded(size)
        stem, extension = split_name(told or name)
        wanted = extension in _READ or kind not in _REGULAR
        content = tar.at(data, size) if wanted and size <= MEMBER_LIMIT else None
        if not tar.reaches(at):
            raise cut_off(told or name)
        if kind in _REGULAR and extension:
            yield Member(stem, extension, start, data, size, content)
        if kind in NAMING:
            told = long_name(kind, content or b"") or told
            told_size = long_size(kind, content or b"", told_size)
        else:
            start, told, told_size = at, "", None


def _check_tail(tar: Tar, at: int) -> None:
    try:
        check_tail(at, lambda offset: tar.at(offset, WINDOW))
    except tarfile.ReadError as error:
        raise BetweenError(str(error)) from None


def rename(blocks: memoryview, key: str) -> None:
    """Make the members of a sample those of the stem `key`, where they are; each has a header of one block.

    Raises:
        tarfile.TarError: the blocks are something else.
    """
    at = 0
    while at < len(blocks):
        name, size, kind = _parse(bytes(blocks[at : at + BLOCK]))
        data = at + BLOCK
        if kind not in _REGULAR or data + padded(size) > len(blocks):
            raise tarfile.ReadError(f"{name!r} does not fit in")
        blocks[at:data] = header(f"{key}.{split_name(name)[1]}", size)
        at = data + padded(size)


def renamed(blocks: memoryview, key: str) -> Iterator[bytes | memoryview]:
    """The pieces of a sample, of which `blocks` has its span of the tar, as members of the stem `key`."""
    for member in members(HeldTar(blocks), len(blocks)):
        yield header(f"{key}.{member.extension}", member.size)
        yield blocks[member.data : member.end]


def header(name: str, size: int) -> bytes:
    """The header of a regular file, as `tarfile.TarInfo.tobuf` makes it in a tenth of the time."""
    path, digits = name.encode("utf-8", "surrogateescape"), b"%011o" % size
    assert len(path) <= NAME_LIMIT
    block = bytearray(BLANK)
    block[: len(path)] = path
    block[124:135] = digits
    block[148:154] = b"%06o" % (BLANK_SUM + sum(path) + sum(digits))
    return bytes(block)


def expect(handle: int, offset: int, length: int) -> None:
    """Tell the system what will be read: a disk that is asked for one sample after the other mostly waits."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, offset, length, os.POSIX_FADV_WILLNEED)


def _parse(block: bytes) -> tuple[str, int, bytes]:
    """Name, size and type of a header.

    Raises:
        tarfile.HeaderError: it is damaged, or the end mark.
        tarfile.ReadError: it tells a name of more than MEMBER_LIMIT, or the member is sparse.
    """
    if (usual := usual_header(block)) is not None:
        return *usual, tarfile.REGTYPE
    member = StrictTarInfo.frombuf(block, "utf-8", "surrogateescape")
    return member.name, member.size, member.type
