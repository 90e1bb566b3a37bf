"""Read the members of a tar with Python's `tarfile`, and tell every way in which the tar can be wrong.

By itself `tarfile` stops without a word at a damaged header, and at the first block of zeros. A shard that ends early
changes what is trained on, so the class of its headers is one that raises.
"""

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Literal, Self

BLOCK = 512
MEMBER_LIMIT = 256 * 2**20  # bytes; a larger member is no image, caption or record, and would not fit a worker's memory
# Headers that stand before another, whose name they may tell.
NAMING = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
NO_END = "ends without an end-of-archive mark: it was cut off"
_WITHOUT_DATA = set(tarfile.SUPPORTED_TYPES) - set(tarfile.REGULAR_TYPES) - set(NAMING)  # whatever size they claim
_NAME = 100  # bytes of a header that are the member's name
# Behind them stand mode, owner, group, SIZE, time, SUM, the type of a regular file, names, device, and no prefix.
_USUAL = re.compile(
    rb"(?:[0-7]{7}[ \0]){3}([0-7]{11})[ \0][0-7]{11}[ \0]([0-7]{6})\0 0.{172}(?:\0{16}|(?:[0-7]{7}[ \0]){2})\0",
    re.DOTALL,
)
_PASSED = 2**30  # bytes that are passed over at once
_TAIL = 2**16  # bytes of one look at what follows the end mark
# Tools fill the last record of a tar with zeros: 20 blocks nearly always, another power of two where told so.
_RECORD, _RECORDS = 20 * BLOCK, tuple(2**power for power in range(14, 21))
_FOREIGN = (
    (b"\x1f\x8b", "a gzip file: gunzip it"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: unzstd it"),
    (b"BZh", "a bzip2 file: bunzip2 it"),
    (b"\xfd7zXZ\0", "an xz file: unxz it"),
    (b"\x04\x22\x4d\x18", "an lz4 file: unlz4 it"),
    (b"PK\x03\x04", "a zip archive: unzip it and write its files as a tar, sorted by name"),
    (b"PAR1", "a parquet file: write its rows as a webdataset tar"),
    (b"version https://git-lfs", "a pointer of Git LFS: git lfs pull brings the file itself"),
    (b"<", "a page of HTML or XML, as a server answers with instead of a file: fetch it again"),
    (b"{", "JSON, as a server answers with instead of a file: fetch it again"),
)


def read_members(
    file: IO[bytes], wanted: Callable[[str], bool] = lambda name: True
) -> Iterator[tuple[str, bytes | None]]:
    """Yield (name, content) of each regular file of an uncompressed tar (ustar, GNU or pax), reading once.

    The content is None above MEMBER_LIMIT, or where the name is not `wanted`; it is passed over, which a file that can
    seek does without reading it.

    Raises:
        tarfile.TarError: damaged header, early end, a sparse member, no end-of-archive mark, or something behind it.
    """
    mode: Literal["r:", "r|"] = "r:" if file.seekable() else "r|"
    tar: Any
    with tarfile.open(fileobj=file, mode=mode, tarinfo=StrictTarInfo) as tar:
        stream = tar.fileobj
        while (member := tar.next()) is not None:
            tar.members.clear()  # which tarfile would keep to the end
            size, padding, data = member.size, -member.size % BLOCK, None
            if member.isreg() and wanted(member.name) and size <= MEMBER_LIMIT:
                data = stream.read(size)
                whole = len(data) == size and len(stream.read(padding)) == padding
            else:
                whole = _passed(stream, size + padding)
            if not whole:
                raise cut_off(member.name)
            if member.isreg():
                yield member.name, data


def _passed(stream: Any, count: int) -> bool:
    """Pass over so many bytes; whether they are there. What a damaged header claims may be more than a file system
    seeks to, or than a stream would ever come to the end of."""
    while count:
        step = min(count, _PASSED)
        stream.seek(stream.tell() + step - 1)  # which a stream does by reading
        if not stream.read(1):
            return False
        count -= step
    return True


class StrictTarInfo(tarfile.TarInfo):
    """A header of a tar. Where `tarfile` would end in silence, reading it raises `tarfile.ReadError`."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """The header in a block.

        Raises:
            tarfile.HeaderError: it is damaged, or the end mark.
            tarfile.ReadError: it tells a name of more than MEMBER_LIMIT, or the member is sparse.
        """
        if (usual := usual_header(buf)) is not None:
            member = cls(usual[0])
            member.size = usual[1]
            return member
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise tarfile.HeaderError("negative size")
        if member.type == tarfile.GNUTYPE_SPARSE:
            raise _sparse(member.name)
        if member.type in _WITHOUT_DATA:
            member.size = 0
        if member.type in NAMING and member.size > MEMBER_LIMIT:
            raise tarfile.ReadError(f"the header {member.name!r} claims {member.size:,} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        """The next member, which `tarfile` asks for, with the name that the headers before it tell.

        Raises:
            tarfile.EOFHeaderError: the tar ends here, as it should.
            tarfile.ReadError: anything else.
        """
        stream: Any = tar.fileobj
        start = at = tar.offset
        name, size_told = "", None
        while (member := cls._read(stream, at)).type in NAMING:
            data, size = stream.read(padded(member.size)), member.size
            if len(data) < padded(size):
                raise cut_off(name or member.name)
            at += BLOCK + len(data)
            name = long_name(member.type, data[:size]) or name
            size_told = long_size(member.type, data[:size], size_told)
        member.name = name or member.name
        member.size = sized(member.type, member.size, size_told)
        # What tarfile wants to know of a member: where it begins, and its data, and what follows it.
        member.offset, member.offset_data = start, at + BLOCK
        tar.offset = member.offset_data + padded(member.size)
        return member

    @classmethod
    def _read(cls, stream: Any, at: int) -> Self:
        header = stream.read(BLOCK)
        if not header:
            raise tarfile.ReadError(NO_END)
        try:
            return cls.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            check_tail(at, lambda _: stream.read(_TAIL))
            raise
        except tarfile.HeaderError as error:
            raise damaged(header, at, error) from None


def usual_header(block: bytes | bytearray) -> tuple[str, int] | None:
    """Name and size of a regular file that a header tells as most do; None where it has to be looked at more closely.

    It is `tarfile.TarInfo.frombuf` in a fifth of its time.
    """
    usual = _USUAL.match(block, _NAME) if len(block) == BLOCK else None
    if usual is None:
        return None
    size, told = int(usual[1], 8), int(usual[2], 8)
    if size > MEMBER_LIMIT or told != _sum(block) - sum(block[148:156]) + 8 * ord(" "):
        return None
    return block[:_NAME].partition(b"\0")[0].decode("utf-8", "surrogateescape"), size


def _sum(block: bytes | bytearray) -> int:
    """Of the bytes of a header. The low half of Adler-32 is 1 plus the sum of the bytes, modulo 65521, which 256 bytes
    cannot reach; Python's own sum takes ten times as long."""
    half = BLOCK // 2
    return (zlib.adler32(block[:half]) & 0xFFFF) + (zlib.adler32(block[half:]) & 0xFFFF) - 2


def cut_off(member: str) -> tarfile.ReadError:
    """Why there is less of a member than its header says."""
    return tarfile.ReadError(f"cut off within {member!r}")


def padded(size: int) -> int:
    """Bytes that a content of `size` bytes takes in a tar."""
    return size + -size % BLOCK


def damaged(header: bytes, at: int, error: tarfile.HeaderError) -> tarfile.ReadError:
    """Why `header`, which begins at byte `at`, is none; a file that is no tar at all is called what it is."""
    if not at:
        start = header.lstrip()  # of a page
        for magic, what in _FOREIGN:
            if start.startswith(magic) or header.startswith(magic):
                return tarfile.ReadError(f"no tar but {what}")
    return tarfile.ReadError(f"damaged tar header ({error})")


def check_tail(at: int, read: Callable[[int], bytes]) -> None:
    """Look at all that follows the first block of zeros of a tar: no more than zeros, as many as a tool puts there.

    Args:
        at: byte at which that block begins.
        read: gives some bytes from the given offset on, which rises from call to call; b"" at the end.

    Raises:
        tarfile.ReadError: there is more, or so much that what should stand there was never written.
    """
    zeros = BLOCK
    while zeros <= _RECORDS[-1] + 2 * BLOCK:
        data = read(at + zeros)
        if not data:
            break
        more = data.lstrip(b"\0")
        zeros += len(data) - len(more)
        if more:
            raise tarfile.ReadError(
                f"{zeros:,} zeros at byte {at:,} and more behind them: a hole, or an end-of-archive mark in front of a "
                "second tar, as cat joins them; fetch it again, or join its parts with tar --concatenate"
            )
    longest = max(_RECORD, *(record for record in _RECORDS if (at + zeros) % record == 0), 0) + 2 * BLOCK
    if zeros > longest:
        raise tarfile.ReadError(f"nothing but zeros from byte {at:,} on: its end was never written; fetch it again")


def long_name(kind: bytes, data: bytes) -> str:
    """The name of the next member that a header of one of the types in NAMING tells with its content, "" if none.

    Raises:
        tarfile.ReadError: a pax header that is damaged, or tells of a sparse member.
    """
    if kind == tarfile.GNUTYPE_LONGNAME:
        return data.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return _pax(data)[0] if kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE) else ""


