"""Evaluation during training: scores beside the losses, the same weights, and nothing lost when either fails."""

import os
import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import forked
import offline_wandb
import pytest
import torch
from evalsets import classification_samples, retrieval_samples, write_classification, write_retrieval
from pools import write_pool

from poolbench.command import compose
from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, read_lines
from poolbench.processes.preemption import STOPPED

from evaluate.config import EvaluateConfig
from evaluate.run import run as evaluate
from tasks.registry import load_tasks
from tasks.results import FILE
from train import evaluation
from train.config import TrainConfig
from train.loop import train

ROOT = Path(__file__).parent.parent
EUROSAT, PETS = "vtab/eurosat", "vtab/pets"
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
TASKS = load_tasks()
SMALL = {
    "scale": "small",
    "precision": "fp32",
    "recipe.model": "test-tiny",
    "recipe.batch_size": "16",
    "recipe.samples": "96",  # 6 steps
    "recipe.warmup": "3",
    "recipe.streams": "8",
    "recipe.shuffle_buffer": "40",
    "efficiency.workers": "0",
    "efficiency.checkpoint_every": "4",
    "name": "run",
}
# Stands for `python -m evaluate` where only what becomes of it matters. $FAULT says what goes wrong, and when.
STUB = """
import hashlib, json, os, subprocess, sys, time
from pathlib import Path

given = {key: json.loads(value) for key, value in (word.split("=", 1) for word in sys.argv[1:])}
out, digest = Path(given["out"]), hashlib.sha256(Path(given["checkpoint"]).read_bytes()).hexdigest()
fault, at = os.environ.get("FAULT", " ").split(" ")
fault = fault if at in ("all", out.name) else ""
(out / "calls").open("a").write(digest + "\\n")
(out / "environment").write_text(" ".join(os.environ))
print("the stub says", fault)
if fault == "hang":
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (out / "pids.part").write_text(f"{os.getpid()} {other.pid}")
    (out / "pids.part").rename(out / "pids")
    time.sleep(600)
if fault == "slow":
    time.sleep(9)
for number, key in enumerate(given["tasks"]):
    if number == 0 or fault != "half":
        value = int(digest[:6], 16) / 2**24 + number
        line = {"key": key, "metrics": {"main_metric": value}, "checkpoint_sha256": digest}
        line |= {"precision": given["precision"], "limit": given.get("limit")}
        (out / "eval_results.jsonl").open("a").write(json.dumps(line) + "\\n")
if fault == "spoil":
    (out / "eval_results.jsonl").write_text('{"key": 3}\\n')
sys.exit(fault == "half")
"""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("data") / "pool", shards=4, per_shard=20)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    write_classification(root, TASKS[EUROSAT], classification_samples(23, 10))
    write_retrieval(root, TASKS[FLICKR], retrieval_samples(9))
    return root


@pytest.fixture
def options(pool: Path, tmp_path: Path) -> dict[str, str]:
    return SMALL | {"data": str(pool), "out": str(tmp_path / "runs")}


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Options of an evaluation that the stub does."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(evaluation, "EVALUATE", (sys.executable, str(tmp_path / "stub.py")))
    return {"evaluate.tasks": f"[{EUROSAT},{PETS}]", "evaluate.data": str(tmp_path)}


def configured(options: dict[str, str]) -> TrainConfig:
    return compose("train", [f"{key}={value}" for key, value in options.items()], TrainConfig)


def run(options: dict[str, str], status: int = 0) -> Path:
    """Train in this process; the run's folder."""
    config = configured(options)
    assert train(config) == status
    return config.folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = read_lines(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "learning_rate", "logit_scale", "samples"} <= line.keys() for line in lines)
    return lines


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


def scores(folder: Path) -> dict[int, dict[str, float | None]]:
    return {line["step"]: line["evaluation"] for line in metrics(folder) if "evaluation" in line}


def failures(folder: Path) -> list[int]:
    return [line["step"] for line in metrics(folder) if line.get("evaluation_failed")]


def calls(folder: Path) -> dict[str, list[str]]:
    """The digests of the checkpoints that the stub was called for, by the checkpoint's name."""
    found = sorted((folder / "evaluations").iterdir())
    return {path.name: (path / "calls").read_text().split() for path in found}


