"""`python -m train.average`: the mean of the weights of checkpoints."""

import shutil
from pathlib import Path
from typing import Any

import forked
import numpy as np
import open_clip
import pytest
import torch
from evalsets import MODEL, write_checkpoint
from open_clip.pretrained import _PRETRAINED
from runs import make_run
from safetensors.torch import save_file

from poolbench import recipes
from poolbench.errors import status_of
from poolbench.files import digest_file
from poolbench.models.average import average as averaged
from poolbench.models.clip import load
from poolbench.models.weights import weights_named

from train.average import COMMAND

Tensors = dict[str, torch.Tensor]


def command(*words: str) -> int:
    return status_of(lambda: COMMAND.answer(list(words)))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of three models, of which the second's values are tiny and the third's huge."""
    folder, files = tmp_path_factory.mktemp("three"), []
    for number, factor in enumerate((1.0, 1e-30, 1e6)):
        file = write_checkpoint(folder / f"{number}.pt", seed=number)
        state = {key: one * factor if one.ndim else one + number for key, one in tensors(file).items()}
        torch.save({"state_dict": state}, file)
        files.append(file)
    return files


def tensors(path: Path) -> Tensors:
    return dict(torch.load(path, weights_only=True)["state_dict"])


def in_numpy(states: list[Tensors], shares: list[float]) -> dict[str, Any]:
    """In float64, then in the dtype of the weights."""
    return {
        key: np.average([state[key].numpy().astype(np.float64) for state in states], axis=0, weights=shares).astype(
            states[0][key].numpy().dtype
        )
        for key in states[0]
    }


def assert_equal(found: Tensors, expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key].numpy().dtype == values.dtype
        np.testing.assert_allclose(found[key].numpy(), values, rtol=2e-7 if values.dtype == np.float32 else 0, atol=0)


@pytest.mark.parametrize("shares", [None, [0.5, 0.25, 0.25], [1.0, 0.0, 3.0]])
def test_it_is_the_mean_in_float64(shares: list[float] | None, three: list[Path], tmp_path: Path) -> None:
    words = [] if shares is None else [f"weights={shares}"]
    names = f"checkpoints=[{','.join(map(str, three))}]"
    assert command(names, f"out={tmp_path}/out.pt", f"model={MODEL}", *words) == 0
    states, shares = [tensors(file) for file in three], shares or [1.0] * 3
    assert_equal(tensors(tmp_path / "out.pt"), in_numpy(states, shares))
    content = torch.load(tmp_path / "out.pt", weights_only=True)
    assert content["name"] == MODEL and content["averaged_from"] == [
        {"checkpoint": str(file), "sha256": digest_file(file), "share": share / sum(shares)}
        for file, share in zip(three, shares, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_dtype_is_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    files, states = [tmp_path / f"{number}.safetensors" for number in range(2)], []
    for number, file in enumerate(files):
        state = tensors(write_checkpoint(tmp_path / "x.pt", seed=number))
        states.append({key: one.to(dtype) for key, one in state.items()})
        save_file(states[-1], file)
    found = averaged([weights_named(str(file), MODEL) for file in files], [1, 1])
    for key, one in found.items():
        middle = (states[0][key].double() + states[1][key].double()) / 2
        assert one.dtype == dtype and torch.equal(one, middle.to(dtype))


def test_what_is_averaged_with_itself_stays_as_it_is(three: list[Path]) -> None:
    one = weights_named(str(three[0]), MODEL)
    found, before = averaged([one] * 3, [0.1, 0.2, 0.3]), tensors(three[0])
    assert all(torch.equal(found[key], before[key]) for key in before)


def test_all_who_read_checkpoints_read_it(three: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out.pt"
    assert command(f"checkpoints=[{three[0]},{three[2]}]", f"out={out}", f"model={MODEL}") == 0
    said: list[str] = []
    ours = load(MODEL, str(out), say=said.append).state_dict()
    theirs = open_clip.create_model(MODEL, pretrained=str(out)).state_dict()
    assert said == [] and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert command(f"checkpoints=[{out},{three[0]}]", f"out={tmp_path}/again.pt", f"model={MODEL}") == 0


def test_runs_and_their_files_and_tags(three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_with(tmp_path / "run", three[0], MODEL)
    file = run / "checkpoints" / "step_000000002.pt"
    shutil.copyfile(three[1], file)
    settings = open_clip.get_model_preprocess_cfg(open_clip.create_model(MODEL))
    kept = {key: settings[key] for key in ("mean", "std", "interpolation", "resize_mode")}
    monkeypatch.setitem(_PRETRAINED, MODEL, {"mine": {"file": str(three[2]), **kept}})
    assert command(f"checkpoints=[{run},{file},mine]", f"out={tmp_path}/out.pt") == 0  # the run names the model
    assert_equal(tensors(tmp_path / "out.pt"), in_numpy([tensors(one) for one in three], [1, 1, 1]))


def run_with(folder: Path, checkpoint: Path | None, model: str) -> Path:
    recipe = {**recipes.pinned("tiny"), "model": model}
    named = None
    if checkpoint is not None:
        (folder / "checkpoints").mkdir(parents=True)
        shutil.copyfile(checkpoint, folder / "checkpoints" / "step_000000001.pt")
        named = {"path": "checkpoints/step_000000001.pt", "sha256": digest_file(checkpoint)}
    return make_run(folder, "tiny", recipe=recipe, checkpoint=named)


def test_the_same_again_finds_it_and_another_file_is_left(
    three: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"checkpoints=[{three[0]},{three[1]}]", f"out={tmp_path}/out.pt", f"model={MODEL}"]
    assert command(*words) == 0
    before = (tmp_path / "out.pt").stat().st_mtime_ns
    assert command(*words, "weights=[2,2]") == 0
    assert (tmp_path / "out.pt").stat().st_mtime_ns == before and "is there already" in capsys.readouterr().out
    assert command(*words, "weights=[1,2]") == 2
    assert command(words[0], f"out={three[1]}", words[2]) == 2
    assert capsys.readouterr().err.count("is another file; choose another name") == 2


def test_a_full_disk_leaves_nothing(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(content: Any, file: Any) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

    monkeypatch.setattr(torch, "save", full)
    assert command(f"checkpoints=[{three[0]},{three[1]}]", f"out={tmp_path}/out.pt", f"model={MODEL}") == 2
    assert f"{tmp_path}/out.pt cannot be written" in capsys.readouterr().err and not list(tmp_path.iterdir())


def changed(name: str) -> Tensors:
    """The state of a checkpoint that cannot be averaged with a good one."""
    state = dict(load_good())
    if name == "nan":
        state["visual.proj"] = state["visual.proj"].clone().index_fill_(0, torch.tensor([3]), float("nan"))
    elif name == "inf":
        state["logit_scale"] = torch.tensor(float("inf"))
    elif name == "lacks":
        del state["visual.proj"]
    elif name == "more":
        state["visual.more"] = torch.zeros(1)
    elif name == "shape":
        state["visual.proj"] = torch.zeros(64, 32)
    elif name == "dtype":
        state["visual.proj"] = state["visual.proj"].half()
    return state


def load_good() -> Tensors:
    return open_clip.create_model(MODEL).state_dict()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["checkpoints={good}"], "an average needs two at least"),
        (["checkpoints=[{good}]"], "an average needs two at least"),
        (["checkpoints=[{good},/no.pt]"], "checkpoint /no.pt is neither a file nor a pretrained tag of test-tiny"),
        (["checkpoints=[{good},{tmp}/text.pt]"], "checkpoint {tmp}/text.pt cannot be loaded"),
        (["checkpoints=[{good},{tmp}/new]"], "{tmp}/new/run.json names no checkpoint"),
        (["checkpoints=[{good},{tmp}/nan.pt]"], "{tmp}/nan.pt holds numbers that are not finite, in visual.proj"),
        (["checkpoints=[{tmp}/inf.pt,{good}]"], "{tmp}/inf.pt holds numbers that are not finite, in logit_scale"),
        (
            ["checkpoints=[{good},{tmp}/lacks.pt]"],
            "{tmp}/lacks.pt cannot be averaged with {good}: it lacks visual.proj",
        ),
        (
            ["checkpoints=[{good},{tmp}/more.pt]"],
            "{tmp}/more.pt cannot be averaged with {good}: it also holds visual.m",
        ),
        (["checkpoints=[{good},{tmp}/shape.pt]"], "visual.proj is float32 [64, 32] in it and float32 [64, 64] there"),
        (["checkpoints=[{good},{tmp}/dtype.pt]"], "visual.proj is float16 [64, 64] in it and float32 [64, 64] there"),
        (["checkpoints=[{tmp}/shape.pt,{tmp}/shape.pt]"], "cannot be loaded as test-tiny: visual.proj is [64, 32]"),
        (["checkpoints=[{good},{tmp}/said.pt]"], "{tmp}/said.pt is of model=ViT-B-32, as it says itself, and not of t"),
        (["checkpoints=[{good},{good}]", "model=null"], "model= is needed: open_clip's name of the architecture of "),
        (["checkpoints=[{good},{good}]", "model=ViT-B-33"], "unknown model 'ViT-B-33'"),
        (["checkpoints=[{good},{good}]", "weights=[1]"], "weights=['1']: 1 for 2 checkpoints; one for each"),
        (["checkpoints=[{good},{good}]", "weights=[1,x]"], "weights=['1', 'x'] are no numbers"),
        (["checkpoints=[{good},{good}]", "weights=[1,-1]"], "must be 0 or more, and not all of them 0"),
        (["checkpoints=[{good},{good}]", "weights=[0,0]"], "must be 0 or more, and not all of them 0"),
        (["checkpoints=[{good},{good}]", "weights=[1,nan]"], "must be 0 or more, and not all of them 0"),
        (["checkpoints=[{good},{good}]", "out={tmp}/a.bin"], "out={tmp}/a.bin must end in .pt"),
        (["checkpoints=[{good},{good}]", "weight=[1,1]"], "unknown key 'weight'"),
        (["out=a.pt"], "checkpoints= is needed"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.pt"
    torch.save({"state_dict": load_good()}, good)
    for name in ("nan", "inf", "lacks", "more", "shape", "dtype"):
        if f"{name}.pt" in words[0]:
            torch.save({"state_dict": changed(name)}, tmp_path / f"{name}.pt")
    torch.save({"name": "ViT-B-32", "cursors": {}, "state_dict": load_good()}, tmp_path / "said.pt")
    (tmp_path / "text.pt").write_text("no checkpoint")
    run_with(tmp_path / "new", None, MODEL)
    places = {"good": str(good), "tmp": str(tmp_path)}
    pairs = [word.format(**places) for word in [f"out={tmp_path}/out.pt", f"model={MODEL}", *words]]
    given = {pair.split("=")[0]: pair for pair in pairs}
    assert command(*given.values()) == 2
    errors = capsys.readouterr().err
    assert told.format(**places) in errors and errors.count("\n") == 1
    assert not (tmp_path / "out.pt").exists()


def test_integers_are_equal_or_refused(three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As batch normalisation counts its batches; the small model has none."""
    monkeypatch.setattr("poolbench.models.average.check_tensors", lambda name, tensors, path: None)
    files = [tmp_path / "a.pt", tmp_path / "b.pt", tmp_path / "c.pt"]
    for file, other, count in zip(files, three, (5, 5, 6), strict=True):
        torch.save({"state_dict": tensors(other) | {"visual.batches": torch.tensor(count)}}, file)
    given = [weights_named(str(file), MODEL) for file in files]
    assert averaged(given[:2], [1, 1])["visual.batches"] == torch.tensor(5)
    with pytest.raises(
        ValueError, match=r"c\.pt cannot be averaged with .*a\.pt: visual\.batches holds other integers"
    ):
        averaged([given[0], given[2]], [1, 1])


def test_the_command_as_it_is_typed(tmp_path: Path) -> None:
    done = forked.run("-m", "train.average", "checkpoints=[a,b]", "weights=[1]", f"out={tmp_path}/out.pt")
    assert done.returncode == 2 and done.stderr.startswith("error: weights=['1']: 1 for 2 checkpoints")
