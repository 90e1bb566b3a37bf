"""Selecting with an array of jobs on a real SLURM with two nodes: each element a part, one killed, and a last job that
merges."""

import sys
from pathlib import Path

import pytest
import slurm_cluster
from metadata import write_metadata

from poolbench.errors import status_of
from poolbench.files import read_json

from curate.command import run


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_array_selects_and_what_a_killed_element_left_is_done(cluster: dict[str, str], tmp_path: Path) -> None:
    pool = write_metadata(tmp_path / "pool", 6, 50, npz=False)
    words = ["filter=clip_score", "filter.fraction=0.3", f"pool={pool}", "workers=1"]
    # The second element's interpreter waits before it begins, so that it can be killed in its work.
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\nif [ "$SLURM_ARRAY_TASK_ID" = 2 ]; then touch {tmp_path}/started; sleep 300; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    jobs = slurm_cluster.Jobs(tmp_path, cluster | {"PYTHON": str(python)})
    command = ["sbatch", "--parsable", f"--output={tmp_path}/log.%j"]
    selecting = ["slurm/curate.sbatch", *words, f"out={tmp_path}/out.npy"]
    array = jobs.run(*command, "--array=1-2", *selecting).strip()
    last = jobs.run(*command, f"--dependency=afterany:{array}", *selecting).strip()
    jobs.wait(lambda: (tmp_path / "started").exists() and "part 1/2: 3 files" in jobs.logs())
    assert not (tmp_path / "out.npy").exists()
    jobs.run("scancel", "--signal=KILL", f"{array}_2")
    assert jobs.end(last)["ExitCode"] == "0:0", jobs.logs()
    assert jobs.show(f"{array}_2")["JobState"] != "COMPLETED"
    assert "continuing: 3 of 6 files are done" in jobs.logs()
    assert status_of(lambda: run([*words, f"out={tmp_path}/alone.npy"])) == 0
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "alone.npy").read_bytes()
    assert read_json(tmp_path / "out.npy.json") == read_json(tmp_path / "alone.npy.json")
