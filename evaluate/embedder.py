"""A model as the encoder needs it: pixels for pictures, embeddings for both, and what results tell of it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch

from poolbench.fields import OwnModel
from poolbench.models.clip import tokenizer_of
from poolbench.models.conventions import Conventions, conventions_of
from poolbench.models.texts import full_batches, text_lengths
from poolbench.models.towers import Towers
from poolbench.models.transforms import Pixels, evaluation_transform

# A constant in place of the scale that a model has learned; it changes no ranking. Also the scale of a model without.
LOGIT_SCALE = 100.0


class Embedder(Protocol):
    """A model on a device. Both methods raise UserError for embeddings that are not finite.

    Attributes:
        pixels: from a picture file to the tensor of it that a batch of `images` stacks; runs in the workers.
        transform: describes `pixels`, and is another text where they are others.
        logit_scale: by which the model multiplies similarities before the softmax.
        unit: whether embeddings are of unit length, and so the means of several.
        conventions: of a model that open_clip built.
        own: of one that it did not.
    """

    device: torch.device
    pixels: Callable[[bytes], torch.Tensor]
    transform: str
    logit_scale: float
    unit: bool
    conventions: Conventions | None
    own: OwnModel | None

    def images(self, pictures: torch.Tensor) -> torch.Tensor:
        """A batch of what `pixels` gives -> float32 [n, d] on the device."""

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """n texts -> float32 [n, d] on the device."""


class OpenClip:
    """A model that open_clip built."""

    unit = True
    own: OwnModel | None = None

    def __init__(
        self,
        model: torch.nn.Module,
        name: str,
        device: torch.device,
        precision: str,
        batch_size: int,
        folder: Path | None = None,
    ) -> None:
        """`folder`: with the configuration of a model that is not one of open_clip's, see `tokenizer_of`."""
        transform = evaluation_transform(model)
        self.device = device
        self.pixels: Callable[[bytes], torch.Tensor] = Pixels(transform)
        self.transform = repr(transform)
        self.conventions: Conventions | None = conventions_of(model)
        self.logit_scale = logit_scale_of(model)
        self._model = model
        self._towers = Towers(model, device, precision)
        self._tokenizer = tokenizer_of(name, folder)
        self._batch_size = batch_size

    def images(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, d]."""
        return self._towers.images(pictures)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts of like length share a batch, which is as long as its longest, and holds as many tokens as `batch_size`
        texts of full length."""
        tokens = self._tokenizer(list(texts))
        lengths = text_lengths(self._model, tokens)
        batches = full_batches(lengths, self._batch_size * tokens.shape[1])
        vectors = self._towers.texts(tokens[rows, : int(lengths[rows].max())] for rows in batches)
        return vectors[torch.argsort(torch.cat(batches)).to(self.device)]


def logit_scale_of(model: torch.nn.Module) -> float:
    """What a model of open_clip has learned to multiply cosines by, before the softmax."""
    logarithm: torch.Tensor = model.logit_scale  # type: ignore[assignment]
    return float(logarithm.detach().exp())
