"""The model as evaluation needs it: unit vectors of pictures and texts, and zero-shot classifiers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from conf.errors import UserError
from evaluate.images import Pixels, Scale, evaluation_transform
from evaluate.subject import Subject
from train.model import load, tokenizer_of

CLASS_BATCH = 256  # classes whose prompts are held in memory at a time


class Encoder:
    """A model on a device, loaded once for all tasks.

    Embeddings are float32 and of unit length whatever the precision of the towers.
    """

    def __init__(
        self, model: torch.nn.Module, name: str, device: torch.device, precision: str, batch_size: int
    ) -> None:
        if precision == "fp32":
            # TensorFloat-32 keeps 10 bits of the mantissa; it would make fp32 on a GPU something else than on a CPU.
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        transform = evaluation_transform(model)
        self.device = device
        self.pixels = Pixels(transform)
        self._scale = Scale(transform).to(device)
        self._model: Any = model
        self._tokenizer = tokenizer_of(name)
        self._precision = precision
        self._batch_size = batch_size
        self._classes: dict[tuple[str, tuple[str, ...]], torch.Tensor] = {}

    @classmethod
    def of(cls, subject: Subject, device: torch.device, precision: str, batch_size: int) -> "Encoder":
        """Load the subject's weights; see train.model.load for what can be wrong with them."""
        model = load(subject.model, subject.checkpoint, device=device)
        return cls(model, subject.model, device, precision, batch_size)

    @torch.inference_mode()
    def encode_images(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [n, 3, h, w] -> float32 [n, d] on the device.

        Raises:
            UserError: the model gives embeddings that are not finite, as a diverged one does.
        """
        scaled = self._scale(images.to(self.device, non_blocking=True))
        with self._autocast():
            features = self._model.encode_image(scaled)
        return _unit(features, "picture")

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """n texts -> float32 [n, d] on the device, each different text encoded once.

        Raises:
            UserError: the model gives embeddings that are not finite.
        """
        unique = list(dict.fromkeys(texts))
        parts = []
        for start in range(0, len(unique), self._batch_size):
            tokens = self._tokenizer(unique[start : start + self._batch_size]).to(self.device)
            with self._autocast():
                features = self._model.encode_text(tokens)
            parts.append(_unit(features, "text"))
        place = {text: index for index, text in enumerate(unique)}
        return torch.cat(parts)[[place[text] for text in texts]]

    @torch.inference_mode()
    def classifier(self, classnames: Sequence[str], templates: Sequence[str]) -> torch.Tensor:
        """Zero-shot weights, float32 [d, classes]: the mean over templates of unit vectors, scaled to unit length.

        Classes that an earlier task had with the same templates are not encoded again (six tasks share ImageNet's).
        Source of the formula: Radford et al., Learning Transferable Visual Models From Natural Language
        Supervision, 2021, section 3.1.4.
        """
        templates = tuple(templates)
        new = [name for name in dict.fromkeys(classnames) if (name, templates) not in self._classes]
        for start in range(0, len(new), CLASS_BATCH):
            names = new[start : start + CLASS_BATCH]
            prompts = [template.replace("{c}", name) for name in names for template in templates]
            features = self.encode_texts(prompts).view(len(names), len(templates), -1)
            weights = functional.normalize(features.mean(dim=1), dim=-1)
            self._classes |= {(name, templates): weight for name, weight in zip(names, weights, strict=True)}
        return torch.stack([self._classes[name, templates] for name in classnames], dim=1)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "amp_bf16")


def _unit(features: torch.Tensor, what: str) -> torch.Tensor:
    vectors = functional.normalize(features.float(), dim=-1)
    if not torch.isfinite(vectors).all():
        raise UserError(f"the model gives {what} embeddings that are not finite numbers; did its training diverge?")
    return vectors
