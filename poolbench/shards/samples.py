"""Read webdataset shards: tar files whose consecutive members with one stem are one sample.

Python's `tarfile` stops without a word at a damaged header, and at the first block of zeros. Here every way in which a
tar can be wrong is told, because a shard that ends early changes what is trained on.
"""

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from poolbench.remote import PIECE, RemoteFile, StoreError, Tally
from poolbench.uids import split_uid

BLOCK = 512
IMAGE_EXTENSIONS = ("jpg", "png", "webp", "jpeg")  # of which a sample may have one
CAPTION_LIMIT = 4096  # characters; no token has more than 32 bytes, so the 77 that a model reads lie well within
MEMBER_LIMIT = 256 * 2**20  # bytes; a larger member is no image, caption or record, and would not fit a worker's memory
APART = "its members are not adjacent"
_META = re.compile(r"__[^/]*__($|/)")  # what webdataset takes for notes on the shard
_SHOWN = 6  # extensions that a reason lists
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
            raise ValueError(f"no image: {held(self.members)}" if data is None else "empty image")
        return data

    def caption(self) -> str:
        """Its caption, as it is.

        Raises:
            ValueError: there is none, it is blank, or it is not UTF-8.
        """
        if "txt" not in self.members:
            raise ValueError(f"no caption: {held(self.members)}{_in_record(self.members.get('json'))}")
        try:
            caption = self.members["txt"].decode()
        except UnicodeDecodeError:
            raise ValueError("caption is not UTF-8") from None
        if not caption.strip().strip("\0"):  # zeros are what a hole in a file reads as
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


def kind_of(reason: str) -> str:
    """What is alike in the reasons of many Problems: without names, numbers and hints."""
    return re.sub(r"\d[\d,]*", "", re.split(r"[:(]| ['\"]", reason, maxsplit=1)[0]).strip()


class Reasons:
    """Counts Problems by kind, and keeps the first of each; can be sent to another process."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, Problem]] = {}

    def add(self, problem: Problem, times: int = 1) -> None:
        kind = kind_of(problem.reason)
        count, first = self._found.get(kind, (0, problem))
        self._found[kind] = count + times, first

    def update(self, other: "Reasons") -> None:
        """Take in those of another process."""
        for count, first in other._found.values():
            self.add(first, count)

    def __bool__(self) -> bool:
        return bool(self._found)

    def commonest(self) -> str:
        """The commonest reason with one shard and key, as the end of a sentence; "" where there is none."""
        if not self._found:
            return ""
        # Where members stand apart, their sample lacks something, too: the reason that says why is the better one.
        count, first = max(self._found.values(), key=lambda one: (one[0], one[1].reason.startswith(APART)))
        often = f"{sum(count for count, _ in self._found.values()):,}"
        where = f"{first.shard}, key {first.key}" if first.key else first.shard
        return f"; {where}: {first.reason} (the commonest reason, {count:,} of {often} times)"


def commonest(problems: Iterable[Problem]) -> str:
    """See `Reasons.commonest`."""
    reasons = Reasons()
    for problem in problems:
        reasons.add(problem)
    return reasons.commonest()


def told_once(problems: Sequence[Problem]) -> list[Problem]:
    """The Problems of a whole shard; of a sample whose members stand apart only the last, which says so."""
    apart = {problem.key: problem for problem in problems if problem.reason.startswith(APART)}
    return [problem for problem in problems if apart.get(problem.key, problem) is problem]


class Keys:
    """The keys of a shard so far, by which samples are found whose members stand apart."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[str, ...]] = {}
        self._kinds: dict[tuple[str, ...], tuple[str, ...]] = {}  # the few that there are, each held once

    def apart(self, key: str, extensions: Iterable[str]) -> str:
        """Why these members are no sample: others of the key came earlier, of other extensions; else ""."""
        here, before = tuple(extensions), self._seen.get(key)
        reason = ""
        if before is not None:
            if set(here).isdisjoint(before):
                reason = (
                    f"{APART}: .{here[0]} stands apart from .{before[0]}; a sample is read from front to back, so "
                    "write the tar anew, sorted by name (tar --sort=name)"
                )
            here = before + here
        self._seen[key] = self._kinds.setdefault(here, here)
        return reason


