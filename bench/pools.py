"""Pools for the benchmarks of curation: shards of samples, and metadata, of any size and the same at every call."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from poolbench.shards.writer import SampleWriter

_TEXT = """a the of in on with and for red blue old new small large dog cat house street river bridge picture view
garden der die das ein Hund Katze Haus am Strand bei Nacht und mit la el una casa blanca de ville sur mer le
IMG_2041.JPG 2017 sale shirt women's black free shipping 犬 浜辺 дом река wallpaper vintage handmade"""
WORDS = tuple(_TEXT.split())
_ENGLISH = 23  # of WORDS, which come first


def uid_of(number: int) -> str:
    """A uid that is not sorted by number."""
    return f"{(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128:032x}"


def write_shards(folder: Path, samples: int, per_shard: int) -> int:
    """Write shards as img2dataset leaves them, each with its statistics; return their bytes.

    What stands for a picture is random bytes, 45 kB in the middle, spread as web pictures' sizes are: neither side
    looks into one.
    """
    folder.mkdir(parents=True)
    rng, noise = np.random.default_rng(0), np.random.default_rng(1).bytes(2**24)
    for shard, start in enumerate(range(0, samples, per_shard)):
        numbers = range(start, min(start + per_shard, samples))
        with (folder / f"{shard:08d}.tar").open("wb") as file, SampleWriter(file) as tar:
            for number in numbers:
                size = int(np.clip(rng.lognormal(10.7, 0.6), 3000, 500_000))
                at = int(rng.integers(len(noise) - size))
                caption = f"sample number {number}, {' '.join(rng.choice(WORDS, 8))}"
                members = {"jpg": noise[at : at + size], "txt": caption.encode(), "json": _record(number, caption)}
                tar.write(f"{number:09d}", members)
        (folder / f"{shard:08d}_stats.json").write_text(json.dumps({"successes": len(numbers)}))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def write_metadata(folder: Path, rows: int, per_file: int, captions: Sequence[str] = ()) -> int:
    """Write a pool's metadata, parquet files with all columns; return their bytes.

    Args:
        captions: what the rows have one after the other, again and again, instead of drawn words.
    """
    folder.mkdir(parents=True)
    for number, start in enumerate(range(0, rows, per_file)):
        columns = _columns(start, min(per_file, rows - start))
        if captions:
            columns["text"] = [captions[row % len(captions)] for row in range(start, min(start + per_file, rows))]
        table = pa.table(columns)
        pq.write_table(table, folder / f"{number:08d}.parquet")
    return sum(path.stat().st_size for path in folder.glob("*.parquet"))


def _columns(first: int, rows: int) -> dict[str, Any]:
    rng = np.random.default_rng(first)
    scores = {
        f"clip_{arch}_similarity_score": rng.normal(0.22, 0.06, rows).astype(np.float32) for arch in ("b32", "l14")
    }
    return {
        "uid": [uid_of(first + row) for row in range(rows)],
        "url": [f"https://host{row % 997}.example/{first + row}.jpg" for row in range(rows)],
        "text": _captions(rng, rows),
        "original_width": rng.integers(80, 1600, rows),
        "original_height": rng.integers(80, 1600, rows),
        "sha256": [f"{first + row:064x}" for row in range(rows)],
        **scores,
        "face_bboxes": pa.array([[] for _ in range(rows)], pa.list_(pa.list_(pa.float64()))),
    }


def _captions(rng: np.random.Generator, rows: int) -> list[str]:
    """One to twenty words; half of the captions of English ones."""
    lengths, english = rng.integers(1, 21, rows), rng.random(rows) < 0.5
    drawn = rng.integers(0, 2**31, (rows, 20))
    drawn = np.where(english[:, None], drawn % _ENGLISH, drawn % len(WORDS))
    return [
        " ".join([WORDS[word] for word in words[:length]])
        for words, length in zip(drawn.tolist(), lengths.tolist(), strict=True)
    ]


def _record(number: int, caption: str) -> bytes:
    """What img2dataset says of a sample."""
    described = {
        "uid": uid_of(number),
        "key": f"{number:09d}",
        "caption": caption,
        "url": f"https://host{number % 997}.example/pictures/{number}.jpg",
        "status": "success",
        "error_message": None,
        "width": 512,
        "height": 384,
        "original_width": 1024,
        "original_height": 768,
        "exif": "{}",
        "sha256": f"{number:064x}",
    }
    return json.dumps(described, indent=4).encode()
