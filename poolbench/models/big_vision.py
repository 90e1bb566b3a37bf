"""Weights in the files of Google's big_vision, as SigLIP's authors publish them, which open_clip converts."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from open_clip.convert import load_big_vision_weights

from poolbench.errors import UserError, first_line

_ROOT = "params/"  # before the names in some of the files


def fill(model: Any, path: Path, name: str) -> None:
    """Put the weights of a `.npz` into a model with a timm picture tower.

    Raises:
        UserError: it is no such file or model, or of other sizes: open_clip would resize the patches, and leave out
            the layers that the model lacks.
    """
    reason = None
    try:
        reason = _differs(model, path)
        if reason is None:
            load_big_vision_weights(model, str(path))
    except (OSError, ValueError, KeyError, AttributeError, AssertionError, RuntimeError, zipfile.BadZipFile) as error:
        reason = f"{type(error).__name__}: {first_line(error)}; is it of big_vision, and of this architecture?"
    if reason is not None:
        raise UserError(f"checkpoint {path} cannot be loaded as {name}: {reason}")


def _differs(model: Any, path: Path) -> str | None:
    """The first size in which file and model differ, None where they do not."""
    with np.load(path, allow_pickle=False) as arrays:
        root = _ROOT if f"{_ROOT}b" in arrays else ""
        patch = list(arrays[f"{root}img/embedding/kernel"].shape[:2])
        layers = _layers(arrays, f"{root}img/Transformer/"), _layers(arrays, f"{root}txt/Encoder_0/")
    own_patch = list(model.visual.trunk.patch_embed.proj.weight.shape[-2:])
    own = len(model.visual.trunk.blocks), len(model.text.transformer.resblocks)
    if patch != own_patch:
        return f"its patches are {patch} pixels, those of the model {own_patch}"
    if layers != own:
        return f"its towers have {layers[0]} and {layers[1]} layers, those of the model {own[0]} and {own[1]}"
    return None


def _layers(arrays: Any, prefix: str) -> int:
    """Of a tower whose layers are stacked in arrays, or have numbers."""
    stacked = f"{prefix}encoderblock/LayerNorm_0/scale"
    if stacked in arrays:
        return len(arrays[stacked])
    numbered = f"{prefix}encoderblock_"
    return len({key.removeprefix(numbered).split("/")[0] for key in arrays if key.startswith(numbered)})
