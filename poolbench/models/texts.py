"""Captions as a CLIP model reads them: no longer than they are, those of like length together."""

from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor, nn
from torch.func import functional_call

PARTS = 4  # of the captions of a batch, by length; smaller ones would not keep a GPU busy
ROUNDED_TO = 8  # tokens


class Texts(NamedTuple):
    """The captions of a batch, those of like length together. Behind a causal mask padding changes nothing, so none is
    computed: captions of a web pool have some 15 to 25 tokens of the 77."""

    parts: tuple[Tensor, ...]  # int64 [n_i, length_i], the n_i adding up to n
    places: Tensor  # int64 [n]: where among all of the parts the caption of each picture stands

    def to(self, device: torch.device) -> "Texts":
        """Copied to `device` without waiting for it."""
        return Texts(tuple(_sent(part, device) for part in self.parts), _sent(self.places, device))


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A GPU copies from page-locked memory while it computes; from any other the copy is waited for, and before it all
    that the GPU was given until then."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def by_length(model: nn.Module, tokens: Tensor) -> Texts:
    """Sort captions [n, context length] into at most PARTS parts.

    Lengths are rounded up to a multiple of ROUNDED_TO: few different shapes, and ones that fit the hardware.
    """
    lengths = (text_lengths(model, tokens) + ROUNDED_TO - 1) // ROUNDED_TO * ROUNDED_TO
    lengths, order = lengths.clamp(max=tokens.shape[1]).sort(stable=True)
    parts, first, least = [], 0, -(-len(order) // PARTS)
    while first < len(order):
        length = lengths[min(first + least, len(order)) - 1]
        last = int(torch.searchsorted(lengths, length, right=True))
        parts.append(tokens[order[first:last], : int(length)])
        first = last
    return Texts(tuple(parts), order.argsort())


def full_batches(lengths: Tensor, most: int) -> list[Tensor]:
    """The rows of texts of so many tokens each, int64 [n], the shortest first, in batches that hold at most `most`
    tokens when each is as long as its longest text; one text is always a batch.

    Short texts in small batches keep neither a CPU nor a GPU busy.
    """
    ascending, order = lengths.sort(stable=True)
    sizes, first = list[int](), 0
    for place, length in enumerate(ascending.tolist()):
        if place > first and (place + 1 - first) * length > most:
            sizes.append(place - first)
            first = place
    return list(torch.split(order, [*sizes, len(order) - first]))


def text_lengths(model: nn.Module, tokens: Tensor) -> Tensor:
    """How many of the tokens [n, context length] of each text decide its embedding, int64 [n].

    Behind a causal mask a token sees only those before it, and CLIP reads the embedding off the end-of-text token, the
    one of the highest number; what stands behind it is padding. Other towers get all tokens.
    """
    return tokens.argmax(dim=1) + 1 if _causal(model) else torch.full((len(tokens),), tokens.shape[1])


def _causal(model: nn.Module) -> bool:
    return (
        type(model) is open_clip.CLIP
        and getattr(model, "text_pool_type", None) == "argmax"
        and getattr(model, "attn_mask", None) is not None
    )


def encode_text(model: Any, tokens: Tensor, *, normalize: bool = True) -> Tensor:
    """Embeddings [n, d] of texts [n, length], which may be shorter than the model's context; of unit length, or as they
    leave the tower."""
    length = tokens.shape[1]
    features: Tensor
    # transformers' towers have places for more tokens than their tokenizers give.
    if length == model.context_length or not _causal(model):
        features = model.encode_text(tokens, normalize=normalize)
    else:
        shorter = {
            "model.positional_embedding": model.positional_embedding[:length],
            "model.attn_mask": model.attn_mask[:length, :length],
        }
        features = functional_call(_TextTower(model), shorter, (tokens, normalize))
    return features


class _TextTower(nn.Module):
    """A model whose forward is its text tower: what functional_call can call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, normalize: bool) -> Tensor:
        features: Tensor = self.model.encode_text(tokens, normalize=normalize)
        return features
