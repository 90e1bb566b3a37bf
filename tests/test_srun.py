"""Training under a real srun, on two nodes."""

import subprocess
import sys
from pathlib import Path

import pytest
import slurm_cluster
from pools import write_pool
from slurm_cluster import ROOT, Jobs

from poolbench.files import read_json, read_lines


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_two_nodes_train_as_one_process(cluster: dict[str, str], tmp_path: Path) -> None:
    """Rank, world size and the master's address come from SLURM's variables; the node names do not resolve."""
    options = [
        "scale=tiny",
        f"data={write_pool(tmp_path / 'pool')}",
        f"out={tmp_path}/runs",
        "precision=fp32",
        "recipe.batch_size=16",
        "recipe.samples=64",
        "recipe.warmup=1",
        "efficiency.workers=0",
    ]
    environment = cluster | {"OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    submit = ["sbatch", "--wait", f"--output={tmp_path}/log", "--nodes=2", "--ntasks-per-node=1", "slurm/train.sbatch"]
    alone = [sys.executable, "-m", "train"]
    for name, command in (("two", submit), ("one", alone)):
        words = [*command, *options, f"name={name}"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=600, env=environment, cwd=ROOT)
        log = (tmp_path / "log").read_text() if (tmp_path / "log").exists() else ""
        assert done.returncode == 0, done.stderr[-3000:] + log[-3000:]
    assert read_json(tmp_path / "runs/two/run.json")["world_size"] == 2
    two, one = ([row["loss"] for row in read_lines(tmp_path / f"runs/{name}/metrics.jsonl")] for name in ("two", "one"))
    assert two == pytest.approx(one, abs=1e-5)


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_a_mistake_fails_the_job_once(cluster: dict[str, str], tmp_path: Path) -> None:
    jobs = Jobs(tmp_path, cluster)
    for words, told in (
        (["scale=small", "data=/nowhere"], "error: data=/nowhere does not exist"),
        (["scale=small", "sead=1"], "error: unknown key 'sead'; did you mean 'seed'?"),
        (["manifest=runs.yaml"], "manifest= needs sbatch --array=1-N"),
    ):
        fields = jobs.end(jobs.submit(["--nodes=2", "--ntasks-per-node=1"], words))
        assert (fields["JobState"], fields["Restarts"]) == ("FAILED", "0"), jobs.logs()
        assert jobs.logs().count(told) == 1
