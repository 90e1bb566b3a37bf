"""From what was found to the order and the shards of the output, without holding a pool's worth of rows in memory."""

import dataclasses
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError
from poolbench.files import atomic, json_line, write_json
from poolbench.shards.samples import Problem, commonest
from poolbench.uids import mapped, uid_text, write_header

from curate.reshard.index import Found, index_shard
from curate.reshard.job import Job, pinned, planned, shards_of

_CHUNK = 2**20  # rows in memory at once
_HELD = 64  # shards that are kept in memory while one before them is still being indexed
_ROUNDS = 8
_TWICE = "another sample has its uid"
_MASK = 2**64 - 1


class Counts(NamedTuple):
    """What the input held; `samples` are those of the output."""

    pool_samples: int
    samples: int
    duplicates: int
    missing: int
    bad_samples: int
    bad_shards: int


class Place(NamedTuple):
    """A shard of the output: the samples at the places from `start` to before `stop`."""

    shard: int
    start: int
    stop: int


class Plan:
    """Grows as the shards of the input are indexed, so that the output can be written while the input is still read.

    Of samples with one uid, the first in the order of the shards is taken.
    """

    def __init__(self, job: Job, samples: int, size: int | None) -> None:
        job.planning.mkdir(exist_ok=True)
        self._job = job
        self._subset = mapped(job.subset)
        self._seen = np.lib.format.open_memmap(
            job.planning / "seen.npy", mode="w+", dtype=np.bool_, shape=(len(self._subset),)
        )
        self._sums = dict.fromkeys(("pool", "duplicates", "samples", "shards"), 0)
        self._cuts = Cuts(samples, size)
        # What an earlier run has written follows from the shards as they were then.
        before = pinned(dataclasses.replace(job, plan_folder=Job.plan_folder))
        self._before = before if any((job.work / "done").glob("*.json")) else before[:0]
        self._rows, self._problems = job.plan.open("wb"), job.problems.open("w", encoding="utf-8")
        self._pins = job.pins.open("wb")
        self._next, self._indexed, self._kept = 0, dict[int, Found | None](), 0

    def add(self, shard: int, found: Found) -> list[Place]:
        """Take in a shard of the input, in any order. Returns the shards of the output that are settled by it.

        Raises:
            UserError: a shard has changed since an earlier run began to write.
        """
        # One slow shard must not let the others pile up in memory: their indexes are kept, and found again in a moment.
        self._indexed[shard] = found if shard == self._next or len(self._indexed) < _HELD else None
        settled = len(self._cuts.ends)
        while self._next in self._indexed:
            self._take_in(self._next, self._indexed.pop(self._next) or index_shard(self._job, self._next))
            self._next += 1
        for file in (self._rows, self._pins):
            file.flush()
        return _between(self._cuts.ends, settled)

    def end(self) -> tuple[Counts, list[Place]]:
        """Once all shards are in: what they held, and the shards of the output that were not settled before."""
        for file in (self._rows, self._problems, self._pins):
            file.flush()
            os.fsync(file.fileno())
            file.close()
        job, sums = self._job, self._sums
        settled = len(self._cuts.ends)
        if job.shuffle is not None and self._kept:
            for sizes in _sizes(job, Order(self._kept, job.shuffle)):
                self._cuts.add(sizes)
        self._cuts.finish()
        lost = _write_missing(self._subset, self._seen, job.missing)
        counts = Counts(sums["pool"], self._kept, sums["duplicates"], lost, sums["samples"], sums["shards"])
        with atomic(job.ends, "wb") as ends:
            np.save(ends, np.array(self._cuts.ends, np.uint64))
        if counts.samples:
            write_json(job.counts, counts._asdict())
        return counts, _between(self._cuts.ends, settled)

    def _take_in(self, shard: int, found: Found) -> None:
        path, name, _ = shards_of(self._job)[shard]
        if shard < len(self._before) and self._before[shard] != found.identity:
            raise UserError(
                f"{path} has changed since {self._job.out} was begun; overwrite=true deletes it and begins anew"
            )
        self._pins.write(found.identity.to_bytes(8, sys.byteorder))
        self._sums["pool"] += found.samples
        self._sums["shards"] += any(not problem.key for problem in found.problems)
        self._sums["samples"] += sum(bool(problem.key) for problem in found.problems)
        fresh, again = _new(found.rows, self._seen)
        self._rows.write(fresh.tobytes())
        self._kept += len(fresh)
        if self._job.shuffle is None:  # else any sample may be the first
            self._cuts.add(fresh["size"])
        self._sums["duplicates"] += len(again)
        twice = [Problem(name, uid_text(self._subset[row]), _TWICE) for row in again]
        self._problems.writelines(json_line(problem._asdict()) for problem in (*found.problems, *twice))


