"""Our training step against open_clip_train's own loop: from the same weights, on the same batches, in float32.

The loop is that of the open_clip that is installed, or that PYTHONPATH names (a checkout's src/): that of release 3.3,
or of 4.2, where a batch is a dictionary and a task holds model and loss. The names of the tests say which it was.
"""

import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import forked
import open_clip
import pytest
import torch
import torch.distributed as dist
from open_clip_train import train as loop
from open_clip_train.scheduler import cosine_lr
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from poolbench.models import texts as captions
from poolbench.models.clip import create, multiply_patches, preprocess_of

from train import step
from train.config import Recipe
from train.step import Stepper, learning_rate, make_optimizer

WITH_TASKS = hasattr(loop, "TrainState")
RELEASE = [pytest.param(None, id=f"open_clip-{open_clip.__version__}")]
STEPS, BATCH = 20, 16
RECIPE = Recipe(
    model="test-tiny",
    batch_size=BATCH,
    samples=STEPS * BATCH,
    learning_rate=1e-3,
    warmup=5,
    beta1=0.9,
    beta2=0.98,
    eps=1e-6,
    weight_decay=0.2,
)


def make_batches(seed: int, side: int = 32, context: int = 16) -> list[tuple[Tensor, Tensor]]:
    """Random uint8 images and tokens with a start, an end and padding, as the tokenizer makes them."""
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for _ in range(STEPS):
        images = torch.randint(0, 256, (BATCH, 3, side, side), dtype=torch.uint8, generator=generator)
        texts = torch.randint(1, 49000, (BATCH, context), generator=generator)
        ends = torch.randint(1, context, (BATCH, 1), generator=generator)
        texts[:, 0] = 49406
        texts.scatter_(1, ends, 49407).masked_fill_(torch.arange(context) > ends, 0)
        batches.append((images, texts))
    return batches


class Recording(nn.Module):
    """open_clip's loss, with its values kept."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.inner, self.values = open_clip.ClipLoss(**options), []

    def forward(self, **inputs: object) -> object:
        losses = self.inner(**inputs)
        self.values.append(losses["contrastive_loss"].item())
        return losses


def reference(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], accumulate: int, rank: int, world: int
) -> tuple[list[float], torch.optim.Optimizer]:
    """Train with open_clip_train.train.train_one_epoch and its optimizer's grouping; return each step's loss."""
    preprocess = preprocess_of(model)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std))
    local = []
    for images, texts in batches:
        pixels = (images[rank::world].float() / 255 - mean) / std
        local += list(zip(pixels.chunk(accumulate), texts[rank::world].chunk(accumulate), strict=True))

    def is_gain_or_bias(name: str, parameter: Tensor) -> bool:
        return parameter.ndim < 2 or "bn" in name or "ln" in name or "bias" in name or "logit_scale" in name

    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for n, p in named if is_gain_or_bias(n, p)], "weight_decay": 0.0},
            {"params": [p for n, p in named if not is_gain_or_bias(n, p)], "weight_decay": RECIPE.weight_decay},
        ],
        lr=RECIPE.learning_rate,
        betas=(RECIPE.beta1, RECIPE.beta2),
        eps=RECIPE.eps,
    )
    wrapped = DistributedDataParallel(model) if world > 1 else model
    loss = Recording(local_loss=True, gather_with_grad=True, rank=rank, world_size=world)

    class Loader(list):
        num_batches, num_samples = len(local), len(local) * len(local[0][0]) * world

    loader = Loader({"image": images, "text": texts} for images, texts in local) if WITH_TASKS else Loader(local)
    data = {"train": SimpleNamespace(dataloader=loader, set_epoch=lambda epoch: None)}
    args = Namespace(
        device="cpu",
        precision="fp32",
        accum_freq=accumulate,
        rank=rank,
        local_rank=rank,
        world_size=world,
        batch_size=len(local[0][0]),
        log_every_n_steps=100,
        grad_clip_norm=None,
        distill=False,
        skip_scheduler=False,
        horovod=False,
        distributed=world > 1,
        log_local=False,
        wandb=False,
    )
    schedule = cosine_lr(optimizer, RECIPE.learning_rate, RECIPE.warmup, STEPS)
    if WITH_TASKS:
        state = loop.TrainState(open_clip.task.CLIPTask(wrapped, loss=loss), optimizer, scheduler=schedule)
        loop.train_one_epoch(state, data, args)
    else:
        loop.train_one_epoch(wrapped, data, loss, 0, optimizer, None, schedule, None, args)
    # With accumulation it computes the loss of a step several times.
    values = torch.tensor(loss.values).view(STEPS, accumulate)
    assert torch.allclose(values, values[:, :1].expand_as(values), atol=1e-6)
    return values[:, 0].tolist(), optimizer


def ours(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], accumulate: int, rank: int, world: int, fused: bool
) -> list[float]:
    """Train with our step; return the loss of each."""
    stepper = Stepper(
        model,
        make_optimizer(model, RECIPE, fused=fused),
        preprocess_of(model),
        precision="fp32",
        accumulate=accumulate,
        rank=rank,
        world_size=world,
    )
    return [
        stepper.step(images[rank::world], texts[rank::world], learning_rate(step, STEPS, RECIPE)).item()
        for step, (images, texts) in enumerate(batches)
    ]


def compare(accumulate: int, fused: bool, rank: int = 0, world: int = 1) -> None:
    """Train two copies and compare them.

    Some gradients are zero but for rounding (the bias of the keys, to which softmax is blind). AdamW divides them by
    their own size, down to its eps of 1e-6, so that where sums are rounded in another order (the fused kernel, several
    processes), noise becomes steps. Only those weights are compared more loosely.
    """
    batches = make_batches(seed=7)
    left, right = create("test-tiny", seed=3), create("test-tiny", seed=3)
    expected, optimizer = reference(left, batches, accumulate, rank, world)
    found = ours(right, batches, accumulate, rank, world, fused)
    assert expected[0] != expected[-1], "the reference did not train"
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), atol=1e-5, rtol=0)
    exact, compared, total = not fused and world == 1, 0, 0
    for (name, a), b in zip(left.named_parameters(), right.named_parameters(), strict=True):
        noise = optimizer.state[a]["exp_avg_sq"].sqrt() < (0 if exact else 10 * RECIPE.eps)
        difference = (a - b[1]).abs()
        assert difference[~noise].numel() == 0 or difference[~noise].max() <= 1e-5, name
        assert difference[noise].numel() == 0 or difference[noise].max() <= 1e-3, name
        if name != "token_embedding.weight":  # most of its rows are never used
            compared, total = compared + int((~noise).sum()), total + noise.numel()
    assert compared > 0.95 * total


@pytest.mark.parametrize("_", RELEASE)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_step_is_open_clips(accumulate: int, fused: bool, _: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, but for the fused kernel, where all captions are padded and patches convolved; else to rounding."""
    monkeypatch.setattr(captions, "ROUNDED_TO", 4 if fused else 16)
    if not fused:
        monkeypatch.setattr(step, "multiply_patches", lambda model: None)
    torch.set_num_threads(1)
    compare(accumulate, fused)


