"""`python -m curate.download` against a local web of failing and lying hosts, and a local hub."""

import asyncio
import contextlib
import hashlib
import io
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub
from hub_server import serving as serving_hub
from PIL import Image
from pools import by_webdataset, picture, uid_of
from scipy.ndimage import gaussian_filter
from web_server import Web, serving

import poolbench.hub
from poolbench.command import Command
from poolbench.errors import UserError, status_of
from poolbench.files import digest_file, read_json
from poolbench.subset import Subset
from poolbench.uids import write_subset

from curate.download import arrived, web
from curate.download import run as download_pool
from curate.download.images import Settings, Shard, make
from curate.download.options import DownloadOptions
from curate.download.resize import SIDE, finished
from leaderboard.evidence import check_pool

ROOT = Path(__file__).parent.parent
QUICK = ["metadata=false", "private_addresses=true", "threads=8", "processes=1", "timeout=3", "deadline=8",
         "max_bytes=300000", "retries=0", "pause=0", "shard_size=100"]  # fmt: skip
FAILURES = {
    "html": "not a picture", "empty": "not a picture", "loop": "too many redirects", "local": "bad url",
    "forbidden": "disallowed by X-Robots-Tag", "cut": "truncated", "short": "truncated", "stalled": "timeout",
    "silent": "timeout", "drip": "too slow", "huge": "too large", "announced": "too large", "gibberish": "bad answer",
}  # fmt: skip
GOOD = ("good", "mistyped", "moved", "permitted")


@pytest.fixture
def hosts() -> Iterator[Web]:
    with serving(Web()) as hosts:
        yield hosts


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


# --- hosts ---


def test_every_kind_of_host_gets_its_due(tmp_path: Path, hosts: Web) -> None:
    wrong = {**FAILURES, "status": "http 404"}
    behaviours = [*GOOD, "changed", *wrong]
    urls: list[str | None] = [hosts.url(name, number) for number, name in enumerate(behaviours)]
    urls[behaviours.index("status")] = hosts.url("status", 404)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    tls = f"https://127.0.0.1:{hosts.port}/good/1"
    odd = {nobody: "no connection", tls: "tls", "http://nowhere.invalid/": "no such host"}
    odd |= dict.fromkeys(["no url at all", "file:///etc/hostname", "http://["], "bad url")
    urls += [*odd, None, "http://a.b/"]
    uids = [uid_of(number) for number in range(len(urls) - 1)] + ["no uid"]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls, uid=uids)

    assert download(tmp_path) == 0

    expected = dict(zip(behaviours, [None] * 5 + list(wrong.values()), strict=True))
    expected |= odd | {"none": "bad url", "malformed": "malformed uid"}
    listed = pq.read_table(tmp_path / "shards/00000000.parquet").to_pylist()
    assert dict(zip(expected, [row["error_message"] for row in listed], strict=True)) == expected
    assert [row["status"] for row in listed][:5] == ["success"] * 5 and listed[5]["status"] == "failed_to_resize"
    assert [row["uid"] for row in listed] == uids
    report = report_of(tmp_path)
    assert (report["rows"], report["arrived"], report["changed"]) == (len(urls), 5, 1)
    assert report["share"] == pytest.approx(5 / len(urls))
    assert report["failures"]["bad url"] == 5 and report["failures"]["timeout"] == 2
    assert sum(report["failures"].values()) == len(urls) - 5
    assert hosts.most <= 8  # of one host, whatever threads= says
    assert hosts.gets["/loop/7"] == 11


def test_a_shard_is_as_img2dataset_writes_it(tmp_path: Path, hosts: Web) -> None:
    good_pool(tmp_path, hosts, 12)
    write_metadata(tmp_path / "metadata/b.parquet", hosts, [hosts.url("good", number) for number in range(3)])
    assert download(tmp_path, "shard_size=10") == 0
    # No shard has rows of two files, and keys count shards and rows.
    assert sorted(name[:9] for name in members(tmp_path, 1) if name.endswith("jpg")) == ["000000010", "000000011"]
    assert len(members(tmp_path, 2)) == 9 and report_of(tmp_path)["shards"] == {"planned": 3, "finished": 3}
    found = members(tmp_path, 1)
    meta = json.loads(found["000000011.json"])
    theirs = by_webdataset([tmp_path / "shards/00000001.tar"])
    assert {f"{key}.{name}": data for key, one in theirs for name, data in one.items()} == found
    assert found["000000011.txt"] == b"picture number 11"
    assert found["000000011.jpg"] == finished(hosts.picture(11), []).jpeg
    assert (meta["uid"], meta["key"], meta["status"]) == (uid_of(11), "000000011", "success")
    assert meta["sha256"] == hashlib.sha256(hosts.picture(11)).hexdigest()
    assert [meta[name] for name in ("width", "height", "original_width", "original_height")] == [44, 40, 44, 40]
    stats = read_json(tmp_path / "shards/00000001_stats.json")
    assert (stats["count"], stats["successes"], stats["status_dict"]) == (2, 2, {"success": 2})


