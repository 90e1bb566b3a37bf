"""What each way of finding and of copying samples takes of the processor, on one shard, without start and processes.

    python bench/reshard_steps.py [--scratch /dev/shm] [--rounds 5]

Everything is in the system's memory before. The ways to copy write the same bytes: all samples of the shard behind new
headers, which are made beforehand but for the two ways that resharding has and had. Runs on Linux.
"""

import argparse
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from evaluation_report import table
from machine import machine
from pools import write_shards
from processes import processor

from poolbench.shards.members import BLOCK, padded
from poolbench.uids import uid_text

from curate.reshard.index import _listed
from curate.reshard.quick import quick
from curate.reshard.stored import Contents, Index, local_stamp, read_index, write_index
from curate.reshard.straight import headers, straight
from curate.reshard.tars import OpenTar, header, rename, scan

SAMPLES = 2500
_WINDOW = 8 * 2**20
_ROW = np.dtype([("offset", "u8"), ("span", "u8"), ("repeat", "u4"), ("number", "u4")])


class Ways:
    """The ways, each a method without arguments; those that copy write to `out`."""

    def __init__(self, folder: Path) -> None:
        write_shards(folder / "pool", SAMPLES, SAMPLES)
        (self.shard,) = (folder / "pool").glob("*.tar")
        self.source, self.out, self.kept = os.open(self.shard, os.O_RDONLY), folder / "out.tar", folder / "a.idx"
        self.contents: Contents = quick(self.source) or self.scanned()
        self.index = Index(local_stamp(os.fstat(self.source)), self.contents)
        write_index(self.kept, self.index)
        samples = self.contents.samples
        self.rows = np.zeros(len(samples), _ROW)
        self.rows["offset"], self.rows["span"] = samples["offset"], samples["span"]
        self.rows["number"] = np.arange(len(samples))
        self.kinds = [self.contents.layouts[layout - 1] for layout in samples["layout"]]
        self.sizes = self.contents.sizes.astype(np.int64)
        self.heads = self.together()

    def scanned(self) -> Contents:
        return _listed(list(scan(OpenTar(self.source), "shard")))

    def quickly(self) -> object:
        return quick(self.source)

    def found(self) -> object:
        return read_index(self.kept)

    def alone(self) -> object:
        sizes = iter(self.sizes.tolist())
        uids = map(uid_text, self.contents.samples["uid"])
        made = zip(uids, self.kinds, strict=True)
        return [header(f"{uid}-0.{kind}", next(sizes)) for uid, kinds in made for kind in kinds]

    def together(self) -> memoryview:
        samples = self.contents.samples
        made = headers(samples["uid"], np.zeros(len(samples), np.uint32), self.kinds, self.sizes)
        return memoryview(made)

    def before(self) -> None:
        """Reads of 8 MiB, in which headers are replaced, and one write of each."""
        buffer, samples, at = memoryview(bytearray(_WINDOW)), self.contents.samples, 0
        with self.out.open("wb", buffering=0) as file:
            while at < len(samples):
                start, last = int(samples["offset"][at]), at
                while last < len(samples) and samples["offset"][last] + samples["span"][last] - start <= _WINDOW:
                    last += 1
                stop = int(samples["offset"][last - 1] + samples["span"][last - 1])
                os.preadv(self.source, [buffer[: stop - start]], start)
                for offset, span, uid in samples[["offset", "span", "uid"]][at:last].tolist():
                    rename(buffer[offset - start : offset - start + span], f"{uid_text(uid)}-0")
                file.write(buffer[: stop - start])
                at = last

    def now(self) -> None:
        """As resharding does it."""
        with self.out.open("wb", buffering=0) as file:
            for pieces in straight(self.source, self.rows, self.index, self.contents.samples["uid"]):
                for start in range(0, len(pieces), 1024):
                    os.writev(file.fileno(), pieces[start : start + 1024])

    def ranges(self) -> None:
        """copy_file_range for each picture, a write for what follows it."""

        def copy(target: int, offset: int, count: int) -> None:
            while count:
                done = os.copy_file_range(self.source, target, count, offset)
                offset, count = offset + done, count - done

        self._each_picture(copy)

    def sendfile(self) -> None:
        """sendfile for each picture, a write for what follows it."""

        def copy(target: int, offset: int, count: int) -> None:
            while count:
                done = os.sendfile(target, self.source, offset, count)
                offset, count = offset + done, count - done

        self._each_picture(copy)

    def cp(self) -> None:
        subprocess.run(["cp", self.shard, self.out], check=True)

    def _each_picture(self, copy: Callable[[int, int, int], None]) -> None:
        with self.out.open("wb", buffering=0) as file:
            for head, picture, rest, parts in self._samples():
                os.write(file.fileno(), head)
                copy(file.fileno(), *picture)
                small = os.pread(self.source, rest[1], rest[0])
                os.writev(file.fileno(), [part if at is None else small[at : at + count] for part, at, count in parts])

    def _samples(
        self,
    ) -> Iterator[tuple[memoryview, tuple[int, int], tuple[int, int], list[tuple[memoryview, int | None, int]]]]:
        """Of each sample: the picture's header, its place, the place of all behind it, and of what that is made."""
        sizes, number = list(map(padded, self.sizes.tolist())), 0
        for offset, kind in zip(self.contents.samples["offset"].tolist(), self.kinds, strict=True):
            heads = [self.heads[(number + i) * BLOCK : (number + i + 1) * BLOCK] for i in range(len(kind))]
            first, *others = sizes[number : number + len(kind)]
            begin, at, parts = offset + BLOCK + first, 0, list[tuple[memoryview, int | None, int]]()
            for head, size in zip(heads[1:], others, strict=True):
                parts += [(head, None, BLOCK), (head, at + BLOCK, size)]
                at += BLOCK + size
            yield heads[0], (offset + BLOCK, first), (begin, at), parts
            number += len(kind)


FINDING = {
    "index: every header by itself, as any tar": Ways.scanned,
    "index: an ordinary tar, its headers checked together": Ways.quickly,
    "index: found in a file": Ways.found,
    "headers: one by one": Ways.alone,
    "headers: together, in one buffer": Ways.together,
}
COPYING = {
    "copy: read, headers replaced, written": Ways.before,
    "copy: written from the mapped file, headers made together": Ways.now,
    "copy: copy_file_range of each picture": Ways.ranges,
    "copy: sendfile of each picture": Ways.sendfile,
    "cp": Ways.cp,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, help="folder for shard and output; default: the system's")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        ways = Ways(Path(name))
        taken: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            for what, way in (FINDING | COPYING).items():
                ways.out.unlink(missing_ok=True)
                before = time.process_time() + processor()
                way(ways)
                taken.setdefault(what, []).append(time.process_time() + processor() - before)
        size = ways.shard.stat().st_size
    rows = [
        (what, f"{1e3 * statistics.median(one):.1f}", f"{1e3 * min(one):.1f}", f"{1e6 * min(one) / SAMPLES:.1f}")
        for what, one in taken.items()
    ]
    load = os.getloadavg()[0]
    print(f"{machine()}; {SAMPLES:,} samples, {size / 1e6:.0f} MB, {options.rounds} rounds, a load of {load:.1f}\n")
    print("\n".join(table(("", "median ms", "least ms", "least us a sample"), rows)))


if __name__ == "__main__":
    main()
