"""Training a hyperbolic CLIP: its loss against a float64 one of our own, and a run that falls, goes on and is told from
a CLIP's."""

import math
import os
from pathlib import Path
from typing import Any

import forked
import numpy as np
import open_clip
import pytest
import torch
from pools import write_pool
from test_parity_open_clip_train import RECIPE, make_batches
from test_train import ROOT, SMALL, Stop, _forget_the_end, assert_same_run, losses, merged, run

from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.files import read_json, read_lines
from poolbench.models.clip import create, load, load_hyperbolic, preprocess_of

from train.config import TrainConfig
from train.hyperbolic import Curved, HyperbolicLoss
from train.step import Stepper, make_optimizer

HYPERBOLIC = [*SMALL, "objective=hyperbolic", "recipe.samples=96"]


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("data") / "pool", shards=2, per_shard=20)


@pytest.fixture
def options(pool: Path, tmp_path: Path) -> list[str]:
    return [*HYPERBOLIC, f"data={pool}", f"out={tmp_path}/runs"]


@pytest.fixture(scope="module")
def whole(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps that nothing interrupted."""
    return run([*HYPERBOLIC, f"data={pool}", f"out={tmp_path_factory.mktemp('whole')}"], "name=whole")


def newest(folder: Path) -> Path:
    return folder / read_json(folder / "run.json")["checkpoint"]["path"]


def merus(v: np.ndarray, w: np.ndarray, scale: float, c: float) -> float:
    """The loss of scaled features of pictures and captions, [n, d] each, as MERU's paper has it."""

    def lifted(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length = np.sqrt(c) * np.linalg.norm(u, axis=1, keepdims=True)
        space = np.sinh(length) * u / length
        return space, np.sqrt(1 / c + (space**2).sum(1))

    (x, x_time), (y, y_time) = lifted(v), lifted(w)
    logits = -scale * np.arccosh(-c * (x @ y.T - np.outer(x_time, y_time))) / np.sqrt(c)
    both = [-np.mean(np.diag(one) - np.log(np.exp(one).sum(1))) for one in (logits, logits.T)]
    inner = c * ((x * y).sum(1) - x_time * y_time)
    length = np.linalg.norm(y, axis=1)
    angle = np.arccos((x_time + y_time * inner) / (length * np.sqrt(inner**2 - 1)))
    aperture = np.arcsin(np.minimum(1, 0.2 / (np.sqrt(c) * length)))
    return float(sum(both) / 2 + 0.2 * np.maximum(angle - aperture, 0).mean())


@pytest.mark.parametrize("c", [0.1, 1.0, 4.0])
def test_the_loss_is_merus(c: float) -> None:
    v, w = (np.random.default_rng(seed).normal(size=(6, 8)) for seed in (1, 2))
    numbers = [torch.tensor(value, dtype=torch.float64) for value in (5.0, c, 0.3, 0.4)]
    for kind, close in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        found = HyperbolicLoss()(torch.tensor(v, dtype=kind), torch.tensor(w, dtype=kind), *numbers)
        assert found.item() == pytest.approx(merus(0.3 * v, 0.4 * w, 5.0, c), rel=close)


def stepper_of(model: torch.nn.Module, **options: Any) -> Stepper:
    curved = Curved(64).double()
    still = torch.optim.SGD([*model.parameters(), *curved.parameters()], lr=0.0)
    return Stepper(model, still, preprocess_of(model), precision="fp32", curved=curved, **options)


def test_accumulation_leaves_the_gradient_alone() -> None:
    """In float64 those of one and of four micro-batches agree to rounding, that of the curvature among them."""
    images, texts = make_batches(seed=1)[0]
    gradients = []
    for accumulate in (1, 4):
        model = create("test-tiny", seed=5).double()
        stepper = stepper_of(model, accumulate=accumulate)
        backward = stepper._backward_whole if accumulate == 1 else stepper._backward_parts
        backward(images.double() / 255, texts)
        assert stepper.curved is not None
        named = [*model.named_parameters(), *stepper.curved.named_parameters()]
        gradients.append({name: parameter.grad for name, parameter in named})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(
            gradients[1][name], gradient, atol=1e-12, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_what_it_learns_besides_stays_within_bounds_and_does_not_decay() -> None:
    images, texts = make_batches(seed=1)[0]
    for rate, least in ((50.0, False), (-50.0, True)):
        model, curved = create("test-tiny", seed=5), Curved(64)
        optimizer = make_optimizer(torch.nn.ModuleList([model, curved]), RECIPE)
        (undecayed,) = (group["params"] for group in optimizer.param_groups if not group["weight_decay"])
        assert {id(one) for one in curved.parameters()} <= {id(one) for one in undecayed}
        stepper = Stepper(model, optimizer, preprocess_of(model), precision="fp32", curved=curved)
        for parameter in curved.parameters():
            parameter.data.fill_(rate)
        curved.clamp()
        learned = stepper.learned
        assert learned["curvature"].item() == pytest.approx(0.1 if least else 10)
        assert learned["alpha_img"].item() <= 1 and learned["alpha_txt"].item() <= 1
        if not least:
            stepper.step(images, texts, 1.0)
            learned = stepper.learned
            assert 0.1 - 1e-6 <= learned["curvature"].item() <= 10 + 1e-5 and learned["alpha_img"].item() <= 1


def test_a_run_falls_and_says_what_it_is(whole: Path) -> None:
    record, lines = read_json(whole / "run.json"), read_lines(whole / "metrics.jsonl")
    assert record["objective"] == "hyperbolic" and record["official"] is False
    assert "objective is hyperbolic, pinned at clip" in record["deviations"]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[0]["alpha_img"] == pytest.approx(1 / 8, rel=0.01)  # 64 numbers a feature
    assert len({line["curvature"] for line in lines}) == len(lines)  # it is learned


def test_its_checkpoint_is_a_clips_for_open_clip_and_more_for_us(whole: Path) -> None:
    path, said = newest(whole), list[str]()
    theirs = open_clip.create_model("test-tiny", pretrained=str(path))
    stored = torch.load(path, weights_only=True)
    assert set(stored["hyperbolic"]) == {"curvature", "alpha_img", "alpha_txt"}
    model, learned = load_hyperbolic("test-tiny", str(path))
    towers = load("test-tiny", str(path), say=said.append)
    for key, value in theirs.state_dict().items():
        assert torch.equal(model.state_dict()[key], value) and torch.equal(towers.state_dict()[key], value)
    assert any(
        "it is of a hyperbolic CLIP, whose curvature, alpha_img, alpha_txt are not used" in line for line in said
    )
    last = read_lines(whole / "metrics.jsonl")[-1]
    for name, value in learned._asdict().items():
        assert value.item() == pytest.approx(last[name], rel=1e-6)
        assert value.item() == pytest.approx(math.exp(stored["hyperbolic"][name].item()))


def test_an_interrupted_run_goes_on_to_the_same_weights(
    whole: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    more, step, calls = ("name=broken", "efficiency.checkpoint_every=2"), Stepper.step, 0

    def crash(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise Stop
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Stepper, "step", crash)
        run(options, *more)
    again = run(options, *more)
    assert_same_run(whole, again)
    one, other = (torch.load(newest(folder), weights_only=True)["hyperbolic"] for folder in (whole, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("words", "close"),
    [
        (["efficiency.accumulate=4"], 1e-5),
        (["precision=amp_bf16"], 0.1),
        (["precision=amp"], 0.1),
        (["efficiency.activation_checkpointing=true"], 1e-5),
    ],
)
def test_efficiency_and_precision_leave_the_losses(
    whole: Path, options: list[str], words: list[str], close: float
) -> None:
    assert losses(run(options, "name=other", *words)) == pytest.approx(losses(whole), abs=close)


@pytest.mark.slow
def test_two_processes_see_the_same_and_go_on_as_one(whole: Path, options: list[str]) -> None:
    words = [str(ROOT / "tests/run_train.py"), *merged(options, "name=two", "efficiency.checkpoint_every=3")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
    started = forked.run(*torchrun, env=os.environ | {"PYTHON_EXEC": str(forked.interpreter())})
    assert started.returncode == 0, started.stderr[-3000:]
    folder = Path(next(o for o in options if o.startswith("out="))[4:]) / "two"
    assert read_json(folder / "run.json")["world_size"] == 2
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-5)
    for path in (folder / "checkpoints").glob("step_000000006.*"):
        path.unlink()
    _forget_the_end(folder)
    assert losses(run(options, "name=two")) == pytest.approx(losses(whole), abs=1e-5)


def test_a_wrong_objective_is_one_line(options: list[str]) -> None:
    with pytest.raises(UserError, match=r"^objective=hyperbole is not known; did you mean 'hyperbolic'"):
        run(options, "objective=hyperbole")
    run(options, "name=mine", "recipe.samples=16", "recipe.warmup=1")
    with pytest.raises(UserError, match=r"is another run, .*objective: hyperbolic -> clip"):
        run(options, "name=mine", "recipe.samples=16", "recipe.warmup=1", "objective=clip")
    assert compose("train", ["scale=small", "data=x"], TrainConfig).deviations == []
