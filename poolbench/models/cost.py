"""What a model costs to train, from its shapes alone: nothing is computed, and no GPU is needed."""

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from poolbench.models.clip import preprocess_of

_DTYPES = {"fp32": None, "amp": torch.float16, "amp_bf16": torch.bfloat16}  # of autocast, as train.step has them


class Kept(NamedTuple):
    """Bytes that a forward pass keeps for the backward pass, and the most that one block (layer) of them keeps."""

    total: int
    block: int


class Activations(NamedTuple):
    """Bytes kept for the backward pass. `block` is what activation checkpointing computes again at a time."""

    sample: int
    block: int  # of each sample, too
    fixed: int  # whatever the number of samples: the weights in lower precision


class Work(NamedTuple):
    """What a forward pass of one sample takes; 2 FLOPs for each multiplication with its addition."""

    image_flops: int
    text_flops: int
    features: int  # length of the vector that a picture and a caption become


class Cost(NamedTuple):
    """What a model takes, and what each sample costs it."""

    parameters: int
    work: Work
    image_tokens: int  # 0 where the image tower has none
    text_tokens: int
    side: int  # of a picture, in pixels
    activations: Activations


def cost_of(name: str, precision: str, checkpointing: bool) -> Cost:
    """The cost of open_clip's model `name`, trained in `precision`, with or without activation checkpointing."""
    model = shapes_of(name)
    side = preprocess_of(model).size
    grid = getattr(model.visual, "grid_size", None)
    return Cost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        work=work_of(model),
        image_tokens=grid[0] * grid[1] + 1 if grid else 0,
        text_tokens=model.context_length,
        side=side,
        activations=_activations(model, side, precision, checkpointing),
    )


def work_of(model: Any) -> Work:
    """Counted on a model of shapes alone; see `shapes_of`."""
    side = preprocess_of(model).size
    images = torch.empty(1, 3, side, side, device="meta")
    texts = torch.empty(1, model.context_length, dtype=torch.int64, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = model.encode_image(images).shape[1]
        image = int(counter.get_total_flops())
        model.encode_text(texts)
    return Work(image, int(counter.get_total_flops()) - image, features)


def kept_bytes(model: nn.Module, forward: Callable[[], Any], own: Iterable[Tensor], precision: str) -> Kept:
    """What `forward`, which runs `model`, keeps for the backward pass. Each storage counts once, those of `own`
    (weights and inputs, which are there anyway) do not."""
    counter = _Counter(own)
    dtype = _DTYPES[precision]
    with ExitStack() as stack:
        for block in _blocks(model):
            stack.callback(block.register_forward_pre_hook(counter.enter).remove)
            stack.callback(block.register_forward_hook(counter.leave).remove)
        if dtype is not None:
            stack.enter_context(torch.autocast("cpu", dtype=dtype))
        stack.enter_context(torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda tensor: tensor))
        forward()
    return Kept(counter.bytes, counter.block)


class _Counter:
    """Counts the bytes that autograd keeps, in all and block by block."""

    def __init__(self, own: Iterable[Tensor]) -> None:
        self._own = {tensor.untyped_storage()._cdata for tensor in own}
        self._kept: dict[int, torch.UntypedStorage] = {}  # held, so that no two of them get one address
        self._entered: list[int] = []
        self.bytes = self.block = 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._own and storage._cdata not in self._kept:
            self._kept[storage._cdata] = storage
            self.bytes += storage.nbytes()
        return tensor

    def enter(self, *_: Any) -> None:
        self._entered.append(self.bytes)

    def leave(self, *_: Any) -> None:
        self.block = max(self.block, self.bytes - self._entered.pop())


def shapes_of(name: str) -> Any:
    """open_clip's model `name` without numbers in it."""
    logging.disable(logging.WARNING)  # open_clip warns that a model without pretrained weights has none
    try:
        return open_clip.create_model(name, precision="fp32", device="meta", output_dict=True)
    finally:
        logging.disable(logging.NOTSET)


def _activations(model: Any, side: int, precision: str, checkpointing: bool) -> Activations:
    two, four = (_fake_kept(model, side, precision, count) for count in (2, 4))
    sample, block = (four.total - two.total) // 2, (four.block - two.block) // 2
    fixed = max(0, two.total - 2 * sample)
    if checkpointing:
        model.set_grad_checkpointing()
        sample = _fake_kept(model, side, precision, 4).total // 4
    return Activations(sample, block if checkpointing else 0, fixed)


def _fake_kept(model: Any, side: int, precision: str, count: int) -> Kept:
    """`kept_bytes` of `count` samples. torch's fake tensors behave as those of a CPU, autocast and fused attention
    included, but hold nothing."""
    with FakeTensorMode():
        tensors = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=isinstance(tensor, nn.Parameter))
            for name, tensor in (*model.named_parameters(), *model.named_buffers())
        }
        inputs = torch.empty(count, 3, side, side), torch.empty(count, model.context_length, dtype=torch.int64)
        forward = partial(torch.func.functional_call, model, tensors, inputs)
        return kept_bytes(model, forward, (*tensors.values(), *inputs), precision)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The layers of the towers, and whatever else stands in a list."""
    return [child for part in model.modules() if isinstance(part, nn.ModuleList | nn.Sequential) for child in part]
