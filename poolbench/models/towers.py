"""The two towers of a finished CLIP model: pictures and texts to embeddings."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional

from poolbench.errors import UserError
from poolbench.models.texts import by_length, encode_text
from poolbench.models.transforms import Scale, evaluation_transform


class Towers:
    """A model on a device. Embeddings are float32 whatever the precision of the towers, and of unit length, or with
    `unit` False as they leave the towers.

    All methods raise UserError where the model gives embeddings that are not finite, as a diverged one does.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device, precision: str, unit: bool = True) -> None:
        if precision == "fp32":
            # TensorFloat-32 keeps 10 bits of the mantissa; it would make fp32 on a GPU something else than on a CPU.
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        self._model: Any = model
        self._device, self._precision, self._unit = device, precision, unit
        self._scale = Scale(evaluation_transform(model)).to(device)

    @torch.inference_mode()
    def images(self, pictures: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, d] on the device."""
        scaled = self._scale(pictures.to(self._device, non_blocking=True))
        with self._autocast():
            features = self._model.encode_image(scaled)
        return self._checked(features, "picture")

    @torch.inference_mode()
    def texts(self, parts: Iterable[torch.Tensor]) -> torch.Tensor:
        """Tokens, n texts in parts of like length each -> float32 [n, d] on the device, in the parts' order."""
        embeddings = []
        for tokens in parts:
            with self._autocast():
                tokens = tokens.to(self._device, non_blocking=True)
                features = encode_text(self._model, tokens, normalize=self._unit)
            embeddings.append(self._checked(features, "text"))
        return torch.cat(embeddings)

    def captions(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens of a batch of texts, int64 [n, context length] -> float32 [n, d] on the device, row for row."""
        parts, places = by_length(self._model, tokens)
        return self.texts(parts)[places.to(self._device)]

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "amp_bf16")

    def _checked(self, features: torch.Tensor, what: str) -> torch.Tensor:
        embeddings = functional.normalize(features.float(), dim=-1) if self._unit else features.float()
        if not torch.isfinite(embeddings).all():
            raise UserError(f"the model gives {what} embeddings that are not finite numbers; did its training diverge?")
        return embeddings
