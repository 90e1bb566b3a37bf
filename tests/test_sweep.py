"""Sweeps (-m) through Hydra's submitit launchers: processes of this machine, and jobs of a real SLURM."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import slurm_cluster
from slurm_cluster import ROOT, Jobs
from trained import STEPS, checkpoints, options, same, steps


@contextlib.contextmanager
def sweep(log: Path, environment: dict[str, str], *words: str) -> Iterator["subprocess.Popen[bytes]"]:
    """`python -m train -m` in the background; the block has to see it end."""
    with log.open("wb") as file:
        command = [sys.executable, "-m", "train", "-m", *words]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, stdout=file, stderr=file
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_seeds_are_jobs_of_their_own_and_a_preempted_one_goes_on(cluster: dict[str, str], tmp_path: Path) -> None:
    """submitit warns with SIGUSR2 and requeues its job itself, which must come behind our checkpoint."""
    words = [*options(tmp_path), "efficiency.workers=1"]
    out, run = f"out={tmp_path}/slurm", tmp_path / "slurm/tiny-seed1"
    log = tmp_path / "log.sweep"
    jobs = Jobs(tmp_path, cluster)
    swept = [*words[:2], *words[3:], out, "seed=0,1", "hydra/launcher=submitit_slurm"]
    with sweep(log, cluster, *swept, "hydra.launcher.timeout_min=60") as process:
        jobs.wait(lambda: steps(run) >= 10)
        (job,) = (path.name for path in (tmp_path / "slurm/.submitit").glob("*_1"))
        jobs.run("scancel", "--signal=USR2", job)
        jobs.wait(lambda: jobs.show(job)["JobState"] == "PENDING")
        behind = steps(run)
        assert 10 <= behind < STEPS and checkpoints(run) == [behind], log.read_text()
        jobs.start_now(job)
        assert process.wait(900) == 0, log.read_text()
    with sweep(log, dict(os.environ), *words, "seed=1", "hydra/launcher=submitit_local") as process:
        assert process.wait(900) == 0, log.read_text()
    assert same(run, tmp_path / "runs/tiny-seed1")
    assert not same(run, tmp_path / "slurm/tiny-seed0")