def test_what_arrived_is_a_subset_file_and_a_pool(tmp_path: Path, hosts: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    behaviours = ["good" if number % 3 else "html" for number in range(40)]
    urls = [hosts.url(name, number) for number, name in enumerate(behaviours)]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls)
    monkeypatch.setattr(arrived, "_MEMORY", 64 * 5)  # so that it does not fit into memory
    monkeypatch.setattr("curate.pool.merge.RUN", 7)
    monkeypatch.setattr(arrived, "_FEW", 1)  # so that processes read them
    assert download(tmp_path, "shard_size=15") == 0
    expected = [uid_of(number) for number, name in enumerate(behaviours) if name == "good"]
    write_subset(tmp_path / "expected.npy", expected)
    uids = tmp_path / "arrived_uids.npy"
    assert np.array_equal(np.load(uids), np.load(tmp_path / "expected.npy"))
    assert report_of(tmp_path)["uids"] == {"path": uids.name, "count": len(expected), "sha256": digest_file(uids)}
    Subset(str(uids)).check_sorted()

    class Filtering:
        track = "filtering"

    write_subset(tmp_path / "mine.npy", expected[:4])
    assert not check_pool(Filtering(), tmp_path / "mine.npy", uids).refusals  # type: ignore[arg-type]
    write_subset(tmp_path / "mine.npy", [uid_of(0)])
    assert check_pool(Filtering(), tmp_path / "mine.npy", uids).refusals  # type: ignore[arg-type]


def test_what_has_changed_is_kept_or_not(tmp_path: Path, hosts: Web) -> None:
    for keep in ("true", "false"):
        out = good_pool(tmp_path / keep, hosts, 3)
        path = out / "metadata/a.parquet"
        urls = [hosts.url("changed", 0), hosts.url("good", 1), hosts.url("good", 2)]
        sums = [hashlib.sha256(hosts.picture(n)).hexdigest().upper() for n in range(2)]
        write_metadata(path, hosts, urls, sha256=[*sums, None])
        assert download(out, f"keep_changed={keep}") == 0
    kept, dropped = report_of(tmp_path / "true"), report_of(tmp_path / "false")
    assert (kept["arrived"], kept["changed"], kept["failures"]) == (3, 1, {})
    assert (dropped["arrived"], dropped["changed"], dropped["failures"]) == (2, 0, {"changed": 1})


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.0.9", "169.254.169.254", "100.64.0.1", "0.0.0.0",
     "[::ffff:127.0.0.1]", "2130706433", "[fd00::1]"],
)  # fmt: skip
def test_private_addresses_are_not_asked(address: str, hosts: Web) -> None:
    fetched = fetch(f"http://{address}:{hosts.port}/good/1", web.Limits())
    assert fetched.failure in ("private address", "bad url", "no such host")
    if address in ("127.0.0.1", "localhost", "10.1.2.3"):
        assert fetched.failure == "private address"
    assert not hosts.gets


