"""One optimizer step: the contrastive loss over the global batch, its gradients, AdamW, the schedule."""

import contextlib
import math
from typing import Any

import open_clip
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from poolbench.models.clip import Preprocess, multiply_patches
from poolbench.models.texts import Texts, by_length, encode_text
from poolbench.models.towers import whole_float32

from train.config import Recipe
from train.hyperbolic import Curved, HyperbolicLoss

MAX_LOGIT_SCALE = math.log(100)
_FEATURES = ("image_features", "text_features")  # of what the towers give; the rest are single numbers


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """The rate of a step (from 0): linear warm-up, then a cosine to 0 at the end of the run."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / (steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(model: nn.Module, recipe: Recipe, *, fused: bool = True) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: gains, biases, embeddings of one vector and the logit scale have
    none."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
    ]
    return torch.optim.AdamW(
        groups, lr=recipe.learning_rate, betas=(recipe.beta1, recipe.beta2), eps=recipe.eps, fused=fused
    )


class Later:
    """Numbers that a device is still computing, on their way to the host behind that work and before any that comes
    after: who reads them waits for no more than it has to."""

    def __init__(self, numbers: Tensor) -> None:
        """`numbers`: [n], on any device."""
        self._numbers = numbers.detach().to("cpu", non_blocking=True)  # of a GPU: into page-locked memory
        self._there = torch.cuda.Event() if numbers.device.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self._there is not None:
            self._there.record()

    def read(self) -> list[float]:
        """The numbers, once they are there."""
        if self._there is not None:
            self._there.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers


class _Towers(nn.Module):
    """A CLIP model whose captions come as Texts; DistributedDataParallel needs both towers in one forward.

    Features are of unit length, of a hyperbolic model as they leave the towers.
    """

    def __init__(self, model: nn.Module, curved: Curved | None) -> None:
        super().__init__()
        self.model: Any = model
        self.curved = curved

    def forward(self, pixels: Tensor, texts: Texts) -> dict[str, Tensor]:
        unit = self.curved is None
        embeddings = torch.cat([encode_text(self.model, part, normalize=unit) for part in texts.parts])
        return {
            "image_features": self.model.encode_image(pixels, normalize=unit),
            "text_features": embeddings.index_select(0, texts.places),
            "logit_scale": self.model.logit_scale.exp(),
            **({} if self.curved is None else self.curved()),
        }


class Stepper:
    """Trains an open_clip model batch by batch, together with the other processes where there are any.

    `accumulate` splits this process's share of a batch in so many micro-batches: memory falls, the loss stays that of
    the global batch. `curved` is what a hyperbolic model learns beside; without it the model is a CLIP.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        preprocess: Preprocess,
        *,
        precision: str,
        accumulate: int = 1,
        rank: int = 0,
        world_size: int = 1,
        curved: Curved | None = None,
    ) -> None:
        self.model, self.optimizer, self.accumulate, self.curved = model, optimizer, accumulate, curved
        self._logit_scale: Tensor = model.logit_scale  # type: ignore[assignment]
        self._device = self._logit_scale.device
        if self._device.type == "cpu":
            multiply_patches(model)
        if precision == "fp32":
            whole_float32()
        self._towers: nn.Module = _Towers(model, curved)
        if world_size > 1:
            ids = [self._device.index] if self._device.type == "cuda" else None
            self._towers = DistributedDataParallel(self._towers, device_ids=ids, broadcast_buffers=False)
        self._loss = (
            HyperbolicLoss(rank, world_size)
            if curved is not None
            else open_clip.ClipLoss(
                local_loss=True, gather_with_grad=True, cache_labels=True, rank=rank, world_size=world_size
            )
        )
        self.scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "amp")
        self._dtype = {"fp32": None, "amp": torch.float16, "amp_bf16": torch.bfloat16}[precision]
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(preprocess.mean, device=self._device).view(shape)
        self._std = torch.tensor(preprocess.std, device=self._device).view(shape)

    @property
    @torch.no_grad()
    def learned(self) -> dict[str, Tensor]:
        """The factor of the logits, and what is `curved`, by name, [] each, still on the device."""
        return {"logit_scale": self._logit_scale.exp(), **({} if self.curved is None else self.curved())}

    def step(self, images: Tensor, texts: Tensor, rate: float) -> Tensor:
        """Train on this process's share of a batch; return its loss, float32 [], still on the device.

        Args:
            images: uint8 [n, 3, side, side].
            texts: int64 [n, context length].
            rate: learning rate of this step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        pixels = self._normalised(images.to(self._device, non_blocking=True))
        with self._attention():
            loss = self._backward_whole(pixels, texts) if self.accumulate == 1 else self._backward_parts(pixels, texts)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self._logit_scale.clamp_(0, MAX_LOGIT_SCALE)
            if self.curved is not None:
                self.curved.clamp()
        return loss.detach()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        """The precision of forward passes and losses."""
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _attention(self) -> contextlib.AbstractContextManager[Any]:
        """How attention is computed in a whole step: activation checkpointing computes it again in the backward pass.

        On CPUs torch's fused attention is made for long sequences; with the 16 to 77 tokens of these towers the plain
        one takes a tenth to a fifth off the whole step in lower precision.
        """
        if self._dtype is None or self._device.type != "cpu":
            return contextlib.nullcontext()
        return sdpa_kernel(SDPBackend.MATH)

    def _normalised(self, images: Tensor) -> Tensor:
        return images.float().div_(255).sub_(self._mean).div_(self._std)

    def _backward_whole(self, pixels: Tensor, texts: Tensor) -> Tensor:
        with self._precision():
            loss: Tensor = self._loss(**self._towers(pixels, self._sorted(texts)))
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return loss

    def _sorted(self, texts: Tensor) -> Texts:
        """Texts on the device; their lengths are read where the loader left them, or the device would be waited for."""
        return by_length(self.model, texts).to(self._device)

    def _backward_parts(self, pixels: Tensor, texts: Tensor) -> Tensor:
        """The same gradient with the memory of one micro-batch (gradient caching, Gao et al. 2021, arXiv 2101.06983).

        The features of all micro-batches come first, without a graph; the loss over the global batch gives the
        gradient of each feature; each micro-batch then runs again and carries its features' gradient to the weights.
        """
        captions = [self._sorted(part) for part in texts.chunk(self.accumulate)]
        parts = list(zip(pixels.chunk(self.accumulate), captions, strict=True))
        with torch.no_grad(), self._precision():
            outputs = [self._towers(*part) for part in parts]
        leaves = {name: torch.cat([output[name] for output in outputs]).requires_grad_() for name in _FEATURES}
        numbers = {name: one.detach().requires_grad_() for name, one in outputs[0].items() if name not in _FEATURES}
        with self._precision():
            loss: Tensor = self._loss(**leaves, **numbers)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        gradients = [leaf.grad for leaf in leaves.values()]
        assert gradients[0] is not None and gradients[1] is not None
        pieces = zip(parts, gradients[0].chunk(self.accumulate), gradients[1].chunk(self.accumulate), strict=True)
        for number, (part, image_gradient, text_gradient) in enumerate(pieces, start=1):
            last = number == self.accumulate
            with self._unsynchronised(last), self._precision():
                output = self._towers(*part)
                carried = (output["image_features"] * image_gradient).sum() + (
                    output["text_features"] * text_gradient
                ).sum()
                for name, one in numbers.items():
                    assert one.grad is not None
                    # They enter the loss once, not once a micro-batch.
                    carried = carried + output[name] * (one.grad if last else 0.0)
                carried.backward()
        return loss

    def _unsynchronised(self, last: bool) -> Any:
        """Processes exchange gradients once a step, with the last micro-batch."""
        if last or not isinstance(self._towers, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._towers.no_sync()