def held(members: Iterable[str]) -> str:
    """What a sample is made of, for a reason that says what it lacks."""
    names = sorted(members)
    shown = ", ".join(f".{name}" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    known = {*IMAGE_EXTENSIONS, "txt", "json", "cls"}
    dotted = any("." in name and name.rpartition(".")[2] in known for name in names)
    hint = "; a key ends at the first dot of its name, so write names with no other dot" if dotted else ""
    return f"its members are {shown}{more}{hint}"


def _in_record(data: bytes | None) -> str:
    """Where a .json seems to hold the caption."""
    with contextlib.suppress(ValueError, RecursionError):
        record = json.loads(data or b"")
        for name in ("caption", "text", "txt", "title", "alt"):
            if isinstance(record, dict) and isinstance(record.get(name), str):
                return f"; the {name!r} of its .json is not read: write it as a .txt of its own"
    return ""


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
    group, keys, foreign = _Group(""), Keys(), ""
    try:
        for member, data in read_members(file):
            stem, extension = split_name(member)
            if not extension:
                foreign = foreign or ("" if is_hidden(member) else member)
                continue
            if stem != group.key:
                if group.members:
                    yield group.sample(name, keys)
                group = _Group(stem)
            group.add(extension, data)
    except tarfile.TarError as error:
        yield Problem(name, "", str(error))
        if group.flaw or not group.members:
            return
    if group.members:
        yield group.sample(name, keys)
    elif foreign:
        yield Problem(name, "", f"no sample in it: {foreign!r} and the like have no extension, as .jpg and .txt are")


class _Group:
    """Consecutive members of one stem."""

    def __init__(self, key: str) -> None:
        self.key, self.flaw, self._size = key, "", 0
        self.members: dict[str, bytes] = {}

    def add(self, extension: str, data: bytes) -> None:
        if extension in self.members:
            self.flaw = f"two members .{extension}"
        self._size += len(data)
        if self._size > MEMBER_LIMIT:  # a whole shard of "photo.0001.jpg" would be one sample
            self.flaw, data = "more than 256 MiB in one sample", b""
        self.members[extension] = data

    def sample(self, shard: str, keys: Keys) -> Sample | Problem:
        """What the members are together."""
        if self.flaw:
            return Problem(shard, self.key, f"{self.flaw}: {held(self.members)}" if "MiB" in self.flaw else self.flaw)
        reason = keys.apart(self.key, self.members)
        return Problem(shard, self.key, reason) if reason else Sample(self.key, self.members)


def split_name(member: str) -> tuple[str, str]:
    """A member's stem (folders kept) and lower-case extension, parted at the first dot of its last component.

    The extension is "" where the member is no data, which webdataset passes over, too: it has no extension, it is
    hidden (`._x.jpg`, as macOS adds them), or a note on the shard (`__x__`).
    """
    folder, slash, base = member.rpartition("/")
    stem, _, extension = base.partition(".")
    if not stem or (member.startswith("__") and _META.match(member)):
        return "", ""
    return folder + slash + stem, extension.lower()


def is_hidden(member: str) -> bool:
    """Whether a member's name says by itself that it is no data."""
    return member.rpartition("/")[2].startswith(".") or _META.match(member) is not None


def read_members(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of each regular file of an uncompressed tar (ustar, GNU or pax), reading once.

    Raises:
        tarfile.TarError: damaged header, early end, a member above MEMBER_LIMIT, no end-of-archive mark, or something
            behind it.
    """
    long_name, at = "", 0
    while True:
        header = file.read(BLOCK)
        if not header:
            raise tarfile.ReadError("ends without an end-of-archive mark: it was cut off")
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            check_tail(at, lambda _: file.read(_TAIL))
            return
        except tarfile.HeaderError as error:
            raise damaged(header, at, error) from None
        if member.size > MEMBER_LIMIT:
            raise tarfile.ReadError(f"member {member.name!r} claims {member.size:,} bytes")
        data = file.read(member.size)
        padding = -member.size % BLOCK
        if len(data) < member.size or len(file.read(padding)) < padding:
            raise tarfile.ReadError(f"cut off within {long_name or member.name!r}")
        at += BLOCK + member.size + padding
        if member.type == tarfile.GNUTYPE_LONGNAME:
            long_name = data.rstrip(b"\0").decode("utf-8", "surrogateescape")
        elif member.type == tarfile.XHDTYPE:
            long_name = pax_path(data) or long_name
        else:
            if member.isreg():
                yield long_name or member.name, data
            long_name = ""


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


def shortened(caption: str) -> str:
    """What a model may read of a caption; the tokenizer takes minutes for a word of a million letters."""
    if len(caption) <= CAPTION_LIMIT:
        return caption
    return re.sub(r"[ \t\r\n]+", " ", caption.strip())[:CAPTION_LIMIT]
