"""Read webdataset shards: tar files whose consecutive members with one stem are one sample.

webdataset's `group_by_keys` makes the groups. What it would raise, or pass over without a word, is told as a Problem.
"""

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any, NamedTuple

from poolbench.remote import PIECE, RemoteFile, StoreError, Tally
from poolbench.shards.members import MEMBER_LIMIT, read_members
from poolbench.uids import split_uid

IMAGE_EXTENSIONS = ("jpg", "png", "webp", "jpeg")  # of which a sample may have one
CAPTION_LIMIT = 4096  # characters; no token has more than 32 bytes, so the 77 that a model reads lie well within
TOO_LARGE = "more than 256 MiB in one sample"
APART = "its members are not adjacent"
_META = re.compile(r"__[^/]*__($|/)")  # what webdataset takes for notes on the shard
_SHOWN = 6  # extensions that a reason lists


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

    def pair(self) -> tuple[bytes | None, bytes | None]:
        """Both pictures of a sample that has two, `0.<extension>` and `1.<extension>`; None where one is missing."""
        first, second = (self.first_of([f"{place}.{one}" for one in IMAGE_EXTENSIONS]) for place in range(2))
        return first, second

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
    from webdataset.tariterators import group_by_keys  # which brings torch along: listing shards needs neither

    feed, keys, key = _Feed(file, name), Keys(), None
    for group in group_by_keys(feed, keys=feed.parted, handler=feed.met_twice):
        if feed.damage:  # nothing comes behind this group, which may have lost members
            yield Problem(name, "", feed.damage)
            if feed.flaw:
                return
        key = group["__key__"]
        members = {suffix[1:]: data for suffix, data in group.items() if suffix[0] == "."}
        flaw = f"{TOO_LARGE}: {held(members)}" if feed.flaw == TOO_LARGE else feed.flaw
        reason = flaw or keys.apart(key, members)
        yield Problem(name, key, reason) if reason else Sample(key, members)
    if key is None and feed.damage:
        yield Problem(name, "", feed.damage)
    elif key is None and feed.foreign:
        yield Problem(
            name, "", f"no sample in it: {feed.foreign!r} and the like have no extension, as .jpg and .txt are"
        )


class _Feed:
    """The members of one shard as webdataset's `group_by_keys` takes them, and what it has no words for.

    Attributes:
        damage: why nothing more follows; "" where the tar comes to its end.
        flaw: what is wrong with the group that was handed out last, "" where nothing is.
        foreign: a member without an extension.
    """

    def __init__(self, file: IO[bytes], shard: str) -> None:
        self.damage = self.flaw = self.foreign = ""
        self._file, self._shard = file, shard
        self._parts = ("", "")  # of the name of the member that was looked at last
        self._stem = self._extension = self._flaw = ""  # of the group that is being made
        self._size = 0

    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            for member, data in read_members(self._file, self._is_data):
                stem, self._extension = self._parts
                if not self._extension:
                    self.foreign = self.foreign or ("" if is_hidden(member) else member)
                    continue
                if stem != self._stem:
                    self.flaw, self._flaw, self._stem, self._size = self._flaw, "", stem, 0
                self._size += len(data) if data is not None else MEMBER_LIMIT + 1
                if data is None or self._size > MEMBER_LIMIT:  # a whole shard of "photo.0001.jpg" would be one sample
                    self._flaw, data = TOO_LARGE, b""
                yield {"fname": member, "data": data, "__url__": self._shard}
        except tarfile.TarError as error:
            self.damage = str(error)
        self.flaw = self._flaw

    def _is_data(self, member: str) -> bool:
        """Whether the content of the member that comes next is wanted: none of a note, nor of a sample that is too
        large already."""
        self._parts = split_name(member)
        stem, extension = self._parts
        return bool(extension) and (stem != self._stem or self._size <= MEMBER_LIMIT)

    def parted(self, _: str) -> tuple[str, str]:
        """Stem and extension of the member that was handed out last, behind a dot: webdataset keeps notes of its own
        in a group (`__key__`, `__bad__`), and an extension may be called so, too."""
        return self._stem, f".{self._extension}"

    def met_twice(self, error: Exception) -> bool:
        """What `group_by_keys` calls for a member that the group has; it goes on with the next."""
        if not isinstance(error, ValueError):
            raise error
        self._flaw = self._flaw or f"two members .{self._extension}"
        return True


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


def shortened(caption: str) -> str:
    """What a model may read of a caption; the tokenizer takes minutes for a word of a million letters."""
    if len(caption) <= CAPTION_LIMIT:
        return caption
    return re.sub(r"[ \t\r\n]+", " ", caption.strip())[:CAPTION_LIMIT]