def long_size(kind: bytes, data: bytes, before: int | None) -> int | None:
    """The size of the next member that a header of one of the types in NAMING tells with its content, as pax does of
    8 GiB and more; what an earlier one told where it tells none."""
    told = _pax(data)[1] if kind in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE) else None
    return before if told is None else told


def sized(kind: bytes, size: int, told: int | None) -> int:
    """The size of a member of this type: that in its own header, unless one before tells it."""
    return size if told is None or kind in _WITHOUT_DATA else told


def _pax(data: bytes) -> tuple[str, int | None]:
    """The records `path` and `size` of a pax extended header ("<length> path=<value>\\n"), "" and None where there is
    none.

    `tarfile` has a reader of its own, which before Python 3.11.10 leaves out what is damaged without a word.
    """
    path, size = "", None
    while data:
        length, _, _ = data.partition(b" ")
        whole = length.isdigit() and len(length) < 10 and len(length) < int(length) <= len(data)
        if not whole or data[int(length) - 1 : int(length)] != b"\n":
            raise tarfile.ReadError("damaged pax header")
        keyword, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if keyword.startswith(b"GNU.sparse."):
            raise _sparse(path)
        if keyword == b"path":
            path = value.decode("utf-8", "surrogateescape")
        if keyword == b"size":
            if not value.isdigit() or len(value) > 18:
                raise tarfile.ReadError("damaged pax header")
            size = int(value)
        data = data[int(length) :]
    return path, size


def _sparse(member: str) -> tarfile.ReadError:
    return tarfile.ReadError(f"member {member!r} is sparse: write the tar anew without --sparse")
