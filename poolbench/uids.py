"""Uids of samples, and subset files: those that a filter chose, as training, resharding and validating read them.

A uid is 128 bits, written as 32 hex digits and held as its two halves. A subset file is a `.npy` array of such pairs,
sorted; a uid that stands m times counts m times.
"""

import binascii
import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from poolbench.errors import UserError
from poolbench.files import atomic

DTYPE = np.dtype("u8,u8")
Uids = npt.NDArray[Any]  # [n] of DTYPE

_UID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_ROWS = 2**20  # uids that are in memory at a time
_START = 256  # bytes by which a file is told that is no .npy
_FOREIGN = (
    (b"PK", "an archive of arrays (.npz)"),
    (b"PAR1", "a parquet file"),
    (b"\x80", "a pickle"),
    (b"\x1f\x8b", "a gzip file"),
    (b"\x89HDF", "an HDF5 file"),
)
_HOW = (
    "a subset is a .npy of sorted u8,u8 pairs, which poolbench.uids.write_subset('mine.npy', uids) makes from hex uids"
)


class Piece(NamedTuple):
    """Consecutive uids of a file: the row of the first, the uids, and which of them differ from the one before."""

    start: int
    uids: Uids
    new: npt.NDArray[np.bool_]


def is_uid(value: Any) -> bool:
    """Whether this is the text of a uid."""
    return isinstance(value, str) and _UID.fullmatch(value) is not None


def split_uid(uid: str) -> tuple[int, int]:
    """The two 64-bit halves of a uid.

    Raises:
        ValueError: `uid` is not 32 hex digits.
    """
    if not is_uid(uid):
        raise ValueError(f"uid {uid!r} is not 32 hex digits")
    return int(uid[:16], 16), int(uid[16:], 16)


def uid_of(picture: bytes, caption: str) -> str:
    """The uid of a sample that is made here: 128 bits of the SHA-256 of its picture's file and its caption."""
    return hashlib.sha256(picture + caption.encode()).hexdigest()[:32]


def uid_text(pair: Any) -> str:
    """The 32 hex digits of an element of Uids."""
    high, low = pair
    return f"{int(high):016x}{int(low):016x}"


def from_digits(digits: str | bytes | memoryview) -> Uids:
    """The uids of hex digits, 32 each, one behind the other.

    Raises:
        ValueError: other characters, or another number of them.
    """
    return np.frombuffer(binascii.unhexlify(digits), ">u8").astype("u8").view(DTYPE)


def from_texts(texts: Sequence[str]) -> Uids:
    """Hex uids as pairs, a hundred times faster than one at a time.

    Raises:
        ValueError: one is not 32 hex digits.
    """
    with contextlib.suppress(ValueError, TypeError):
        if not set(map(len, texts)) - {32}:
            return from_digits("".join(texts))
    wrong = [text for text in texts if not is_uid(text)]
    raise ValueError(malformed(len(wrong), repr(wrong[0])))


def malformed(count: int, first: str) -> str:
    """What to say of so many uids that are none, of which `first` shows the first one."""
    return (
        f"{count:,} uids are not 32 hex digits, the first is {first}; of a UUID these are its .hex, without dashes, of "
        "a number f'{number:032x}'"
    )


def mapped(path: Path | str, empty: bool = False) -> Uids:
    """A subset file, memory-mapped: 1.4 billion uids cost no memory.

    Args:
        empty: whether it may hold none, as one that is taken away from something may: nothing is chosen by it.

    Raises:
        UserError: it is missing, empty or of another dtype.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(_START)
        if not start.startswith(np.lib.format.MAGIC_PREFIX):
            raise UserError(f"{path} is {_foreign(start)}; {_HOW}")
        if b"'|O'" in start:
            raise UserError(f"{path} holds Python objects, not a list of u8,u8 uids; {_HOW}")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except UserError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if array.dtype != DTYPE or array.ndim != 1:
        how = _HOW
        if array.dtype == np.uint64 and array.ndim == 2 and array.shape[1] == 2:
            how = "np.sort(np.ascontiguousarray(array).view('u8,u8').ravel()) is one of its rows"
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}, not a list of u8,u8 uids; {how}")
    if not len(array) and not empty:
        raise UserError(f"{path} is empty")
    uids: Uids = array
    return uids


def _foreign(start: bytes) -> str:
    """What a file is that begins so and is no .npy."""
    for magic, what in _FOREIGN:
        if start.startswith(magic):
            return what
    if not start:
        return "an empty file"
    try:
        text = start.decode(errors="strict") if len(start) < _START else start[:-4].decode()
    except UnicodeDecodeError:
        return "no .npy"
    if "\0" in text:
        return "no .npy"
    return f"{'JSON' if text.lstrip().startswith(('[', '{')) else 'text'}, which begins {text.splitlines()[0][:40]!r}"


def unsorted_row(uids: Uids) -> int | None:
    """The first row that is smaller than the one before, None where there is none: reads the whole file once."""
    for start in range(0, len(uids), _ROWS):
        part = uids[start : start + _ROWS + 1]
        wrong = _below(part[1:], part[:-1])
        if wrong.any():
            return start + int(wrong.argmax()) + 1
    return None


def pieces(uids: Uids) -> Iterator[Piece]:
    """Sorted uids, some at a time, of which no more than those are read."""
    for start in range(0, len(uids), _ROWS):
        part = np.asarray(uids[start : start + _ROWS])
        new = np.ones(len(part), np.bool_)
        new[1:] = part[1:] != part[:-1]
        new[0] = start == 0 or part[0] != uids[start - 1]
        yield Piece(start, part, new)


def find(uids: Uids, wanted: Uids) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """In the sorted `uids` the first row of each of `wanted`, and how often it stands there; int64 [n] both."""
    first = search(uids, wanted)
    return first, search(uids, wanted, after=True) - first


def search(uids: Uids, wanted: Uids, after: bool = False) -> npt.NDArray[np.int64]:
    """Where in the sorted `uids` each of `wanted` would be put in, before its equals or after them, int64 [n].

    A binary search by hand: np.searchsorted would copy the memory-mapped file, and compares pairs slowly.
    """
    low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(uids), np.int64)
    for _ in range(len(uids).bit_length()):
        middle = (low + high) // 2
        there = uids[np.minimum(middle, len(uids) - 1)]
        further = (low < high) & (~_below(wanted, there) if after else _below(there, wanted))
        low, high = np.where(further, middle + 1, low), np.where(further, high, middle)
    return low


def write_header(file: IO[bytes], count: int) -> None:
    """Begin a subset file of `count` uids, whose bytes are to follow."""
    header = {"descr": np.lib.format.dtype_to_descr(DTYPE), "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)


def write_subset(path: Path | str, uids: Sequence[str]) -> None:
    """Write hex uids as a subset file, sorted, repeats kept."""
    array = np.array([split_uid(uid) for uid in uids], dtype=DTYPE)
    array.sort()
    with atomic(path, "wb") as file:
        np.save(file, array)


def _below(ones: Uids, others: Uids) -> npt.NDArray[np.bool_]:
    below: npt.NDArray[np.bool_] = (ones["f0"] < others["f0"]) | (
        (ones["f0"] == others["f0"]) & (ones["f1"] < others["f1"])
    )
    return below