def test_private_addresses_are_not_asked_behind_a_redirect(hosts: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    public = web._public_socket

    def only_here(info: Any) -> socket.socket:
        return socket.socket(*info[:3]) if info[4][1] == hosts.port else public(info)

    monkeypatch.setattr(web, "_public_socket", only_here)
    assert fetch(hosts.url("private"), web.Limits()).failure == "private address"
    assert hosts.gets["/private/0"] == 1


def fetch(url: str, limits: web.Limits) -> web.Fetched:
    found: list[web.Fetched] = []

    async def take(_: int, fetched: web.Fetched) -> None:
        found.append(fetched)

    asyncio.run(web.fetch_all({0: url}, take, limits, 1))
    return found[0]


@pytest.mark.parametrize("per_host", [2, 6])
def test_a_host_has_so_many_requests_at_a_time(tmp_path: Path, hosts: Web, per_host: int) -> None:
    hosts.delay = 0.05
    good_pool(tmp_path, hosts, 24)
    assert download(tmp_path, f"per_host={per_host}", "threads=16") == 0
    assert report_of(tmp_path)["arrived"] == 24
    assert hosts.most == per_host


def test_dead_names_do_not_hold_up_each_other(tmp_path: Path, hosts: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 40  # more than the threads that asyncio would take
    together = threading.Barrier(count, timeout=240)

    def dead(*_: Any, **__: Any) -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait()
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", dead)
    path = write_metadata(tmp_path / "a.parquet", hosts, [f"http://dead{n}.invalid/" for n in range(count)])
    make(Shard(0, path, 0, count), tmp_path, Settings(connections=count, retries=0))
    assert not together.broken
    assert read_json(tmp_path / "00000000_stats.json")["status_dict"] == {"no such host": count}


# --- failures that mend ---


def test_only_what_may_mend_is_asked_again(tmp_path: Path, hosts: Web) -> None:
    urls = [hosts.url("good", 0), hosts.url("busy", 1), hosts.url("status", 404), hosts.url("html", 3)]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls)
    assert download(tmp_path, "retries=1") == 0
    assert report_of(tmp_path)["failures"] == {"http 404": 1, "http 503": 1, "not a picture": 1}
    assert hosts.gets == {"/good/0": 1, "/busy/1": 2, "/status/404": 1, "/html/3": 1}
    other = tmp_path / "other"
    write_metadata(other / "metadata/a.parquet", hosts, [hosts.url("busy", 5), *urls])
    assert download(other, "retries=2") == 0
    assert report_of(other)["arrived"] == 3


def test_a_later_run_adds_what_has_mended(tmp_path: Path, hosts: Web) -> None:
    urls = [hosts.url("good", 0), hosts.url("stalled", 1), hosts.url("html", 2), hosts.url("status", 500)]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls)
    assert download(tmp_path) == 0
    first = members(tmp_path)
    assert len(first) == 3
    hosts.mended = True
    hosts.gets.clear()
    assert download(tmp_path) == 0 and not hosts.gets
    assert download(tmp_path, "again=true") == 0
    assert hosts.gets == {"/stalled/1": 1, "/status/500": 1}
    second = members(tmp_path)
    assert len(second) == 9 and first.items() < second.items()
    assert report_of(tmp_path)["failures"] == {"not a picture": 1} and report_of(tmp_path)["uids"]["count"] == 3
    digest = digest_file(tmp_path / "shards/00000000.tar")
    assert download(tmp_path, "again=true") == 0
    assert digest_file(tmp_path / "shards/00000000.tar") == digest


def test_a_crash_between_tar_and_list_doubles_nothing(tmp_path: Path, hosts: Web) -> None:
    urls = [hosts.url("good", 0), hosts.url("stalled", 1)]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls)
    assert download(tmp_path) == 0
    shards = tmp_path / "shards"
    before = {name: (shards / name).read_bytes() for name in ("00000000.parquet", "00000000_stats.json")}
    hosts.mended = True
    assert download(tmp_path, "again=true") == 0
    for name, content in before.items():  # as if it had been killed once the tar was there
        (shards / name).write_bytes(content)
    assert download(tmp_path, "again=true") == 0
    assert len(members(tmp_path)) == 6 and report_of(tmp_path)["arrived"] == 2


def test_without_a_network_nothing_counts_as_done(
    tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    write_metadata(tmp_path / "metadata/a.parquet", hosts, [nobody] * 500)
    assert download(tmp_path) == 1
    said = capfd.readouterr().err
    assert "not one of 100 urls was reached (no connection 100); is there a network?" in said
    report = report_of(tmp_path)
    assert report["shards"] == {"planned": 5, "finished": 0} and report["uids"] is None
    assert "not tried" in report["not_finished"]["00000004"]
    assert not list((tmp_path / "shards").glob("*.tar"))


# --- going on ---


def test_a_second_run_finds_what_is_there(tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]) -> None:
    good_pool(tmp_path, hosts, 30)
    assert download(tmp_path, "shard_size=10", "processes=2") == 0
    assert "shard 00000002: 10 of 10 arrived (100.0 %)" in capfd.readouterr().out
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").glob("0*")}
    hosts.gets.clear()
    assert download(tmp_path, "shard_size=10") == 0
    assert not hosts.gets and times == {path: path.stat().st_mtime_ns for path in times}
    (tmp_path / "shards/00000001_stats.json").unlink()
    assert download(tmp_path, "shard_size=10") == 0
    assert set(hosts.gets) == {f"/good/{number}" for number in range(10, 20)}
    assert report_of(tmp_path)["arrived"] == 30


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


