"""Downloading goes on where it was: what may mend is asked again, and neither a kill nor a full disk loses any."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from downloading import QUICK, download, ended, good_pool, main, members, report_of, started, write_metadata
from waiting import until
from web_server import Web, serving

from poolbench.errors import UserError
from poolbench.files import digest_file

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
    assert download(tmp_path, "timeout=6") == 0
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
    assert download(tmp_path, "timeout=6") == 0
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
    until(lambda: hosts.gets["/silent/10"])
    if stop == signal.SIGINT:
        os.killpg(process.pid, stop)  # as Ctrl-C does
    else:
        process.kill()
    status, errors = ended(process)
    assert status == (130 if stop == signal.SIGINT else -9)
    assert errors == ("interrupted; the same command continues where it stopped\n" if stop == signal.SIGINT else "")
    until(lambda: not group_of(process))  # nobody goes on asking
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
    until(lambda: hosts.gets["/silent/0"])
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


def test_whoever_puts_parts_together_waits_for_none(tmp_path: Path, hosts: Web) -> None:
    good_pool(tmp_path, hosts, 4, "silent")
    process = started(tmp_path, "shard_size=2", "part=1/2", "timeout=600", "deadline=600")
    try:
        until(lambda: hosts.gets["/silent/0"])
        with pytest.raises(UserError, match=r"\.part-1-of-2 is in use by another process"):
            main(["scale=small", f"out={tmp_path}", *QUICK[:-1], "shard_size=2", "merge=2"])
    finally:
        process.kill()
        ended(process)
