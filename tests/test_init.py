"""Training that starts from weights that are given."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forked
import numpy as np
import numpy.typing as npt
import open_clip
import pytest
import torch
from evalsets import MODEL, write_checkpoint
from open_clip.pretrained import _PRETRAINED
from pools import write_pool
from runs import make_run
from runs import options as submit_options
from safetensors.torch import save_file
from trained import losses, same, weights

from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.files import digest_file, read_json
from poolbench.models.clip import load
from poolbench.run_record import read_record

from leaderboard.submit import submit
from train.config import TrainConfig
from train.dry_run import examined
from train.loop import train
from train.step import Stepper

SMALL = (
    *("scale=tiny", "precision=fp32", f"recipe.model={MODEL}", "recipe.batch_size=8", "recipe.samples=28"),
    *("recipe.warmup=2", "recipe.streams=4", "recipe.shuffle_buffer=20", "efficiency.workers=0"),
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("data") / "pool", shards=2, per_shard=20)


@pytest.fixture
def options(pool: Path, tmp_path: Path) -> list[str]:
    return [*SMALL, f"data={pool}", f"out={tmp_path}/runs"]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that no seed makes."""
    return write_checkpoint(tmp_path_factory.mktemp("given") / "given.pt", seed=7)


def configured(options: list[str], *more: str) -> TrainConfig:
    words = dict(word.split("=", 1) for word in [*options, *more])
    return compose("train", [f"{key}={value}" for key, value in words.items()], TrainConfig)


def run(options: list[str], *more: str) -> Path:
    config = configured(options, *more)
    assert train(config) == 0
    return config.folder


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def interrupted(folder: Path, step: int) -> Path:
    """A finished run as if it had been killed behind the checkpoint of `step`."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.stem.removeprefix("step_")) > step:
            path.unlink()
    record = read_json(folder / "run.json") | {"status": "running"}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("kind", ["theirs", "bare", "safetensors", "run", "checkpoint of a run", "tag"])
def test_a_run_starts_from_the_weights(
    kind: str, given: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a learning rate of 0 it also ends with them, to the last bit."""
    wanted = tensors(given)
    named = str(given)
    if kind == "bare":
        torch.save({f"module.{name}": tensor for name, tensor in wanted.items()}, tmp_path / "bare.pt")
        named = f"{tmp_path}/bare.pt"
    elif kind == "safetensors":
        save_file(wanted, tmp_path / "model.safetensors")
        named = f"{tmp_path}/model.safetensors"
    elif "run" in kind:
        first = run(options, "name=first", f"init={given}")
        wanted, checkpoint = weights(first), read_json(first / "run.json")["checkpoint"]["path"]
        named = str(first) if kind == "run" else f"{first}/{checkpoint}"
    elif kind == "tag":
        monkeypatch.setitem(_PRETRAINED, MODEL, {"mine": {"file": str(given), **_conventions_of(MODEL)}})
        named = "mine"
    folder = run(options, "name=second", f"init={named}", "recipe.learning_rate=0")
    ends = weights(folder)
    assert ends.keys() == wanted.keys() and all(torch.equal(ends[name], wanted[name]) for name in wanted)
    init = read_record(folder).init
    assert init is not None and (init.model, init.tag) == (MODEL, "mine" if kind == "tag" else None)
    file = given if kind == "tag" else Path(init.checkpoint)
    assert init.sha256 == digest_file(file)


