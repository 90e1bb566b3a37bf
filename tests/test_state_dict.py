"""Weights from whatever file a training left: the same as open_clip loads, or one line that says why not."""

import argparse
import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from evalsets import MODEL, write_checkpoint
from safetensors.torch import save_file

from poolbench.errors import UserError
from poolbench.models.clip import load

Weights = dict[str, torch.Tensor]
WIDTH = 64  # of both towers of a small model of SigLIP's form
BIASED, LARGER = "state-dict-biased", "state-dict-larger"  # one with SigLIP's bias, one of other sizes


@pytest.fixture(scope="module", autouse=True)
def models(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("models")
    plain = open_clip.get_model_config(MODEL)
    larger = {
        "vision_cfg": {**plain["vision_cfg"], "image_size": 64},
        "text_cfg": {**plain["text_cfg"], "context_length": 24},
    }
    for name, changes in ((BIASED, {"custom_text": True, "init_logit_bias": -10}), (LARGER, larger)):
        (folder / f"{name}.json").write_text(json.dumps({**plain, **changes}))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    state: Weights = torch.load(write_checkpoint(tmp_path_factory.mktemp("weights") / "a.pt"))["state_dict"]
    return state


def renamed(weights: Weights, rename: Callable[[str], str]) -> Weights:
    return {rename(name): value for name, value in weights.items()}


def same(path: Path, weights: Weights, model: str = MODEL) -> list[str]:
    """Check that the file gives these weights; what was said of it."""
    said: list[str] = []
    loaded = load(model, str(path), say=said.append).state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())
    return said


def refused(path: Path, model: str = MODEL) -> str:
    with pytest.raises(UserError) as error:
        load(model, str(path))
    message = str(error.value)
    assert "\n" not in message and str(path) in message
    return message


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict": renamed(state, lambda name: f"module.{name}")},
        lambda state: renamed(state, lambda name: f"module.{name}"),
        lambda state: {**state, "logit_scale": state["logit_scale"].reshape(1)},
        lambda state: {name: value.half() for name, value in state.items()},
    ],
)
def test_what_open_clip_loads_is_the_same_here(content: Any, weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", content(weights))
    expected = open_clip.create_model(MODEL, pretrained=str(path), precision="fp32")
    assert same(path, expected.state_dict()) == []


def test_safetensors_are_known_by_content(weights: Weights, tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.pt"):
        save_file(weights, tmp_path / name)
        assert same(tmp_path / name, weights) == []


def test_a_file_of_the_old_text_names_and_without_a_bias(weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", weights)
    expected = open_clip.create_model(BIASED, pretrained=str(path), precision="fp32")
    (said,) = same(path, expected.state_dict(), BIASED)
    assert "no logit_bias, which is taken for 0" in said
    biased = saved(tmp_path / "biased.pt", expected.state_dict())
    assert "it holds logit_bias" in refused(biased) or "text." in refused(biased)


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_orig_mod.module.{name}",
        lambda name: f"model.{name}",
        lambda name: f"model._orig_mod.module.net.{name}",
        lambda name: f"clip._fsdp_wrapped_module.{name}",
        lambda name: name.replace("resblocks.", "_orig_mod.resblocks."),
        lambda name: name.replace("mlp.", "_fsdp_wrapped_module._checkpoint_wrapped_module.mlp.module."),
        lambda name: f"_forward_module.module.{name}".replace("attn.", "_fpw_module.attn."),
    ],
)
@pytest.mark.parametrize("container", [None, "state_dict", "model", "model_state_dict", "module"])
def test_what_wrappers_put_around_names_is_taken_off(
    rename: Callable[[str], str], container: str | None, weights: Weights, tmp_path: Path
) -> None:
    state: Any = renamed(weights, rename)
    path = saved(tmp_path / "model.pt", state if container is None else {container: state, "step": 3})
    assert same(path, weights) == []


def test_what_lies_beside_the_weights_is_told(weights: Weights, tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in weights.items()}
    both = saved(tmp_path / "both.pt", {"state_dict": weights, "state_dict_ema": other})
    (said,) = same(both, weights)
    assert "also holds an average of the weights, state_dict_ema, which is not used" in said
    (said,) = same(saved(tmp_path / "ema.pt", {"model_ema": weights, "epoch": 1}), weights)
    assert "its weights are an average, model_ema" in said
    lightning = {**renamed(weights, lambda name: f"model.{name}"), "loss.queue": torch.ones(3)}
    (said,) = same(saved(tmp_path / "lightning.pt", {"state_dict": lightning}), weights)
    assert "outside of the model: loss.queue" in said
    distilled = {**weights, **renamed(other, lambda name: f"teacher.{name}")}
    (said,) = same(saved(tmp_path / "distilled.pt", distilled), weights)
    assert "not used" in said and "teacher." in said


def test_several_models_and_doubled_names_are_refused(weights: Weights, tmp_path: Path) -> None:
    two = {**renamed(weights, lambda name: f"a.{name}"), **renamed(weights, lambda name: f"b.{name}")}
    assert "holds several models: a., b." in refused(saved(tmp_path / "two.pt", two))
    twice = {**weights, **renamed(weights, lambda name: f"module.{name}")}
    assert "holds two tensors" in refused(saved(tmp_path / "twice.pt", twice))
    flat = {"_fsdp_wrapped_module._flat_param": torch.ones(3)}
    assert "FULL_STATE_DICT" in refused(saved(tmp_path / "flat.pt", flat))


@pytest.mark.parametrize("extra", [{"best": np.float64(0.5)}, {"args": argparse.Namespace(lr=1)}])
def test_a_pickle_that_needs_code_says_how_to_convert_it(
    extra: dict[str, Any], weights: Weights, tmp_path: Path
) -> None:
    path = saved(tmp_path / "it's a model.pt", {"state_dict": weights, **extra})
    same(converted(refused(path)), weights)


def test_a_module_and_a_torchscript_archive_say_how_to_convert_them(weights: Weights, tmp_path: Path) -> None:
    model = open_clip.create_model(MODEL, precision="fp32").eval()
    model.load_state_dict(weights)
    same(converted(refused(saved(tmp_path / "module.pt", model))), weights)
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 16, dtype=torch.long))
    torch.jit.trace(model, inputs, check_trace=False).save(tmp_path / "script.pt")
    message = refused(tmp_path / "script.pt")
    assert "is a TorchScript archive" in message
    same(converted(message), weights)


