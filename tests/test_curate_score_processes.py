"""Scoring in processes of its own: one for each device, a killed one, and an array on SLURM."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import forked
import pytest
import slurm_cluster
import torch
from pools import write_pool
from scoring import HOLDING, REAL, run, scores_of
from waiting import until

from poolbench.models.clip import create

import curate.scorers.run
from curate.scorers.base import ScorerOptions


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pool/, 12 shards of 10 samples, and model.pt of a model that every process knows."""
    root = tmp_path_factory.mktemp("real")
    write_pool(root / "pool", shards=12, per_shard=10)
    torch.save({"state_dict": create(REAL, seed=1).state_dict()}, root / "model.pt")
    assert run(root / "pool", root / "model.pt", root / "scores", model=REAL) == 0
    return root


def command(real: Path, out: Path, *words: str) -> list[str]:
    known = [f"checkpoint={real}/model.pt", f"model={REAL}", f"shards={real}/pool", f"out={out}", "arch=b32"]
    return ["-m", "curate.score", *known, *words]


@pytest.mark.slow
def test_a_process_for_each_device(
    real: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        curate.scorers.run, "subprocess", SimpleNamespace(Popen=forked.popen, TimeoutExpired=subprocess.TimeoutExpired)
    )
    assert run(real / "pool", real / "model.pt", tmp_path, model=REAL, device="cpu,cpu") == 0
    assert capfd.readouterr().out.count("6 of 6 shards to score, cpu") == 2
    assert scores_of(tmp_path) == pytest.approx(scores_of(real / "scores"), abs=1e-6)


def test_a_killed_process_of_a_device_is_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = tmp_path / "dying"
    dying.write_text('#!/bin/sh\nfor word; do test "$word" != device=b || kill -KILL $$; done\n')
    dying.chmod(0o755)
    monkeypatch.setattr(curate.scorers.run, "sys", SimpleNamespace(executable=str(dying), stderr=sys.stderr))
    assert curate.scorers.run._on_each(["a", "b"], ScorerOptions(workers=0), []) == 1
    told = "b: SIGKILL ended its process, for want of memory most likely; the same command scores what is missing\n"
    assert capfd.readouterr().err == told


@pytest.mark.slow
def test_a_killed_run_goes_on(real: Path, tmp_path: Path) -> None:
    process = forked.start("-c", HOLDING, *command(real, tmp_path, "workers=1")[2:], new_session=True)
    until(lambda: len(list(tmp_path.glob("*.parquet"))) == 3 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path.name: path.stat().st_ino for path in tmp_path.glob("*.parquet")}
    assert len(finished) == 3
    assert run(real / "pool", real / "model.pt", tmp_path, model=REAL) == 0
    assert all((tmp_path / name).stat().st_ino == inode for name, inode in finished.items())
    assert scores_of(tmp_path) == pytest.approx(scores_of(real / "scores"), abs=1e-6)


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_array_on_slurm(real: Path, tmp_path: Path, cluster: dict[str, str]) -> None:
    environment = cluster | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = [*command(real, tmp_path / "out")[2:], "workers=0"]
    sbatch = [
        "sbatch",
        "--wait",
        "--parsable",
        "--array=3-4",
        f"--output={tmp_path}/log.%a",
        "slurm/score.sbatch",
        *words,
    ]
    done = subprocess.run(sbatch, cwd=forked.ROOT, env=environment, capture_output=True, text=True, timeout=600)
    logs = [path.read_text() for path in sorted(tmp_path.glob("log.*"))]
    assert done.returncode == 0, (done.stderr, logs)
    assert len(logs) == 2 and all("6 of 6 shards to score" in log for log in logs)
    assert scores_of(tmp_path / "out") == pytest.approx(scores_of(real / "scores"), abs=1e-6)
