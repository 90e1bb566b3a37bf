"""Faults at scale: each case is made in a scratch folder, the commands are run on it, and what they took is told.

    python bench/faults.py [small_files row_group long_shard large_members bad_shards throttled] [--out FILE.md]

A case that is run anew takes its place on the page; the others stay. `--share .01` tries all of it in minutes. Tars
with holes take no room on the disk, if the file system has holes. Runs on Linux.
"""

import argparse
import datetime
import io
import json
import os
import resource
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from evaluation_report import table
from machine import machine
from photographs import part
from pools import uid_of, write_metadata
from processes import Ran, measured

from poolbench.files import atomic
from poolbench.shards.writer import write_shard
from poolbench.uids import write_subset

ROOT = Path(__file__).resolve().parent.parent
MODEL = "ViT-Ti-32-64"
GOOD, LEFT_OUT = 0, 1  # exit statuses: whole, something was left out and told
BLOCK = 512
LIMIT = 2**28  # bytes of a sample


class Case(NamedTuple):
    """What is wrong, and the runs of commands on it."""

    told: str
    rows: list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all where none is named")
    parser.add_argument("--share", type=float, default=1.0, help="of the size of each case")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--scratch", type=Path, help="folder for what is made; default: the system's")
    parser.add_argument("--out", type=Path, help="also write the page here")
    options = parser.parse_args()
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            scene = Scene(Path(folder), options.share, options.workers)
            case = CASES[name](scene)
        lines = section(name, case)
        print("\n".join(lines), flush=True)
        if options.out is not None:
            place(options.out, name, lines)


class Scene:
    """A folder for a case, and the runs of commands in it."""

    def __init__(self, folder: Path, share: float, workers: int) -> None:
        self.folder, self.share, self.workers = folder, share, workers
        self.rows: list[list[str]] = []

    def count(self, whole: int) -> int:
        """So many, or a share of them."""
        return max(4, int(whole * self.share))

    def run(self, *words: str | Path, status: int = GOOD, environment: Mapping[str, str] = {}) -> str:
        """Run a command, note what it took and the last it said, and return all that it said."""
        before, log = resource.getrusage(resource.RUSAGE_CHILDREN), self.folder / "log"
        command = [sys.executable, "-m", *map(str, words)]
        told = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
        ran: Ran = measured(command, self.folder, log, told, statuses=(status,))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        text = log.read_text().replace(f"{self.folder}/", "")
        shown = " ".join(str(word).replace(f"{self.folder}/", "") for word in words)
        lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
        said = " / ".join(line for line in lines if line and "%|" not in line)[-400:]
        self.rows.append([f"`{shown}`", f"{ran.seconds:.1f}", f"{cpu:.1f}", f"{ran.memory / 1e6:,.0f} MB", said])
        print(" | ".join(self.rows[-1]), file=sys.stderr, flush=True)
        return text


# --- the cases ---


def small_files(scene: Scene) -> Case:
    """Many small files."""
    count, files = scene.count(100_000), scene.count(10_000)
    rng = np.random.default_rng(0)
    jpegs = [_jpeg(number, rng) for number in range(256)]
    for number in range(count):
        folder = scene.folder / "pictures" / f"{number // 1000:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:06d}.jpg").write_bytes(jpegs[number % len(jpegs)])
        (folder / f"{number:06d}.txt").write_text(f"picture number {number}")
    scene.run("curate.pack", "from=pictures", "out=pool", f"workers={scene.workers}")
    scene.run("curate.pack", "from=pictures", "out=pool", f"workers={scene.workers}")
    write_metadata(scene.folder / "metadata", 10 * files, 10)
    pool = ["pool=metadata", f"workers={scene.workers}"]
    scene.run("curate", "filter=clip_score", "filter.fraction=.3", "filter.arch=b32", *pool, "out=subset.npy")
    pictures = f"{count:,} pictures of {len(jpegs[0]):,} bytes or so with a .txt each"
    return Case(f"{pictures}, in {count // 1000 + 1:,} folders; metadata of {files:,} files of 10 rows.", scene.rows)