@pytest.mark.slow
def test_a_checkpoint_is_scored_as_by_hand(
    options: dict[str, str], sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing stands in for anything here: a model that every process knows, and `python -m evaluate` itself."""
    options |= {"recipe.model": "ViT-Ti-32-64", "efficiency.checkpoint_every": "6"}
    asked = {"evaluate.tasks": f"[{FLICKR},vtab/euro*]", "evaluate.data": str(sets), "evaluate.limit": "20"}
    folder = run(options | asked)
    found = scores(folder)
    assert found.keys() == {6} and list(found[6]) == [EUROSAT, FLICKR] and failures(folder) == []
    config = EvaluateConfig(
        model="ViT-Ti-32-64",
        checkpoint=str(folder / read_json(folder / "run.json")["checkpoint"]["path"]),
        data=str(sets),
        out=str(tmp_path),
        tasks=[EUROSAT, FLICKR],
        limit=20,
        workers=0,
    )
    capsys.readouterr()
    assert evaluate(config) == 0
    again = {line["key"]: line["metrics"]["main_metric"] for line in read_lines(tmp_path / FILE)}
    assert found[6] == pytest.approx(again, abs=1e-6)
    assert "2 of 2 tasks" in (folder / "evaluations/step_000000006/log").read_text()


def test_scores_are_those_of_the_checkpoint(
    options: dict[str, str], stub: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run(options | stub | {"efficiency.checkpoint_every": "2", "efficiency.keep_checkpoints": "1"})
    names = [f"step_{step:09d}" for step in (2, 4, 6)]
    assert list(calls(folder)) == names and all(len(digests) == 1 for digests in calls(folder).values())
    expected = {
        int(name.removeprefix("step_")): {
            key: int(digest[:6], 16) / 2**24 + number for number, key in enumerate((EUROSAT, PETS))
        }
        for name, (digest,) in calls(folder).items()
    }
    assert scores(folder) == expected and len({values[PETS] for values in expected.values()}) == 3
    last = read_json(folder / "run.json")["checkpoint"]
    assert calls(folder)[names[-1]] == [last["sha256"]] == [digest_file(folder / last["path"])]
    said = capsys.readouterr().err
    assert f"step_000000004: {EUROSAT} {expected[4][EUROSAT]:.4f}, {PETS} {expected[4][PETS]:.4f}" in said


@pytest.mark.parametrize("compute", ["plain", "workers"])
def test_evaluations_change_no_weight(options: dict[str, str], stub: dict[str, str], compute: str) -> None:
    options |= {"efficiency.workers": "2"} if compute == "workers" else {}
    plain, folder = run(options | {"name": "plain"}), run(options | stub)
    assert list(scores(folder)) == [4, 6] and scores(plain) == {} and losses(folder) == losses(plain)
    records = [read_json(path / "run.json") for path in (folder, plain)]
    paths = [path / record["checkpoint"]["path"] for path, record in zip((folder, plain), records, strict=True)]
    left, right = (torch.load(path, weights_only=True)["state_dict"] for path in paths)
    assert left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)
    for key in ("recipe_digest", "official", "deviations", "samples_seen", "data", "status"):
        assert records[0][key] == records[1][key]


def test_wandb_gets_the_scores(options: dict[str, str], stub: dict[str, str]) -> None:
    folder = run(options | stub | {"wandb.mode": "offline"})
    assert offline_wandb.holds(folder, f"evaluation/{EUROSAT}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"evaluate.tasks": "vtab/eurosatt"},
            r"evaluate.tasks: 'vtab/eurosatt' names no .* did you mean 'vtab/eurosat'",
        ),
        ({"evaluate.tasks": "[vtab,nothing*]"}, r"evaluate.tasks: 'nothing\*' names no task or group"),
        ({"evaluate.tasks": "3"}, r"evaluate.tasks: '3' names no task or group"),
        ({"evaluate.tasks": "vtab,,other"}, r"evaluate.tasks=vtab,,other is not a word or a list of words"),
        ({"evaluate.data": "/nowhere"}, "evaluate.data=/nowhere is not a folder"),
        ({"evaluate.data": "null"}, "evaluate.data= is needed for vtab/eurosat"),
        ({"evaluate.tasks": "null"}, "evaluate.data= is given without evaluate.tasks="),
        ({"evaluate.precision": "amp"}, "evaluate.precision=amp is not known; known: amp_bf16, fp32"),
        ({"evaluate.limit": "0"}, "evaluate.limit=0 must be at least 1"),
        ({"evaluate.taks": "all"}, "unknown key 'evaluate.taks'; did you mean 'evaluate.tasks'"),
    ],
)
def test_mistakes_are_told_before_the_first_step(
    options: dict[str, str], stub: dict[str, str], change: dict[str, str], told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        run(options | stub | change)
    assert "\n" not in str(caught.value)
    assert not Path(options["out"]).exists()


@pytest.mark.parametrize("fault", ["half", "spoil", "missing"])
def test_a_failed_evaluation_stops_nothing_but_is_told(
    options: dict[str, str],
    stub: dict[str, str],
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if fault == "missing":
        monkeypatch.setattr(evaluation, "EVALUATE", ("/no/python", "-m", "evaluate"))
    monkeypatch.setenv("FAULT", f"{fault} step_000000004")
    folder = run(options | stub, status=1)
    record, found = read_json(folder / "run.json"), scores(folder)
    assert record["status"] == "complete" and record["samples_seen"] == 96
    assert failures(folder) == ([4, 6] if fault == "missing" else [4])
    if fault == "half":
        assert found[4][EUROSAT] is not None and found[4][PETS] is None and None not in found[6].values()
    said = capsys.readouterr().err.splitlines()
    (error,) = [line for line in said if line.startswith("error: ")]
    (warning,) = [line for line in said if line.startswith("warning: the evaluation of step_000000004 failed: ")]
    assert {"half": "exit status 1, see ", "spoil": "is not a file of results", "missing": "/no/python"}[
        fault
    ] in warning
    assert error.startswith(f"error: the evaluation failed at step {'4, 6' if fault == 'missing' else '4'}; ")
    words = shlex.split(error.split("to repeat it: ")[1])
    assert words[:3] == ["python", "-m", "evaluate"]
    repeated = compose("evaluate", words[3:], EvaluateConfig)
    step = 6 if fault == "missing" else 4
    assert repeated.checkpoint == str(folder / f"checkpoints/step_{step:09d}.pt")
    assert repeated.out == str(folder / f"evaluations/step_{step:09d}") and repeated.tasks == [EUROSAT, PETS]


def test_a_failure_whose_checkpoint_is_gone_is_told(
    options: dict[str, str], stub: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAULT", "half step_000000004")
    run(options | stub | {"efficiency.keep_checkpoints": "1"}, status=1)
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert error.endswith("none of the checkpoints is kept")


class Stop(BaseException):
    """A crash."""


@pytest.mark.parametrize("step", [4, 6])
def test_a_crash_in_the_evaluation_loses_nothing(
    options: dict[str, str], stub: dict[str, str], monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the process is started, and after it ended: what is made up for is the evaluation alone, once."""
    whole = run(options | stub | {"name": "whole"})
    start = evaluation._run

    def crash(command: list[str], *rest: Any) -> int:
        if f"step_{step:09d}" not in str(command):
            return start(command, *rest)
        start(command, *rest)
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(evaluation, "_run", crash)
        run(options | stub)
    folder = Path(options["out"]) / "run"
    lines = read_lines(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, step + 1)) and "evaluation" not in lines[-1]
    assert read_json(folder / "run.json")["status"] == "running"
    run(options | stub)
    assert losses(folder) == losses(whole)
    assert list(scores(folder)) == [4, 6] and scores(folder)[step] == scores(whole)[step]
    assert calls(folder)[f"step_{step:09d}"] == 2 * calls(whole)[f"step_{step:09d}"]  # the same checkpoint both times
    record = read_json(folder / "run.json")
    assert record["status"] == "complete"
    assert record["checkpoint"]["sha256"] == digest_file(folder / record["checkpoint"]["path"])


