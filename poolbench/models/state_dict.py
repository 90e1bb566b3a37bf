"""The weights in a checkpoint file by the names that the model itself has for them, whatever trained and wrapped it.

A file is opened with `weights_only=True`: a checkpoint from a stranger cannot run code.
"""

import json
import pickle
import re
import shlex
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from poolbench.errors import UserError, first_line
from poolbench.models.hyperbolic import IN_CHECKPOINTS, NAMES
from poolbench.text import some

# Under which keys training programs keep the weights beside optimizer and counters, and averages of the weights.
_CONTAINERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "network",
    "net",
    "weights",
    "params",
)
_AVERAGE = re.compile(r"(^|_)(ema|averaged?|swa|teacher)(_|$)", re.IGNORECASE)
# What torch.compile, DDP and DeepSpeed, FSDP, activation checkpointing and Lightning's Fabric put between the names.
_WRAPPERS = {
    *("_orig_mod", "module", "_fsdp_wrapped_module", "_fpw_module"),
    *("_checkpoint_wrapped_module", "_forward_module"),
}
AVERAGED = "averaged_from"  # the checkpoints, in a file of this project that is their average
_OURS = {"cursors", AVERAGED}  # the first is the position in the data; checkpoints of this project alone hold them
_ANCHOR = "logit_scale"  # which every model has at its top, so that what stands before it is a wrapper's
# Beside the weights in TorchScript archives, which OpenAI's own files are.
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")


class StateDict(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        tensors: name -> tensor, on the CPU.
        model: what a checkpoint of ours says that it is of; None in others.
        experiment: what other trainings call theirs, open_clip's with the model's name in it; None where they do not.
        notes: what of the file is not used, a line each.
        logarithms: what a hyperbolic CLIP has learned besides, by NAMES of poolbench.models.hyperbolic; {} in others.
    """

    tensors: dict[str, torch.Tensor]
    model: str | None
    experiment: str | None
    notes: list[str]
    logarithms: dict[str, float]


def read(path: Path, own: Collection[str]) -> StateDict:
    """Read a checkpoint file: `torch.save`'s of a state dict or a container of one, or safetensors.

    Args:
        own: the names of the model's tensors; what wrappers put around them in the file is taken off.

    Raises:
        UserError: it is something else, is damaged, holds what only runs as code, or holds several models.
    """
    _refuse_other_files(path)
    content = _opened(path)
    name = content.get("name") if isinstance(content, Mapping) else None
    ours = name is not None and not _OURS.isdisjoint(content)
    weights, notes = _innermost(content)
    tensors = {key: value for key, value in weights.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise UserError(f"checkpoint {path} holds no weights: {some([str(key) for key in weights]) or 'it is empty'}")
    if any(key.split(".")[-1].startswith("_flat_param") for key in tensors):
        raise UserError(f"checkpoint {path} holds FSDP's flat parameters; save it with StateDictType.FULL_STATE_DICT")
    tensors, left = _unwrapped(path, tensors, own)
    said = name if isinstance(name, str) else None
    learned = content.get(IN_CHECKPOINTS, {}) if ours else {}
    if all(key in tensors and tensors[key].numel() == 1 for key in NAMES) and not set(NAMES) & set(own):
        learned = {key: tensors.pop(key) for key in NAMES}
    logarithms = {key: float(value) for key, value in learned.items()}
    return StateDict(tensors, said if ours else None, None if ours else said, [*notes, *left], logarithms)


def tensors_of(loaded: Any) -> dict[str, torch.Tensor]:
    """The named tensors in what `torch.load` or `torch.jit.load` gave: a state dict, a container of one, a module."""
    weights, _ = _innermost(loaded)
    return {str(key): value.detach().clone() for key, value in weights.items() if isinstance(value, torch.Tensor)}


def _refuse_other_files(path: Path) -> None:
    """Raise UserError for what often lies where a checkpoint should."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be read: {error.strerror}") from None
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    problem = None
    if not size:
        problem = "is empty"
    elif start.startswith(b"version https://git-lfs"):
        problem = "is a pointer of Git LFS, not the file itself; git lfs pull fetches that"
    elif text.startswith((b"<!doctype", b"<html", b"<?xml")):
        problem = "is a web page, not a checkpoint; download the file itself"
    elif path.name.endswith(".index.json"):
        problem = "is the index of a checkpoint in several files; join them into one state dict"
    elif text.startswith((b"{", b"[")):
        problem = "is JSON, not a checkpoint"
    elif start.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        problem = "is cut off: its directory, which comes last, is missing; copy it again"
    if problem is not None:
        raise UserError(f"checkpoint {path} {problem}")