def _conventions_of(name: str) -> dict[str, Any]:
    settings = open_clip.get_model_preprocess_cfg(open_clip.create_model(name))
    return {key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode")}


def test_the_first_loss_is_that_of_the_weights(
    given: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against CLIP's loss of the loaded model in float64, on the very batch."""
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    step = Stepper.step

    def seen(self: Stepper, images: torch.Tensor, texts: torch.Tensor, rate: float) -> torch.Tensor:
        batches.append((images.clone(), texts.clone()))
        return step(self, images, texts, rate)

    monkeypatch.setattr(Stepper, "step", seen)
    found = losses(run(options, "name=a", f"init={given}"))
    model: Any = load(MODEL, str(given)).double()
    images, texts = batches[0]
    settings = open_clip.get_model_preprocess_cfg(model)
    mean, std = (torch.tensor(settings[key]).double().view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        pictures = model.encode_image((images.double() / 255 - mean) / std).numpy()
        captions = model.encode_text(texts).numpy()
    expected = _clip_loss(pictures, captions, float(model.logit_scale.detach().exp()))
    assert found[0] == pytest.approx(expected, rel=1e-5)
    assert found[0] != pytest.approx(losses(run(options, "name=scratch"))[0], rel=1e-3)


def _clip_loss(pictures: npt.NDArray[Any], captions: npt.NDArray[Any], scale: float) -> float:
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (pictures, captions))
    logits = scale * one @ other.T

    def cross_entropy(rows: npt.NDArray[Any]) -> float:
        return float(np.mean(np.log(np.exp(rows).sum(1)) - np.diag(rows)))

    return (cross_entropy(logits) + cross_entropy(logits.T)) / 2


def test_a_run_that_was_interrupted_goes_on_from_its_own_checkpoint(
    given: Path, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "given.pt"
    moved.write_bytes(given.read_bytes())
    whole = run(options, "name=whole", f"init={moved}")
    more = ("name=parts", f"init={moved}", "efficiency.checkpoint_every=2")
    parts = interrupted(run(options, *more), 2)
    capsys.readouterr()
    assert same(whole, run(options, *more)) and losses(whole) == losses(parts)
    assert "continuing behind step 2" in capsys.readouterr().err
    interrupted(parts, 2)
    other = write_checkpoint(tmp_path / "b.pt", seed=8)
    with pytest.raises(
        UserError, match=f"is another run, choose another name=; what differs: init: {moved} -> {other}"
    ):
        run(options, *more, f"init={other}")
    with pytest.raises(UserError, match=rf"init: {moved} -> None \(content differs\)"):
        run(options, "name=parts", "efficiency.checkpoint_every=2")
    renamed = moved.rename(tmp_path / "renamed.pt")  # the content is what counts
    assert same(whole, run(options, *more, f"init={renamed}"))


@pytest.mark.slow
def test_two_processes_start_from_the_same_weights(given: Path, options: list[str]) -> None:
    one = run(options, "name=one", f"init={given}")
    words = [*options, "name=two", f"init={given}"]
    group = forked.world(2, "tests/run_train.py", *words)
    errors = [process.communicate()[1] for process in group]
    assert [process.wait() for process in group] == [0, 0], errors
    assert losses(one.parent / "two") == pytest.approx(losses(one), abs=1e-5)


@pytest.fixture
def tagged(given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A tag of MODEL with an activation that the name does not have."""
    monkeypatch.setitem(
        _PRETRAINED, MODEL, {"quick": {"file": str(given), "quick_gelu": True, **_conventions_of(MODEL)}}
    )
    return


@pytest.mark.parametrize(
    ("init", "told"),
    [
        ("/nowhere.pt", "init=/nowhere.pt: checkpoint /nowhere.pt is neither a file nor a pretrained tag of test-tiny"),
        ("{tmp}/unfinished", "init={tmp}/unfinished: {tmp}/unfinished/run.json names no checkpoint"),
        ("{tmp}", "init={tmp}: {tmp}/run.json does not exist"),
        ("{tmp}/text.pt", "init={tmp}/text.pt: checkpoint {tmp}/text.pt cannot be loaded"),
        ("{tmp}/other.pt", "init={tmp}/other.pt: checkpoint {tmp}/other.pt cannot be loaded as test-tiny: "),
        ("{tmp}/said.pt", "init={tmp}/said.pt: checkpoint {tmp}/said.pt is of model=ViT-B-32, as it says itself"),
        ("quick", "init=quick wants activation quick_gelu"),
    ],
)
@pytest.mark.usefixtures("tagged")
def test_a_mistake_is_one_line(init: str, told: str, given: Path, options: list[str], tmp_path: Path) -> None:
    running = read_json(make_run(tmp_path / "unfinished") / "run.json") | {"checkpoint": None, "status": "running"}
    (tmp_path / "unfinished" / "run.json").write_text(json.dumps(running))
    (tmp_path / "text.pt").write_text("no checkpoint")
    state = tensors(given)
    torch.save({"state_dict": state | {"visual.proj": torch.zeros(64, 32)}}, tmp_path / "other.pt")
    torch.save({"name": "ViT-B-32", "cursors": {}, "state_dict": state}, tmp_path / "said.pt")
    named = init.format(tmp=tmp_path)
    with pytest.raises(UserError) as caught:
        run(options, f"init={named}")
    assert told.format(tmp=tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    errors = [line for line in examined(configured(options, f"init={named}", "dry_run=true")).errors if "init=" in line]
    assert errors == ([] if init == "quick" else [str(caught.value)])  # a tag is not downloaded for a plan


def test_a_dry_run_tells_where_it_would_start(given: Path, options: list[str]) -> None:
    more = ("name=a", f"init={given}")
    plan = examined(configured(options, *more, "dry_run=true"))
    assert not plan.errors
    assert ("init", str(given), f"weights of {MODEL}; SHA-256 {digest_file(given)[:12]}") in plan.rows
    assert any(line.startswith("unofficial: init is given") for line in plan.warnings)
    interrupted(run(options, *more, "efficiency.checkpoint_every=2"), 2)
    again = examined(configured(options, *more, "dry_run=true"))
    assert not again.errors and any("the run goes on behind step" in line for line in again.warnings)
    scratch = examined(configured(options, "name=a", "dry_run=true"))
    assert any(f"init: {given} -> None" in line for line in scratch.errors)


def test_such_a_run_is_unofficial_on_the_leaderboard_too(tmp_path: Path) -> None:
    official = configured(["scale=tiny", "data=x", "precision=fp32"])
    started = configured(["scale=tiny", "data=x", "precision=fp32", "init=y.pt"])
    assert official.deviations == [] and official.recipe_values == started.recipe_values
    (reason,) = started.deviations
    init = {"model": "ViT-Ti-32-64", "checkpoint": "/secret/y.pt", "tag": None, "sha256": "0" * 64}
    folder = make_run(tmp_path / "run", "tiny", init=init, deviations=[reason], official=False)
    path = submit(submit_options(folder))
    submission = read_json(path)
    assert submission["grade"] == "unofficial" and submission["deviations"] == [reason]
    assert "secret" not in path.read_text()


def test_records_from_before_are_read(tmp_path: Path) -> None:
    assert read_record(make_run(tmp_path / "run")).init is None
