"""Recipes are frozen; wrong configurations cost one line."""

import contextlib
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import MISSING, OmegaConf

from poolbench import plain, recipes
from poolbench.command import compose, parse, quoted
from poolbench.errors import UserError
from poolbench.options import MISSING as OURS
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
    assert OURS == MISSING
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
class Every:
    """A field of each type that is plain, and of some that are not."""

    count: int = 1
    share: float = 1
    switch: bool = False
    text: str = "a"
    maybe: int | None = None
    least: float | None = 2
    which: str | None = None
    any: Any = None
    names: list[str] | None = None
    weights: dict[str, float] | None = None
    mixed: dict[str, float] = field(default_factory=dict)


WORDS = (
    *("0", "1", "-1", "-0", "010", "+3", "1_000", "1e3", "3.0", "1" * 17, "1" * 19, " 4", "0x1f", "1:30"),
    *(".3", "0.25", "-.5", "-0.5", "5.", "1e-3", "1.5E2", "1e400", "inf", "nan", ".", "e5", "-"),
    *("true", "false", "True", "yes", "on", "null", "none", "", "???", "${count}", "a", "a,b", "[a]", "{a: 1}"),
)


@pytest.mark.parametrize("name", [one.name for one in fields(Every)])
def test_what_is_plain_is_read_as_omegaconf_reads_it(name: str) -> None:
    """Where it is read at all; typed already, too."""
    plainly = 0
    for said in (*WORDS, None, 1, 0, 2.5, True, ["a"], {"a": 1.0}, {"a": 1, "b": "2"}, {"a": "x"}, {1: 2}):
        with contextlib.suppress(plain.NotPlainError):
            found = plain.made(Every, {"mixed": {}, name: said})
            expected = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Every), {"mixed": {}, name: said}))
            assert repr(found) == repr(expected)
            plainly += 1
    assert plainly > 0


@settings(max_examples=300)
@given(st.text("0123456789.-+eE_x: ", max_size=8))
def test_a_plain_number_is_the_same_in_yaml(text: str) -> None:
    for kind in (int, float):
        with contextlib.suppress(plain.NotPlainError):
            found, read = plain.written(kind, text), OmegaConf.from_dotlist([f"x={text}"])["x"]
            assert repr(found) == repr(kind(read))


@pytest.mark.parametrize(
    "text",
    [
        *("{a: .5, b/c: -1}", "{ a:  1e-3 }", "{clip_b32_similarity_score: 0.5, x-1.5: 2,y: 3}", "{}", "{a: .5,}"),
        *("{a:.5}", "{a: b}", "{on: 1, a: 2}", "{a: 1, a: 2}", "{1: 2}", "{'a': 1}", "{a: {b: 1}}", "{a: ${b}}", "[a]"),
    ],
)
def test_plain_numbers_by_name_are_the_same_in_yaml(text: str) -> None:
    with contextlib.suppress(plain.NotPlainError):
        found = plain.written(dict[str, float], text)
        read = OmegaConf.to_container(OmegaConf.create(OmegaConf.from_dotlist([f"x={text}"])["x"]))
        assert isinstance(read, dict)
        assert found == {name: float(number) for name, number in read.items()}


def test_weights_are_plain() -> None:
    assert plain.written(dict[str, float], "{a: .5, b/c: 2}") == {"a": 0.5, "b/c": 2.0}


@pytest.mark.parametrize("kind", [list[str], dict[str, int], list[str] | None, int | str, Path, Any, None])
def test_what_holds_several_is_not_plain(kind: Any) -> None:
    for said in (*WORDS, 1, 2.5, True):
        with contextlib.suppress(plain.NotPlainError):
            pytest.fail(f"{said!r} is read as {plain.value(kind, said)!r}")


def test_most_command_lines_are_plain() -> None:
    """As is what no command line says: a field that is needed is not made up."""
    assert plain.made(Options, {"name": "", "count": "3"}) == Options(name="", count=3, out=None)
    for wrong in ({}, {"name": "", "nme": ""}, {"name": "", "count": "many"}):
        with pytest.raises(plain.NotPlainError):
            plain.made(Options, wrong)


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
