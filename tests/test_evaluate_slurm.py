"""An evaluation in parts: an array of jobs on a real SLURM with two nodes, one element killed; and merging."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import slurm_cluster
import torch
from evalsets import MODEL, classification_samples, scored, write_checkpoint, write_classification
from runs import run_json

from poolbench.errors import UserError, status_of
from poolbench.files import append_line, read_lines
from poolbench.models.clip import create

from evaluate.merge import COMMAND, OLD, merged
from tasks.registry import load_tasks
from tasks.results import FILE, predictions_path

ROOT = Path(__file__).parent.parent
TASKS = load_tasks()
# Of two parts the first has ObjectNet, the second the others, the shards of MNIST at last.
OBJECTNET, COUNTRY, PETS, MNIST = "objectnet", "country211", "vtab/pets", "mnist"
KEYS = [OBJECTNET, COUNTRY, PETS, MNIST]


def write_sets(root: Path, last: int) -> None:
    """The four tasks; the last one has `last` pictures."""
    for key in KEYS:
        task = TASKS[key]
        count, shards = (last, 20) if key == MNIST else (12, 1)
        write_classification(
            root, task, classification_samples(count, task.classes or 0), shards=shards, templates=["{c}"]
        )


class Jobs:
    """Submits slurm/evaluate.sbatch with the same options every time."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
        self._words = [
            f"checkpoint={folder}/model.pt", "model=ViT-Ti-32-64", f"data={folder}/data", f"out={folder}/out",
            f"tasks=[{','.join(KEYS)}]", "workers=0", "batch_size=16",
        ]  # fmt: skip

    def submit(self, *options: str) -> str:
        command = ["sbatch", "--parsable", f"--output={self._folder}/log.%j", *options]
        return self._run([*command, "slurm/evaluate.sbatch", *self._words]).stdout.strip()

    def kill(self, job: str) -> None:
        self._run(["scancel", "--signal=KILL", job])

    def end(self, job: str) -> None:
        """Wait until the job, or every element of an array, is through."""
        limit = time.monotonic() + 600
        while self._run(["squeue", "-h", "-j", job, "-t", "pending,running,completing"], check=False).stdout.strip():
            assert time.monotonic() < limit, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("log.*")))

    def state(self, job: str) -> str:
        return self._run(["scontrol", "show", "job", job, "-o"]).stdout

    def _run(self, command: list[str], check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=300, check=check
        )


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_array_with_an_element_killed_half_way(cluster: dict[str, str], tmp_path: Path) -> None:
    torch.save({"state_dict": create("ViT-Ti-32-64").state_dict()}, tmp_path / "model.pt")
    write_sets(tmp_path / "data", last=1500)
    jobs = Jobs(tmp_path, cluster)
    out = tmp_path / "out"

    array = jobs.submit("--array=1-2")
    last = jobs.submit(f"--dependency=afterany:{array}")
    limit = time.monotonic() + 600
    while not predictions_path(out, PETS).exists():
        assert time.monotonic() < limit, jobs.logs()
        time.sleep(0.05)
    jobs.kill(f"{array}_2")  # in the middle of MNIST
    jobs.end(array)
    jobs.end(last)
    assert not predictions_path(out, MNIST).exists(), "the element was through before it could be killed"
    assert "ExitCode=1:0" in jobs.state(last), jobs.logs()
    assert f"{MNIST}: missing: no part has evaluated it; submit the parts again" in jobs.logs()
    assert [line["key"] for line in read_lines(out / FILE)] == [
        key for key in TASKS if key in (COUNTRY, OBJECTNET, PETS)
    ]
    before = {line["key"]: line for line in read_lines(out / FILE)}

    for log in tmp_path.glob("log.*"):
        log.unlink()
    array = jobs.submit("--array=0-1")  # the same parts, counted from 0
    last = jobs.submit(f"--dependency=afterany:{array}")
    jobs.end(array)
    jobs.end(last)
    assert "ExitCode=0:0" in jobs.state(last), jobs.logs()
    assert jobs.logs().count("finished before") == 3 and "4 of 4 tasks have results" in jobs.logs()
    after = {line["key"]: line for line in read_lines(out / FILE)}
    assert len(after) == len(read_lines(out / FILE)) == 4
    assert {key: after[key] for key in before} == before, "what was finished was not evaluated again"
    alone = scored_alone(tmp_path)
    for key in KEYS:
        assert after[key]["metrics"] == pytest.approx(alone[key]["metrics"], abs=1e-6)
        assert after[key]["data_digest"] == alone[key]["data_digest"]


