"""What `validate` does with accepted submissions and the checkpoint, and which options go together."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import classification_samples, write_classification
from runs import ROOT, edit, evaluated_run, forge, make_run, of_task, options, validated

from poolbench.command import parse
from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, write_json
from poolbench.models.clip import create

from leaderboard import evidence
from leaderboard.submissions import read_submission
from leaderboard.submit import submit
from leaderboard.validate import ValidateOptions, dashed, validate_files
from tasks.registry import load_tasks
from tasks.results import FILE, predictions_path, read_results

TASKS = load_tasks()


# --- submissions that are there already ---


def test_a_checkpoint_comes_once_a_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    first = submit(options(run)).rename(tmp_path / "first.json")
    again = submit(options(run, method="Another name")).rename(tmp_path / "again.json")
    byod = submit(options(run, track="byod")).rename(tmp_path / "byod.json")
    status, text = validated(capsys, first, again, byod, first)
    refusal = f"checkpoint_sha256: the one of {first}, which is on the track filtering already"
    assert (status, text.splitlines()) == (1, ["ok", refusal, "ok", "ok"])


def test_against_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "submissions"
    folder.mkdir()
    run = make_run(tmp_path / "run")
    accepted = submit(options(run)).rename(folder / "mine.submission.json")
    (folder / "broken.submission.json").write_text("[]", encoding="utf-8")
    new = submit(options(run, method="Another name"))
    assert validated(capsys, accepted, against=folder) == (0, "ok\n")
    status, text = validated(capsys, new, against=folder)
    assert status == 1
    assert f"the one of {accepted}, which" in text
    validate_files([accepted], ValidateOptions(against=str(folder)))
    assert "broken.submission.json is no submission and is left out" in capsys.readouterr().err
    other = submit(options(make_run(tmp_path / "other")))
    assert validated(capsys, other, against=folder) == (0, "ok\n")


# --- the checkpoint ---


@pytest.mark.slow
def test_recheck_evaluates_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_forked(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        return forked.run(*command[1:])

    monkeypatch.setattr(evidence, "subprocess", SimpleNamespace(run=run_forked, PIPE=subprocess.PIPE))
    honest, forged = "demo/openmoji", "demo/twemoji"
    name = "ViT-Ti-32-64"
    torch.save({"state_dict": create(name, seed=0).state_dict()}, tmp_path / "weights.pt")
    data = tmp_path / "data"
    for key in (honest, forged):
        write_classification(data, TASKS[key], classification_samples(12, 5), shards=1, classes=5)
    run = evaluated_run(tmp_path / "run", "tiny", data, [honest, forged], name, tmp_path / "weights.pt")
    path = submit(options(run))
    shutil.rmtree(run / "predictions")

    def better(value: Any) -> None:
        of_task(value, forged)["metrics"].update(acc1=1.0, main_metric=1.0)

    edit(path, better)
    write_json(path, forge(read_json(path)))
    given = {"recheck": f"{honest},{forged}", "data": data, "checkpoint": tmp_path / "weights.pt"}
    status, text = validated(capsys, path, **given)
    assert status == 1
    (line,) = text.splitlines()
    assert line.startswith(f"tasks.{forged}.metrics.main_metric: 1.0, but evaluated again it is 0.")
    with (run / "model.pt").open("ab") as file:
        file.write(b"x")
    status, text = validated(capsys, path, recheck=honest, data=data)
    assert (status, text) == (1, f"checkpoint_sha256: not the digest of {run / 'model.pt'}\n")


@pytest.mark.parametrize(
    ("key", "column", "counts", "tolerance"),
    [
        ("mnist", "label", [5000, 4999], 0.001),  # a sample weighs less
        ("mnist", "label", [30, 20], 1 / 50),
        ("vtab/pets", "label", [100, 50, 20], 1 / 60),
        ("wilds/camelyon17", "group", [700, 4], 1 / 4),
    ],
)
def test_a_near_tie_may_fall_the_other_way(
    tmp_path: Path, key: str, column: str, counts: list[int], tolerance: float
) -> None:
    values = np.repeat(np.arange(len(counts)), counts)
    (tmp_path / "predictions").mkdir()
    pq.write_table(pa.table({"label": values, column: values}), predictions_path(tmp_path, key))
    submission, _ = read_submission(submit(options(make_run(tmp_path / "run"))))
    assert submission is not None
    (result,) = [result for result in submission.tasks if result.key == key]
    main = result.metrics["main_metric"]
    assert main is not None
    (again,) = [line for line in read_results(tmp_path / "run" / FILE) if line.key == key]

    def unlike(now: float | None, **changes: Any) -> list[str]:
        line = again.model_copy(update={"metrics": {"main_metric": now}, **changes})
        return list(evidence._unlike(result, line, tmp_path))

    assert not unlike(main + 0.99 * tolerance) and not unlike(main - 0.99 * tolerance)
    (line,) = unlike(main - 1.01 * tolerance)
    assert line.endswith(f"(tolerance {tolerance:.4f})")
    assert unlike(main, samples=5) == [f"samples: {result.samples}, but evaluated again it is 5"]
    assert unlike(main, data_digest="0" * 64)[0].startswith("data_digest: ")
    assert unlike(None)[0].startswith("metrics.main_metric: ")


def test_recheck_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = submit(options(make_run(tmp_path / "run")))
    with pytest.raises(UserError, match=r"tasks: 'mnits' names no task or group; did you mean 'mnist'\?"):
        validated(capsys, path, recheck="mnits")
    with pytest.raises(UserError, match="recheck=demo names no task of the submission"):
        validated(capsys, path, recheck="demo")
    with pytest.raises(UserError, match=r"last\.pt does not exist"):
        validated(capsys, path, recheck="mnist")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match=r"run.json does not exist; checkpoint= names the file"):
        validated(capsys, path, recheck="mnist")


@pytest.mark.parametrize("model", ["hf-hub:someone/model", "${oc.env:HOME}", "a,b", "", 5])
def test_a_model_that_is_no_plain_name_is_never_started(tmp_path: Path, model: Any) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    submission, _ = read_submission(submit(options(run)))
    assert submission is not None
    changed = submission.model_copy(
        update={"recipe": {"model": model}, "checkpoint_sha256": digest_file(tmp_path / "weights.pt")}
    )
    with pytest.raises(UserError, match="is no name of a model"):
        evidence.check_again(changed, tmp_path / "weights.pt", ["mnist"], None)


# --- options ---


def test_options_with_dashes() -> None:
    arguments = ["a.json", "--recheck", "mnist,vtab/pets", "--data=/x=y", "pool=p", "--subset", "s.npy"]
    words, parsed = parse(dashed(arguments), ValidateOptions)
    assert words == ["a.json"]
    assert parsed == ValidateOptions(recheck="mnist,vtab/pets", data="/x=y", pool="p", subset="s.npy")
    for arguments in (["a.json", "--data"], ["--recheck", "--data", "x"]):
        with pytest.raises(UserError, match=r"--(data|recheck) needs a value"):
            dashed(arguments)
    with pytest.raises(UserError, match=r"unknown key 'rechek': did you mean 'recheck'\?"):
        parse(dashed(["--rechek", "mnist"]), ValidateOptions)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subset": "x"}, "subset= holds for one submission; 2 files are named"),
        ({"predictions": "x"}, "predictions= holds for one submission; 2 files are named"),
        ({"recheck": "x"}, "recheck= holds for one submission; 2 files are named"),
        ({"against": "no/folder"}, "against=no/folder is not a folder"),
    ],
)
def test_options_for_several_files(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_files(["a.json", "b.json"], ValidateOptions(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pool": "x"}, "pool= is of no use without subset="),
        ({"data": "x"}, "data= is of no use without recheck="),
        ({"checkpoint": "x"}, "checkpoint= is of no use without recheck="),
        ({"predictions": "no/folder"}, "predictions=no/folder is not a folder"),
        ({"subset": "x", "pool": "no/pool"}, "pool=no/pool does not exist"),
    ],
)
def test_options_that_need_others(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_files(["a.json"], ValidateOptions(**given))


def test_what_needs_no_model_loads_no_torch() -> None:
    """Nor wilds, which is for the metrics of its own tasks alone."""
    ours = "leaderboard.validate, leaderboard.submit, leaderboard.build, evaluate.metrics, evaluate.merge"
    heavy = "('torch', 'open_clip', 'wilds', 'sklearn')"
    script = f"import sys, {ours}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
