"""Downloads for the tests: metadata of a local web's pictures, the command in this process and in one of its own, and
what came of it."""

import hashlib
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from forked import ROOT
from pools import uid_of
from web_server import Web

from poolbench.command import Command
from poolbench.errors import status_of
from poolbench.files import read_json

from curate.download import run as download_pool
from curate.download.options import DownloadOptions

QUICK = ["metadata=false", "private_addresses=true", "threads=8", "processes=1", "timeout=60", "deadline=120",
         "max_bytes=300000", "retries=0", "pause=0", "shard_size=100"]  # fmt: skip


def write_metadata(path: Path, hosts: Web, urls: Sequence[str | None], **columns: Any) -> Path:
    """Pool metadata; the n-th row's picture is number n."""
    numbers = range(len(urls))
    table: dict[str, Any] = {
        "uid": [uid_of(number) for number in numbers],
        "url": urls,
        "text": [f"picture number {number}" for number in numbers],
        "sha256": [hashlib.sha256(hosts.picture(number)).hexdigest() for number in numbers],
        "face_bboxes": pa.array([[] for _ in numbers], pa.list_(pa.list_(pa.float64()))),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table | columns), path, row_group_size=7)
    return path


def good_pool(out: Path, hosts: Web, count: int, behaviour: str = "good") -> Path:
    write_metadata(out / "metadata/a.parquet", hosts, [hosts.url(behaviour, number) for number in range(count)])
    return out


def main(words: list[str]) -> int:
    return Command(DownloadOptions, download_pool.download).answer(words)


def download(out: Path, *options: str) -> int:
    given = {option.partition("=")[0] for option in options}
    defaults = [option for option in ["scale=small", *QUICK] if option.partition("=")[0] not in given]
    return status_of(lambda: main([f"out={out}", *defaults, *options]))


def report_of(out: Path) -> Any:
    return read_json(out / "arrived.json")


def members(out: Path, shard: int = 0) -> dict[str, bytes]:
    with tarfile.open(out / f"shards/{shard:08d}.tar") as tar:
        found = [(entry.name, tar.extractfile(entry)) for entry in tar]
        contents = {name: file.read() for name, file in found if file is not None}
    assert len(found) == len(contents), "a name stands twice"
    return contents


def started(out: Path, *options: str, before: Callable[[], None] | None = None) -> "subprocess.Popen[str]":
    """`python -m curate.download` in a process group of its own."""
    given = {option.partition("=")[0] for option in options}
    defaults = [option for option in QUICK if option.partition("=")[0] not in given]
    return subprocess.Popen(
        [sys.executable, "-m", "curate.download", "scale=small", f"out={out}", *defaults, *options],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=before,
    )  # fmt: skip


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors
