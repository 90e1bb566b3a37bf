"""Verbs in parts as arrays of jobs on a real SLURM with two nodes: an element is killed, the last job says what is
missing, the same array again finds what was done, and the bytes are those of one process."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import slurm_cluster
from downloading import write_metadata
from pools import uid_of, write_pool
from test_parts import VERBS, Given
from test_reshard import files, run
from test_reshard_parts import STOPPING
from web_server import Web


class Array:
    """A verb's script, submitted as an array of two and as its last job."""

    def __init__(self, jobs: slurm_cluster.Jobs, script: str, words: list[str], folder: Path) -> None:
        self._jobs, self._words = jobs, [f"slurm/{script}", *words]
        self._sbatch = ["sbatch", "--parsable", f"--output={folder}/log.%j"]

    def submit(self) -> tuple[str, str]:
        """The numbers of the array, and of the job that begins when it is over."""
        array = self._jobs.run(*self._sbatch, "--array=1-2", *self._words).strip()
        last = self._jobs.run(*self._sbatch, f"--dependency=afterany:{array}", *self._words, "merge=2").strip()
        return array, last

    def kill_second(self, array: str, when: Callable[[], bool]) -> None:
        self._jobs.wait(when)
        self._jobs.run("scancel", "--signal=KILL", f"{array}_2")
        assert self._jobs.end(f"{array}_2")["JobState"] != "COMPLETED"


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_a_download_goes_on_where_an_element_was_killed(cluster: dict[str, str], tmp_path: Path, hosts: Web) -> None:
    out = tmp_path / "out"
    urls = [hosts.url("silent" if number == 7 else "good", number) for number in range(8)]
    write_metadata(out / "metadata" / "a.parquet", hosts, urls)
    options = ["scale=small", "metadata=false", "private_addresses=true", "processes=1", "retries=0", "shard_size=2"]
    words = [*options, f"out={out}", "timeout=600", "deadline=600"]
    jobs = slurm_cluster.Jobs(tmp_path, cluster)
    array = Array(jobs, "download.sbatch", words, tmp_path)
    first, last = array.submit()
    # Of four shards the second element makes two; it waits for a host within its second one.
    done = ("0_stats.json", "1_stats.json", "2_stats.json")
    array.kill_second(first, lambda: hosts.gets["/silent/7"] > 0 and all(any(out.rglob(f"*{one}")) for one in done))
    assert jobs.end(last)["ExitCode"] == "1:0", jobs.logs()
    assert "part 2/2: 1 of its 2 shards missing: 00000003" in jobs.logs()
    hosts.mended = True
    hosts.gets.clear()
    _, last = array.submit()
    assert jobs.end(last)["ExitCode"] == "0:0", jobs.logs()
    assert set(hosts.gets) == {"/good/6", "/silent/7"}  # and nothing that was there
    alone = Given(VERBS["curate.download"], tmp_path / "alone", [*words[:-3], f"out={tmp_path}/alone/out"], hosts)
    write_metadata(alone.root / "out" / "metadata" / "a.parquet", hosts, urls)
    assert alone.run() == 0
    assert len(alone.made()) == 9 and alone.made() == alone._replace(root=tmp_path).made()


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_an_audit_is_put_together_once_every_element_has_counted(
    cluster: dict[str, str], tmp_path: Path, hosts: Web
) -> None:
    verb = VERBS["curate.audit"]
    (tmp_path / "out").mkdir()
    given = Given(verb, tmp_path, verb.prepare(tmp_path, hosts), hosts)
    # The second element's interpreter waits before it begins, the first time.
    (tmp_path / "python").write_text(
        f'#!/bin/sh\nif [ "$SLURM_ARRAY_TASK_ID" = 2 ] && [ ! -e {tmp_path}/started ]; then touch {tmp_path}/started; '
        f'sleep 300; fi\nexec {sys.executable} "$@"\n'
    )
    (tmp_path / "python").chmod(0o755)
    jobs = slurm_cluster.Jobs(tmp_path, cluster | {"PYTHON": str(tmp_path / "python")})
    array = Array(jobs, "audit.sbatch", given.words, tmp_path)
    first, last = array.submit()
    array.kill_second(first, lambda: (tmp_path / "started").exists() and "part 1/2: 2 of 2 files" in jobs.logs())
    assert jobs.end(last)["ExitCode"] == "2:0", jobs.logs()
    assert "part 2/2: 1 of its 1 files missing: 1\n" in jobs.logs() and not given.made()
    counted = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.json")}
    _, last = array.submit()
    jobs.wait(lambda: "part 2/2: 1 of 1 files" in jobs.logs())
    assert jobs.end(last)["ExitCode"] == "0:0", jobs.logs()
    assert counted and not any(path.exists() for path in counted)  # the counts went when the audit was written
    parts = given.made()
    given.afresh()
    assert given.run() == 0 and given.made() == parts


@pytest.mark.slow
@pytest.mark.system("slurm-wlm munge", slurm_cluster.missing)
def test_a_resharding_goes_from_a_bucket_to_a_bucket(cluster: dict[str, str], tmp_path: Path, bucket: str) -> None:
    pool, subset = write_pool(tmp_path / "pool", 4, 9), [uid_of(number) for number in range(36)]
    assert run(tmp_path, subset, pool, "alone", samples_per_shard=6) == 0
    store, url = fsspec.filesystem("s3"), f"{bucket}/array"
    store.put(str(pool), f"{url}/pool", recursive=True)
    keys = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    words = [f"subset={tmp_path}/alone.npy", f"shards={url}/pool", f"out={url}/out", f"work={tmp_path}/work"]
    jobs = slurm_cluster.stopping_jobs(tmp_path, cluster | keys, STOPPING)
    array = Array(jobs, "reshard.sbatch", [*words, "samples_per_shard=6", "workers=1"], tmp_path)
    first, last = array.submit()
    array.kill_second(first, lambda: (tmp_path / "started").exists() and "part 1/2: 3 of 6 shards" in jobs.logs())
    assert jobs.end(last)["ExitCode"] == "1:0", jobs.logs()
    # The worker may have had the time for its next shard.
    lacks = r"part 2/2 was ended before it was done: [12] of its 3 shards of the output missing: 00000003\.tar"
    assert re.search(lacks, jobs.logs()), jobs.logs()
    written = {one["name"]: one["LastModified"] for one in store.ls(f"{url}/out", detail=True, refresh=True)}
    whole = {name: when for name, when in written.items() if name.endswith(".tar")}
    assert len(whole) in (4, 5) and not any(name.endswith(("00000003.tar", "meta.json")) for name in written)
    _, last = array.submit()
    assert jobs.end(last)["ExitCode"] == "0:0", jobs.logs()
    written = {one["name"]: one["LastModified"] for one in store.ls(f"{url}/out", detail=True, refresh=True)}
    assert whole.items() <= written.items()
    store.get(f"{url}/out/", str(tmp_path / "got"), recursive=True)
    assert files(tmp_path / "got") == files(tmp_path / "alone")
    assert not list((tmp_path / "work/upload").iterdir())
