"""`python -m curate.download` against a local web of failing and lying hosts: what each gives, and the shards of it."""

import asyncio
import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from downloading import download, good_pool, members, report_of, write_metadata
from pools import by_webdataset, uid_of
from web_server import Web

from poolbench.errors import UserError
from poolbench.files import digest_file, read_json
from poolbench.subset import Subset
from poolbench.uids import write_subset

from curate.download import arrived, web
from curate.download import run as download_pool
from curate.download.images import Settings, Shard, make
from curate.download.options import DownloadOptions
from curate.download.resize import finished
from curate.pool.parts import WHOLE, Part
from leaderboard.evidence import check_pool

FAILURES = {
    "html": "not a picture", "empty": "not a picture", "loop": "too many redirects", "local": "bad url",
    "forbidden": "disallowed by X-Robots-Tag", "cut": "truncated", "short": "truncated", "stalled": "timeout",
    "silent": "timeout", "drip": "too slow", "huge": "too large", "announced": "too large", "gibberish": "bad answer",
}  # fmt: skip
GOOD = ("good", "mistyped", "moved", "permitted")


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

    assert download(tmp_path, "timeout=6", "deadline=16") == 0

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


def test_one_host_has_so_many_connections_of_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_pool, "cores", lambda: 16)
    rng = np.random.default_rng(0)
    for of, total, each, processes in rng.integers(1, [40, 500, 12, 20], (300, 4)).tolist():
        options = DownloadOptions(scale="small", out="x", per_host_total=total, per_host=each, processes=processes)
        if of * processes > total:
            with pytest.raises(UserError, match=f"per_host_total={total}: with {processes} processes in each of {of}"):
                download_pool.connections(options, Part(1, of))
            continue
        share = download_pool.connections(options, Part(1, of))
        assert share.processes == processes and share.per_host == min(each, total // (of * processes)) >= 1
        assert of * share.processes * share.per_host <= total
        by_itself = download_pool.connections(replace(options, processes=None), Part(1, of))
        assert by_itself.processes == min(16, total // of)
    plain = DownloadOptions(scale="small", out="x")
    assert download_pool.connections(plain, WHOLE) == (16, 8)


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