@pytest.mark.parametrize("_", RELEASE)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_step_is_open_clips_in_two_processes(accumulate: int, _: None) -> None:
    for process in forked.world(2, __file__, str(accumulate)):
        output, errors = process.communicate()
        assert process.returncode == 0, errors[-3000:]
        assert output == "equal\n"


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-B-16", "ViT-L-14"])
def test_decayed_parameters_are_open_clips(name: str) -> None:
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config(name))
    for parameter_name, parameter in model.named_parameters():
        excluded = parameter.ndim < 2 or any(part in parameter_name for part in ("bn", "ln", "bias", "logit_scale"))
        assert excluded == (parameter.ndim < 2), parameter_name


def test_schedule_is_open_clips() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = cosine_lr(optimizer, RECIPE.learning_rate, RECIPE.warmup, STEPS)
    assert [learning_rate(step, STEPS, RECIPE) for step in range(STEPS)] == [schedule(step) for step in range(STEPS)]


@pytest.mark.parametrize(("name", "sides"), [("test-tiny", (32, 32)), ("ViT-B-32", (64, 96)), ("ViT-B-32", (70, 50))])
def test_the_product_of_patches_is_the_convolution(name: str, sides: tuple[int, int]) -> None:
    """In float64, value and gradients; also of pictures that are not square or not made of whole patches."""
    conv = create(name).visual.conv1.double()
    images = torch.randn(3, 3, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    seen = []
    for _ in range(2):
        pixels = images.clone().requires_grad_()
        found = conv(pixels)
        found.square().sum().backward()
        seen.append((found, pixels.grad, conv.weight.grad.clone()))
        conv.zero_grad()
        multiply_patches(SimpleNamespace(visual=SimpleNamespace(conv1=conv)))
    assert "forward" in vars(conv), "nothing was replaced"
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(other, one, atol=1e-10, rtol=1e-10)


def test_a_convolution_whose_windows_overlap_stays() -> None:
    model = create("RN50")
    multiply_patches(model)
    assert "forward" not in vars(model.visual.conv1)


def test_accumulation_leaves_the_gradient_alone() -> None:
    """In float64 the gradients of one and of four micro-batches agree to rounding, the logit scale's among them."""
    images, texts = make_batches(seed=1)[0]
    gradients = []
    for accumulate in (1, 4):
        model = create("test-tiny", seed=5).double()
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        stepper = Stepper(model, still, preprocess_of(model), precision="fp32", accumulate=accumulate)
        backward = stepper._backward_whole if accumulate == 1 else stepper._backward_parts
        backward(images.double() / 255, texts)
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(
            gradients[1][name], gradient, atol=1e-12, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


if __name__ == "__main__":  # one of the two processes
    open_clip.add_model_config(Path(__file__).parent / "models")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    captions.ROUNDED_TO = 4
    compare(int(sys.argv[1]), False, dist.get_rank(), dist.get_world_size())
    print("equal", flush=True)
    dist.destroy_process_group()