def converted(message: str) -> Path:
    """Run the command that a message tells, and give the file that it says it makes."""
    command, made = message[message.index("python -c") :].split(" makes ")
    program = shlex.split(command)
    assert program[:2] == ["python", "-c"] and len(program) == 3
    exec(program[2], {})
    return Path(made.removesuffix(", which is read"))


def test_openais_numbers_beside_the_weights_are_no_weights(weights: Weights, tmp_path: Path) -> None:
    numbers = {"input_resolution": torch.tensor(32), "context_length": torch.tensor(16), "vocab_size": torch.tensor(9)}
    assert same(saved(tmp_path / "openai.pt", {**weights, **numbers}), weights) == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "a pointer of Git LFS"),
        ("a.pt", b"\n<!DOCTYPE html>\n<html>", "is a web page"),
        ("a.pt", b"", "is empty"),
        ("a.pt", b"hello", "no checkpoint"),
        ("model.safetensors.index.json", b'{"weight_map": {}}', "a checkpoint in several files"),
        ("a.json", b"{}", "is JSON"),
        ("a.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}", "is damaged"),
        ("a.npz", b"PK\x03\x04", "cannot be loaded as"),
    ],
)
def test_other_files_are_told_what_they_are(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert message in refused(tmp_path / name)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_file_that_was_cut_off(share: float, weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", weights)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "is cut off" in refused(path)
    save_file(weights, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "is damaged" in refused(path)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {}, {"state_dict": {}}, {"epoch": 3}])
def test_a_file_without_weights(content: Any, tmp_path: Path) -> None:
    assert "holds no weights" in refused(saved(tmp_path / "model.pt", content))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("visual.positional_embedding", "[17, 64] in the file and [65, 64] in the model"),
        ("positional_embedding", "[16, 64] in the file and [24, 64] in the model"),
    ],
)
def test_positions_are_not_resized(name: str, said: str, weights: Weights, tmp_path: Path) -> None:
    fitting = dict(open_clip.create_model(LARGER).state_dict())
    path = saved(tmp_path / "model.pt", {**fitting, name: weights[name]})
    resized = open_clip.create_model(LARGER, pretrained=str(path))  # open_clip does, without a word
    assert resized.state_dict()[name].shape != weights[name].shape
    assert f"cannot be loaded as {LARGER}: {name} is {said}" in refused(path, LARGER)


