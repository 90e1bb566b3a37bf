"""Uids of samples, and subset files: those that a filter chose, as training, resharding and validating read them.

A uid is 128 bits, written as 32 hex digits and held as its two halves. A subset file is a `.npy` array of such pairs,
sorted; a uid that stands m times counts m times.
"""

import binascii
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from conf.errors import UserError
from conf.files import atomic

DTYPE = np.dtype("u8,u8")
Uids = npt.NDArray[Any]  # [n] of DTYPE

_UID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
_ROWS = 2**20  # uids that are in memory at a time


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
        ValueError, TypeError: one is not 32 hex digits.
    """
    if set(map(len, texts)) - {32}:
        raise ValueError("a uid of another length")
    return from_digits("".join(texts))


def mapped(path: Path | str) -> Uids:
    """A subset file, memory-mapped: 1.4 billion uids cost no memory.

    Raises:
        UserError: it is missing, empty or of another dtype.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if array.dtype != DTYPE or array.ndim != 1:
        raise UserError(f"{path} holds {array.dtype} {list(array.shape)}, not a list of u8,u8 uids")
    if not len(array):
        raise UserError(f"{path} is empty")
    uids: Uids = array
    return uids


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