def row_group(scene: Scene) -> Case:
    """A parquet file with one row group."""
    rows = scene.count(1_000_000)
    write_metadata(scene.folder / "groups", rows, rows)
    path = next((scene.folder / "groups").glob("*.parquet"))
    (scene.folder / "one").mkdir()
    pq.write_table(pq.read_table(path), scene.folder / "one" / path.name, row_group_size=rows)
    (scene.folder / "many").mkdir()
    pq.write_table(pq.read_table(path), scene.folder / "many" / path.name, row_group_size=2**16)
    for pool in ("one", "many"):
        by_score = ["filter=clip_score", "filter.fraction=.3", "filter.arch=b32"]
        scene.run("curate", *by_score, f"pool={pool}", f"out={pool}.npy", "workers=1")
        scene.run("curate", "filter=laion2b", f"pool={pool}", f"out={pool}-texts.npy", "workers=1")
    same = (scene.folder / "one.npy").read_bytes() == (scene.folder / "many.npy").read_bytes()
    _held(scene)
    size = path.stat().st_size / 1e6
    return Case(
        f"{rows:,} rows, {size:,.0f} MB, as one row group and as groups of 65,536; the subsets are "
        f"{'the same' if same else '**not the same**'}. Then pictures in a parquet of one row group.",
        scene.rows,
    )


def _held(scene: Scene) -> None:
    """Pictures in a parquet file with one row group, packed."""
    rng = np.random.default_rng(0)
    rows = scene.count(100_000)
    jpegs = [_jpeg(number, rng) for number in range(64)]
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("text", pa.string())])
    pictures = [{"bytes": jpegs[number % 64] + bytes(4000), "path": None} for number in range(rows)]
    texts = [f"row {number}" for number in range(rows)]
    pq.write_table(pa.table([pictures, texts], schema=schema), scene.folder / "held.parquet", row_group_size=rows)
    del pictures
    scene.run("curate.pack", "from=held.parquet", "out=held", "workers=1")


def long_shard(scene: Scene) -> Case:
    """A shard of 20 GB."""
    huge, small = scene.count(90), scene.count(2_000)
    samples = [_sample(number, 0) for number in range(small)]
    uids = []
    (scene.folder / "pool").mkdir()
    with (scene.folder / "pool" / "long.tar").open("wb") as file:
        for number in range(small):
            _add(file, f"{number:06d}", samples[number])
            uids.append(uid_of(number))
            if number * huge // small != (number + 1) * huge // small:
                _add(file, f"h{number:06d}", {**samples[number], "json": _record(10**6 + number)}, hole=220 * 10**6)
        file.write(bytes(2 * BLOCK))
    size = (scene.folder / "pool" / "long.tar").stat().st_size
    write_subset(scene.folder / "some.npy", uids)
    resharding = ["subset=some.npy", "shards=pool", "out=out", f"workers={scene.workers}"]
    scene.run("curate.reshard", *resharding, status=GOOD)
    _score(scene, LEFT_OUT)
    return Case(
        f"One tar of {size / 1e9:.1f} GB: {small:,} good samples, and {huge} between them of 220 MB each, whose "
        "pictures are holes in the file.",
        scene.rows,
    )