class Cuts:
    """Where the shards of the output end: at so many samples, or before one has more than `size` bytes.

    Attributes:
        ends: of the shards that are settled, with 0 before them.
        total: samples so far.
    """

    def __init__(self, samples: int, size: int | None) -> None:
        self.ends, self.total = [0], 0
        self._samples, self._size, self._held = samples, size, 0

    def add(self, sizes: np.ndarray[Any, Any]) -> None:
        """Take in further samples, of which these are the bytes."""
        if self._size is None:
            self.total += len(sizes)
            self.ends += range(self.ends[-1] + self._samples, self.total + 1, self._samples)
            return
        for bytes_ in sizes.tolist():
            if self.total > self.ends[-1] and self._held + bytes_ > self._size:
                self._cut()
            self.total += 1
            self._held += bytes_
            if self.total - self.ends[-1] == self._samples:
                self._cut()

    def finish(self) -> None:
        """There are no further samples."""
        if self.total > self.ends[-1]:
            self._cut()

    def _cut(self) -> None:
        self.ends.append(self.total)
        self._held = 0


def why(job: Job) -> str:
    """The commonest of the reasons for which samples and shards of the input were bad; see poolbench.shards.samples."""
    with job.problems.open(encoding="utf-8") as file:
        found = (Problem(**json.loads(line)) for line in file)
        return commonest(problem for problem in found if problem.reason != _TWICE)


def places(job: Job) -> list[Place]:
    """The shards of the output, once the plan has ended."""
    return _between(np.load(job.ends).tolist(), 1)


def _between(ends: Sequence[int], known: int) -> list[Place]:
    """The shards that all but the first `known` of the ends close."""
    return [Place(end - 1, ends[end - 1], ends[end]) for end in range(known, len(ends))]


def _new(rows: np.ndarray[Any, Any], seen: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[int]]:
    """The rows that no sample before had, and the rows in the subset of the other samples."""
    once = np.zeros(len(rows), np.bool_)
    once[np.unique(rows["row"], return_index=True)[1]] = True
    once &= ~seen[rows["row"]]
    seen[rows["row"]] = True
    return rows[once], rows["row"][~once & (rows["repeat"] == 0)].tolist()


def _write_missing(subset: np.ndarray[Any, Any], seen: np.ndarray[Any, Any], path: Path) -> int:
    """Write the rows of the subset that were not seen as a subset, where there are any; return how many."""
    count = sum(int((~seen[start : start + _CHUNK]).sum()) for start in range(0, len(seen), _CHUNK))
    if not count:
        return 0
    with atomic(path, "wb") as file:
        write_header(file, count)
        for start in range(0, len(seen), _CHUNK):
            file.write(subset[start : start + _CHUNK][~seen[start : start + _CHUNK]].tobytes())
    return count


def _sizes(job: Job, order: "Order") -> Iterator[np.ndarray[Any, Any]]:
    """The bytes of the samples in the order of the output, some at a time."""
    sizes = planned(job)["size"]
    for start in range(0, order.total, _CHUNK):
        yield sizes[order.rows(start, min(start + _CHUNK, order.total))]


class Order:
    """Which row of the plan stands at each place of the output: the same one, or that of a permutation by a seed.

    The permutation is a Feistel network over the row's number, so that nothing has to be held: eight rounds on numbers
    of an even count of bits, taken again until one below `total` comes out.
    """

    def __init__(self, total: int, seed: int | None) -> None:
        self.total = total
        self._half = np.uint64(max(1, ((total - 1).bit_length() + 1) // 2))
        self._keys = [] if seed is None else [_key(seed, number) for number in range(_ROUNDS)]

    def rows(self, start: int, stop: int) -> np.ndarray[Any, Any]:
        """The rows at the places from `start` to before `stop`, u8."""
        numbers = np.arange(start, stop, dtype=np.uint64)
        if not self._keys:
            return numbers
        numbers = self._mixed(numbers)
        while (beyond := numbers >= self.total).any():
            numbers[beyond] = self._mixed(numbers[beyond])
        return numbers

    def _mixed(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        mask = (np.uint64(1) << self._half) - np.uint64(1)
        left, right = numbers >> self._half, numbers & mask
        for key in self._keys:
            left, right = right, left ^ (_scrambled(right + key) & mask)
        return (left << self._half) | right


def _key(seed: int, number: int) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:8], "big") & _MASK)


def _scrambled(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """SplitMix64's last step, by which every bit depends on every bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    scrambled: np.ndarray[Any, Any] = values ^ (values >> np.uint64(31))
    return scrambled
