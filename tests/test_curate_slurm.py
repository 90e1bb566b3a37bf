"""Selecting with an array of jobs on a real SLURM with two nodes: each element a part, one killed, and a last job that
merges; by a column that the pool has, and by one that is made on the way."""

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


# The second element's writing of its second column stops in the middle, and the first one begins behind that.
STOPPING = """
import os, pathlib, runpy, sys, time
from curate.pool import columns

started, element, write = pathlib.Path(sys.argv[1]), os.environ.get("SLURM_ARRAY_TASK_ID"), columns.write

def stopping(path, uids, *rest):
    def endless():
        yield next(uids)
        started.touch()
        time.sleep(300)
    write(path, endless() if str(path).endswith("0003.parquet") else uids, *rest)

if element == "2":
    columns.write = stopping
while element == "1" and not started.exists():
    time.sleep(0.1)
sys.argv = sys.argv[3:]
runpy.run_module("curate", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_array_makes_columns_and_what_a_killed_element_made_is_found(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    pool = write_metadata(tmp_path / "pool", 6, 50)
    words = ["filter=neg_clip_loss", "filter.fraction=0.3", f"pool={pool}", "workers=1"]
    jobs = slurm_cluster.stopping_jobs(tmp_path, cluster, STOPPING)
    command = ["sbatch", "--parsable", f"--output={tmp_path}/log.%j"]
    selecting = ["slurm/curate.sbatch", *words, f"out={tmp_path}/out.npy"]
    array = jobs.run(*command, "--array=1-2", *selecting).strip()
    last = jobs.run(*command, f"--dependency=afterany:{array}", *selecting).strip()
    jobs.wait(lambda: "part 1/2: 3 files" in jobs.logs())
    (columns,) = (pool / "columns").iterdir()
    whole = {path.name: path.stat().st_ino for path in columns.glob("[!.]*.parquet")}
    assert len(whole) == 6 and list(columns.glob(".0003.parquet.*"))  # the first element has done the second one's, too
    first = (columns / "0001.parquet").stat()
    assert first.st_mtime_ns <= (tmp_path / "started").stat().st_mtime_ns  # but this one, which it has found
    jobs.run("scancel", "--signal=KILL", f"{array}_2")
    assert jobs.end(last)["ExitCode"] == "0:0", jobs.logs()
    assert jobs.show(f"{array}_2")["JobState"] != "COMPLETED"
    assert {path.name: path.stat().st_ino for path in columns.glob("[!.]*.parquet")} == whole
    assert status_of(lambda: run([*words, f"out={tmp_path}/alone.npy", f"columns={tmp_path}/alone"])) == 0
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "alone.npy").read_bytes()
    assert read_json(tmp_path / "out.npy.json") == read_json(tmp_path / "alone.npy.json")
    alone = tmp_path / "alone" / columns.name
    assert {name: (columns / name).read_bytes() for name in whole} == {
        path.name: path.read_bytes() for path in alone.glob("*.parquet")
    }
