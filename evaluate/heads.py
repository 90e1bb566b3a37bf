"""Heads saved and loaded: the classifiers that a model's texts or training pictures make, a file a task.

    <heads>/vtab-pets.safetensors                  zero-shot: "weights.0" [d, classes], and further ones of FairFace
    <heads>/prompts/cupl-1a2b3c4d/vtab-pets.safetensors      with other prompts than the task's own
    <heads>/vtab-pets.linear.safetensors           a probe: "weights.0" and "biases.0" of the first draw, and so on

The header says what a head was made from: model, weights, precision, task, and prompts or training split by digest. One
that was made from something else is refused, and never written over.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors import torch as safetensors

from poolbench.errors import UserError
from poolbench.files import atomic, digest_bytes

VERSION = 1  # of how heads are made

Tensors = dict[str, torch.Tensor]


class Saved(NamedTuple):
    """A head: its tensors on the CPU, what else was noted of it, and how many seconds its making took."""

    tensors: Tensors
    notes: Any
    seconds: float


class Heads:
    """A folder of heads of one model.

    Args:
        conditions: what a head depends on besides its task: weights by content, architecture, tag, precision.
        say: told what was read and written.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, Any], say: Callable[[str], None] = print) -> None:
        self._folder, self._conditions, self._say = folder, dict(conditions), say
        self._read: list[float] = []
        self._written = 0

    def read(self, key: str, made_from: Mapping[str, Any], kind: str | None = None) -> Saved | None:
        """The head of a task, None where there is none.

        Args:
            made_from: what else it depends on, JSON values.
            kind: of a probe, what `probes=` calls it.

        Raises:
            UserError: it was made from something else, or cannot be read.
        """
        path = self._path(key, kind)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"heads: {path} cannot be read: {error.strerror}") from None
        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
            identity, notes = json.loads(header["identity"]), json.loads(header["notes"])
            tensors, seconds = safetensors.load(data), float(header["seconds"])
            whole = header["sha256"] == _digest(tensors)
        except (SafetensorError, ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            raise UserError(f"heads: {path} is damaged or no head of ours; move it away")
        wanted = self._identity(key, made_from)
        for name in sorted(wanted.keys() | identity.keys(), key=[*wanted, *identity].index):
            if wanted.get(name) != identity.get(name):
                there, here = (_short(one.get(name)) for one in (identity, wanted))
                raise UserError(f"heads: {path} is of another {name}: {there}, and not {here}; choose another heads=")
        self._read.append(seconds)
        return Saved(tensors, notes, seconds)

    def write(
        self,
        key: str,
        made_from: Mapping[str, Any],
        tensors: Tensors,
        seconds: float,
        kind: str | None = None,
        notes: Any = None,
    ) -> None:
        """Save a head.

        Raises:
            UserError: the folder cannot be written.
        """
        path = self._path(key, kind)
        kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        header = {
            "identity": json.dumps(self._identity(key, made_from)),
            "notes": json.dumps(notes),
            "seconds": repr(seconds),
            "sha256": _digest(kept),
        }
        try:
            with atomic(path, "wb") as file:
                file.write(safetensors.save(kept, header))
        except OSError as error:
            raise UserError(f"heads: {path} cannot be written: {error.strerror}; leave heads= out") from None
        self._written += 1

    def tell(self) -> None:
        """Say what was read and written since the last time, and what reading saved."""
        if self._read:
            self._say(f"heads: {len(self._read)} read from {self._folder}; making them took {sum(self._read):.1f} s")
        if self._written:
            self._say(f"heads: {self._written} written to {self._folder}")
        self._read, self._written = [], 0

    def _identity(self, key: str, made_from: Mapping[str, Any]) -> dict[str, Any]:
        return {**self._conditions, "task": key, **made_from, "version": VERSION}

    def _path(self, key: str, kind: str | None) -> Path:
        return self._folder / f"{key.replace('/', '-')}{'' if kind is None else f'.{kind}'}.safetensors"


def numbered(tensors: Mapping[str, torch.Tensor], name: str) -> list[torch.Tensor]:
    """The tensors `<name>.0`, `<name>.1`, ..."""
    return [tensors[f"{name}.{place}"] for place in range(sum(one.startswith(f"{name}.") for one in tensors))]


def as_numbered(name: str, tensors: Sequence[torch.Tensor]) -> Tensors:
    """The opposite of `numbered`."""
    return {f"{name}.{place}": tensor for place, tensor in enumerate(tensors)}


def _digest(tensors: Tensors) -> str:
    return digest_bytes(
        b"".join(
            f"{name} {one.dtype} {list(one.shape)}".encode() + one.numpy().tobytes()
            for name, one in sorted(tensors.items())
        )
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 40 else f"{text[:16]}..."
