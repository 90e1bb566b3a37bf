"""Resharding in parts: the same bytes for any number of them, and whatever is missing is told and done again."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
import slurm_cluster
from pools import uid_of, write_pool, write_tar
from test_reshard import contents, files, run

from poolbench.errors import UserError
from poolbench.files import read_json
from poolbench.uids import write_subset

from curate.pool.parts import Part
from curate.reshard.job import Job
from curate.reshard.options import ReshardOptions
from curate.reshard.parts import Indexing
from curate.reshard.run import reshard


def chosen(count: int) -> list[str]:
    """Two of three samples, one twice, and one that no pool has."""
    return [uid_of(number) for number in range(count) if number % 3] + [uid_of(1), uid_of(10**6)]


@pytest.mark.parametrize("shuffle", [None, 8])
def test_any_number_of_parts_writes_what_one_process_writes(tmp_path: Path, shuffle: int | None) -> None:
    pool = write_pool(tmp_path / "pool", 5, 12)
    (pool / "00002.tar").write_bytes((pool / "00002.tar").read_bytes()[:-3000])
    options = {"samples_per_shard": 4, "shuffle": shuffle}
    assert run(tmp_path, chosen(60), pool, "alone", **options) == 1  # a uid is missing, a shard is bad
    for of in (2, 11):
        out = f"parts{of}"
        for number in random.sample(range(1, of + 1), of):
            assert run(tmp_path, chosen(60), pool, out, part=f"{number}/{of}", **options) == 0
        assert not (tmp_path / out / "meta.json").exists()
        assert run(tmp_path, chosen(60), pool, out, **{**options, "merge": random.choice([of, None])}) == 1
        assert files(tmp_path / out) == files(tmp_path / "alone")
        mine, alone = (read_json(tmp_path / name / "meta.json") for name in (out, "alone"))
        assert mine["counts"] == alone["counts"] and mine["shards"] == alone["shards"]


def test_the_last_step_says_what_is_missing_and_whose_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, subset = write_pool(tmp_path / "pool", 4, 10), [uid_of(number) for number in range(40)]
    options = {"samples_per_shard": 5}

    def step(**more: object) -> tuple[int, str]:
        status = run(tmp_path, subset, pool, **options, **more)
        return status, capsys.readouterr().out

    assert run(tmp_path, subset, pool, **options, merge=3) == 1
    said = capsys.readouterr().err
    assert "missing: the plan, which any part makes once all are: 0 of 4 shards of the input are indexed\n" in said
    assert "part 1/3 has not begun: 2 of its 2 shards of the input missing: 00000.tar, 00003.tar\n" in said
    assert all(f"part {number}/3 has not begun: 1 of its 1 shards of the input" in said for number in (2, 3))
    assert step(part="2/3") == (0, "part 2/3: 3 of 8 shards of the output are written\n")
    assert run(tmp_path, subset, pool, **options, merge=3) == 1
    said, missing = capsys.readouterr().err, "shards of the output missing"
    assert f"part 1/3 has not begun: 3 of its 3 {missing}: 00000000.tar, 00000003.tar, 00000006.tar\n" in said
    assert f"part 3/3 has not begun: 2 of its 2 {missing}: 00000002.tar, 00000005.tar\n" in said
    assert "part 2/3" not in said and "start these parts of 3 again, which find what they have done: 1,3\n" in said
    assert not (tmp_path / "out" / "meta.json").exists()
    assert step(part="1/3")[0] == step(part="3/3")[0] == 0
    assert step() == (0, f"40 samples of 40 in 8 shards: {tmp_path}/out\n")
    (tmp_path / "out" / "00000004.tar").unlink()
    assert run(tmp_path, subset, pool, **options) == 1
    gone = f"part 2/3 ended, and its shards are gone or changed: 1 of its 3 {missing}: 00000004.tar\n"
    assert gone in capsys.readouterr().err
    assert step(part="1/1")[0] == step()[0] == 0
    assert run(tmp_path, subset, pool, "alone", **options) == 0
    assert files(tmp_path / "out") == files(tmp_path / "alone")


def test_a_part_whose_input_fails_says_so_and_nothing_is_planned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, subset = write_pool(tmp_path / "pool", 3, 4), [uid_of(number) for number in range(12)]
    with monkeypatch.context() as patch:
        patch.setattr("curate.reshard.stored.atomic", full)  # which the workers have from this process
        assert run(tmp_path, subset, pool, part="1/2") == 1
    heard = capsys.readouterr()
    assert "part 1/2: 3 shards of the input failed" in heard.out and "No space left" in heard.err
    assert run(tmp_path, subset, pool) == 1
    said = capsys.readouterr().err
    assert "missing: the plan, which any part makes once all are: 0 of 3 shards of the input are indexed\n" in said
    assert "part 1/2 was ended before it was done: 2 of its 2" in said and "part 2/2 has not begun: 1 of its 1" in said
    assert [run(tmp_path, subset, pool, part=part) for part in ("1/2", "2/2")] == [0, 0]
    assert run(tmp_path, subset, pool) == 0


def full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_parts_that_take_over_from_one_begin_at_different_shards(tmp_path: Path) -> None:
    job = Job(tmp_path, "out", "subset", None, 95)
    (tmp_path / "shards.json").write_text(str([["no", "no", 0]] * 40).replace("'", '"'))
    orders = []
    for number in (1, 2, 3, 4):
        indexing, order = Indexing(job, Part(number, 4)), []
        while (task := indexing.take()) is not None:
            order.append(task.arguments[1])
        assert sorted(order) == list(range(40)) and order[:10] == list(range(number - 1, 40, 4))
        orders.append(order)
    begun = [next(shard for shard in order if shard % 4 == 3) for order in orders[:3]]
    assert len(set(begun)) == 3


def test_wrong_parts_are_one_line(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 1, 3)
    for options, says in (
        ({"part": "3/2"}, "part=3/2 is not i/n"),
        ({"part": "1/2", "overwrite": True}, "overwrite=true would delete what other parts write"),
        ({"index": str(pool / "00000.tar")}, "index=.* is a file; name a folder"),
    ):
        with pytest.raises(UserError, match=says):
            run(tmp_path, [uid_of(0)], pool, **options)
    assert not (tmp_path / "out").exists()
    assert run(tmp_path, [uid_of(0)], pool, part="1/2") == 0
    with pytest.raises(UserError, match="begun with another samples_per_shard"):
        run(tmp_path, [uid_of(0)], pool, part="2/2", samples_per_shard=1)


# The second shard that a process writes is begun, and never ended.
STOPPING = """
import os, pathlib, runpy, sys, time
from curate.reshard import copy