def test_the_model_that_weights_fit_is_named(weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", weights)
    assert f"; its weights fit model={MODEL}" in refused(path, LARGER)
    lacking = {name: value for name, value in weights.items() if name != "visual.proj"}
    assert "it lacks visual.proj; is it damaged" in refused(saved(tmp_path / "less.pt", lacking))
    more = {**weights, "visual.more": torch.ones(1)}
    assert "it holds visual.more, which the model lacks" in refused(saved(tmp_path / "more.pt", more))


def test_a_checkpoint_of_ours_is_not_taken_for_another_model(weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", {"name": "ViT-B-32", "cursors": {}, "state_dict": weights})
    assert "is of model=ViT-B-32, as it says itself" in refused(path)
    same(saved(tmp_path / "named.pt", {"name": "ViT-B-32", "state_dict": weights}), weights)
    assert same(saved(tmp_path / "ours.pt", {"name": MODEL, "cursors": {}, "state_dict": weights}), weights) == []


def test_a_file_of_big_vision_is_not_cut_to_the_model(tmp_path: Path) -> None:
    """A file with more layers, or other patches, than the model has: open_clip would leave them out or resize them."""
    folder, name = tmp_path / "models", "state-dict-siglip"
    folder.mkdir()
    vision = {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "none"}
    text = {"context_length": 16, "vocab_size": 50, "width": WIDTH, "heads": 2, "layers": 2, "proj_bias": True}
    config = {"embed_dim": WIDTH, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    arrays = big_vision()
    for changed, said in (
        ({}, None),
        ({"img/embedding/kernel": np.zeros((14, 14, 3, WIDTH), np.float32)}, "its patches are [14, 14] pixels"),
        ({"txt/Encoder_0/encoderblock_2/LayerNorm_0/scale": np.zeros(1, np.float32)}, "6 and 3 layers"),
    ):
        path = tmp_path / "model.npz"
        np.savez(path, **{**arrays, **changed})
        if said is not None:
            assert said in refused(path, name)
            continue
        expected = open_clip.create_model(name, pretrained=str(path), precision="fp32").state_dict()
        same(path, expected, name)
        assert math.isclose(float(expected["logit_scale"]), 3.0)


def big_vision() -> dict[str, np.ndarray]:
    """Random arrays under the names of big_vision, for towers of 6 and 2 layers."""
    rng = np.random.default_rng(0)
    arrays = {"t": np.full(1, 3.0, np.float32)}

    def add(name: str, *shape: int) -> None:
        arrays[name] = rng.normal(0, 0.02, shape).astype(np.float32)

    add("b", 1)
    add("img/cls", 1, 1, WIDTH)
    add("img/pos_embedding", 1, 101, WIDTH)
    add("img/embedding/kernel", 16, 16, 3, WIDTH)
    add("img/embedding/bias", WIDTH)
    add("txt/Embed_0/embedding", 50, WIDTH)
    add("txt/pos_embedding", 1, 16, WIDTH)
    add("txt/head/kernel", WIDTH, WIDTH)
    add("txt/head/bias", WIDTH)
    for tower, layers, inner in (("img/Transformer", 6, 3 * WIDTH), ("txt/Encoder_0", 2, 4 * WIDTH)):
        for part in ("scale", "bias"):
            add(f"{tower}/encoder_norm/{part}", WIDTH)
        for layer in range(layers):
            block = f"{tower}/encoderblock_{layer}"
            attention = f"{block}/MultiHeadDotProductAttention_0"
            for number, part in ((0, "scale"), (0, "bias"), (1, "scale"), (1, "bias")):
                add(f"{block}/LayerNorm_{number}/{part}", WIDTH)
            for part in ("query", "key", "value"):
                add(f"{attention}/{part}/kernel", WIDTH, 2, WIDTH // 2)
                add(f"{attention}/{part}/bias", 2, WIDTH // 2)
            add(f"{attention}/out/kernel", 2, WIDTH // 2, WIDTH)
            add(f"{attention}/out/bias", WIDTH)
            for number, (before, after) in enumerate(((WIDTH, inner), (inner, WIDTH))):
                add(f"{block}/MlpBlock_0/Dense_{number}/kernel", before, after)
                add(f"{block}/MlpBlock_0/Dense_{number}/bias", after)
    return arrays
