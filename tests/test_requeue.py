"""Jobs that are requeued, cancelled, out of time or hopeless, on a real SLURM with two nodes: slurm/train.sbatch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster
from slurm_cluster import ROOT, Jobs
from trained import STEPS, checkpoints, options, same, steps

pytestmark = pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)


@pytest.fixture
def jobs(cluster: dict[str, str], tmp_path: Path) -> Jobs:
    return Jobs(tmp_path, cluster)


@pytest.mark.slow
def test_a_job_requeued_and_cancelled_ends_with_the_same_weights(jobs: Jobs, tmp_path: Path) -> None:
    """On two nodes, with data workers: `scontrol requeue`, as preemption does it, and then scancel."""
    words = [*options(tmp_path), "efficiency.workers=1"]
    run, nodes = tmp_path / "runs/broken", ["--nodes=2", "--ntasks-per-node=1"]
    job = jobs.submit(nodes, [*words, "name=broken"])
    jobs.wait(lambda: steps(run) >= 10)
    jobs.run("scontrol", "requeue", job)
    jobs.wait(lambda: jobs.show(job)["JobState"] == "PENDING")
    behind = steps(run)
    assert 10 <= behind < STEPS
    assert checkpoints(run) == [behind], jobs.logs()

    jobs.start_now(job)
    jobs.wait(lambda: steps(run) >= behind + 10)
    jobs.run("scancel", job)
    fields = jobs.end(job)
    assert (fields["JobState"], fields["Restarts"]) == ("CANCELLED", "1"), jobs.logs()
    assert f"continuing behind step {behind} from" in jobs.logs()
    assert checkpoints(run) == [behind, steps(run)] and steps(run) < STEPS, jobs.logs()

    job = jobs.submit(nodes, [*words, "name=broken"])
    assert jobs.end(job)["JobState"] == "COMPLETED", jobs.logs()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*torchrun, *words, "name=whole"], check=True, timeout=600, cwd=ROOT, env=environment)
    assert same(run, tmp_path / "runs/whole")


@pytest.mark.slow
def test_an_array_of_which_one_element_runs_out_of_time(jobs: Jobs, tmp_path: Path) -> None:
    """SLURM's own warning, on the last element, whose job has the number of the whole array."""
    manifest = tmp_path / "runs.yaml"
    common = "".join(f"  - {word}\n" for word in options(tmp_path))
    manifest.write_text(
        f"common:\n{common}methods:\n  one: [efficiency.workers=0]\n  two: [efficiency.workers=1]\nseeds: [0, 1]\n"
    )
    job = jobs.submit(["--array=1-4", "--time=60"], [f"manifest={manifest}"])
    runs, last = tmp_path / "runs", f"{job}_4"
    jobs.wait(lambda: steps(runs / "two-seed1") >= 5)
    jobs.run("scancel", "--signal=STOP", last)  # SLURM looks for jobs to warn every 30 s, and wakes them then
    jobs.run("scontrol", "update", f"JobId={last}", "TimeLimit=1")
    jobs.wait(lambda: jobs.show(last)["JobState"] == "PENDING")
    assert 5 <= steps(runs / "two-seed1") < STEPS
    jobs.run("scontrol", "update", f"JobId={last}", "TimeLimit=60")

    ended = [jobs.end(f"{job}_{element}") for element in (1, 2, 3, 4)]
    assert [fields["JobState"] for fields in ended] == ["COMPLETED"] * 4, jobs.logs()
    assert [fields["Restarts"] for fields in ended] == ["0", "0", "0", "1"]
    assert sorted(path.name for path in runs.iterdir()) == ["one-seed0", "one-seed1", "two-seed0", "two-seed1"]
    assert same(runs / "two-seed1", runs / "one-seed1")  # the number of workers changes nothing
    assert same(runs / "two-seed0", runs / "one-seed0")
    assert not same(runs / "one-seed0", runs / "one-seed1")


@pytest.mark.slow
def test_a_job_that_never_comes_to_a_step_is_given_up(cluster: dict[str, str], tmp_path: Path) -> None:
    """Training that is stopped at once, as with a time limit that is too short; the rest is real."""
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\ncase "$*" in "-m train.folder"*) echo nowhere ;; *) exit 75 ;; esac\n')
    python.chmod(0o755)
    jobs = Jobs(tmp_path, cluster | {"PYTHON": str(python)})
    fields = jobs.end(jobs.submit(["--nodes=2", "--ntasks-per-node=1"], ["scale=tiny"]))
    assert (fields["JobState"], fields["Restarts"], fields["ExitCode"]) == ("FAILED", "3", "75:0"), jobs.logs()
    assert jobs.logs().count("was stopped before its first step, after 3 restarts; not requeued") == 1