def large_members(scene: Scene) -> Case:
    """Members above 8 GB."""
    size = max(LIMIT + 1, int(9 * 2**30 * scene.share))
    (scene.folder / "pool").mkdir()
    uids = []
    for shard, pax in enumerate((False, True)):
        with (scene.folder / "pool" / f"{shard}.tar").open("wb") as file:
            for number in range(shard * 100, shard * 100 + 50):
                hole = size if number % 50 == 20 else 0
                _add(file, f"{number:06d}", _sample(number, 0), hole=hole, pax=pax)
                uids.append(uid_of(number))
            file.write(bytes(2 * BLOCK))
    write_subset(scene.folder / "all.npy", uids)
    scene.run("curate.reshard", "subset=all.npy", "shards=pool", "out=out", "workers=2", status=LEFT_OUT)
    _score(scene, LEFT_OUT)
    _train(scene, GOOD, bad=True, steps=5)
    return Case(
        f"Two tars of 50 samples, of which one has a picture of {size / 2**30:.1f} GiB (a hole in the file), its size "
        "as GNU's binary number in one, in a pax header in the other. 49 of each have to be used, and two to be named.",
        scene.rows,
    )


def bad_shards(scene: Scene) -> Case:
    """Many shards, of which some are bad."""
    shards, rng = scene.count(10_000), np.random.default_rng(0)
    pool, bad, uids = scene.folder / "pool", 0, []
    pool.mkdir()
    for shard in range(shards):
        path, numbers = pool / f"{shard:08d}.tar", range(3 * shard, 3 * shard + 3)
        write_shard(path, [(f"{number:08d}", _sample(number, number % 50)) for number in numbers])
        if shard % 100 == 7 or (shards < 100 and shard == 1):
            bad += 1
            data = path.read_bytes()
            damaged = {
                "cut": data[: int(rng.integers(1, len(data) // 2))],
                "empty": b"",
                "page": b"<html>Slow down</html>",
                "bit": data[:148] + b"9" + data[149:],
            }
            path.write_bytes(damaged[str(rng.choice(list(damaged)))])
        else:
            uids += [uid_of(number) for number in numbers]
    write_subset(scene.folder / "good.npy", uids)
    resharding = ["subset=good.npy", "shards=pool", "out=out", f"workers={scene.workers}"]
    scene.run("curate.reshard", *resharding, status=LEFT_OUT)
    few = max(10, shards // 10)
    _score(scene, LEFT_OUT, f"pool/{{{0:08d}..{few - 1:08d}}}.tar")
    _train(scene, GOOD, bad=True)
    found = json.loads((scene.folder / "out" / "meta.json").read_text())["counts"]
    whole = found["samples"] == len(uids) and found["bad_shards"] == bad
    return Case(
        f"{shards:,} tars of 3 samples, of which {bad} are cut off, empty, a page of HTML, or have a wrong bit in a "
        f"header. All {len(uids):,} samples of the good ones {'were' if whole else '**were not**'} resharded, and all "
        f"bad ones told; scores are of the first {few:,} tars.",
        scene.rows,
    )


def throttled(scene: Scene) -> Case:
    """A store that asks for patience."""
    sys.path.insert(0, str(ROOT / "tests"))
    from faulty_server import Answer, Faulty, serving

    shards, each = scene.count(200), 50
    (scene.folder / "pool").mkdir()
    uids = [uid_of(number) for number in range(shards * each)]
    for shard in range(shards):
        numbers = range(each * shard, each * (shard + 1))
        named = [(f"{number:08d}", _sample(number, number % 50)) for number in numbers]
        write_shard(scene.folder / "pool" / f"{shard:08d}.tar", named)
    write_subset(scene.folder / "all.npy", uids)
    with serving(Faulty(folder=scene.folder, busy_every=3, busy=Answer(429, {"Retry-After": "1"}, b""))) as faulty:
        url = f"{faulty.url}/pool"
        resharding = ["subset=all.npy", f"shards={url}", "out=out", f"workers={scene.workers}"]
        scene.run("curate.reshard", *resharding)
        failed, asked = faulty.failed, faulty.gets.total()
        _train(scene, GOOD, data=url, steps=20)
    told = f"{failed:,} of {asked:,} requests of the resharding were answered so"
    return Case(
        f"{shards} tars of {each} samples behind a server that answers every third request with 429, Retry-After: 1; "
        f"{told}.",
        scene.rows,
    )


CASES: dict[str, Callable[[Scene], Case]] = {
    one.__name__: one for one in (small_files, row_group, long_shard, large_members, bad_shards, throttled)
}


# --- what they are made of ---


def _jpeg(number: int, rng: np.random.Generator) -> bytes:
    buffer = io.BytesIO()
    part(number, 64, 48, rng).save(buffer, "JPEG")
    return buffer.getvalue()


_JPEGS: list[bytes] = []


def _sample(number: int, seed: int) -> dict[str, bytes]:
    """A good sample; the pictures of a hundred are told apart."""
    if not _JPEGS:
        _JPEGS.extend(_jpeg(one, np.random.default_rng(one)) for one in range(100))
    return {"jpg": _JPEGS[(number + seed) % 100], "txt": f"picture number {number}".encode(), "json": _record(number)}


def _record(number: int) -> bytes:
    return json.dumps({"uid": uid_of(number)}).encode()


def _add(file: Any, key: str, members: Mapping[str, bytes], hole: int = 0, pax: bool = False) -> None:
    """Add a sample, with a hole of so many bytes for its picture if that is not 0."""
    for extension, content in members.items():
        info = tarfile.TarInfo(f"{key}.{extension}")
        info.size = hole if hole and extension == "jpg" else len(content)
        file.write(info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT))
        if info.size == len(content):
            file.write(content + bytes(-len(content) % BLOCK))
        else:
            file.seek(hole + -hole % BLOCK, 1)


def _score(scene: Scene, status: int, shards: str = "pool") -> None:
    checkpoint = _checkpoint(scene.folder)
    words = [f"checkpoint={checkpoint}", f"model={MODEL}", "arch=b32", f"shards={shards}", "out=scores"]
    scene.run("curate.score", *words, "workers=1", "batch_size=64", status=status)


def _checkpoint(folder: Path) -> Path:
    """Random weights."""
    import torch

    from poolbench.models.clip import create

    torch.manual_seed(0)
    torch.save(create(MODEL).state_dict(), folder / "model.pt")
    return folder / "model.pt"


def _train(scene: Scene, status: int, *, bad: bool = False, data: str = "pool", steps: int = 30) -> None:
    words = ["scale=tiny", f"data={data}", "name=a", "out=runs", "precision=fp32", "recipe.batch_size=32"]
    words += [f"recipe.samples={32 * steps}", "recipe.warmup=1", "efficiency.workers=1"]
    words += ["max_bad_share=1"] if bad else []
    scene.run("train", *words, status=status)


# --- the page ---


def section(name: str, case: Case) -> list[str]:
    """The part of a case."""
    head = ["command", "seconds", "processor seconds", "peak memory", "what it said at its end"]
    today, load = f"{datetime.datetime.now(datetime.UTC):%d %B %Y}", os.getloadavg()[0]
    about = f"{case.told} {today}, load {load:.0f}."
    rows = [[cell.replace("|", "/") for cell in row] for row in case.rows]
    return [f"## {name}", "", about, "", *table(head, rows), ""]


def place(path: Path, name: str, lines: list[str]) -> None:
    """Put the part of a case onto the page, in place of the one that is there."""
    parts = path.read_text().split("\n## ")[1:] if path.exists() else []
    parts_by_name = {one.partition("\n")[0].strip(): f"## {one}".rstrip() for one in parts}
    parts_by_name[name] = "\n".join(lines).rstrip()
    head = [
        "# Faults at scale",
        "",
        "`python bench/faults.py`: each case is made, and the commands are run on it as users run them. Seconds are "
        "wall time, on a machine that others use too; processor seconds are of all processes together, memory is their "
        "proportional set size.",
        "",
        f"Machine: {machine()}.",
        "",
    ]
    ordered = [parts_by_name[one] for one in CASES if one in parts_by_name]
    with atomic(path) as file:
        file.write("\n".join(head) + "\n" + "\n\n".join(ordered) + "\n")


if __name__ == "__main__":
    main()
