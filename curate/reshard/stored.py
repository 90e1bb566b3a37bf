"""The index of a shard: what samples it holds and where, whatever is chosen of them; and the file that keeps it."""

import contextlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError
from poolbench.files import atomic, digest_json
from poolbench.uids import DTYPE

# A sample: `offset` is the byte of its first header, `span` the bytes from there to its end, `size` those that it takes
# with new headers, `layout` the number of its layout from 1, 0 where it has to be looked at again.
SAMPLE = np.dtype([("uid", DTYPE), ("offset", "u8"), ("span", "u8"), ("size", "u8"), ("layout", "u4")])
_SIZE = np.dtype("u4")
_FORMAT = 1
_ALIGNED = 64
_START = b'{"format":'


class Contents(NamedTuple):
    """What a shard holds.

    Attributes:
        samples: [n] of SAMPLE, in the order of the shard.
        sizes: u4, bytes of the members of the samples that have a layout, one after the other.
        layouts: the extensions of the members of a sample, of each kind of sample whose members stand one behind the
            other with a header of one block each.
        problems: (key, reason) of what cannot be used; see poolbench.shards.samples.Problem.
    """

    samples: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]
    layouts: list[tuple[str, ...]]
    problems: list[tuple[str, str]]

    def members(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Of each sample, the first place in `sizes` and how many there are; int64 [n] both."""
        counts = np.array([0, *map(len, self.layouts)])[self.samples["layout"]]
        return np.cumsum(counts) - counts, counts


class Index(NamedTuple):
    """The contents of a shard as it was when `stamp` was what its file system or store says of it."""

    stamp: list[Any]
    contents: Contents

    def identity(self) -> int:
        """64 bits that tell whether it is the same index of the same shard."""
        contents = self.contents
        sums = [zlib.crc32(contents.samples.tobytes()), zlib.crc32(contents.sizes.tobytes())]
        return int(digest_json([self.stamp, contents.layouts, contents.problems, *sums])[:16], 16)


def sample_array(uids: Any, offsets: Any, spans: Any, sizes: Any, layouts: Any) -> np.ndarray[Any, Any]:
    """Columns as an array of SAMPLE."""
    made = np.zeros(len(uids), SAMPLE)
    made["uid"] = uids
    for name, column in (("offset", offsets), ("span", spans), ("size", sizes), ("layout", layouts)):
        made[name] = column
    return made


def local_stamp(status: os.stat_result) -> list[Any]:
    """By which a local shard is told from what it was before."""
    return [status.st_size, status.st_mtime_ns]


def index_paths(path: str, folder: Path) -> list[Path]:
    """Where the index of a shard may lie: beside it, as `<shard>.idx`, or in the folder; where a new one goes is last.

    In a folder that the shard itself lies in, both are one.
    """
    whole = path if "://" in path else str(Path(path).absolute())
    kept = folder / f"{Path(path).stem}-{digest_json(whole)[:16]}.idx"
    if "://" in path:
        return [kept]
    beside = Path(path).with_suffix(".idx")
    return [beside] if beside.parent.resolve() == folder.resolve() else [beside, kept]


def write_index(path: Path, index: Index) -> None:
    """Keep an index. It carries its own checksum: what a crash left of one is not taken for one, so that nobody waits
    for the disk.

    Raises:
        UserError: a file of that name is something else, which is not for us to replace.
    """
    if _is_foreign(path):
        raise UserError(f"{path} is no index of a shard, and is not replaced; choose another folder by index=")
    contents = index.contents
    data = [contents.samples.tobytes(), contents.sizes.tobytes()]
    told = {
        "format": _FORMAT,
        "stamp": index.stamp,
        "samples": len(contents.samples),
        "members": len(contents.sizes),
        "layouts": contents.layouts,
        "problems": [[_text(word) for word in problem] for problem in contents.problems],
        "crc": zlib.crc32(b"".join(data)),
    }
    head = json.dumps(told, separators=(",", ":")).encode()
    with atomic(path, "wb", durable=False) as file:
        file.write(head + b" " * (-(len(head) + 1) % _ALIGNED) + b"\n")
        for part in data:
            file.write(part)


def _is_foreign(path: Path) -> bool:
    """Whether there is something that neither is an index nor what a crash left of one."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_START))
    except FileNotFoundError:
        return False
    return not _START.startswith(start.rstrip(b"\0"))


def read_index(path: Path) -> Index | None:
    """An index that is there and whole, else None."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        data = path.read_bytes()
        told = json.loads(data[: data.index(b"\n")])
        start = data.index(b"\n") + 1
        if told["format"] != _FORMAT or told["crc"] != zlib.crc32(memoryview(data)[start:]):
            return None
        samples = np.frombuffer(data, SAMPLE, told["samples"], start)
        sizes = np.frombuffer(data, _SIZE, told["members"], start + samples.nbytes)
        layouts = [tuple(layout) for layout in told["layouts"]]
        return Index(told["stamp"], Contents(samples, sizes, layouts, [(key, why) for key, why in told["problems"]]))
    return None


def found_index(paths: Sequence[Path], stamp: list[Any]) -> Index | None:
    """The first index that is of the shard as it is now."""
    for path in paths:
        index = read_index(path)
        if index is not None and index.stamp == stamp:
            return index
    return None


def _text(word: str) -> str:
    """Names that are not UTF-8 with JSON's escapes, which is how lines of results have them."""
    return word.encode(errors="backslashreplace").decode()
