"""Our resharding and `cp` on what came out, in turn, and the original harness's where a checkout of it is given.

    python bench/reshard.py [--harness <checkout> --peer <python>] [--samples 20000] [--out FILE.md]

Ours runs with and without the indexes of an earlier run. The peer's environment needs `webdataset==0.2.31 cloudpathlib
pysimdjson opencv-python-headless img2dataset` and numpy, pyarrow, tqdm. The outputs have to hold the same members, byte
for byte, and cp is given the files that ours wrote. The input is dropped from the system's memory before each run, and
each side has its output on the disk at its end: ours does that by itself, the others through sync. Runs on Linux.
"""

import hashlib
import os
import shutil
import statistics
import sys
import tarfile
import tempfile
from pathlib import Path

from beside import forget, heading, in_turn, medians, options_of, verdict
from evaluation_report import table
from pools import uid_of, write_shards
from processes import Ran, measured

from poolbench.files import atomic, read_json
from poolbench.uids import write_subset

ROOT = Path(__file__).resolve().parent.parent
OURS, INDEXED = "ours", "ours, indexed before"
PER_SHARD = 2500  # samples of the input
GOAL = 10.0  # times the original
ON_DISK, IN_MEMORY, OF_SOME = 0.9, 0.7, 0.6  # of cp; the last where not all samples are chosen


def main() -> None:
    parser = options_of(__doc__, harness=False)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--keep", type=float, action="append", help="share of the samples that is chosen")
    options = parser.parse_args()
    lines = heading("Resharding: ours beside cp", "reshard.py", ("numpy", "tqdm"), options.rounds)
    lines += [f"Other work on the machine: a load of {os.getloadavg()[0]:.1f} before the first round.", ""]
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scene = Scene(Path(name), options.samples, options.harness, options.peer, options.workers)
        theirs = {"original": scene.theirs} if options.harness else {}
        sides = {**theirs, OURS: scene.ours, INDEXED: scene.indexed, "cp": scene.copied}
        for keep in options.keep or (1.0, 0.3):
            scene.choose(keep)
            scene.indexed()  # by which the indexes are made, and everything is loaded once
            found = in_turn(sides, options.rounds)
            if theirs:
                scene.check_equal()
            lines += part(scene, found)
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines))
    print("\n".join(lines))


