"""Checkpoints: written whole or not at all, known by digest, and weights that open_clip loads as they are."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from poolbench.errors import UserError, first_line
from poolbench.files import atomic, digest_file

_PATTERN = "step_*.pt"


def save(folder: Path, step: int, state: dict[str, Any], keep: int, keep_every: int | None = None) -> tuple[Path, str]:
    """Write `state` as the checkpoint of `step`, then drop the others but for the `keep` - 1 before it and those whose
    step is a multiple of `keep_every`.

    `state` must hold nothing but tensors, numbers, strings and containers of them: it loads with weights_only=True.
    The digest is written after the file it vouches for: a crash between the two leaves a checkpoint that is not
    trusted.

    Returns:
        The file and its SHA-256.

    Raises:
        UserError: the disk is full or cannot be written; the checkpoints before are left as they are.
    """
    path = path_of(folder, step)
    try:
        with atomic(path, "wb") as file:
            torch.save(state, file)
        sha256 = digest_file(path)
        with atomic(_digest_path(path)) as file:
            file.write(sha256 + "\n")
    except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"checkpoint {path} cannot be written: {reason}; the ones before it are intact") from None
    before = [old for old in _newest_first(folder) if old < path]
    for old in _newest_first(folder):
        # One of a later step was passed over as damaged when the run was taken up before it.
        if old > path or (old in before[keep - 1 :] and (keep_every is None or _step_of(old) % keep_every)):
            _digest_path(old).unlink(missing_ok=True)
            old.unlink()
    return path, sha256


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies, while it is kept."""
    return folder / f"step_{step:09d}.pt"


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose content matches its digest; `say` is told of each that does not."""
    for path in _newest_first(folder):
        try:
            expected = _digest_path(path).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            say(f"{path} has no digest: its writing was interrupted; using the one before")
            continue
        if digest_file(path) == expected:
            return path
        say(f"{path} is damaged: its content does not match its digest; using the one before")
    return None


def load(path: Path) -> dict[str, Any]:
    """The state that `save` was given, on the CPU.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return state
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise UserError(f"checkpoint {path} cannot be read: {first_line(error)}") from None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(_PATTERN), reverse=True)


def _digest_path(path: Path) -> Path:
    return path.with_suffix(".sha256")
