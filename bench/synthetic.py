"""What the throughput benchmarks train on: photo-like JPEGs in shards, and batches made up of random numbers.

Imported in the environments of both sides, so it needs nothing of ours.
"""

import io
import itertools
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

SHARDS = 4
PICTURES = 1024  # in all shards together
START, END = 49406, 49407  # open_clip's tokens around a caption; the rest of its row is zeros


def make_shards(folder: Path, pictures: int) -> None:
    """Shards of photo-like JPEGs, 512 pixels on the longer side: smooth shapes, fine noise, about 70 kB each."""
    rng, numbers = np.random.default_rng(0), itertools.count()
    folder.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
            for number in itertools.islice(numbers, pictures // SHARDS):
                caption = f"a photo-like picture, number {number} of the benchmark, of nothing in particular"
                for extension, data in (("jpg", _jpeg(rng, number)), ("txt", caption.encode())):
                    info = tarfile.TarInfo(f"{number:08d}.{extension}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


def shard_pattern(folder: Path) -> str:
    """The shards of `make_shards` as open_clip_train wants them."""
    return f"{folder}/{{00000..{SHARDS - 1:05d}}}.tar"


def images(count: int, size: int) -> torch.Tensor:
    """Random pictures, uint8 [count, 3, size, size], the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def captions(batches: int, count: int, context: int) -> Iterator[torch.Tensor]:
    """Tokens of random captions, int64 [count, context] each, the same at every call.

    Their lengths, start and end included, spread as those of web captions do: 20 tokens on average, few at the limit.
    """
    rng = np.random.default_rng(0)
    for _ in range(batches):
        tokens = rng.integers(1, START, (count, context))
        lengths = np.clip(rng.lognormal(2.8, 0.6, count).round().astype(int), 3, context)
        places = np.arange(context)
        tokens[:, 0] = START
        tokens[places == lengths[:, None] - 1] = END
        tokens[places >= lengths[:, None]] = 0
        yield torch.from_numpy(tokens)


def _jpeg(rng: np.random.Generator, number: int) -> bytes:
    height, width = (384, 512) if number % 2 else (512, 340)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    pixels = np.clip(smooth + rng.integers(-12, 13, smooth.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
