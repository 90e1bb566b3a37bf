"""Read webdataset shards: tar files whose consecutive members with one stem are one sample.

Python's `tarfile` stops without a word at a damaged header. Here every way in which a tar can be wrong is told,
because a shard that ends early changes what is trained on.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

from conf.uids import split_uid
from train.store import PIECE, RemoteFile, StoreError, Tally

BLOCK = 512
IMAGE_EXTENSIONS = ("jpg", "png", "webp", "jpeg")  # of which a sample may have one
MEMBER_LIMIT = 256 * 2**20  # bytes; a larger member is no image, caption or record, and would not fit a worker's memory


class Sample(NamedTuple):
    """One sample of a shard: `members` maps a lower-case extension ("jpg", "txt", "json") to the file's bytes."""

    key: str
    members: dict[str, bytes]

    def first_of(self, extensions: Sequence[str]) -> bytes | None:
        """The member with the first of `extensions` that the sample has, None where it has none of them."""
        return next((self.members[extension] for extension in extensions if extension in self.members), None)

    def picture(self) -> bytes:
        """The bytes of its picture, as they are.

        Raises:
            ValueError: there are none.
        """
        data = self.first_of(IMAGE_EXTENSIONS)
        if not data:
            raise ValueError("no image" if data is None else "empty image")
        return data

    def caption(self) -> str:
        """Its caption, as it is.

        Raises:
            ValueError: there is none, or it is not UTF-8.
        """
        if "txt" not in self.members:
            raise ValueError("no caption")
        try:
            caption = self.members["txt"].decode()
        except UnicodeDecodeError:
            raise ValueError("caption is not UTF-8") from None
        if not caption.strip():
            raise ValueError("empty caption")
        return caption

    def record(self) -> dict[str, Any]:
        """What its .json says; see `read_record`."""
        return read_record(self.members.get("json"))


class Problem(NamedTuple):
    """What is wrong with a sample of a shard, or with the shard itself where `key` is empty."""

    shard: str
    key: str
    reason: str


def read_record(data: bytes | None) -> dict[str, Any]:
    """The .json of a sample, None where it has none, as a dictionary with a good `uid`.

    Raises:
        ValueError: no .json, no JSON, or no uid in it.
    """
    if data is None:
        raise ValueError("no .json with a uid")
    try:
        record: dict[str, Any] = json.loads(data)
        uid = record["uid"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its .json holds no uid") from None
    split_uid(uid)
    return record


def read_shard(path: str, size: int = 0, tally: Tally | None = None) -> Iterator[Sample | Problem]:
    """Yield the samples of one shard in order, and a Problem for whatever cannot be read.

    After a Problem without a key (missing file, damaged header, early end) nothing more of the shard follows.

    Args:
        path: a local path, or any URL that fsspec knows (s3://, gs://, http://).
        size: bytes, as the listing of a store gave them; 0 where it gave none.
        tally: is kept up to date with what the reading takes.
    """
    tally = tally or Tally()
    try:
        with open_shard(path, size, tally) as file:
            yield from read_samples(file, path)
    except StoreError as error:
        tally.given_up += 1
        yield Problem(path, "", f"cannot be read {error}")
    except OSError as error:
        yield Problem(path, "", f"cannot be read: {error}")


def open_shard(path: str, size: int, tally: Tally) -> IO[bytes]:
    """Open a shard for reading from front to back; see `read_shard`."""
    if "://" not in path:
        return open(path, "rb", buffering=2**20)  # noqa: PTH123 (the caller closes it)
    return io.BufferedReader(RemoteFile(path, size, tally), PIECE)


def read_samples(file: IO[bytes], name: str) -> Iterator[Sample | Problem]:
    """Group the members of an open tar into samples; see `read_shard`. `name` is how Problems call the shard."""
    members: dict[str, bytes] = {}
    key = doubled = ""
    try:
        for member, data in read_members(file):
            stem, extension = split_name(member)
            if stem != key:
                if members:
                    yield Problem(name, key, f"two members .{doubled}") if doubled else Sample(key, members)
                key, members, doubled = stem, {}, ""
            if extension in members:
                doubled = extension
            members[extension] = data
    except tarfile.TarError as error:
        yield Problem(name, "", str(error))
        if doubled or not members:
            return
    if members:
        yield Problem(name, key, f"two members .{doubled}") if doubled else Sample(key, members)


def split_name(member: str) -> tuple[str, str]:
    """A member's stem (folders kept) and lower-case extension, parted at the first dot of its last component."""
    folder, slash, base = member.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def read_members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each regular file of an uncompressed tar (ustar, GNU or pax), reading once.

    Raises:
        tarfile.TarError: damaged header, early end, a member above MEMBER_LIMIT, or no end-of-archive mark.
    """
    long_name = ""
    while True:
        header = file.read(BLOCK)
        if not header:
            raise tarfile.ReadError("ends without an end-of-archive mark: it was cut off")
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            return
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"damaged tar header ({error})") from None
        if member.size > MEMBER_LIMIT:
            raise tarfile.ReadError(f"member {member.name!r} claims {member.size:,} bytes")
        data = file.read(member.size)
        padding = -member.size % BLOCK
        if len(data) < member.size or len(file.read(padding)) < padding:
            raise tarfile.ReadError(f"cut off within {long_name or member.name!r}")
        if member.type == tarfile.GNUTYPE_LONGNAME:
            long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif member.type == tarfile.XHDTYPE:
            long_name = pax_path(data) or long_name
        else:
            if member.isreg():
                yield long_name or member.name, data
            long_name = ""


def pax_path(data: bytes) -> str:
    """The `path` record of a pax extended header ("<length> path=<value>\\n"), "" where there is none."""
    while data:
        length, _, _ = data.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(data):
            raise tarfile.ReadError("damaged pax header")
        keyword, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if keyword == b"path":
            return value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return ""
