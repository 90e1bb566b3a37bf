"""Find the samples of a local tar in which nothing is unusual, several times as fast as tars.scan, which judges all
others.

Headers are looked at as little as it takes to get to the next one; that they are what they should be is seen from many
together.
"""

import json
import os
import tarfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from poolbench.shards.members import BLOCK, MEMBER_LIMIT, check_tail
from poolbench.shards.samples import IMAGE_EXTENSIONS
from poolbench.uids import from_texts

from curate.reshard.stored import Contents, sample_array
from curate.reshard.tars import AHEAD, NAME_LIMIT, WINDOW, expect

_MANY = 1024  # headers that are checked together
_SUM = slice(148, 156)
_KIND = 156
# What members.usual_header asks for, by columns: octal digits, and a space or zero behind them.
_NUMBERS = ((100, 7), (108, 7), (116, 7), (124, 11), (136, 11))
_DEVICES = ((329, 7), (337, 7))
_PREFIX = 345


def quick(handle: int) -> Contents | None:
    """What an open tar holds; None where anything is unusual or wrong.

    Each member then has a header of one block and a good name, a sample stands in one piece and has one picture, a
    caption and a uid, and no two samples have one key.
    """
    try:
        return _Walk(handle).done()
    except (ValueError, KeyError, TypeError, RecursionError, tarfile.TarError):
        return None


class _UnusualError(ValueError):
    pass


class _Walk:
    """From header to header of a tar; whatever it raises says that the tar is not usual."""

    def __init__(self, handle: int) -> None:
        self._handle, self._size = handle, os.fstat(handle).st_size
        self._start, self._held, self._expected = 0, b"", 0
        self._kinds: dict[bytes, str] = {}  # extension as it is written -> as it is copied
        self._layouts: dict[tuple[bytes, ...], int] = {}
        self._layout_of: dict[tuple[str, ...], int] = {}
        self._keys: set[bytes] = set()
        self._uids: list[str] = []
        self._offsets: list[int] = []
        self._numbers: list[int] = []
        self._sizes: list[int] = []

    def done(self) -> Contents:
        blocks: list[bytes] = []
        extensions: list[bytes] = []
        texts: dict[bytes, bytes] = {}
        key, at, first = b"/", 0, 0  # of no member
        sizes = self._sizes
        while True:
            place = at - self._start
            if place < 0 or place + BLOCK > len(self._held):
                self._read(at, BLOCK)
                place = 0
            block = self._held[place : place + BLOCK]
            if not block[0]:
                break
            name, size = block[: block.index(0)], int(block[124:135], 8)
            if size > MEMBER_LIMIT:  # of a damaged header, perhaps
                raise _UnusualError
            dot = name.find(b".", name.rfind(b"/") + 1) + 1
            stem, extension = name[:dot], name[dot:]  # the dot belongs to the first
            if stem != key:
                if not stem:
                    raise _UnusualError
                if extensions:
                    self._take_in(key, first, extensions, texts)
                key, first, extensions, texts = stem, at, [], {}
            extensions.append(extension)
            sizes.append(size)
            if extension == b"txt" or extension == b"json":
                texts[extension] = self._at(at + BLOCK, size)
            at += BLOCK + size + -size % BLOCK
            blocks.append(block)
            if len(blocks) == _MANY:
                check_headers(blocks)
                blocks = []
        self._take_in(key, first, extensions, texts)
        check_headers(blocks)
        if any(block):
            raise _UnusualError
        check_tail(at, lambda offset: os.pread(self._handle, WINDOW, offset))
        return self._contents()

    def _at(self, offset: int, count: int) -> bytes:
        place = offset - self._start
        if place + count > len(self._held):
            self._read(offset, count)
            place = 0
        return self._held[place : place + count]

    def _read(self, offset: int, count: int) -> None:
        """Hold what begins there, so many bytes at least."""
        while self._expected < min(offset + AHEAD, self._size):
            expect(self._handle, self._expected, AHEAD)
            self._expected += AHEAD
        self._start, self._held = offset, os.pread(self._handle, max(count, WINDOW), offset)
        if len(self._held) < count:
            raise _UnusualError

    def _take_in(self, key: bytes, first: int, extensions: Sequence[bytes], texts: dict[bytes, bytes]) -> None:
        """Note a sample, which is whole."""
        # No key has a hidden name or is that of a note; see samples.split_name.
        if key in self._keys or len(key) < 2 or key.endswith(b"/.") or key.startswith(b"__"):
            raise _UnusualError
        self._keys.add(key)
        layout = tuple(extensions)
        number = self._layouts.get(layout)
        if number is None:
            number = self._layouts[layout] = self._new_layout(layout)
        if not texts[b"txt"].decode().strip().strip("\0"):
            raise _UnusualError
        self._uids.append(json.loads(texts[b"json"].decode())["uid"])
        self._offsets.append(first)
        self._numbers.append(number)

    def _new_layout(self, layout: tuple[bytes, ...]) -> int:
        kinds = tuple(one.decode("ascii").lower() for one in layout)
        pictures = sum(one in IMAGE_EXTENSIONS for one in kinds)
        if "" in kinds or pictures != 1 or len(set(kinds)) < len(kinds) or max(map(len, kinds)) > NAME_LIMIT // 2:
            raise _UnusualError
        if kinds.count("txt") != 1 or kinds.count("json") != 1:
            raise _UnusualError
        return self._layout_of.setdefault(kinds, len(self._layout_of) + 1)

    def _contents(self) -> Contents:
        layouts = list(self._layout_of)
        numbers, sizes = np.array(self._numbers), np.array(self._sizes, np.int64)
        counts = np.array([0, *map(len, layouts)])[numbers]
        firsts = np.cumsum(counts) - counts
        pictures = np.array(
            [0, *(next(i for i, one in enumerate(kinds) if one in IMAGE_EXTENSIONS) for kinds in layouts)]
        )
        spans = np.add.reduceat(BLOCK + sizes + -sizes % BLOCK, firsts)
        if sizes.min() < 0 or (sizes[firsts + pictures[numbers]] == 0).any():
            raise _UnusualError
        if (np.add.reduceat(sizes, firsts) > MEMBER_LIMIT).any():
            raise _UnusualError
        samples = sample_array(from_texts(self._uids), np.array(self._offsets), spans, spans, numbers)
        return Contents(samples, sizes.astype(np.uint32), layouts, [])