def wait_for(happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def group_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes of its group that are not zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = path.read_text().rpartition(")")[2].split()[:3]
            if int(group) == process.pid and state != "Z":
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_or_killed_run_goes_on(tmp_path: Path, hosts: Web, stop: int) -> None:
    urls = [hosts.url("good", number) for number in range(10)] + [hosts.url("silent", 10), hosts.url("good", 11)]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls)
    process = started(tmp_path, "shard_size=10", "timeout=60", "deadline=60")
    wait_for(lambda: hosts.gets["/silent/10"])
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as Ctrl-C does
    else:
        process.kill()
    status, errors = ended(process)
    assert status == (130 if stop == signal.SIGINT else -9)
    assert errors == ("interrupted; the same command continues where it stopped\n" if stop == signal.SIGINT else "")
    wait_for(lambda: not group_of(process))  # nobody goes on asking
    assert (tmp_path / "shards/00000000_stats.json").exists()
    assert not list((tmp_path / "shards").glob("00000001*"))
    hosts.mended = True
    hosts.gets.clear()
    assert download(tmp_path, "shard_size=10") == 0
    assert set(hosts.gets) == {"/silent/10", "/good/11"} and report_of(tmp_path)["arrived"] == 12
    assert not list((tmp_path / "shards").glob(".0*"))


def test_a_killed_process_costs_its_shard(tmp_path: Path, hosts: Web) -> None:
    urls = [hosts.url("silent", 0), hosts.url("good", 1), hosts.url("good", 2), hosts.url("good", 3)]
    write_metadata(tmp_path / "metadata/a.parquet", hosts, urls)
    process = started(tmp_path, "shard_size=2", "timeout=60", "deadline=60")
    wait_for(lambda: hosts.gets["/silent/0"])
    (writing,) = (tmp_path / "shards").glob(".00000000.tar.*")
    (victim,) = [pid for pid in group_of(process) if _has_open(pid, writing)]
    os.kill(victim, signal.SIGKILL)
    status, errors = ended(process)
    assert (status, errors) == (
        1, "shard 00000000: its process was killed, probably for memory; lower threads=\n"
    )  # fmt: skip
    assert report_of(tmp_path)["arrived"] == 2 and list(report_of(tmp_path)["not_finished"]) == ["00000000"]
    hosts.mended = True
    assert download(tmp_path, "shard_size=2") == 0 and report_of(tmp_path)["arrived"] == 4


def _has_open(pid: int, path: Path) -> bool:
    return any(link.resolve() == path for link in Path(f"/proc/{pid}/fd").iterdir())


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    with serving(Web(side=200)) as hosts:
        good_pool(tmp_path, hosts, 30)

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

        status, errors = ended(started(tmp_path, before=limited))
        assert status == 1 and f"{tmp_path}/shards cannot be written: File too large" in errors, errors
        assert "Traceback" not in errors
        assert download(tmp_path) == 0 and report_of(tmp_path)["arrived"] == 30


# --- metadata ---


