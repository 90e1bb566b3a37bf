"""Whole training runs: what they leave behind, how they go on after an interruption, what they say of bad input."""

import io
import json
import os
import re
import signal
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import forked
import offline_wandb
import open_clip
import pytest
import torch
from pools import sample, uid_of, write_pool, write_tar
from trained import losses, weights

from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, read_lines
from poolbench.uids import write_subset

from train.config import Efficiency, TrainConfig
from train.loop import train
from train.step import Stepper

ROOT = Path(__file__).parent.parent
SMALL = (
    "scale=small",
    "precision=fp32",
    "recipe.model=test-tiny",
    "recipe.batch_size=16",
    "recipe.samples=200",  # 12 batches of 16 and one of 8
    "recipe.warmup=3",
    "recipe.streams=8",
    "recipe.shuffle_buffer=40",
    "efficiency.workers=0",
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("data") / "pool", shards=4, per_shard=20)


@pytest.fixture
def options(pool: Path, tmp_path: Path) -> list[str]:
    return [*SMALL, f"data={pool}", f"out={tmp_path}/runs"]


def merged(options: list[str], *more: str) -> list[str]:
    """Options of which the later ones win."""
    given = dict(option.split("=", 1) for option in [*options, *more])
    return [f"{key}={value}" for key, value in given.items()]


def run(options: list[str], *more: str) -> Path:
    """Train in this process; the run's folder."""
    config = compose("train", merged(options, *more), TrainConfig)
    assert train(config) == 0
    return config.folder


def assert_same_run(left: Path, right: Path) -> None:
    assert losses(left) == losses(right)
    a, b = weights(left), weights(right)
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module")
def whole(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    return run([*SMALL, f"data={pool}", f"out={tmp_path_factory.mktemp('whole')}"], "name=whole")


def test_a_run_leaves_what_design_promises(whole: Path) -> None:
    record = read_json(whole / "run.json")
    assert record["status"] == "complete" and record["samples_seen"] == 200 and record["steps"] == 13
    assert record["official"] is False
    assert "recipe.batch_size is 16, pinned at 4096" in record["deviations"]
    assert record["data"]["shards"] == 4 and record["subset"] is None and record["bad"] == {"samples": 0, "shards": 0}
    checkpoint = whole / record["checkpoint"]["path"]
    assert digest_file(checkpoint) == record["checkpoint"]["sha256"]
    lines = read_lines(whole / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 14))
    assert [line["samples"] for line in lines] == [*range(16, 193, 16), 200]
    assert lines[0]["learning_rate"] == pytest.approx(5e-4 / 3)
    wanted = {"loss", "logit_scale", "samples_per_second", "data_wait", "bad_samples", "bad_shards"}
    assert wanted <= lines[0].keys()
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert "batch_size: 16" in (whole / "config.yaml").read_text()


def test_checkpoints_load_in_open_clip(whole: Path) -> None:
    path = whole / read_json(whole / "run.json")["checkpoint"]["path"]
    model = open_clip.create_model("test-tiny", pretrained=str(path))
    for key, value in weights(whole).items():
        assert torch.equal(model.state_dict()[key], value)


def test_the_run_is_a_function_of_its_seed(whole: Path, options: list[str]) -> None:
    assert_same_run(whole, run(options, "name=again", "efficiency.workers=2", "efficiency.checkpoint_every=5"))
    assert losses(run(options, "name=other", "seed=1")) != losses(whole)


# Another value for every key of the group; how far it may move the losses.
EFFICIENCY = {
    "workers": (3, 0.0),
    "checkpoint_every": (2, 0.0),
    "keep_checkpoints": (1, 0.0),
    "keep_every": (3, 0.0),
    "compile": ("true", 1e-5),
    "accumulate": (4, 1e-5),
    "activation_checkpointing": ("true", 1e-5),
}


EVEN = "recipe.samples=96"  # a smaller last batch would compile everything a second time


