"""What selections of the demo pool are given besides its scores: pictures as targets, words as entries, votes' scores.

Each file is written anew only where it would be another one, so that nothing made from it looks out of date.
"""

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from poolbench.files import atomic
from poolbench.shards.writer import write_shard
from poolbench.uids import mapped

from curate.pool.files import list_pool, read_columns
from curate.pool.quantile import scores
from demodata.emoji import TWEMOJI, pictures, render

ARCH = "b32"  # what the first model's scores and embeddings are called
PAIRS = 500  # that tune a filtering network
_VOTE = re.compile(r"(\w+): \[(\d+)%, (\d+)%\]")  # a column with the shares of the pool that bound its votes
_WORD = re.compile(r"[^\s,.;:?!`]+")  # MetaCLIP parts words at these marks, too


def targets(out: Path, score: Callable[[Path, Path], Any]) -> Path:
    """Embeddings by the first model of the Twemoji drawings of the pool's emoji, .npy float16 [pictures, width].

    They are to `demo/twemoji` what ImageNet's training pictures, the published targets, are to its test. The pool has
    none of them: its own drawings would each find themselves. None is drawn as a held-out one is, to the pixel.

    Args:
        score: scores the shards of a folder into another one.
    """
    shards, scored = out / "targets", out / "targets_scored"
    if not shards.is_dir():
        _draw(shards)
    score(shards, scored)
    buffer = io.BytesIO()
    np.save(buffer, embeddings(scored, f"{ARCH}_img"))
    return _settled(out / "targets.npy", buffer.getvalue())


def entries(out: Path, scored: Path) -> Path:
    """The different words of the pool's captions, a JSON list."""
    words = {word for text in column(scored, "text") for word in _WORD.findall(text)}
    return _settled(out / "entries.json", json.dumps(sorted(words)).encode())


def pairs(out: Path, right: Path) -> Path:
    """A subset file of right pairs drawn at random, which a filtering network is tuned on."""
    every = mapped(right)
    chosen = np.random.default_rng(0).choice(len(every), min(PAIRS, len(every)), replace=False)
    buffer = io.BytesIO()
    np.save(buffer, every[np.sort(chosen)])
    return _settled(out / "pairs.npy", buffer.getvalue())


def column(scored: Path, name: str) -> list[Any]:
    """A column of the pool's own, of all rows, as Python's values."""
    return [value for path in sorted(scored.glob("*.parquet")) for value in pq.read_table(path)[name].to_pylist()]


def embeddings(scored: Path, name: str) -> Any:
    """Embeddings of all rows by their name in the files, float16 [rows, width], in the order of `column`."""
    return np.concatenate([np.load(path)[name] for path in sorted(scored.glob("*.npz"))])


def with_thresholds(word: str, scored: Path) -> str:
    """A word of the command in which `column: [40%, 60%]` is `column: [<score>, <score>]`."""

    def bounds(found: re.Match[str]) -> str:
        pieces = [scores(table, found[1]) for file in list_pool(str(scored)) for table, _ in _read(file, found[1])]
        low, high = np.nanquantile(np.concatenate(pieces), [int(found[2]) / 100, int(found[3]) / 100])
        return f"{found[1]}: [{low:.6g}, {high:.6g}]"

    return _VOTE.sub(bounds, word)


def _read(file: Any, name: str) -> Any:
    return read_columns(file, [name])


def _draw(folder: Path) -> None:
    """Shards of the drawings, in a folder that takes its name when whole."""
    every = [picture for picture in pictures() if picture.twemoji is not None]
    drawn = {picture.code: render(picture.twemoji, TWEMOJI) for picture in every if picture.twemoji is not None}
    tested = {_pixels(drawn[picture.code]) for picture in every if picture.held_out}
    samples = [
        (picture.code, {"png": png, "txt": picture.names[0].encode(), "json": _described(png, picture.code)})
        for picture in every
        if not picture.held_out and _pixels(png := drawn[picture.code]) not in tested
    ]
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    write_shard(unfinished / "0.tar", samples)
    unfinished.rename(folder)


def _pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()


def _described(png: bytes, code: str) -> bytes:
    return json.dumps({"uid": hashlib.sha256(png + code.encode()).hexdigest()[:32]}).encode()


def _settled(path: Path, content: bytes) -> Path:
    if not path.is_file() or path.read_bytes() != content:
        with atomic(path, "wb") as file:
            file.write(content)
    return path