@pytest.fixture
def hub(tmp_path: Path, hosts: Web, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with the metadata of a small pool and, in subfolders, of an xlarge one."""
    origin = tmp_path / "origin"
    for name in ("a", "b"):
        write_metadata(origin / f"small/{name}.parquet", hosts, [hosts.url("good", number) for number in range(4)])
        (origin / f"small/{name}.npz").write_bytes(f"arrays of {name}".encode())
        write_metadata(origin / f"xlarge/part_{name}/{name}.parquet", hosts, [hosts.url("good", 1)])
    (origin / "small/README.md").write_text("not for us")
    hub = Hub()
    hub.add("mlfoundations/datacomp_small", origin / "small")
    hub.add("mlfoundations/datacomp_xlarge", origin / "xlarge")
    monkeypatch.setattr(poolbench.hub, "FIRST_PAUSE", 0.01)
    with serving_hub(hub):
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.file_download.HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub


def test_the_whole_way(tmp_path: Path, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    hub.cut["a.parquet"] = 1
    assert download(out, "metadata=true", "npz=true") == 0, capfd.readouterr().err
    names = ["a.npz", "a.parquet", "b.npz", "b.parquet"]
    assert sorted(path.name for path in (out / "metadata").glob("[!.]*")) == names
    for name in names:
        assert (out / "metadata" / name).read_bytes() == (tmp_path / "origin/small" / name).read_bytes()
    report = report_of(out)
    assert (report["repository"], report["arrived"]) == ("mlfoundations/datacomp_small", 8)
    assert report["commit"] == hub.head("mlfoundations/datacomp_small")
    hub.requests.clear()
    hub.repositories.clear()  # a second run asks the hub nothing
    assert download(out, "metadata=true", "npz=true") == 0
    assert not hub.requests


def test_metadata_that_broke_off_or_were_damaged_come_again(tmp_path: Path, hub: Hub) -> None:
    out = tmp_path / "out"
    hub.busy["b.parquet"] = 1000
    assert download(out, "metadata=true", "images=false") == 2
    hub.busy.clear()
    hub.requests.clear()
    assert download(out, "metadata=true", "images=false") == 0
    assert hub.requests == {"b.parquet": 1}
    (out / "metadata/a.parquet").write_bytes(b"cut")
    assert download(out, "metadata=true", "npz=true", "images=false") == 0
    assert hub.requests == {"a.parquet": 1, "b.parquet": 1, "a.npz": 1, "b.npz": 1}
    assert pq.read_table(out / "metadata/a.parquet").num_rows == 4


def test_the_largest_pools_folders_become_one(tmp_path: Path, hub: Hub, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert download(out, "scale=xlarge", "metadata=true", "images=false") == 0
    assert sorted(path.name for path in (out / "metadata").glob("[!.]*")) == ["a.parquet", "b.parquet"]
    assert download(out, "scale=small", "metadata=true", "images=false") == 2
    assert "holds the metadata of mlfoundations/datacomp_xlarge" in capfd.readouterr().err
    assert download(tmp_path / "new", "scale=xlarge", "metadata=true", "npz=true") == 2
    assert "mlfoundations/datacomp_xlarge has no .npz files" in capfd.readouterr().err
    assert download(tmp_path / "new", "scale=large", "metadata=true") == 2
    assert "mlfoundations/datacomp_large cannot be fetched: there is no such" in capfd.readouterr().err


# --- wrong input ---


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["scale=smal"], "did you mean 'small'?"),
        (["scale=small", "thread=3"], "did you mean 'threads'?"),
        (["scale=small", "threads=0"], "threads=0: at least 1"),
        (["scale=small", "timeout=0"], "timeout=0.0: more than 0 seconds"),
        (["scale=small", "shards"], "unknown word 'shards'"),
        (["scale=small", "metadata=false"], "holds no parquet file; metadata=true brings the pool's"),
        (["scale=small", "metadata=false", "images=false"], "nothing to do"),
        (["scale=small", "metadata=false", "npz=true"], "npz=true needs metadata=true"),
    ],
)
def test_wrong_options(options: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: main([f"out={tmp_path / 'out'}", *options])) == 2
    errors = capfd.readouterr().err
    assert said in errors and errors.count("\n") == 1


def test_wrong_folders(tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(out: Path | str, *options: str) -> str:
        assert status_of(lambda: main(["scale=small", f"out={out}", *QUICK, *options])) == 2
        errors = capfd.readouterr().err
        assert errors.count("\n") == 1, errors
        return errors

    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file")
    assert "out=s3://bucket/pool is not written: only local files and folders are" in refused("s3://bucket/pool")
    out = tmp_path / "out"
    path = write_metadata(out / "metadata/a.parquet", hosts, [hosts.url("good")])
    pq.write_table(pq.read_table(path).drop_columns(["face_bboxes"]), path)
    assert f"{path} has no column face_bboxes; blur_faces=false downloads without" in refused(out)
    assert download(out, "blur_faces=false") == 0
    capfd.readouterr()
    assert download(out, "blur_faces=false", "shard_size=50") == 2
    assert "shards that were made with shard_size=100" in capfd.readouterr().err
    pq.write_table(pq.read_table(path).drop_columns(["url"]), path)
    assert f"{path} has no column url" in refused(out, "blur_faces=false")
    path.write_bytes(b"PAR1 and no more")
    assert f"{path} is no parquet file" in refused(out, "blur_faces=false")


def test_other_metadata_are_not_mixed_in(tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]) -> None:
    good_pool(tmp_path, hosts, 3)
    assert download(tmp_path) == 0
    good_pool(tmp_path, hosts, 4)
    assert download(tmp_path) == 2
    assert "made with other files or rows" in capfd.readouterr().err


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cv2'] = None; import runpy; runpy.run_module('curate.download', run_name='__main__')"
    )
    words = ["scale=small", f"out={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: cv2 is missing; pip install 'poolbench[download]'\n")


# --- pictures ---


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, form, **options)
    return buffer.getvalue()


def test_a_large_picture_becomes_the_mean_of_its_areas() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 210, (32, 64, 3)).repeat(16, 0).repeat(16, 1)
    fine = np.clip(coarse.repeat(2, 0).repeat(2, 1) + rng.integers(-30, 30, (1024, 2048, 1)), 0, 255)
    made = finished(encoded(fine[:, :1024]), [])
    assert (made.width, made.height, made.original_width, made.original_height) == (SIDE, SIDE, 1024, 1024)
    means = fine[:, :1024].reshape(512, 2, 512, 2, 3).mean((1, 3))
    assert np.abs(pixels_of(made.jpeg) - means).mean() < 6  # one pixel of four would be off by more than ten
    wide = finished(encoded(fine[:333]), [])
    assert (wide.width, wide.height) == (512, 83)
    assert (
        Image.open(io.BytesIO(made.jpeg)).quantization
        == Image.open(io.BytesIO(encoded(fine[:8], "JPEG", quality=95))).quantization
    )


def test_a_small_picture_keeps_its_size_and_a_transparent_one_gets_a_white_ground() -> None:
    small = finished(picture(3, 100), [])
    assert (small.width, small.height) == (103, 100)
    clear = np.zeros((64, 64, 4))
    clear[:, 32:] = (200, 30, 30, 255)
    made = pixels_of(finished(encoded(clear), []).jpeg)
    assert (made[:, :24] > 250).all() and np.abs(made[:, 40:] - (200, 30, 30)).max() < 6
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright: the pool's pictures are not turned
    assert finished(encoded(np.zeros((20, 60, 3)), "JPEG", exif=turned.tobytes()), []).width == 60


def test_faces_are_blurred_and_the_rest_is_not() -> None:
    checks = (np.indices((400, 400)).sum(0) // 8 % 2 * 255)[..., None].repeat(3, 2)
    made = pixels_of(finished(encoded(checks), [[0.25, 0.25, 0.5, 0.5]]).jpeg)
    face, far = made[125:175, 125:175], made[300:, 300:]
    assert face.std() < 3 and abs(face.mean() - 127) < 4
    assert np.abs(far - checks[300:, 300:]).mean() < 4
    coarse = (
        np.sin(np.arange(400) / 400 * 2 * np.pi * 10) * 100 + 127
    )  # a wave of 40 pixels, sigma 10 is a tenth of 100
    stripes = np.broadcast_to(coarse, (400, 400))
    made = pixels_of(finished(encoded(stripes), [[0.25, 0.25, 0.5, 0.5]]).jpeg)[..., 0]
    expected = gaussian_filter(stripes, 10)[140:160, 140:160]
    assert np.abs(made[140:160, 140:160] - expected).max() < 5
    grey = finished(encoded(checks[..., 0]), [[0.0, 0.0, 1.0, 1.0]])
    assert pixels_of(grey.jpeg)[150:250, 150:250].std() < 3


def test_what_is_no_picture() -> None:
    thin = encoded(np.zeros((1, 5000, 3)))
    for data in (b"", b"<html>", picture(1)[:30], thin):
        with pytest.raises(ValueError, match=r"."):
            finished(data, [])


def test_a_damaged_list_is_named(tmp_path: Path, hosts: Web) -> None:
    path = write_metadata(tmp_path / "metadata/a.parquet", hosts, [hosts.url("silent", 0), hosts.url("good", 1)])
    assert download(tmp_path) == 0
    listed = tmp_path / "shards/00000000.parquet"
    listed.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"00000000\.parquet cannot be read"):
        make(Shard(0, path, 0, 2), tmp_path / "shards", Settings(shard_size=100))


def test_a_damaged_tar_is_not_added_to(tmp_path: Path, hosts: Web) -> None:
    path = write_metadata(tmp_path / "metadata/a.parquet", hosts, [hosts.url("silent", 0), hosts.url("good", 1)])
    assert download(tmp_path) == 0
    tar = tmp_path / "shards/00000000.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"00000000\.tar: cut off within '.*jpg'; delete the shard's files"):
        make(Shard(0, path, 0, 2), tmp_path / "shards", Settings(shard_size=100))
    assert tar.stat().st_size == 1000
