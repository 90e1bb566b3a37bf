"""What looking for evaluation pictures in a training set costs: hashing on one core, and the search in one block.

    python bench/overlap.py [--probes 4194304] [--queries 2000] [--out FILE.md]

Pictures are parts of two photographs that scikit-learn carries, 500 x 375 pixels, as JPEGs. The search is for random
hashes among random probes, into which copies with 0 to 40 changed bits are planted: those with at most 32 must be found
and no others. Times are of the processor, one thread, which others that use the machine hardly change.
"""

import argparse
import datetime
import importlib.metadata
import io
import os
import resource
import time
from collections.abc import Callable
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}

import numpy as np
import photographs
from evaluation_report import table
from machine import machine
from PIL import Image

from poolbench.files import atomic
from poolbench.shards.pictures import opened, rgb

from curate.overlaps import hashes
from curate.overlaps.search import BLOCK, MOST, Index

WIDTH, HEIGHT = 500, 375
PACKAGES = ("imagehash", "faiss-cpu", "pillow")
POOL, PICTURES = 12_800_000, 700_000  # of the scale small, and of all evaluation sets


def pictures(count: int) -> list[bytes]:
    """JPEGs of parts of photographs."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        buffer = io.BytesIO()
        photographs.part(number, WIDTH, HEIGHT, rng).save(buffer, "JPEG", quality=85)
        made.append(buffer.getvalue())
    return made


def whole(data: bytes) -> Image.Image:
    """Grey, of all pixels."""
    return rgb(opened(data)).convert("L")


def each(work: Callable[[Any], Any], items: list[Any]) -> float:
    """Milliseconds of the processor for one, the best of three runs."""
    times = []
    for _ in range(3):
        began = time.process_time()
        for item in items:
            work(item)
        times.append(time.process_time() - began)
    return 1000 * min(times) / len(items)


def hashing(count: int) -> list[tuple[str, ...]]:
    """Rows of the table of hashing."""
    data = pictures(count)
    grey = [hashes.grey(one) for one in data]
    works: list[tuple[str, Callable[[Any], Any], list[Any]]] = [
        ("decode, as the command does", hashes.grey, data),
        ("decode all pixels", whole, data),
        ("hash a decoded one", hashes.hash_of, grey),
        ("training picture: decode and hash", lambda one: hashes.look(one, frozenset()), data),
        ("evaluation picture: decode and probes", lambda one: hashes.look_for(one, frozenset()), data),
    ]
    taken = [(name, each(work, items)) for name, work, items in works]
    return [(name, f"{ms:.2f}", f"{1000 / ms:,.0f}") for name, ms in taken]


def planted(probes: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Hashes that differ in 0 to 40 bits from probes, and in how many."""
    bits = np.unpackbits(probes[rng.choice(len(probes), count, replace=False)], axis=1)
    far = np.arange(count) % 41
    for row, number in enumerate(far):
        bits[row, rng.choice(hashes.BITS, number, replace=False)] ^= 1
    return np.packbits(bits, axis=1), far


def searching(probes: int, queries: int, flat: bool) -> dict[str, float]:
    rng = np.random.default_rng(0)
    every = rng.integers(0, 256, (probes, hashes.BYTES), np.uint8)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    index = Index(every, np.arange(probes, dtype=np.int32), flat)
    built = time.process_time() - began
    copies, far = planted(every, min(410, queries // 2), rng)
    asked = np.concatenate([copies, rng.integers(0, 256, (queries - len(copies), hashes.BYTES), np.uint8)])
    began = time.process_time()
    near = index.near(asked)
    spent = time.process_time() - began
    right = set(np.flatnonzero(far <= MOST).tolist())
    assert set(near.row.tolist()) == right and (near.distance == far[near.row]).all(), "not exact"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e6
    return {"built": built, "ms": 1000 * spent / queries, "gb": grown, "found": len(right)}


REPORT = """# Looking for evaluation pictures in a training set

`python bench/overlap.py`, {today}. Load average as it began: {load:.1f}.

Machine: {machine}. {packages}. All times are of the processor, one thread.

## Hashing

{pictures} JPEGs of {width} x {height} pixels. An evaluation picture has {per_picture} probes.

{hashing}

A JPEG whose sides are 512 pixels or more is decoded at a half, a quarter or an eighth of its size, no smaller than 256.

## Search

{probes:,} random probes, a block; {queries:,} random hashes ({few} for the plain comparison), among them copies of
probes with 0 to 40 changed bits. Both found all copies with at most {most} changed bits, {found} and {found_plain} of
them, and nothing else, which the script asserts.

{search}

## A pool of 12.8 million against 700,000 evaluation pictures

Arithmetic, not measured: {all_pictures:,} pictures have {all_probes:,} probes, {blocks} blocks of {block:,}.

- hash the pool: {pool:,} x {hash_ms:.2f} ms = {hash_hours:.0f} core hours
- probe the evaluation pictures: {all_pictures:,} x {probe_ms:.2f} ms = {probe_hours:.1f} core hours
- search: {pool:,} x {blocks} x {search_ms:.2f} ms = {hours:.0f} core hours; hash by hash it would be {plain_hours:.0f}
- memory of the search: the probes, {gb:.2f} GB, and one block

Real hashes are less even than random ones: some places of the tables are then fuller, and the search takes longer.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--probes", type=int, default=BLOCK)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--out")
    options = parser.parse_args()
    load, few = os.getloadavg()[0], min(options.queries, 200)
    rows = hashing(options.pictures)
    parted, plain = searching(options.probes, options.queries, False), searching(options.probes, few, True)
    hash_ms, probe_ms = float(rows[3][1]), float(rows[4][1])
    blocks, probes = -(-PICTURES * hashes.PROBES // options.probes), PICTURES * hashes.PROBES
    indexes = [
        ("parted into 11 tables (`IndexBinaryMultiHash`)", parted),
        ("hash by hash (`IndexBinaryFlat`)", plain),
    ]
    text = REPORT.format(
        today=f"{datetime.date.today():%-d %B %Y}",
        load=load,
        machine=machine(),
        packages=", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        pictures=options.pictures,
        width=WIDTH,
        height=HEIGHT,
        per_picture=hashes.PROBES,
        hashing="\n".join(table(("a picture", "ms", "pictures/s of a core"), rows)),
        probes=options.probes,
        queries=options.queries,
        few=few,
        most=MOST,
        found=parted["found"],
        found_plain=plain["found"],
        search="\n".join(
            table(
                ("index", "built in s", "ms a hash", "GB more"),
                [(name, f"{one['built']:.0f}", f"{one['ms']:.2f}", f"{one['gb']:.1f}") for name, one in indexes],
            )
        ),
        all_pictures=PICTURES,
        all_probes=probes,
        blocks=blocks,
        block=options.probes,
        pool=POOL,
        hash_ms=hash_ms,
        hash_hours=POOL * hash_ms / 3.6e6,
        probe_ms=probe_ms,
        probe_hours=PICTURES * probe_ms / 3.6e6,
        search_ms=parted["ms"],
        hours=POOL * blocks * parted["ms"] / 3.6e6,
        plain_hours=POOL * blocks * plain["ms"] / 3.6e6,
        gb=probes * hashes.BYTES / 1e9,
    )
    print(text)
    if options.out:
        with atomic(options.out) as file:
            file.write(text)


if __name__ == "__main__":
    main()
