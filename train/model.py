"""Models by open_clip's names, our own small one among them, and their weights from any file open_clip reads or
writes."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch.func import functional_call

from conf.errors import UserError, nearest

open_clip.add_model_config(Path(__file__).parent / "models")  # "ViT-Ti-16-64" and the like become names as any other


class Preprocess(NamedTuple):
    """How a model wants its pictures: side in pixels, and mean and deviation of a channel on the 0..1 scale."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def create(name: str, *, seed: int = 0, device: torch.device | str = "cpu") -> torch.nn.Module:
    """A freshly initialised open_clip model in float32, the same for the same seed on every machine.

    Its forward returns a dict (`image_features`, `text_features`, `logit_scale`).

    Raises:
        UserError: open_clip knows no such model.
    """
    check_name(name)
    torch.manual_seed(seed)
    # Initialised on the CPU, whose generator gives the same weights on every machine.
    logging.disable(logging.WARNING)  # open_clip warns that a model without pretrained weights has none
    try:
        model: torch.nn.Module = open_clip.create_model(name, precision="fp32", output_dict=True)
    finally:
        logging.disable(logging.NOTSET)
    return model.to(device)


def load(name: str, checkpoint: str, *, device: torch.device | str = "cpu") -> torch.nn.Module:
    """The model `name` with the weights of `checkpoint`: a file, or one of open_clip's pretrained tags.

    Files: ours, `{"state_dict": ...}` with or without a `module.` prefix, a bare state dict, safetensors. They are
    opened with `weights_only=True`: a checkpoint from a stranger cannot run code.

    Raises:
        UserError: no such model, no such file or tag, or weights of another architecture.
    """
    check_checkpoint(name, checkpoint)
    try:
        model: torch.nn.Module = open_clip.create_model(name, pretrained=checkpoint, precision="fp32", output_dict=True)
    except Exception as error:  # open_clip, torch, pickle and safetensors each raise their own
        reason = f"{_first_mismatch(error)}; is it damaged, or of another architecture?"
        raise UserError(f"checkpoint {checkpoint} cannot be loaded as {name}: {reason}") from None
    return model.to(device).eval()


def check_name(name: str) -> None:
    """Raise UserError, naming the nearest model, where open_clip knows no model `name`."""
    if name not in open_clip.list_models():
        raise UserError(f"unknown model {name!r}; {nearest(name, open_clip.list_models())}")


def check_checkpoint(name: str, checkpoint: str) -> None:
    """Raise UserError where `checkpoint` is neither a file nor a pretrained tag that open_clip has of model `name`."""
    check_name(name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    if not Path(checkpoint).is_file() and checkpoint not in tags:
        known = nearest(checkpoint, tags) if tags else f"{name} has no tags"
        raise UserError(f"checkpoint {checkpoint} is neither a file nor a pretrained tag of {name}; {known}")


def text_lengths(model: torch.nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """How many of the tokens [n, context length] of each text decide its embedding, int64 [n].

    Behind a causal mask a token sees only those before it, and CLIP reads the embedding off the end-of-text token, the
    one of the highest number; what stands behind it is padding. Other towers get all tokens.
    """
    causal = (
        type(model) is open_clip.CLIP
        and getattr(model, "text_pool_type", None) == "argmax"
        and getattr(model, "attn_mask", None) is not None
    )
    return tokens.argmax(dim=1) + 1 if causal else torch.full((len(tokens),), tokens.shape[1])


def encode_text(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Embeddings [n, d] of unit length of texts [n, length], which may be shorter than the model's context."""
    length = tokens.shape[1]
    features: torch.Tensor
    if length == model.context_length:
        features = model.encode_text(tokens, normalize=True)
    else:
        shorter = {
            "positional_embedding": model.positional_embedding[:length],
            "attn_mask": model.attn_mask[:length, :length],
        }
        features = functional_call(model, shorter, kwargs={"text": tokens})["text_features"]
    return features


def compile_blocks(model: torch.nn.Module) -> None:
    """Compile the transformer blocks of both towers in place: once for all blocks, which are alike.

    The whole model would be compiled anew for each mix of text lengths.
    """
    for name, module in model.named_modules():
        if isinstance(module, ResidualAttentionBlock):
            module.compile(dynamic=not name.startswith("visual."))


def preprocess_of(model: torch.nn.Module) -> Preprocess:
    """Picture side, mean and deviation of a model that open_clip built."""
    settings: dict[str, Any] = open_clip.get_model_preprocess_cfg(model)
    size = settings["size"]
    return Preprocess(size if isinstance(size, int) else size[0], tuple(settings["mean"]), tuple(settings["std"]))


def tokenizer_of(name: str) -> Any:
    """open_clip's tokenizer for the model `name`: list of strings -> int64 tensor [n, context length]."""
    return open_clip.get_tokenizer(name)


def _first_mismatch(error: Exception) -> str:
    """torch lists every key that differs; the first line that names one is enough to see what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[1] if lines[0].startswith("Error(s) in loading") and len(lines) > 1 else lines[0]