@pytest.fixture(scope="module")
def even(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run with the default of every key of the group."""
    return losses(run([*SMALL, f"data={pool}", f"out={tmp_path_factory.mktemp('even')}"], EVEN, "name=plain"))


@pytest.mark.parametrize("key", [field.name for field in fields(Efficiency)])
def test_efficiency_changes_no_result(options: list[str], even: list[float], key: str) -> None:
    value, tolerance = EFFICIENCY[key]
    found = losses(run(options, EVEN, f"name={key}", f"efficiency.{key}={value}"))
    assert found == pytest.approx(even, abs=tolerance, rel=0)


@pytest.mark.parametrize("precision", ["amp_bf16", "amp"])
def test_low_precision_trains(whole: Path, options: list[str], precision: str) -> None:
    found = losses(run(options, f"precision={precision}", f"name={precision}"))
    assert found == pytest.approx(losses(whole), abs=0.1)


def test_activation_checkpointing_recomputes_in_low_precision(options: list[str]) -> None:
    """What is computed again has to be what was computed first: attention too, which is another one in bfloat16."""
    plain, again = (
        losses(run(options, "precision=amp_bf16", f"name=low{key}", f"efficiency.activation_checkpointing={key}"))
        for key in ("false", "true")
    )
    assert again == pytest.approx(plain, abs=1e-3)


class Stop(BaseException):
    """A crash."""


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("at", [1, 6, 7, 12])
def test_an_interrupted_run_goes_on_to_the_same_weights(
    whole: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, at: int, workers: int
) -> None:
    more = ("name=broken", "efficiency.checkpoint_every=3", f"efficiency.workers={workers}")
    step = Stepper.step
    calls = 0

    def crash(*arguments: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls > at:
            raise Stop
        return step(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(Stepper, "step", crash)
        run(options, *more)
    assert_same_run(whole, run(options, *more))


def test_a_damaged_checkpoint_is_passed_over(
    whole: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(options, "name=flipped", "efficiency.checkpoint_every=4")
    newest = max((folder / "checkpoints").glob("*.pt"))
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(data)
    _forget_the_end(folder)
    assert_same_run(whole, run(options, "name=flipped", "efficiency.checkpoint_every=4"))
    said = capsys.readouterr().err
    assert f"{newest} is damaged" in said and "continuing behind step 12" in said


def _forget_the_end(folder: Path) -> None:
    record = read_json(folder / "run.json") | {"status": "running"}
    (folder / "run.json").write_text(json.dumps(record))


def test_old_checkpoints_are_thinned(options: list[str]) -> None:
    folder = run(options, "name=thin", "efficiency.checkpoint_every=2", "efficiency.keep_checkpoints=3")
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == [f"step_{step:09d}.{end}" for step in (10, 12, 13) for end in ("pt", "sha256")]


def test_checkpoints_of_round_steps_are_kept(options: list[str]) -> None:
    more = ("efficiency.checkpoint_every=2", "efficiency.keep_checkpoints=1", "efficiency.keep_every=4")
    folder = run(options, "name=round", *more)
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert kept == [f"step_{step:09d}.{end}" for step in (4, 8, 12, 13) for end in ("pt", "sha256")]


def test_a_full_disk_leaves_the_checkpoints_before(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save = torch.save

    def full(state: dict[str, Any], file: io.BufferedWriter) -> None:
        if state["step"] > 3:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        save(state, file)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match=r"cannot be written: .*No space left on device"):
        run(options, "name=full", "efficiency.checkpoint_every=3")
    monkeypatch.undo()
    folder = Path(next(o for o in options if o.startswith("out="))[4:]) / "full"
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.suffix == ".pt"] == ["step_000000003.pt"]
    run(options, "name=full", "efficiency.checkpoint_every=3")


def test_a_run_is_not_continued_with_something_else(options: list[str], pool: Path, tmp_path: Path) -> None:
    run(options, "name=mine")
    write_subset(tmp_path / "s.npy", [uid_of(n) for n in range(40)])
    elsewhere = write_pool(tmp_path / "other", 2, 20)
    for change, told in (
        ("recipe.learning_rate=0.1", "recipe.learning_rate: 0.0005 -> 0.1"),
        ("seed=3", "seed: 0 -> 3"),
        ("precision=amp_bf16", "precision: fp32 -> amp_bf16"),
        (f"data={elsewhere}", f"data: {pool} -> {elsewhere} (4 -> 2 shards)"),
        (f"subset={tmp_path}/s.npy", "subset: None -> "),
    ):
        with pytest.raises(UserError, match=r"is another run, choose another name=") as caught:
            run(options, "name=mine", change)
        assert told in str(caught.value)
    with pytest.raises(UserError, match="resume=false"):
        run(options, "name=mine", "resume=false")
    (tmp_path / "runs" / "foreign").mkdir()
    (tmp_path / "runs" / "foreign" / "thesis.tex").touch()
    with pytest.raises(UserError, match=r"no run.json"):
        run(options, "name=foreign")


def test_a_complete_run_is_left_alone(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    folder = run(options, "name=done")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    run(options, "name=done", "efficiency.workers=1")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert "nothing to do" in capsys.readouterr().err


def test_subset_trains_on_the_chosen_alone(options: list[str], tmp_path: Path) -> None:
    write_subset(tmp_path / "s.npy", [uid_of(n) for n in range(0, 80, 3)])
    folder = run(options, "name=subset", f"subset={tmp_path}/s.npy")
    record = read_json(folder / "run.json")
    assert record["subset"]["size"] == 27 and record["subset"]["digest"] == digest_file(tmp_path / "s.npy")


def test_bad_data_are_skipped_counted_and_named(options: list[str], tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "bad", 3, 20)
    broken = sample(500, "JPEG")
    broken["jpg"] = broken["jpg"][:300]
    write_tar(pool / "00003.tar", [("broken", broken), ("mute", {"png": sample(1)["png"]}), ("good", sample(2))])
    (pool / "00004.tar").write_bytes(b"<html>404</html>" * 99)
    bad = [f"data={pool}", "name=bad"]
    with pytest.raises(
        UserError, match=r"cannot be read, more than max_bad_share=0.01; .*bad_samples.jsonl names them"
    ):
        run(options, *bad)
    folder = run(options, *bad, "max_bad_share=0.9")
    named = {
        (Path(line["shard"]).name, line["key"]): line["reason"] for line in read_lines(folder / "bad_samples.jsonl")
    }
    assert named.keys() == {("00003.tar", "broken"), ("00003.tar", "mute"), ("00004.tar", "")}
    assert named["00003.tar", "mute"] == "no caption: its members are .png"
    record = read_json(folder / "run.json")
    assert record["samples_seen"] == 200 and record["bad"]["samples"] > 0 and record["bad"]["shards"] > 0
    last = read_lines(folder / "metrics.jsonl")[-1]
    assert (last["bad_samples"], last["bad_shards"]) == (record["bad"]["samples"], record["bad"]["shards"])


def test_a_loss_that_diverges_is_told(options: list[str]) -> None:
    with pytest.raises(UserError, match="the training diverged"):
        run(options, "name=diverged", "recipe.learning_rate=1e30", "recipe.warmup=0")


def test_wandb_offline(options: list[str]) -> None:
    folder = run(options, "name=logged", "wandb.mode=offline")
    assert offline_wandb.holds(folder, "logit_scale")


def launch(options: list[str], *more: str) -> forked.Command:
    return forked.start("tests/run_train.py", *(merged(options, *more) if more else options))


@pytest.mark.slow
def test_two_processes_see_the_same_and_go_on_as_one(whole: Path, options: list[str]) -> None:
    """Under torchrun, as users type it."""
    words = [str(ROOT / "tests/run_train.py"), *merged(options, "name=two", "efficiency.checkpoint_every=6")]
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *words]
    started = forked.run(*torchrun, env=os.environ | {"PYTHON_EXEC": str(forked.interpreter())})
    folder = Path(next(o for o in options if o.startswith("out="))[4:]) / "two"
    assert started.returncode == 0, started.stderr[-3000:]
    assert read_json(folder / "run.json")["world_size"] == 2
    assert losses(folder) == pytest.approx(losses(whole), abs=1e-5)
    for path in (folder / "checkpoints").glob("step_000000013.*"):
        path.unlink()
    _forget_the_end(folder)
    assert losses(run(options, "name=two")) == pytest.approx(losses(whole), abs=1e-5)


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(whole: Path, options: list[str]) -> None:
    more = ("name=killed", "efficiency.checkpoint_every=2", "efficiency.workers=1")
    folder = Path(next(o for o in options if o.startswith("out="))[4:]) / "killed"
    started = launch(options, *more)
    while started.poll() is None and len(read_lines(folder / "metrics.jsonl")) < 5:
        time.sleep(0.01)
    started.send_signal(signal.SIGKILL)
    started.communicate(timeout=300)
    assert_same_run(whole, run(options, *more))


@pytest.mark.slow
def test_a_wrong_world_is_told_once_per_process(options: list[str]) -> None:
    words = merged(options, "recipe.batch_size=15", "recipe.samples=150", "name=odd")
    group = forked.world(2, "tests/run_train.py", *words)
    errors = "".join(process.communicate()[1] for process in group)
    assert [process.wait() for process in group] == [2, 2]
    assert "2 processes cannot share batches of 15 evenly; use 1 or 3 processes" in errors


@pytest.mark.slow
def test_a_sweep_trains_one_run_after_the_other(options: list[str], tmp_path: Path) -> None:
    started = launch(["-m", *merged(options, "seed=0,1", "recipe.samples=64")])
    _, errors = started.communicate(timeout=300)
    assert started.returncode == 0, errors[-3000:]
    assert sorted(path.parent.name for path in tmp_path.glob("runs/*/run.json")) == ["small-seed0", "small-seed1"]
    assert [read_json(tmp_path / f"runs/small-seed{seed}/run.json")["status"] for seed in (0, 1)] == ["complete"] * 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("data=/nowhere",), "error: data=/nowhere does not exist"),
        (("recipe.model=ViT-B-33",), "error: unknown model 'ViT-B-33'; did you mean 'ViT-B-32'?"),
        (("subset=/no.npy",), "error: subset /no.npy cannot be read"),
    ],
)
def test_mistakes_cost_one_line(options: list[str], change: tuple[str, ...], told: str) -> None:
    started = launch(options, *change)
    output, errors = started.communicate(timeout=300)
    assert started.returncode == 2
    assert errors.startswith(told) and errors.count("\n") == 1 and output == ""


def test_no_permission_is_told(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", "/runs/x")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match="/runs/x: Permission denied"):
        run(options, "name=forbidden")


def test_without_a_compiler_compile_is_refused_before_the_first_step(
    options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(UserError, match=r"no-such-compiler.*install g\+\+.*efficiency\.compile=false") as told:
        run(options, "efficiency.compile=true", "name=compiled")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "text", ["backend='inductor' raised:\nCppCompileError: C++ compile error\n\nmore", "it broke\nmore"]
)
def test_a_compiler_that_fails_is_told_in_one_line(
    options: list[str], monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Stands for what torch raises at the first step: its own kinds of errors, of many lines."""
    from torch._dynamo.exc import TorchDynamoException

    def step(*arguments: object) -> None:
        raise TorchDynamoException(text)

    monkeypatch.setattr("train.step.Stepper.step", step)
    monkeypatch.setattr("train.loop.compile_blocks", lambda model: None)
    reason = "CppCompileError: C++ compile error" if "Cpp" in text else "it broke"
    with pytest.raises(UserError, match=f"compile=true failed: {re.escape(reason)}; .*compile=false trains the same"):
        run(options, "efficiency.compile=true", "name=broken")