class Scene:
    """A pool of shards, a subset of it, and a folder for each side's output."""

    def __init__(self, folder: Path, samples: int, harness: Path | None, peer: str, workers: int) -> None:
        self.folder, self.samples, self.harness, self.peer, self.workers = folder, samples, harness, peer, workers
        self.pool, self.small = folder / "pool", folder / "small"
        self.bytes = write_shards(self.pool, samples, PER_SHARD)
        self.subset = folder / "subset.npy"
        self.chosen: list[int] = []
        # Python keeps what it has compiled, as it does for users, and not in the checkouts.
        self.environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPYCACHEPREFIX": str(folder / "compiled")}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def choose(self, keep: float) -> None:
        """Choose this share of the samples, evenly spread."""
        self.chosen = [number for number in range(self.samples) if number * keep % 1 < keep]
        write_subset(self.subset, [uid_of(number) for number in self.chosen])

    def theirs(self) -> Ran:
        out = self._begin("theirs")
        assert self.harness is not None
        words = [self.peer, str(self.harness / "resharder.py"), "-i", str(self.pool), "-o", str(out), "-s"]
        return self._run([*words, str(self.subset), "-j", str(self.workers)], out)

    def ours(self) -> Ran:
        return self._ours(self.pool, self._begin("ours"))

    def indexed(self) -> Ran:
        """Ours with the indexes that an earlier run has left."""
        return self._ours(self.pool, self._begin("indexed"), more=f" index={self.folder / 'index'}")

    def quarter(self) -> Ran:
        """Ours on the first quarter of the shards, for what memory depends on."""
        self.small.mkdir(exist_ok=True)
        for path in sorted(self.pool.glob("*.tar"))[: max(1, self.samples // PER_SHARD // 4)]:
            if not (self.small / path.name).exists():
                os.link(path, self.small / path.name)
        return self._ours(self.small, self._begin("quarter"), missing=True)

    def copied(self) -> Ran:
        out = self._begin("copied")
        forget((self.folder / "ours").glob("*.tar"))
        return self._run(["sh", "-c", f"cp {self.folder / 'ours'}/*.tar {out}"], out)

    def check_equal(self) -> None:
        """Exit where the two outputs do not hold the same members."""
        ours, theirs = _members(self.folder / "ours"), _members(self.folder / "theirs")
        if ours != theirs:
            sys.exit(f"the outputs differ: {len(ours)} and {len(theirs)} members")

    def _ours(self, pool: Path, out: Path, missing: bool = False, more: str = "") -> Ran:
        command = [sys.executable, "-m", "curate.reshard", f"subset={self.subset}", f"shards={pool}", f"out={out}"]
        words = " ".join([*command, f"workers={self.workers}"]) + more
        # Where uids are missing, which is what the quarter is about, the status is 1.
        return self._run(["sh", "-c", f"{words} || test $? -eq {int(missing)}"], None)

    def _begin(self, side: str) -> Path:
        out = self.folder / side
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        forget(self.pool.glob("*.tar"))
        return out

    def _run(self, command: list[str], to_disk: Path | None) -> Ran:
        ran = measured(command, ROOT, self.folder / "log", self.environment)
        if to_disk is None:
            return ran
        files = [str(path) for path in to_disk.glob("*.tar")]
        synced = measured(["sync", *files], ROOT, self.folder / "log", os.environ)
        return ran._replace(seconds=ran.seconds + synced.seconds, processor=ran.processor + synced.processor)


def _members(folder: Path) -> dict[str, bytes]:
    """The digest of each member of a folder's shards."""
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                content = tar.extractfile(info)
                assert content is not None
                found[info.name] = hashlib.sha256(content.read()).digest()
    return found


def part(scene: Scene, found: dict[str, list[Ran]]) -> list[str]:
    """What one subset comes to."""
    written = sum(row["bytes"] for row in read_json(scene.folder / "ours" / "meta.json")["shards"])
    in_memory = str(scene.folder).startswith("/dev/shm")  # where Linux has its memory as a folder
    goal = OF_SOME if len(scene.chosen) < scene.samples else IN_MEMORY if in_memory else ON_DISK
    rows = []
    for name, runs in found.items():
        seconds, rate, memory = medians(runs, len(scene.chosen))
        processor = statistics.median(run.processor for run in runs)
        mine = name in (OURS, INDEXED)
        of_cp = verdict(found["cp"], runs, goal if name == INDEXED else None) if mine else ("-", "-")
        times = verdict(found["original"], runs, GOAL) if mine and "original" in found else ("-", "-")
        speed = f"{written / float(seconds) / 1e6:,.0f}"
        rows.append((name, seconds, f"{processor:.2f}", rate, speed, memory, *of_cp, times[0]))
    small, large = scene.quarter(), found[OURS][-1]
    where = (
        "Input and output are in memory."
        if in_memory
        else "The input is read from the disk, and the time ends when the output is on it."
    )
    same = " The outputs of the original and of ours hold the same members, byte for byte." if scene.harness else ""
    head = ("", "seconds", "processor seconds", "samples/s", "MB/s written", "peak memory")
    return [
        f"## {len(scene.chosen):,} of {scene.samples:,} samples",
        "",
        f"Shards of {PER_SHARD:,} samples, {scene.bytes / 1e9:.2f} GB; the chosen ones are evenly spread, "
        f"{written / 1e9:.2f} GB of output. {scene.workers} workers; cp has one process and reads only what is chosen. "
        f"{where}{same}",
        "",
        *table((*head, "of cp's speed", "goal", "times the original"), rows),
        "",
        f"Our peak memory on a quarter of the shards: {small.memory / 1e6:,.0f} MB, on all: "
        f"{large.memory / 1e6:,.0f} MB.",
        "",
    ]


if __name__ == "__main__":
    main()
