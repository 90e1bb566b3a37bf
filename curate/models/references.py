"""Reference sets, against which HYPE measures how specific a picture or a caption is: features of a hyperbolic CLIP.

A file has two matrices, `img` and `txt`, a vector a row: features times their scale, not lifted yet, as naver-ai/hype
publishes them. It may be a .npz or what torch wrote. Other references are samples of shards, which the model embeds.
"""

import heapq
import pickle
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError, first_line
from poolbench.files import atomic, cache, claimed, digest_file, digest_json
from poolbench.shards.samples import Problem, Sample, commonest, read_shard
from poolbench.shards.sources import Data, resolve
from poolbench.uids import from_texts

from curate.pool.hashes import hashed

KEYS = ("img", "txt")
FILES = (".pt", ".pth", ".npz")
_WAIT = 24 * 3600.0  # seconds for another process that embeds the same samples


class References(NamedTuple):
    """Features of pictures float64 [n, d], and of captions [m, d], finite and times their scale."""

    images: np.ndarray
    texts: np.ndarray


class Chosen(NamedTuple):
    """A picture file, and a caption."""

    picture: bytes
    caption: str


class Reference:
    """What `reference=` names.

    Attributes:
        identity: what it depends on besides the model.
    """

    def __init__(self, given: Any, samples: int, seed: int) -> None:
        """
        Args:
            samples: how many are drawn of shards, by `seed`.

        Raises:
            UserError: there is no such file, or no shards.
        """
        self._file = Path(given) if isinstance(given, str) and Path(given).suffix in FILES else None
        self._samples, self._seed = samples, seed
        self.identity: dict[str, str | float | bool | None]
        if self._file is not None:
            if not self._file.is_file():
                raise UserError(f"reference={given} is not there")
            self.identity = {"reference": digest_file(self._file)}
            return
        try:
            self._data = resolve(given)
        except UserError as error:
            raise UserError(str(error).replace("data=", "reference=")) from None
        self.identity = {"reference": self._data.digest, "reference_samples": samples, "reference_seed": seed}

    def found(self, embed: Callable[[Sequence["Chosen"]], References], identity: Any, width: int) -> References:
        """The features, of samples as `embed` makes them, which are then kept in the cache.

        Args:
            identity: of model and reference, JSON-able.
            width: of the model's features.

        Raises:
            UserError: they cannot be read, or do not fit the model.
        """
        if self._file is not None:
            return read(self._file, width)
        folder = cache() / "references"
        path = folder / f"{digest_json(identity)}.npz"
        with claimed(folder, wait=_WAIT):
            if not path.is_file():
                made = embed(drawn(self._data, self._samples, self._seed))
                with atomic(path, "wb") as file:
                    np.savez(file, img=made.images, txt=made.texts)
        return read(path, width)


def read(path: Path, width: int) -> References:
    """The references of a file.

    Raises:
        UserError: it cannot be read, or holds something else than features of this width.
    """
    found = _matrices(path)
    for key in KEYS:
        if key not in found:
            held = ", ".join(sorted(map(str, found))) or "nothing"
            raise UserError(f"reference={path} has no {key}: it needs {' and '.join(KEYS)}, and holds {held}")
    return References(*(_checked(path, key, found[key], width) for key in KEYS))


def _matrices(path: Path) -> dict[Any, Any]:
    """What a file holds by name; arrays are numpy's.

    Raises:
        UserError: as said.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        import torch  # which most of what reads this needs anyway

        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        raise UserError(f"reference={path} cannot be read: {first_line(error)}") from None
    if not isinstance(loaded, dict):
        raise UserError(f"reference={path} holds a {type(loaded).__name__}; it needs {' and '.join(KEYS)} by name")
    return {
        key: value.detach().double().numpy() if isinstance(value, torch.Tensor) else value
        for key, value in loaded.items()
    }


def _checked(path: Path, key: str, matrix: Any, width: int) -> np.ndarray:
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or matrix.dtype.kind != "f" or not len(matrix):
        kind = f"{matrix.dtype} {list(matrix.shape)}" if isinstance(matrix, np.ndarray) else type(matrix).__name__
        raise UserError(f"reference={path}: {key} is {kind}; it is a matrix of floats, a feature a row")
    if matrix.shape[1] != width:
        raise UserError(f"reference={path}: {key} has {matrix.shape[1]} numbers a row, the model's features {width}")
    if not np.isfinite(matrix).all():
        raise UserError(f"reference={path}: {key} holds features that are no numbers")
    return matrix.astype(np.float64)


def drawn(data: Data, size: int, seed: int) -> list[Chosen]:
    """The samples with the `size` smallest hashes of uid and seed, in their order: the same however the shards are cut.

    Raises:
        UserError: a shard cannot be read, or there are no samples.
    """
    kept: list[tuple[int, str, Chosen]] = []  # a heap by the hash's negative: the largest is the first to go
    held: set[str] = set()
    bad: list[Problem] = []
    for uid, chosen in _samples(data, bad):
        key = -int(hashed(from_texts([uid]), seed)[0])
        if uid in held or (len(kept) == size and key < kept[0][0]):
            continue
        held.add(uid)
        if len(kept) < size:
            heapq.heappush(kept, (key, uid, chosen))
        else:
            held.discard(heapq.heapreplace(kept, (key, uid, chosen))[1])
    if not kept:
        raise UserError(f"reference= has no sample that can be read{commonest(bad)}")
    if bad:
        print(f"reference=: {len(bad):,} samples cannot be read and are none of it{commonest(bad)}")
    return [chosen for _, _, chosen in sorted(kept, key=lambda one: (-one[0], one[1]))]


def _samples(data: Data, bad: list[Problem]) -> Iterator[tuple[str, Chosen]]:
    for shard in data.shards:
        for sample in read_shard(shard.path, shard.size):
            found = _usable(shard.name, sample) if isinstance(sample, Sample) else sample
            if isinstance(found, Problem):
                if not found.key:  # the rest of the shard is missing, and might be drawn another time
                    raise UserError(f"reference=: {found.shard} {found.reason}")
                bad.append(found)
            else:
                yield found


def _usable(shard: str, sample: Sample) -> tuple[str, Chosen] | Problem:
    try:
        return sample.record()["uid"].lower(), Chosen(sample.picture(), sample.caption())
    except ValueError as error:
        return Problem(shard, sample.key, str(error))
