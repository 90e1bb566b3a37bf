"""Our resharding and the original harness's on the same shards, in turn, and `cp` on what came out.

    python bench/reshard.py --harness <checkout> --peer <python> [--samples 20000] [--out FILE.md]

The peer's environment needs `webdataset==0.2.31 cloudpathlib pysimdjson opencv-python-headless img2dataset` and numpy,
pyarrow, tqdm. The outputs have to hold the same members, byte for byte, and cp is given the files that ours wrote. The
input is dropped from the system's memory before each run, and each side has its output on the disk at its end: ours
does that by itself, the others through sync. Runs on Linux.
"""

import hashlib
import os
import shutil
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
PER_SHARD = 2500  # samples of the input
GOAL, COPY_GOAL = 10.0, 0.8


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--keep", type=float, action="append", help="share of the samples that is chosen")
    options = parser.parse_args()
    lines = heading("Resharding: ours beside the original harness", "reshard.py", ("numpy", "tqdm"), options.rounds)
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        scene = Scene(Path(name), options.samples, options.harness, options.peer, options.workers)
        sides = {"original": scene.theirs, "ours": scene.ours, "cp": scene.copied}
        for keep in options.keep or (1.0, 0.3):
            scene.choose(keep)
            found = in_turn(sides, options.rounds)
            scene.check_equal()
            lines += part(scene, found)
    if options.out is not None:
        with atomic(options.out) as file:
            file.write("\n".join(lines))
    print("\n".join(lines))


class Scene:
    """A pool of shards, a subset of it, and a folder for each side's output."""

    def __init__(self, folder: Path, samples: int, harness: Path, peer: str, workers: int) -> None:
        self.folder, self.samples, self.harness, self.peer, self.workers = folder, samples, harness, peer, workers
        self.pool, self.small = folder / "pool", folder / "small"
        self.bytes = write_shards(self.pool, samples, PER_SHARD)
        self.subset = folder / "subset.npy"
        self.chosen: list[int] = []

    def choose(self, keep: float) -> None:
        """Choose this share of the samples, evenly spread."""
        self.chosen = [number for number in range(self.samples) if number * keep % 1 < keep]
        write_subset(self.subset, [uid_of(number) for number in self.chosen])

    def theirs(self) -> Ran:
        out = self._begin("theirs")
        words = [self.peer, str(self.harness / "resharder.py"), "-i", str(self.pool), "-o", str(out), "-s"]
        return self._run([*words, str(self.subset), "-j", str(self.workers)], out)

    def ours(self) -> Ran:
        return self._ours(self.pool, self._begin("ours"))

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

    def _ours(self, pool: Path, out: Path, missing: bool = False) -> Ran:
        command = [sys.executable, "-m", "curate.reshard", f"subset={self.subset}", f"shards={pool}", f"out={out}"]
        words = " ".join([*command, f"workers={self.workers}"])
        # Where uids are missing, which is what the quarter is about, the status is 1.
        return self._run(["sh", "-c", f"{words} || test $? -eq {int(missing)}"], None)

    def _begin(self, side: str) -> Path:
        out = self.folder / side
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        forget(self.pool.glob("*.tar"))
        return out

    def _run(self, command: list[str], to_disk: Path | None) -> Ran:
        ran = measured(command, ROOT, self.folder / "log", {**os.environ, "OMP_NUM_THREADS": "1"})
        if to_disk is None:
            return ran
        files = [str(path) for path in to_disk.glob("*.tar")]
        return ran._replace(
            seconds=ran.seconds + measured(["sync", *files], ROOT, self.folder / "log", os.environ).seconds
        )


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
    rows = []
    for name, runs in found.items():
        seconds, rate, memory = medians(runs, len(scene.chosen))
        cells = verdict(found["original"], runs, GOAL) if name == "ours" else ("-", "-")
        rows.append((name, seconds, rate, f"{written / float(seconds) / 1e6:,.0f}", memory, *cells))
    share, goal = verdict(found["cp"], found["ours"], COPY_GOAL)
    small, large = scene.quarter(), found["ours"][-1]
    return [
        f"## {len(scene.chosen):,} of {scene.samples:,} samples",
        "",
        f"Shards of {PER_SHARD:,} samples, {scene.bytes / 1e9:.2f} GB; the chosen ones are evenly spread, "
        f"{written / 1e9:.2f} GB of output. {scene.workers} workers; cp has one process and reads only what is chosen. "
        "The input is read from the disk, and the time ends when the output is on it. The outputs of the original and "
        "of ours hold the same members, byte for byte.",
        "",
        *table(("", "seconds", "samples/s", "MB/s written", "peak memory", "times the original", "goal"), rows),
        "",
        f"Of the speed of cp, ours has {share}; goal {goal}.",
        "",
        f"Our peak memory on a quarter of the shards: {small.memory / 1e6:,.0f} MB, on all: "
        f"{large.memory / 1e6:,.0f} MB.",
        "",
    ]


if __name__ == "__main__":
    main()
