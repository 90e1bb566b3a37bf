"""Embeddings kept on disk, so that a new metric, or a run after a crash, needs no new forward pass.

An entry's name is the digest of everything that its content depends on: the weights by content, architecture, tag,
precision, kind of device, the versions of the libraries that decode and compute, the transform, and the shards or the
texts themselves, by content. What is asked for under other circumstances has another name, so nothing stale is ever
found; an entry that is damaged is passed over and written again.
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from poolbench.errors import UserError
from poolbench.files import atomic, digest_bytes, digest_json

VERSION = 3  # of how pictures and texts become embeddings here; a change makes all entries unknown
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "pillow")


class Entry(NamedTuple):
    """Embeddings, unit vectors float32 [n, d], and what is to be known of them besides."""

    vectors: npt.NDArray[np.float32]
    notes: dict[str, Any]


class Cache:
    """A folder of embeddings of one model."""

    def __init__(self, folder: Path, conditions: list[Any], device: torch.device) -> None:
        """`conditions`: what embeddings depend on besides data and device: weights by content, architecture, tag,
        precision, transform."""
        self._folder = folder
        versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
        self._identity = [VERSION, conditions, device.type, versions]
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cache={folder} cannot be a folder: {error.strerror}") from None

    def name(self, kind: str, content: Any) -> str:
        """The name of the entry for `content` (JSON values) of one `kind`."""
        return digest_json([self._identity, kind, content])

    def get(self, name: str) -> Entry | None:
        """The entry, None where there is none or it is damaged."""
        try:
            data = self._path(name).read_bytes()
            vectors = safetensors.load(data)["vectors"]
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            if header["sha256"] != digest_bytes(vectors.tobytes() + header["notes"].encode()):
                return None
            return Entry(vectors, json.loads(header["notes"]))
        except (OSError, SafetensorError, ValueError, KeyError):
            return None

    def put(self, name: str, vectors: torch.Tensor, **notes: Any) -> None:
        """Write an entry.

        Raises:
            UserError: the folder cannot be written, as on a full disk; the results do not depend on it.
        """
        array = vectors.cpu().float().contiguous().numpy()
        text = json.dumps(notes)
        header = {"notes": text, "sha256": digest_bytes(array.tobytes() + text.encode())}
        try:
            with atomic(self._path(name), "wb") as file:
                file.write(safetensors.save({"vectors": array}, header))
        except OSError as error:
            raise UserError(f"cache={self._folder} cannot be written: {error.strerror}; leave cache= out") from None

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.safetensors"