def check_headers(blocks: Sequence[bytes]) -> None:
    """Raises:
    ValueError: one is not as members.usual_header has it, its sum is wrong, or its name has no end.
    """
    if not blocks:
        return
    table = np.frombuffer(b"".join(blocks), np.uint8).reshape(-1, BLOCK)
    fine = _are_numbers(table, _NUMBERS)
    devices = _are_numbers(table, _DEVICES)
    fine &= devices | (table[:, _DEVICES[0][0] : _PREFIX] == 0).all(axis=1)
    fine &= (table[:, _KIND] == ord("0")) & (table[:, _PREFIX] == 0)
    fine &= (table[:, 154] == 0) & (table[:, 155] == ord(" "))
    told = table[:, 148:154].astype(np.int64) - ord("0")
    fine &= ((told >= 0) & (told < 8)).all(axis=1)
    sums = table.sum(axis=1, dtype=np.int64) - table[:, _SUM].sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    fine &= sums == told @ (8 ** np.arange(5, -1, -1))
    fine &= (table[:, :NAME_LIMIT] == 0).any(axis=1)
    if not fine.all():
        raise _UnusualError


def _are_numbers(table: np.ndarray[Any, Any], places: Sequence[tuple[int, int]]) -> np.ndarray[Any, Any]:
    """Which rows have, at each of these columns, so many octal digits, and a space or zero behind them."""
    fine = np.ones(len(table), np.bool_)
    for start, digits in places:
        behind = table[:, start + digits]
        fine &= (table[:, start : start + digits] - np.uint8(ord("0")) < 8).all(axis=1)
        fine &= (behind == 0) | (behind == ord(" "))
    return fine
