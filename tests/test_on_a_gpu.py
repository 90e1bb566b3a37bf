"""What can be told without a GPU of code that runs on one: no tensor of the host meets one of the device."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from test_parity_open_clip_train import RECIPE, make_batches
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from poolbench.models.clip import create, preprocess_of
from poolbench.models.texts import Texts, by_length

from train import step
from train.hyperbolic import Curved
from train.step import Later, Stepper, make_optimizer


def fake(tensor: Tensor, device: str) -> Tensor:
    """One of the same shape without numbers, in torch's fake mode."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def to_the_gpu(model: nn.Module) -> None:
    """In place, in fake mode, which knows of a GPU that is not there."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            module._parameters[name] = None if parameter is None else nn.Parameter(fake(parameter, "cuda"))
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else fake(buffer, "cuda")


@contextmanager
def without_a_driver(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fake mode, in which backward passes, which need the driver, give each leaf a gradient on its own device."""
    leaves: list[Tensor] = []
    asking = Tensor.requires_grad_

    def asked(tensor: Tensor, *given: Any) -> Tensor:
        leaves.append(tensor)
        return asking(tensor, *given)

    def backward(loss: Tensor, *_: Any, **__: Any) -> None:
        assert loss.device.type == "cuda" and loss.shape == ()
        for leaf in (*leaves, *model.parameters()):
            leaf.grad = torch.empty_like(leaf)

    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True):
        warnings.filterwarnings("ignore", "CUDA is not available", UserWarning)  # so that autocast is off
        monkeypatch.setattr(Tensor, "requires_grad_", asked)
        monkeypatch.setattr(Tensor, "backward", backward)
        monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
        yield


@pytest.mark.parametrize("precision", ["fp32", "amp_bf16"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("hyperbolic", [False, True])
def test_a_step_mixes_no_devices(
    precision: str, accumulate: int, hyperbolic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create("test-tiny")
    preprocess = preprocess_of(model)
    images, tokens = make_batches(seed=2)[0]
    known = [by_length(model, part) for part in tokens.chunk(accumulate)]
    with without_a_driver(model, monkeypatch):
        to_the_gpu(model)
        curved = None
        if hyperbolic:
            curved = Curved(32)
            to_the_gpu(curved)
        sorted_ = iter(
            [Texts(tuple(fake(part, "cpu") for part in one.parts), fake(one.places, "cpu")) for one in known]
        )
        monkeypatch.setattr(step, "by_length", lambda *_: next(sorted_))
        settings: dict[str, Any] = {"precision": precision, "accumulate": accumulate, "curved": curved}
        stepper = Stepper(model, make_optimizer(model, RECIPE, fused=False), preprocess, **settings)
        loss = stepper.step(fake(images, "cpu"), tokens, 1e-3)
        assert loss.device.type == "cuda"
        assert {number.device.type for number in stepper.learned.values()} == {"cuda"}


def test_the_check_finds_a_tensor_on_the_wrong_device(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create("test-tiny")
    images, tokens = make_batches(seed=2)[0]
    preprocess, known = preprocess_of(model), by_length(model, tokens)
    with without_a_driver(model, monkeypatch):
        to_the_gpu(model)
        there = Texts(tuple(fake(part, "cuda") for part in known.parts), fake(known.places, "cpu"))
        monkeypatch.setattr(step, "by_length", lambda *_: there)
        monkeypatch.setattr(Texts, "to", lambda texts, device: texts)
        stepper = Stepper(model, make_optimizer(model, RECIPE, fused=False), preprocess, precision="fp32")
        with pytest.raises(RuntimeError, match="device"):
            stepper.step(fake(images, "cpu"), tokens, 1e-3)


def test_numbers_for_later() -> None:
    numbers = torch.rand(5, dtype=torch.float64, requires_grad=True)
    assert Later(numbers).read() == numbers.tolist()
