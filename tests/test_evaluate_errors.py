"""Wrong input to an evaluation: one clear line each, an exit status that is not 0, and the other tasks go on."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from evalsets import (
    MODEL,
    classification_samples,
    retrieval_samples,
    scored,
    write_checkpoint,
    write_classification,
    write_retrieval,
)
from pools import write_tar
from runs import run_json

from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.models.clip import create
from poolbench.models.inference import device_of, worker_count
from poolbench.shards.samples import Sample, read_shard

from evaluate.config import EvaluateConfig, check, data_folder
from evaluate.run import run
from tasks.registry import load_tasks
from tasks.results import FILE

EUROSAT, PETS, CIFAR = "vtab/eurosat", "vtab/pets", "vtab/cifar100"
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
TASKS = load_tasks()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.pt")


def write_two(root: Path) -> tuple[Path, Path]:
    """EuroSAT's folder, to be damaged, and that of a retrieval task that stays whole."""
    whole = write_retrieval(root, TASKS[FLICKR], retrieval_samples(4))
    return write_classification(root, TASKS[EUROSAT], classification_samples(12, 10)), whole


def relabel(label: bytes | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        samples = classification_samples(12, 10)
        del samples[9][1]["cls"]
        if label is not None:
            samples[9][1]["cls"] = label
        write_classification(folder.parent, TASKS[EUROSAT], samples)

    return damage


def tear(folder: Path) -> None:
    """Write the shards anew, labels first and pictures behind them."""
    for shard in (folder / "test").glob("*.tar"):
        samples = [one for one in read_shard(str(shard)) if isinstance(one, Sample)]
        labels = [(one.key, {"cls": one.members.pop("cls")}) for one in samples]
        write_tar(shard, [*labels, *((one.key, one.members) for one in samples)])


def spoil_everything(folder: Path) -> None:
    for shard in (folder / "test").glob("*.tar"):
        shard.write_bytes(b"not a tar" * 100)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "classnames.txt").unlink(), "classnames.txt is missing"),
        (lambda folder: (folder / "zeroshot_classification_templates.txt").unlink(), "templates.txt is missing"),
        (lambda folder: (folder / "test" / "nshards.txt").unlink(), "nshards.txt is missing"),
        (lambda folder: (folder / "test" / "2.tar").unlink(), "2.tar is missing"),
        (relabel(None), "2.tar: sample s0000009 has no .cls"),
        (relabel(b"x"), "2.tar: s0000009.cls holds 'x', not an integer"),
        (relabel(b"10"), "2.tar: s0000009.cls says 10, but there are 10 class names"),
        (spoil_everything, "holds no sample that can be read; 0.tar: damaged tar header"),
        (
            tear,
            "holds no sample that can be read; 0.tar, key s0000000: its members are not adjacent: .",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_task_fails_and_the_others_go_on(
    damage: Callable[[Path], None],
    message: str,
    workers: int,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = write_two(tmp_path / "data")
    damage(folder)
    outcome = scored(checkpoint, tmp_path / "data", tmp_path / "out", [EUROSAT, FLICKR], workers=workers)
    assert outcome.status == 1
    assert [line["key"] for line in outcome.lines] == [FLICKR]
    summary = capsys.readouterr().out.split("1 of 38")[-1].splitlines()
    (line,) = {line for line in summary if line.startswith(EUROSAT)}
    assert message in line and line.startswith(f"{EUROSAT}: failed: ")


def test_a_shard_that_was_cut_off_is_told(checkpoint: Path, tmp_path: Path) -> None:
    folder, _ = write_two(tmp_path / "data")
    shard = folder / "test" / "1.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    outcome = scored(checkpoint, tmp_path / "data", tmp_path / "out", [EUROSAT])
    line = outcome.line(EUROSAT)
    assert outcome.status == 1 and line["samples"] == 8 and not line["official"]
    assert line["bad"][0]["shard"] == "1.tar" and line["bad"][0]["key"] == ""
    assert any("1.tar (cut off within" in reason for reason in line["deviations"])
    again = scored(checkpoint, tmp_path / "data", tmp_path / "out", [EUROSAT])
    assert again.status == 1 and len(again.lines) == 1  # found again, and no less bad


def test_missing_folders_are_listed(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_two(tmp_path / "data")
    outcome = scored(checkpoint, tmp_path / "data", tmp_path / "out", [EUROSAT, CIFAR, "wilds/camelyon17"])
    assert outcome.status == 1 and [line["key"] for line in outcome.lines] == [EUROSAT]
    printed = capsys.readouterr().out
    assert f"{CIFAR}: missing: {tmp_path / 'data' / 'wds_vtab-cifar100_test'} does not exist" in printed
    assert f"wilds/camelyon17: missing: {tmp_path / 'data' / 'wds_wilds-camelyon17_test'} does not exist" in printed
    assert "1 of 3 tasks have results" in printed
    assert "average          -  37 of 38 tasks missing" in printed


def test_a_task_whose_main_metric_is_not_measured_fails(
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_two(tmp_path / "data")
    wrong = TASKS[EUROSAT].model_copy(update={"main_metric": "acc"})
    monkeypatch.setitem(TASKS, EUROSAT, wrong)
    assert scored(checkpoint, tmp_path / "data", tmp_path / "out", [EUROSAT]).status == 1
    assert "there is no metric 'acc' for its main_metric; did you mean 'acc5'?" in capsys.readouterr().out


@pytest.mark.parametrize(("tower", "what"), [("visual.proj", "picture"), ("text_projection", "text")])
def test_a_diverged_model_gets_no_score(
    tower: str, what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_two(tmp_path / "data")
    state = create(MODEL).state_dict()
    state[tower] = torch.full_like(state[tower], torch.nan)
    torch.save({"state_dict": state}, tmp_path / "nan.pt")
    outcome = scored(tmp_path / "nan.pt", tmp_path / "data", tmp_path / "out", [EUROSAT, FLICKR])
    assert outcome.status == 1 and outcome.lines == []
    message = f"failed: the model gives {what} embeddings that are not finite numbers"
    assert capsys.readouterr().out.count(message) == 4  # when each fails, and in the summary


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "run= is needed, or model= and checkpoint="),
        ({"run": "a", "model": "b"}, "leave model= and checkpoint= out"),
        ({"run": "a", "checkpoint": "b"}, "leave model= and checkpoint= out"),
        ({"model": "a"}, "checkpoint= is needed with model="),
        ({"model": "a", "checkpoint": "b"}, "out= is needed with model="),
        ({"run": "a", "data": "b", "precision": "fp23"}, "unknown precision 'fp23'; did you mean 'fp32'?"),
        ({"run": "a", "data": "b", "limit": 0}, "limit=0"),
        ({"run": "a", "data": "b", "workers": -1}, "workers=-1"),
        ({"run": "a", "data": "b", "batch_size": 0}, "batch_size=0"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        check(EvaluateConfig(**options))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_data_are_needed_but_for_the_demo(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="data= is needed"):
        data_folder(None, "main")
    with pytest.raises(UserError, match="nowhere is not a folder"):
        data_folder(str(tmp_path / "nowhere"), "demo")
    assert data_folder(str(tmp_path), "demo") == tmp_path


def test_devices_and_workers() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert worker_count(5, 2) == 5 and worker_count(0, 1) == 0
    assert 0 <= worker_count(None, 1) < len(os.sched_getaffinity(0))
    for name in ("gpu", "cuda:99", "meat"):
        with pytest.raises(UserError, match=f"device={name} is not there"):
            device_of(name)


def fails(**options: Any) -> str:
    with pytest.raises(UserError) as error:
        run(EvaluateConfig(device="cpu", workers=0, **options))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_folders_and_checkpoints(checkpoint: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", str(tmp_path / "out")
    model = {"model": MODEL, "checkpoint": str(checkpoint), "out": out}
    assert "is not a folder" in fails(**model, data=str(data))
    data.mkdir()
    message = fails(**model, data=str(data), tasks=[EUROSAT])
    assert message.endswith(f"{EUROSAT} would be {data / 'wds_vtab-eurosat_test'}")
    write_two(data)
    assert "'vtab/eurosatt' names no task or group; did you mean" in fails(
        **model, data=str(data), tasks="vtab/eurosatt"
    )
    assert "unknown model 'ViT-B-23'; did you mean 'ViT-B-32'?" in fails(
        **{**model, "model": "ViT-B-23"}, data=str(data)
    )
    assert "neither a file nor a pretrained tag" in fails(**{**model, "checkpoint": "no.pt"}, data=str(data))
    other = create("ViT-B-32").state_dict()
    torch.save({"state_dict": {name: value for name, value in other.items() if value.ndim < 2}}, tmp_path / "b.pt")
    assert f"cannot be loaded as {MODEL}" in fails(
        **{**model, "checkpoint": str(tmp_path / "b.pt")}, data=str(data), tasks=EUROSAT
    )
    (tmp_path / "text.pt").write_text("hello")
    assert "cannot be loaded" in fails(**{**model, "checkpoint": str(tmp_path / "text.pt")}, data=str(data))
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in fails(**{**model, "out": str(tmp_path / "file")}, data=str(data))


def test_wrong_runs(checkpoint: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "run", tmp_path
    assert "is not a folder" in fails(run=str(folder), data=str(data))
    folder.mkdir()
    assert "run.json does not exist" in fails(run=str(folder), data=str(data))
    record: dict[str, Any] = {**run_json("run", "tiny"), "recipe": {"model": MODEL}, "checkpoint": None}
    for text, message in (
        ("{", "run.json is not JSON"),
        ("[]", "is it of a training run?"),
        (json.dumps({"scale": "tiny"}), "run.json: the key 'format' is missing; is it of a training run?"),
        (json.dumps({**record, "stpes": 3}), "run.json: unknown key 'stpes'; did you mean 'steps'?"),
        (json.dumps({**record, "recipe": {}}), "run.json: recipe: it names no model"),
        (json.dumps({**record, "format": 0}), "run.json has format 0, this version reads 1"),
        (json.dumps(record), "names no checkpoint"),
        (json.dumps({**record, "checkpoint": {"path": "c.pt", "sha256": "0" * 64}}), "c.pt, which "),
    ):
        (folder / "run.json").write_text(text)
        assert message in fails(run=str(folder), data=str(data))


def test_a_results_file_of_something_else_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    write_two(tmp_path / "data")
    (tmp_path / "out").mkdir()
    for text in ("no json\n", "3\n", '{"a": 1}\n'):
        (tmp_path / "out" / FILE).write_text(text)
        message = fails(
            model=MODEL,
            checkpoint=str(checkpoint),
            data=str(tmp_path / "data"),
            out=str(tmp_path / "out"),
            tasks=[EUROSAT],
        )
        assert f"{FILE}, line 1, is not" in message


def test_no_permission(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_two(tmp_path / "data")
    (tmp_path / "out").mkdir(mode=0o500)
    if os.geteuid() == 0:  # the superuser may write everywhere; then the system's answer is made up
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path / "out")
    message = fails(model=MODEL, checkpoint=str(checkpoint), data=str(tmp_path / "data"), out=str(tmp_path / "out"))
    assert "no permission to write into" in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rum=a", "unknown key 'rum'; did you mean 'run'?"),
        ("limit=few", "limit: Value 'few'"),
    ],
)
def test_wrong_overrides(override: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        compose("evaluate", ["run=a", "data=.", override], EvaluateConfig)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_yaml_has_every_key_with_the_default_of_the_code() -> None:
    assert compose("evaluate", [], EvaluateConfig) == EvaluateConfig()
    config = compose("evaluate", ["tasks=[vtab/*,imagenet-a]", "part=2/4", "run=runs/a-b"], EvaluateConfig)
    assert config == EvaluateConfig(tasks=["vtab/*", "imagenet-a"], part="2/4", run="runs/a-b")
    assert compose("evaluate", ["tasks=vtab/cifar100"], EvaluateConfig).tasks == "vtab/cifar100"


def test_the_command_line_answers_in_one_line() -> None:
    done = forked.run("-m", "evaluate", "run=nowhere", "data=.")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: run=nowhere is not a folder\n"