def scored_alone(folder: Path) -> dict[str, Any]:
    """The same in one process."""
    words = ["model=ViT-Ti-32-64", f"checkpoint={folder}/model.pt", f"data={folder}/data", f"out={folder}/alone"]
    command = [sys.executable, "-m", "evaluate", *words, f"tasks=[{','.join(KEYS)}]", "workers=0"]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=600)
    return {line["key"]: line for line in read_lines(folder / "alone" / FILE)}


# --- merging ---


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The folder of the results of two parts."""
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    write_sets(tmp_path / "data", last=12)
    out = tmp_path / "out"
    for part in ("1/2", "2/2"):
        scored(checkpoint, tmp_path / "data", out, KEYS, part=part)
    return out


def test_merging_restores_lost_lines_and_drops_none(parts: Path) -> None:
    lines = read_lines(parts / FILE)
    assert sorted(line["key"] for line in lines) == sorted(KEYS)
    old = {**lines[0], "metrics": {"acc1": 0.5, "main_metric": 0.5}}
    (parts / FILE).unlink()
    for line in (old, *lines[1:3]):
        append_line(parts / FILE, line)
    assert sorted(merged(parts, None)) == sorted(KEYS)
    expected = sorted(lines, key=lambda line: list(TASKS).index(line["key"]))
    assert read_lines(parts / FILE) == expected and read_lines(parts / OLD) == [old]
    merged(parts, None)
    assert read_lines(parts / FILE) == expected and read_lines(parts / OLD) == [old]


Merge = Callable[..., tuple[int, str]]


@pytest.fixture
def merge(capsys: pytest.CaptureFixture[str]) -> Merge:
    """Runs the command with some words; gives its exit status and what it printed."""

    def run(*words: str) -> tuple[int, str]:
        status = status_of(lambda: COMMAND.answer(words))
        return status, "".join(capsys.readouterr())

    return run


def test_the_exit_status_tells_whether_all_is_there(parts: Path, merge: Merge, tmp_path: Path) -> None:
    status, printed = merge(f"out={parts}", f"tasks=[{','.join(KEYS)}]")
    assert status == 0 and "4 of 4 tasks have results" in printed
    predictions_path(parts, PETS).unlink()
    status, printed = merge(f"out={parts}", f"tasks=[{','.join(KEYS)}]")
    assert status == 1 and f"{PETS}: missing" in printed
    status, printed = merge(f"out={parts}")
    assert status == 1 and "3 of 40 tasks have results" in printed
    for words, message in (
        ([], "is needed"),
        ([f"out={tmp_path}/nowhere"], "holds no results"),
        (["x"], "unknown word"),
    ):
        status, printed = merge(*words)
        assert status == 2 and message in printed and printed.count("\n") == 1


def test_results_of_different_conditions_are_not_merged(parts: Path, tmp_path: Path) -> None:
    scored(tmp_path / "model.pt", tmp_path / "data", parts, [PETS], precision="amp_bf16")
    with pytest.raises(UserError, match="different conditions: precision is"):
        merged(parts, None)
    before = (parts / FILE).read_text()
    with pytest.raises(UserError, match="holds no results of the run's checkpoint"):
        merged(parts, "0" * 64)
    predictions_path(parts, PETS).write_bytes(b"cut")
    with pytest.raises(UserError, match=r"vtab-pets\.parquet does not hold predictions with their results"):
        merged(parts, None)
    assert (parts / FILE).read_text() == before


def test_a_run_is_merged_for_its_own_checkpoint(parts: Path, merge: Merge) -> None:
    sha256 = read_lines(parts / FILE)[0]["checkpoint_sha256"]
    record = {
        **run_json("run", "small"),
        "recipe": {"model": MODEL},
        "checkpoint": {"path": "model.pt", "sha256": sha256},
    }
    (parts / "run.json").write_text(json.dumps(record))
    assert "4 of 40 tasks have results" in merge(f"run={parts}")[1]
    (parts / "run.json").write_text(json.dumps({**record, "checkpoint": {"path": "model.pt", "sha256": "0" * 64}}))
    assert "holds no results of the run's checkpoint" in merge(f"run={parts}")[1]