def test_what_to_evaluate_may_change(
    options: dict[str, str], stub: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was interrupted goes on with other tasks; a failure before is told at its end, unless made up for."""

    def interrupted(change: dict[str, str], after: int) -> None:
        with monkeypatch.context() as patch, pytest.raises(Stop):
            patch.setattr("train.loop.learning_rate", _until(after))
            run(options | change)

    interrupted({}, 5)
    assert not (Path(options["out"]) / "run/evaluations").exists()
    monkeypatch.setenv("FAULT", "half step_000000004")
    interrupted(stub | {"evaluate.tasks": f"[{PETS},{EUROSAT}]"}, 5)
    monkeypatch.setenv("FAULT", "half step_000000006")
    folder = run(options | stub | {"evaluate.tasks": PETS, "evaluate.limit": "7"}, status=1)
    assert failures(folder) == [6]
    (value,) = scores(folder)[4].values()
    assert value == pytest.approx(int(calls(folder)["step_000000004"][-1][:6], 16) / 2**24)
    assert [line["limit"] for line in read_lines(folder / "evaluations/step_000000004" / FILE)] == [None, 7]


def _until(after: int) -> Any:
    from train.step import learning_rate

    def rate(step: int, *rest: Any) -> float:
        if step >= after:
            raise Stop
        return learning_rate(step, *rest)

    return rate


def script(tmp_path: Path) -> Path:
    """Training as a command, with the stub and a short patience of collective operations."""
    path = tmp_path / "script.py"
    path.write_text(f"""
import sys
from datetime import timedelta
from functools import partial
import open_clip
import torch.distributed as dist
from train import evaluation
from train.__main__ import main

if __name__ == "__main__":
    open_clip.add_model_config({str(ROOT / "tests/models")!r})
    evaluation.EVALUATE = (sys.executable, {str(tmp_path / "stub.py")!r})
    dist.init_process_group = partial(dist.init_process_group, timeout=timedelta(seconds=5))
    main()
""")
    return path


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody asked for is still listed, as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def hanging(folder: Path) -> list[int]:
    """The process ids of the evaluation of step 4, as soon as it hangs."""
    pids = folder / "evaluations/step_000000004/pids"
    deadline = time.monotonic() + 300
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    running = [int(pid) for pid in pids.read_text().split()]
    assert len(running) == 2 and all(alive(pid) for pid in running)
    return running


def assert_gone(running: list[int]) -> None:
    deadline = time.monotonic() + 300  # a killed process takes a moment to be gone
    while any(alive(pid) for pid in running) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in running)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGUSR1, STOPPED), (signal.SIGHUP, -signal.SIGHUP)])
def test_a_stopped_training_leaves_no_evaluation_behind(
    options: dict[str, str], stub: dict[str, str], tmp_path: Path, number: int, status: int
) -> None:
    words = [f"{key}={value}" for key, value in (options | stub).items()]
    started = forked.start(script(tmp_path), *words, env=os.environ | {"FAULT": "hang all"})
    folder = tmp_path / "runs/run"
    running = hanging(folder)
    started.send_signal(number)
    _, errors = started.communicate(timeout=300)
    assert started.returncode == status and "Traceback" not in errors
    assert_gone(running)
    assert run(options | stub) == folder
    assert list(scores(folder)) == [4, 6] and failures(folder) == []
    assert losses(folder) == losses(run(options | {"name": "plain"}))


def test_an_interrupted_training_leaves_no_evaluation_behind(
    options: dict[str, str], stub: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(options["out"]) / "run"
    monkeypatch.setenv("FAULT", "hang all")
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}

    def interrupt() -> list[int]:
        running = hanging(folder)
        os.kill(os.getpid(), signal.SIGINT)
        return running

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(options | stub)
        assert_gone(running.result())
    assert {number: signal.signal(number, handler) for number, handler in before.items()} == defaults
    monkeypatch.delenv("FAULT")
    run(options | stub)
    assert list(scores(folder)) == [4, 6] and failures(folder) == []


@pytest.mark.slow
def test_the_other_processes_wait_longer_than_a_collective_operation_does(
    options: dict[str, str], stub: dict[str, str], tmp_path: Path
) -> None:
    words = [f"{key}={value}" for key, value in (options | stub).items()]
    environment = os.environ | {"FAULT": "slow step_000000004", "TORCHELASTIC_RUN_ID": "none"}
    folder = tmp_path / "runs/run"
    for started in forked.world(2, script(tmp_path), *words, env=environment):
        _, errors = started.communicate()
        assert started.returncode == 0, errors[-3000:]
    assert read_json(folder / "run.json")["world_size"] == 2 and list(scores(folder)) == [4, 6]
    assert losses(folder) == pytest.approx(losses(run(options | {"name": "plain"})), abs=1e-5)
    known = (folder / "evaluations/step_000000004/environment").read_text().split()
    assert not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "TORCHELASTIC_RUN_ID"} & set(known)
    assert {"PATH", "FAULT"} <= set(known)
