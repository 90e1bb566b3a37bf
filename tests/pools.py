"""Small pools of real tars for the tests: pictures of a few colours with captions that name them."""

import io
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from poolbench.shards.writer import write_shard

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 200, 60),
    "blue": (40, 60, 220),
    "yellow": (230, 220, 40),
    "white": (240, 240, 240),
}


def uid_of(number: int) -> str:
    """A uid that is not sorted by number."""
    return f"{(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % 2**128:032x}"


def picture(number: int, side: int = 40, form: str = "PNG") -> bytes:
    """An encoded picture, a different one for each number."""
    rng = np.random.default_rng(number)
    base = np.array(list(COLOURS.values())[number % len(COLOURS)])
    return encoded(np.clip(base + rng.integers(-25, 25, (side, side + number % 7, 3)), 0, 255).astype(np.uint8), form)


def encoded(pixels: np.ndarray, form: str = "PNG") -> bytes:
    """Pixels as a picture file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def sample(number: int, form: str = "PNG") -> dict[str, bytes]:
    """The members of one good sample."""
    colour = list(COLOURS)[number % len(COLOURS)]
    extension = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[form]
    return {
        extension: picture(number, form=form),
        "txt": f"{colour} picture number {number}".encode(),
        "json": json.dumps({"uid": uid_of(number)}).encode(),
    }


def write_tar(path: Path, samples: Iterable[tuple[str, dict[str, bytes]]]) -> Path:
    """Write (key, members) as a webdataset tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, samples)
    return path


def write_pool(folder: Path, shards: int = 4, per_shard: int = 25, first: int = 0) -> Path:
    """A folder of shards with `shards * per_shard` samples, numbered from `first`."""
    for shard in range(shards):
        numbers = range(first + shard * per_shard, first + (shard + 1) * per_shard)
        forms = ("PNG", "JPEG", "WEBP")
        write_tar(folder / f"{shard:05d}.tar", ((f"{n:08d}", sample(n, forms[n % 3])) for n in numbers))
    return folder


def by_webdataset(paths: Iterable[Path]) -> list[tuple[str, dict[str, bytes]]]:
    """The samples of shards as webdataset reads them, not decoded."""
    import webdataset  # type: ignore[import-untyped]

    found = webdataset.WebDataset([str(path) for path in paths], shardshuffle=False)
    return [(one["__key__"], {name: one[name] for name in one if not name.startswith("__")}) for one in found]