def _opened(path: Path) -> Any:
    """Tensors and containers of them, as the file has them."""
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or start[8:] == b"{":
        try:
            return load_file(path, device="cpu")
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(f"checkpoint {path} is damaged: {first_line(error)}; copy it again") from None
    if _is_torchscript(path):
        load = f"torch.jit.load({json.dumps(str(path))}, map_location='cpu')"
        raise UserError(f"checkpoint {path} is a TorchScript archive; {_how_to_convert(path, load)}")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+) was not an allowed global|Unsupported class (\S+)", str(error))
        if found is None:
            raise UserError(f"checkpoint {path} cannot be loaded: it is damaged, or no checkpoint at all") from None
        load = f"torch.load({json.dumps(str(path))}, map_location='cpu', weights_only=False)"
        kind = found[1] or found[2]
        raise UserError(
            f"checkpoint {path} holds {kind} beside the weights, which weights_only=True refuses; if you trust it: "
            f"{_how_to_convert(path, load)}"
        ) from None
    except Exception as error:  # torch and the pickle each raise their own on damaged bytes
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"checkpoint {path} cannot be loaded: is it damaged, or no checkpoint? {reason}") from None


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False


def _how_to_convert(path: Path, load: str) -> str:
    """The command that writes the weights alone, to be pasted into a shell."""
    new = str(path.with_name(f"{path.stem}.weights.pt"))
    load = load.replace("'cpu'", '"cpu"')
    save = f"torch.save(tensors_of({load}), {json.dumps(new)})"
    code = f"import torch; from poolbench.models.state_dict import tensors_of; {save}"
    return f"python -c {shlex.quote(code)} makes {new}, which is read"


def _innermost(loaded: Any) -> tuple[Mapping[Any, Any], list[str]]:
    """The state dict within containers, and what lies beside it that may be taken for it."""
    notes: list[str] = []
    while isinstance(loaded, Mapping):
        inner = {str(key): value for key, value in loaded.items() if isinstance(value, Mapping | torch.nn.Module)}
        averages = [key for key in inner if _AVERAGE.search(key)]
        chosen = next((key for key in _CONTAINERS if key in inner), averages[0] if averages else None)
        if chosen is None:
            return loaded, notes
        if chosen in averages:
            notes.append(f"its weights are an average, {chosen}")
        elif averages:
            notes.append(f"it also holds an average of the weights, {averages[0]}, which is not used")
        loaded = inner[chosen]
    return (loaded.state_dict() if isinstance(loaded, torch.nn.Module) else {}), notes


def _unwrapped(
    path: Path, tensors: Mapping[str, torch.Tensor], own: Collection[str]
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """The tensors by the model's names, and a note on those that lie outside of the model.

    Raises:
        UserError: several models, or two tensors of one name.
    """
    wrappers = _WRAPPERS - {part for name in own for part in name.split(".")}
    short: dict[str, torch.Tensor] = {}
    for key, value in tensors.items():
        name = ".".join(part for part in key.split(".") if part not in wrappers)
        if name in short:
            raise UserError(f"checkpoint {path} holds two tensors {name}; one of them is {key}")
        short[name] = value
    models = [name.removesuffix(_ANCHOR) for name in short if name == _ANCHOR or name.endswith(f".{_ANCHOR}")]
    trained = [model for model in models if not any(_AVERAGE.search(part) for part in model.split("."))] or models
    if len(trained) > 1 and "" not in trained:
        raise UserError(f"checkpoint {path} holds several models: {some(trained)}; save one of them alone")
    outer = trained[0] if trained and "" not in trained else ""
    others = tuple(model for model in models if model not in ("", outer))
    inside: dict[str, torch.Tensor] = {}
    outside: list[str] = []
    for name, value in short.items():
        if name.startswith(outer) and not (others and name.startswith(others)):
            inside[name.removeprefix(outer)] = value
        else:
            outside.append(name)
    notes = [f"these of its tensors are not used, as they lie outside of the model: {some(outside)}"]
    surplus = [name for name in inside if name not in own and name.split(".")[-1] in _NOT_WEIGHTS]
    return {name: value for name, value in inside.items() if name not in surplus}, notes if outside else []
