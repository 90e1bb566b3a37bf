"""From what was found to the order and the shards of the output, without holding a pool's worth of rows in memory."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from conf.files import atomic, json_line
from curate.resharding.index import read_found
from curate.resharding.job import ROW, Job, mapped, shards_of, uid_text
from train.shards import Problem
from train.subset import DTYPE

_CHUNK = 2**20  # rows in memory at once
_ROUNDS = 8
_MASK = 2**64 - 1


class Counts(NamedTuple):
    """What the input held; `samples` are those of the output."""

    pool_samples: int
    samples: int
    duplicates: int
    missing: int
    bad_samples: int
    bad_shards: int


def make_plan(job: Job, bad: Path, missing: Path) -> Counts:
    """Write the plan, the list of what was bad, and the chosen uids that are not in the pool.

    Of samples with one uid, the first in the order of the shards is taken.
    """
    subset = mapped(job.subset)
    seen = np.lib.format.open_memmap(job.work / "seen.npy", mode="w+", dtype=np.bool_, shape=(len(subset),))
    sums = dict.fromkeys(("pool", "duplicates", "samples", "shards"), 0)
    kept = 0
    with atomic(job.plan.with_suffix(".rows"), "wb") as plan, atomic(bad) as problems:
        for shard, (_, name, _) in enumerate(shards_of(job)):
            found = read_found(job, shard)
            sums["pool"] += found.samples
            sums["shards"] += any(not problem.key for problem in found.problems)
            sums["samples"] += sum(bool(problem.key) for problem in found.problems)
            fresh, again = _new(np.load(job.index(shard)), seen)
            plan.write(fresh.tobytes())
            kept += len(fresh)
            sums["duplicates"] += len(again)
            twice = [Problem(name, uid_text(subset[row]), "another sample has its uid") for row in again]
            problems.writelines(json_line(problem._asdict()) for problem in (*found.problems, *twice))
    _as_npy(job.plan, kept)
    lost = _write_missing(subset, seen, missing)
    return Counts(sums["pool"], kept, sums["duplicates"], lost, sums["samples"], sums["shards"])


def _new(rows: np.ndarray[Any, Any], seen: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], list[int]]:
    """The rows that no sample before had, and the rows in the subset of the other samples."""
    once = np.zeros(len(rows), np.bool_)
    once[np.unique(rows["row"], return_index=True)[1]] = True
    once &= ~seen[rows["row"]]
    seen[rows["row"]] = True
    return rows[once], rows["row"][~once & (rows["repeat"] == 0)].tolist()


def _as_npy(path: Path, rows: int) -> None:
    """Give the rows of `path` (with suffix .rows) the header of a .npy file, in place of holding them."""
    source = path.with_suffix(".rows")
    with atomic(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(ROW), "fortran_order": False, "shape": (rows,)}
        np.lib.format.write_array_header_1_0(file, header)
        with source.open("rb") as parts:
            while part := parts.read(2**24):
                file.write(part)
    source.unlink()


def _write_missing(subset: np.ndarray[Any, Any], seen: np.ndarray[Any, Any], path: Path) -> int:
    """Write the rows of the subset that were not seen as a subset; return how many."""
    count = sum(int((~seen[start : start + _CHUNK]).sum()) for start in range(0, len(seen), _CHUNK))
    with atomic(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(DTYPE), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(seen), _CHUNK):
            file.write(subset[start : start + _CHUNK][~seen[start : start + _CHUNK]].tobytes())
    return count


def split(job: Job, order: "Order", samples: int, size: int | None) -> None:
    """Write where each shard of the output starts: a shard ends at so many samples, or before it has `size` bytes."""
    if size is None:
        starts = list(range(0, order.total, samples))
    else:
        starts, count, held = [0], 0, 0
        for place, bytes_ in enumerate(_sizes(job, order)):
            if count and (count == samples or held + bytes_ > size):
                starts.append(place)
                count = held = 0
            count, held = count + 1, held + bytes_
    with atomic(job.starts, "wb") as file:
        np.save(file, np.array([*starts, order.total], np.uint64))


def _sizes(job: Job, order: "Order") -> Iterator[int]:
    plan = mapped(job.plan)
    for start in range(0, order.total, _CHUNK):
        yield from plan["size"][order.rows(start, min(start + _CHUNK, order.total))].tolist()


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
