"""Recipes are frozen; wrong configurations cost one line."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
from omegaconf import MISSING

from poolbench import recipes
from poolbench.command import compose, parse, quoted
from poolbench.errors import UserError
from poolbench.options import output

from evaluate.config import EvaluateConfig
from train.config import Evaluation, TrainConfig, check

COMMON = {"beta1": 0.9, "eps": 1e-6, "weight_decay": 0.2, "crop_scale": [0.9, 1.0], "shuffle_buffer": 5000}
KEYS = ("model", "batch_size", "samples", "learning_rate", "warmup", "beta2", "streams")
PINNED = {
    "tiny": ("ViT-Ti-32-64", 128, 65_536, 1.5e-3, 50, 0.98, 16),
    "small": ("ViT-B-32", 4096, 12_800_000, 5e-4, 500, 0.98, 64),
    "medium": ("ViT-B-32", 4096, 128_000_000, 5e-4, 500, 0.98, 64),
    "large": ("ViT-B-16", 8192, 1_280_000_000, 5e-4, 500, 0.98, 512),
    "xlarge": ("ViT-L-14", 90112, 12_800_000_000, 1e-3, 10_000, 0.95, 1024),
}


def config(*overrides: str) -> TrainConfig:
    return compose("train", overrides, TrainConfig)


def test_scales_are_the_five_in_order() -> None:
    assert recipes.scales() == list(PINNED)


@pytest.mark.parametrize("scale", PINNED)
def test_recipes_are_frozen(scale: str) -> None:
    """As published; see the table in README.md. Changing one makes all earlier runs incomparable."""
    expected = COMMON | dict(zip(KEYS, PINNED[scale], strict=True))
    assert recipes.pinned(scale) == expected
    assert config(f"scale={scale}").recipe_values == expected
    assert config(f"scale={scale}").deviations == []


def test_resolved_config_is_frozen() -> None:
    """Efficiency keys and defaults: a new key must be added here by hand, next to the question what it may change."""
    small = config("scale=small")
    assert vars(small.efficiency) == {
        "workers": None,
        "checkpoint_every": 1000,
        "keep_checkpoints": 2,
        "keep_every": None,
        "compile": False,
        "accumulate": 1,
        "activation_checkpointing": False,
    }
    rest = {key: value for key, value in vars(small).items() if key not in ("recipe", "efficiency", "wandb")}
    assert rest == {
        "scale": "small",
        "data": None,
        "weights": None,
        "subset": None,
        "init": None,
        "name": None,
        "out": "runs",
        "seed": 0,
        "precision": "amp_bf16",
        "objective": "clip",
        "resume": True,
        "max_bad_share": 0.01,
        "evaluate": Evaluation(),
        "dry_run": False,
        "world_size": None,
        "rate": None,
        "memory": None,
    }


def test_deviations_name_what_differs() -> None:
    changed = config("scale=small", "recipe.batch_size=2048", "recipe.warmup=501", "efficiency.workers=7")
    assert changed.deviations == ["recipe.batch_size is 2048, pinned at 4096", "recipe.warmup is 501, pinned at 500"]
    assert recipes.digest(changed.recipe_values) != recipes.digest(config("scale=small").recipe_values)
    assert config("scale=xlarge", "precision=amp").deviations[0].startswith("precision is amp")
    assert config("scale=large", "precision=amp").deviations == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "scale= is needed: large, medium, small, tiny, xlarge"),
        (("scale=smal",), "scale=smal is not known; did you mean 'small'?"),
        (("scale=small", "recipe.batchsize=3"), "unknown key 'recipe.batchsize'; did you mean 'recipe.batch_size'?"),
        (("scale=small", "seed"), "'seed' is not key=value"),
        (("scale=small", "sed=3"), "unknown key 'sed'; did you mean 'seed'?"),
        (("scale=small", "recipe.batch_size=many"), "recipe.batch_size: Value 'many'"),
        (("scale=small", "seed=1.5"), "seed: Value '1.5'"),
        (("scale=small", "data=a", "data=b"), "data= is given twice; put a brace pattern in quotes"),
        (("scale=small", "efficiency=fast"), "efficiency=fast is not known"),
    ],
)
def test_wrong_overrides_cost_one_line(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config(*overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("data=/pool/{00000..00127}.tar", "/pool/{00000..00127}.tar"),
        ("data=s3://bucket/a b/{0..3}.tar", "s3://bucket/a b/{0..3}.tar"),
        ("data=/x=y/z.tar", "/x=y/z.tar"),
        ("data=[/a,/b]", ["/a", "/b"]),
        ("data=[/a/{0,1}.tar,/b c]", ["/a/{0,1}.tar", "/b c"]),
        ("data='/a/{0..1}.tar'", "/a/{0..1}.tar"),
        ('data=/quo"te{0..1}', '/quo"te{0..1}'),
    ],
)
def test_data_may_be_written_as_in_a_shell(override: str, value: object) -> None:
    assert config("scale=small", override).data == value


def test_a_leading_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    found = config("scale=small", "data=~/pool/{0..3}.tar", "out=~/runs", "subset=/a~/b.npy")
    assert (found.data, found.out, found.subset) == ("/home/me/pool/{0..3}.tar", "/home/me/runs", "/a~/b.npy")
    assert config("scale=small", "data=[~/a,/b]", "name=~/x").name == "~/x"
    assert config("scale=small", "data=[~/a,/b]").data == ["/home/me/a", "/b"]
    assert vars(parse(["out=~", "name=~/x"], Options)[1]) == {"name": "~/x", "count": 1, "out": "/home/me"}


def test_flags_and_plain_values_are_left_alone() -> None:
    words = ["-m", "--cfg", "seed=1,2", "job"]
    assert [quoted(word, TrainConfig, multirun=True) for word in words] == words


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("precision=fp16",), "precision=fp16 is not known"),
        (("wandb.mode=off",), "wandb.mode=off is not known; did you mean 'offline'?"),
        (("recipe.samples=0",), "recipe.samples=0 must be at least 1"),
        (("recipe.crop_scale=[0.9]",), "crop_scale"),
        (("recipe.crop_scale=[0.0,1.0]",), "crop_scale"),
        (("recipe.warmup=3126",), "between 0 and the 3125 steps"),
        (("efficiency.checkpoint_every=0",), "at least 1"),
        (("efficiency.accumulate=0",), "must be at least 1"),
        (("efficiency.accumulate=3",), "does not divide batches of 4096"),
        (("efficiency.workers=-1",), "0 or more"),
        (("max_bad_share=2",), "between 0 and 1"),
        (("name=a/b",), "plain folder name"),
        (("world_size=8",), "world_size= is for dry_run=true"),
        (("dry_run=true", "rate=0"), "rate=0.0 must be more than 0"),
    ],
)
def test_values_out_of_range_are_refused(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(config("scale=small", *overrides), 1)
    assert message in str(caught.value)


def test_all_that_is_wrong_is_told_in_one_line() -> None:
    wrong = config(
        "scale=small", "seed=1", "name=a/b", "recipe.warmup=9999", "efficiency.accumulate=3", "max_bad_share=2"
    )
    with pytest.raises(UserError) as caught:
        check(wrong, 1)
    for word in ("name='a/b'", "recipe.warmup=9999", "does not divide", "max_bad_share=2.0"):
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("scale", "world", "message"),
    [
        ("small", 3, "3 processes cannot share batches of 4096 evenly; use 2 or 4 processes"),
        ("small", 5000, "use 4096 processes"),
        ("xlarge", 704, "batches of 90112 and a last one of 40960 evenly; use 512 or 1024 processes"),
    ],
)
def test_a_world_that_does_not_divide_the_batch_is_told_the_nearest(scale: str, world: int, message: str) -> None:
    with pytest.raises(UserError) as caught:
        check(config(f"scale={scale}"), world)
    assert message in str(caught.value)


@pytest.mark.parametrize("scale", PINNED)
def test_budget_is_exact(scale: str) -> None:
    recipe = config(f"scale={scale}").recipe
    steps = config(f"scale={scale}").steps
    last = recipe.samples - (steps - 1) * recipe.batch_size
    assert 0 < last <= recipe.batch_size
    check(config(f"scale={scale}"), min(512, recipe.batch_size))


def test_options_of_simple_commands_are_strict() -> None:
    words, found = parse(["folder", "count=3", "name=x"], Options)
    assert words == ["folder"] and (found.count, found.name) == (3, "x")
    for arguments, message in (
        (["nme=x"], "did you mean 'name'"),
        (["name=x", "name=y"], "given twice"),
        (["count=3"], "name= is needed"),
        (["name=x", "count=many"], "count: Value 'many'"),
    ):
        with pytest.raises(UserError, match=message):
            parse(arguments, Options)


@dataclass
class Options:
    name: str = MISSING
    count: int = 1
    out: str | None = output("folder", None)


@pytest.mark.parametrize("package", ["train", "evaluate"])
def test_help_explains_every_key(package: str) -> None:
    done = subprocess.run([sys.executable, "-m", package, "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert f"python -m {package}" in done.stdout
    schema = {"train": TrainConfig, "evaluate": EvaluateConfig}[package]
    for key in schema.__dataclass_fields__:
        assert f"{key}:" in done.stdout
