"""Packing makes the same bytes whoever makes them, in parts and on SLURM, and loses nothing by a kill."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import slurm_cluster
from packing import as_bytes, as_jsonl, check_metadata, contents, options, reasons, samples, with_repeats
from runs import ROOT
from waiting import until

import curate.pack.duplicates
from curate.pack.run import pack


@pytest.mark.parametrize("layout", [as_jsonl, as_bytes], ids=lambda one: one.__name__)
def test_parts_and_workers_make_the_same_bytes(
    layout: Callable[..., Any], tmp_path: Path, rng: np.random.Generator
) -> None:
    pairs = with_repeats(rng)
    whole = options(tmp_path / "whole", shard_size=4, **layout(tmp_path / "in", pairs))
    assert pack(whole) == 0  # what is there twice is no failure
    assert len(samples(tmp_path / "whole")) == 30
    assert len(reasons(tmp_path / "whole")) == 28 == sum("a duplicate" in why for _, why in reasons(tmp_path / "whole"))
    check_metadata(tmp_path / "whole", samples(tmp_path / "whole"))
    assert pack(replace(whole, out=str(tmp_path / "workers"), workers=3)) == 0
    parted = replace(whole, out=str(tmp_path / "parts"))
    for number in rng.permutation(5).tolist()[:4]:
        assert pack(replace(parted, part=f"{number + 1}/5")) == 0
    assert not (tmp_path / "parts" / "packed.json").exists()
    assert pack(parted) == 0
    assert contents(tmp_path / "whole") == contents(tmp_path / "workers") == contents(tmp_path / "parts")
    before = {path: path.stat().st_ino for path in (tmp_path / "whole").glob("*/*")}
    assert pack(whole) == 0
    assert before == {path: path.stat().st_ino for path in (tmp_path / "whole").glob("*/*")}


# Stops in the middle of a shard.
STOPPING = """
import pathlib, runpy, sys, time
from curate.pack import shard

started, write = pathlib.Path(sys.argv.pop(1)), shard._write

def stopping(plan, number, items):
    def endless():
        yield next(items)
        started.touch()
        time.sleep(300)
    write(plan, number, endless() if number == 5 else items)

shard._write = stopping
runpy.run_module("curate.pack", run_name="__main__", alter_sys=True)
"""


def test_a_killed_run_goes_on(tmp_path: Path, rng: np.random.Generator) -> None:
    given = as_jsonl(tmp_path / "in", with_repeats(rng))
    out, script = tmp_path / "out", tmp_path / "stopping.py"
    script.write_text(STOPPING)
    words = [f"from={given['from_']}", f"out={out}", "shard_size=4", "workers=1"]
    process = forked.start(script, tmp_path / "started", *words, new_session=True)
    until((tmp_path / "started").exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_ino for path in out.glob("shards/*.tar")}
    assert len(finished) == 5 and len(list(out.glob("shards/.*"))) == 1
    again = options(out, from_=given["from_"], shard_size=4)
    assert pack(replace(again, part="1/2")) == pack(replace(again, part="2/2")) == 0
    assert all(path.stat().st_ino == inode for path, inode in finished.items())
    assert pack(again) == pack(replace(again, out=str(tmp_path / "alone"))) == 0
    assert contents(out) == contents(tmp_path / "alone") and len(samples(out)) == 30
    assert not list(out.glob("*/.*.tar.*"))


@pytest.mark.parametrize("step", ["_copy_without", "write_rows", "write_done"])
def test_an_end_that_breaks_off_is_made_up_for(
    step: str, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = options(tmp_path / "out", shard_size=4, **as_jsonl(tmp_path / "in", with_repeats(rng)))
    broken = replace(whole, out=str(tmp_path / "broken"))

    def breaks(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(curate.pack.duplicates, step, breaks)
        pack(broken)
    assert pack(broken) == pack(whole) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "broken")


def test_a_shard_that_was_lost_is_made_again(tmp_path: Path, rng: np.random.Generator) -> None:
    again = options(tmp_path / "out", shard_size=4, **as_jsonl(tmp_path / "in", with_repeats(rng)))
    assert pack(again) == 0
    before = contents(tmp_path / "out")
    cut, gone, _, without = sorted((tmp_path / "out" / "shards").glob("*.tar"))[:4]  # one of repeats alone is not there
    gone.unlink()
    (tmp_path / "out" / "metadata" / f"{without.stem}.parquet").unlink()
    with cut.open("ab") as file:
        file.truncate(1024)
    assert pack(again) == 0
    assert contents(tmp_path / "out") == before


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_array_on_slurm(tmp_path: Path, rng: np.random.Generator, cluster: dict[str, str]) -> None:
    given = as_jsonl(tmp_path / "in", with_repeats(rng))
    environment = cluster | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    words = ["slurm/pack.sbatch", f"from={given['from_']}", f"out={tmp_path / 'out'}", "shard_size=4", "workers=1"]
    command = ["sbatch", "--wait", "--parsable", f"--output={tmp_path}/log.%j"]
    for array in (["--array=3-4"], []):
        done = subprocess.run(
            [*command, *array, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
        )
        logs = [path.read_text() for path in sorted(tmp_path.glob("log.*"))]
        assert done.returncode == 0, (done.stderr, logs)
    assert sum("7 of 15 shards" in log or "8 of 15 shards" in log for log in logs) == 2
    assert pack(options(tmp_path / "alone", shard_size=4, **given)) == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