started, write, calls = pathlib.Path(sys.argv[1]), copy._write, []

def stopping(job, rows, handle):
    calls.append(1)
    if len(calls) == 2 and not started.exists():
        os.write(handle, b"half of it")
        started.touch()
        time.sleep(300)
    return write(job, rows, handle)

if os.environ.get("SLURM_ARRAY_TASK_ID", "2") == "2":
    copy._write = stopping
sys.argv = sys.argv[3:]
runpy.run_module("curate.reshard", run_name="__main__", alter_sys=True)
"""


def test_a_killed_part_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, subset, options = write_pool(tmp_path / "pool", 3, 8), chosen(24), {"samples_per_shard": 2}
    assert run(tmp_path, subset, pool, "alone", **options) == 1
    assert run(tmp_path, subset, pool, part="1/2", **options) == 0
    (tmp_path / "stopping.py").write_text(STOPPING)
    words = [f"subset={tmp_path}/out.npy", f"shards={pool}", f"out={tmp_path}/out", "samples_per_shard=2", "workers=1"]
    command = [sys.executable, str(tmp_path / "stopping.py"), str(tmp_path / "started"), "-m", "curate.reshard"]
    environment = os.environ | {"PYTHONPATH": str(slurm_cluster.ROOT)}
    with subprocess.Popen([*command, *words, "part=2/2"], env=environment, start_new_session=True) as process:
        end = time.monotonic() + 300
        while not (tmp_path / "started").exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    out = tmp_path / "out"
    assert list(out.glob(".00000003.tar.*")) and not (out / "00000003.tar").exists()
    before = (out / "00000001.tar").stat().st_mtime_ns
    capsys.readouterr()
    assert run(tmp_path, subset, pool, **options) == 1
    said = capsys.readouterr().err
    assert "part 2/2 was ended before it was done: 3 of its 4 shards of the output missing: 00000003.tar" in said
    assert run(tmp_path, subset, pool, part="2/2", **options) == 0
    assert run(tmp_path, subset, pool, **options) == 1  # of the uid that no pool has
    assert files(out) == files(tmp_path / "alone") and (out / "00000001.tar").stat().st_mtime_ns == before
    assert not list(out.glob(".00000003.tar.*"))


@pytest.mark.slow
def test_parts_go_from_a_bucket_to_a_bucket(
    tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, subset = write_pool(tmp_path / "pool", 3, 10), [uid_of(n) for n in (*range(0, 30, 2), 6)]
    store, url = fsspec.filesystem("s3"), f"{bucket}/parts"
    store.put(str(pool), f"{url}/pool", recursive=True)
    assert run(tmp_path, subset, pool, "local", samples_per_shard=3) == 0

    def step(part: str | None) -> int:
        options = ReshardOptions(f"{tmp_path}/local.npy", f"{url}/pool", f"{url}/out", samples_per_shard=3, part=part)
        options.work, options.workers = str(tmp_path / "work"), 1
        return reshard(options)

    assert step("1/2") == 0 and step(None) == 1
    assert "output missing: 00000001.tar, 00000003.tar, 00000005.tar" in capsys.readouterr().err
    half = tmp_path / "work" / "upload" / ".00000003.tar.8letters"
    half.touch()  # as a killed element leaves it
    with monkeypatch.context() as patch:  # the first has indexed the second's shards, and nobody reads them again
        patch.setattr("curate.reshard.index._contents", full)
        assert step("2/2") == 0 and step(None) == 0
    assert not half.exists()
    store.get(f"{url}/out/", str(tmp_path / "got"), recursive=True)
    assert files(tmp_path / "got") == files(tmp_path / "local")
    store.rm(f"{url}/out/00000002.tar")
    assert step(None) == 1
    said = capsys.readouterr().err
    assert "part 1/2 ended, and its shards are gone or changed: 1 of its 3" in said and said.count("00000002.tar") == 1
    assert step("1/2") == step(None) == 0
    # A shard of the input that is another one now is indexed anew by another resharding.
    changed = [(f"{n}", members) for n, (_, members) in enumerate(contents(pool)[:3])]
    write_tar(tmp_path / "other.tar", changed)
    store.put(str(tmp_path / "other.tar"), f"{url}/pool/00000.tar")
    options = ReshardOptions(f"{tmp_path}/local.npy", f"{url}/pool", str(tmp_path / "new"), workers=1)
    options.index = str(tmp_path / "work" / "index")
    assert reshard(options) == 1
    assert read_json(tmp_path / "new" / "meta.json")["counts"]["pool_samples"] == 23


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_array_reshards_and_what_a_killed_element_left_is_told_and_done(
    cluster: dict[str, str], tmp_path: Path
) -> None:
    pool, subset = write_pool(tmp_path / "pool", 4, 9), [uid_of(number) for number in range(36)]
    write_subset(tmp_path / "out.npy", subset)
    jobs = slurm_cluster.stopping_jobs(tmp_path, cluster, STOPPING)
    command = ["sbatch", "--parsable", f"--output={tmp_path}/log.%j"]
    words = [f"subset={tmp_path}/out.npy", f"shards={pool}", f"out={tmp_path}/out", "samples_per_shard=6", "workers=1"]

    def submit() -> tuple[str, str]:
        array = jobs.run(*command, "--array=1-2", "slurm/reshard.sbatch", *words).strip()
        last = jobs.run(*command, f"--dependency=afterany:{array}", "slurm/reshard.sbatch", *words).strip()
        return array, last

    array, last = submit()
    jobs.wait(lambda: (tmp_path / "started").exists() and "part 1/2: 3 of 6 shards" in jobs.logs())
    jobs.run("scancel", "--signal=KILL", f"{array}_2")
    assert jobs.end(last)["ExitCode"] == "1:0", jobs.logs()
    assert jobs.show(f"{array}_2")["JobState"] != "COMPLETED"
    # The worker may have had the time for its next shard.
    lacks = r"part 2/2 was ended before it was done: [12] of its 3 shards of the output missing: 00000003\.tar"
    assert re.search(lacks, jobs.logs())
    assert not (tmp_path / "out" / "meta.json").exists()
    whole = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("0*.tar")}
    assert len(whole) in (4, 5) and "00000003.tar" not in whole
    _, last = submit()
    assert jobs.end(last)["ExitCode"] == "0:0", jobs.logs()
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in whole} == whole
    assert run(tmp_path, subset, pool, "alone", samples_per_shard=6) == 0
    assert files(tmp_path / "out") == files(tmp_path / "alone")
