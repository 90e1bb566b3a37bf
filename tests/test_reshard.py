"""Resharding: every byte of the chosen samples, none of the others, the same however it was done."""

import contextlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
from holding import holding
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import sample, uid_of, write_pool, write_tar

from poolbench.errors import UserError
from poolbench.files import read_json, read_lines
from poolbench.shards.samples import Problem, Sample, read_samples, read_shard
from poolbench.shards.sources import resolve
from poolbench.subset import Subset
from poolbench.uids import find, write_subset

from curate.reshard.copy import copy_shard
from curate.reshard.folder import begin
from curate.reshard.index import index_shard
from curate.reshard.job import Job, pairs
from curate.reshard.options import ReshardOptions
from curate.reshard.plan import Order
from curate.reshard.run import reshard
from curate.reshard.schedule import Schedule
from curate.reshard.tars import HeldTar, OpenTar, Stored, TarStream, header, scan

Samples = list[tuple[str, dict[str, bytes]]]


def contents(folder: Path) -> Samples:
    """Every sample of a folder of shards, in order."""
    found = []
    for tar in sorted(folder.glob("*.tar")):
        for one in read_shard(str(tar)):
            assert isinstance(one, Sample), one
            found.append((one.key, one.members))
    return found


def files(folder: Path) -> dict[str, bytes]:
    """What a resharding wrote, but for meta.json, which names paths."""
    return {path.name: path.read_bytes() for path in folder.glob("*") if path.is_file() and path.name != "meta.json"}


def run(tmp_path: Path, subset: list[str], shards: Path, out: str = "out", **options: object) -> int:
    path = tmp_path / f"{out}.npy"
    write_subset(path, subset)
    values: dict[str, object] = {"workers": 2, **options}
    return reshard(ReshardOptions(str(path), str(shards), str(tmp_path / out), **values))  # type: ignore[arg-type]


def test_copies_every_byte_of_the_chosen_and_repeats_the_repeated(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 3, 20)
    numbers = [3, 4, 4, 5, 19, 20, 41, 41, 41, 59]
    status = run(tmp_path, [uid_of(n) for n in numbers], pool, samples_per_shard=4)
    assert status == 0
    wanted, repeats = [], Counter[int]()
    originals = dict(contents(pool))
    for number in numbers:
        wanted.append((f"{uid_of(number)}-{repeats[number]}", originals[f"{number:08d}"]))
        repeats[number] += 1
    assert contents(tmp_path / "out") == wanted
    meta = read_json(tmp_path / "out" / "meta.json")
    assert [row["samples"] for row in meta["shards"]] == [4, 4, 2]
    for row in meta["shards"]:
        path = tmp_path / "out" / row["name"]
        assert path.stat().st_size == row["bytes"]
        assert read_json(path.with_name(path.stem + "_stats.json"))["successes"] == row["samples"]
        assert subprocess.run(["tar", "tf", path], capture_output=True, check=True).stderr == b""
    assert not (tmp_path / "out" / "missing_uids.npy").exists()
    assert not (tmp_path / "out" / "bad_samples.jsonl").exists()


@pytest.mark.parametrize("shuffle", [None, 5])
def test_any_number_of_workers_writes_the_same(tmp_path: Path, shuffle: int | None) -> None:
    pool = write_pool(tmp_path / "pool", 5, 12)
    subset = [uid_of(n) for n in range(0, 60, 2)] + [uid_of(8)]
    for workers in (1, 3):
        assert run(tmp_path, subset, pool, f"w{workers}", workers=workers, shuffle=shuffle, samples_per_shard=7) == 0
    assert files(tmp_path / "w1") == files(tmp_path / "w3")


@pytest.mark.parametrize("shuffle", [None, 3])
@pytest.mark.parametrize("size", [None, 3000])
@pytest.mark.parametrize("backwards", [False, True])
def test_shards_are_written_while_the_input_is_still_read(
    tmp_path: Path, shuffle: int | None, size: int | None, backwards: bool
) -> None:
    pool = write_pool(tmp_path / "pool", 6, 10)
    chosen = [uid_of(number) for number in range(60) if number % 3] + [uid_of(4)]
    assert run(tmp_path, chosen, pool, "plain", samples_per_shard=7, shuffle=shuffle, size=size) == 0
    options = ReshardOptions(str(tmp_path / "plain.npy"), str(pool), str(tmp_path / "out"), 7, size, shuffle)
    job = Job(tmp_path / "work", options.out, options.subset, shuffle, 95)
    begin(options, job, {}, resolve(str(pool)))
    schedule, done = Schedule(job, options), []
    while (task := schedule.take()) is not None:
        tasks = [task]
        while backwards and len(tasks) < 3 and (task := schedule.take()) is not None:
            tasks.append(task)
        for one in reversed(tasks):  # three at a time, of which the last one ends first
            assert schedule.note(one, one.function(*one.arguments)) is None
            done.append(one.function)
    assert schedule.total == len(done)
    early = index_shard in done[done.index(copy_shard) :]
    assert early == (shuffle is None)  # which of the samples come first in a shuffle is only known at the end
    mine = files(tmp_path / "out")
    assert mine == {name: data for name, data in files(tmp_path / "plain").items() if name in mine}
    assert len(contents(tmp_path / "out")) == len(chosen)


def test_a_shuffle_moves_samples_and_loses_none(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 4, 15)
    subset = [uid_of(n) for n in range(60)] + [uid_of(7)]
    orders = []
    for name, seed in (("plain", None), ("one", 1), ("two", 2)):
        assert run(tmp_path, subset, pool, name, shuffle=seed) == 0
        orders.append(contents(tmp_path / name))
    plain, one, two = orders
    assert sorted(plain, key=lambda kept: kept[0]) == sorted(one, key=lambda kept: kept[0])
    assert one != plain and one != two and sorted(map(str, two)) == sorted(map(str, one))


@pytest.mark.parametrize("total", [1, 2, 3, 17, 1000, 4097])
def test_an_order_is_a_permutation_in_any_pieces(total: int) -> None:
    order = Order(total, seed=3)
    whole = order.rows(0, total)
    assert sorted(whole.tolist()) == list(range(total))
    cut = total // 3
    assert np.concatenate([order.rows(0, cut), order.rows(cut, total)]).tolist() == whole.tolist()
    if total >= 1000:
        assert abs(np.corrcoef(whole, np.arange(total))[0, 1]) < 0.1
        assert Order(total, None).rows(0, total).tolist() == list(range(total))


def test_shards_end_before_they_grow_too_large(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 2, 20)
    assert run(tmp_path, [uid_of(n) for n in range(40)], pool, size=30_000) == 0
    sizes = [row["bytes"] - 1024 for row in read_json(tmp_path / "out" / "meta.json")["shards"]]  # without the end mark
    assert len(sizes) > 3 and max(sizes) <= 30_000
    assert min(sizes[:-1]) > 30_000 - 10_000  # no sample has more
    assert len(contents(tmp_path / "out")) == 40
    # A sample above the limit has a shard of its own.
    assert run(tmp_path, [uid_of(n) for n in range(40)], pool, "ones", size=1) == 0
    assert [row["samples"] for row in read_json(tmp_path / "ones" / "meta.json")["shards"]] == [1] * 40


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_tools_write(tmp_path: Path, form: int) -> None:
    folder, members = "f" * 60 + "/" + "g" * 60 + "/", sample(1)
    (tmp_path / "pool").mkdir()
    with tarfile.open(tmp_path / "pool" / "0.tar", "w", format=form) as tar:
        for stem, number in ((f"{folder}k", 1), ("größe", 2), ("short", 3)):
            tar.addfile(directory := tarfile.TarInfo("a folder"))
            directory.type = tarfile.DIRTYPE
            for extension, data in sample(number).items():
                info = tarfile.TarInfo(f"{stem}.{extension.upper()}")
                info.size, info.mtime, info.pax_headers = len(data), 1.5, {"comment": "x" * 600}
                tar.addfile(info, io.BytesIO(data))
    assert run(tmp_path, [uid_of(n) for n in (1, 1, 2, 3)], tmp_path / "pool") in (0, 1)
    keys = [f"{uid_of(n)}-{repeat}" for n, repeat in ((1, 0), (1, 1), (2, 0), (3, 0))]
    assert contents(tmp_path / "out") == [(key, sample(n)) for key, n in zip(keys, (1, 1, 2, 3), strict=True)]
    assert members


@given(st.text("abc.é/", min_size=1, max_size=40), st.integers(0, 2**33 - 1))
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    info = tarfile.TarInfo(name)
    info.size = size
    assert header(name, size) == info.tobuf(tarfile.USTAR_FORMAT, errors="surrogateescape")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), max_size=40), st.lists(st.integers(0, 12), max_size=10))
def test_uids_are_found_as_often_as_they_stand_there(chosen: list[int], asked: list[int]) -> None:
    subset = np.sort(pairs([(n // 4, n % 4) for n in chosen]))
    first, times = find(subset, pairs([(n // 4, n % 4) for n in asked]))
    held = subset.tolist()
    assert times.tolist() == [held.count((n // 4, n % 4)) for n in asked]
    assert all(held[place] == (n // 4, n % 4) for place, n, count in zip(first, asked, times, strict=True) if count)


def test_damage_anywhere_in_a_tar_is_told_as_training_tells_it(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "a.tar", ((f"{n:03d}", sample(n)) for n in range(3))).read_bytes()
    *_, last = scan(HeldTar(memoryview(data)), "a")
    assert isinstance(last, Stored)
    for cut in range(0, last.offset + last.span + 1, 256):
        (tmp_path / "cut.tar").write_bytes(data[:cut])
        with (tmp_path / "cut.tar").open("rb") as file, (tmp_path / "cut.tar").open("rb") as stream:
            tars = (OpenTar(file.fileno()), TarStream(stream), HeldTar(memoryview(data[:cut])))
            found, other, third = (list(scan(tar, "a")) for tar in tars)
        assert found == other == third
        theirs = list(read_samples(io.BytesIO(data[:cut]), "a"))
        told = [one for one in found if isinstance(one, Problem) and one.reason != "no .json with a uid"]
        assert told == [one for one in theirs if isinstance(one, Problem)] and len(told) == 1
        whole = [one.key for one in theirs if isinstance(one, Sample) and len(one.members) == 3]
        kept = [one.key for one in found if not isinstance(one, Problem)]
        assert kept in (whole, whole[:-1])  # the one that the damage touches is left out


def test_zeros_and_what_follows_them_are_told_as_training_tells_them(tmp_path: Path) -> None:
    data = write_tar(tmp_path / "a.tar", ((f"{n:03d}", sample(n)) for n in range(3))).read_bytes()
    _, second, last = scan(HeldTar(memoryview(data)), "a")
    assert isinstance(second, Stored) and isinstance(last, Stored)
    end = last.offset + last.span
    for spoilt in (
        data + data,
        data[: end + 512] + data,
        data[: end + 1024] + b"\n",
        data[:end] + bytes(3 * 2**20),
        data[: second.offset] + bytes(512) + data[second.offset + 512 :],
        data[: second.offset] + bytes(second.span) + data[last.offset :],
    ):
        (tmp_path / "b.tar").write_bytes(spoilt)
        with (tmp_path / "b.tar").open("rb") as file, (tmp_path / "b.tar").open("rb") as stream:
            tars = (OpenTar(file.fileno()), TarStream(stream), HeldTar(memoryview(spoilt)))
            found, other, third = (list(scan(tar, "a")) for tar in tars)
        theirs = list(read_samples(io.BytesIO(spoilt), "a"))
        assert found == other == third
        assert [one for one in found if isinstance(one, Problem)] == [one for one in theirs if isinstance(one, Problem)]
        assert [one.key for one in found] == [one.key for one in theirs]
        assert sum(isinstance(one, Problem) for one in found) == 1


def test_joined_tars_are_a_bad_shard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", 2, 5)
    second = pool / "00001.tar"
    (pool / "00000.tar").write_bytes((pool / "00000.tar").read_bytes() + second.read_bytes())
    second.unlink()
    assert run(tmp_path, [uid_of(n) for n in range(10)], pool) == 1
    assert [key for key, _ in contents(tmp_path / "out")] == [f"{uid_of(n)}-0" for n in range(5)]
    counts = read_json(tmp_path / "out" / "meta.json")["counts"]
    assert (counts["samples"], counts["missing"], counts["bad_shards"]) == (5, 5, 1)
    assert "bad shards: 1; 00000.tar: " in (said := capsys.readouterr().out) and "as cat joins them" in said


def test_hidden_members_and_files_are_not_copied(tmp_path: Path) -> None:
    members = [(f"a.{extension}", data) for extension, data in sample(0).items()]
    with tarfile.open(tmp_path / "pool.tar", "w") as tar:
        for name, data in [
            (f"._{members[0][0]}", b"mac"),
            *members[:2],
            ("._a.json", b"mac"),
            members[2],
            ("README", b""),
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    write_pool(tmp_path / "pool", 1, 3, first=1)
    (tmp_path / "pool.tar").rename(tmp_path / "pool" / "a.tar")
    (tmp_path / "pool" / "._a.tar").write_bytes(b"mac")
    assert run(tmp_path, [uid_of(n) for n in range(4)], tmp_path / "pool") == 0
    assert dict(contents(tmp_path / "out"))[f"{uid_of(0)}-0"] == sample(0)
    assert b"mac" not in (tmp_path / "out" / "00000000.tar").read_bytes()


def test_samples_that_lack_something_or_stand_apart_are_bad_and_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = tmp_path / "pool"
    whole = {n: sample(n) for n in range(20)}
    lacking = {
        "nothing": {},
        "no_txt": {"txt": None},
        "no_png": {"png": None},
        "blank": {"txt": b" "},
        "void": {"png": b""},
    }
    made = []
    for number, (key, changes) in enumerate(lacking.items()):
        made.append((key, {name: data for name, data in (whole[number] | changes).items() if data is not None}))
    write_tar(pool / "0.tar", made)
    torn = [(f"{n}", {extension: whole[n][extension]}) for extension in ("png", "txt", "json") for n in range(10, 20)]
    write_tar(pool / "1.tar", torn)
    chosen = [uid_of(n) for n in (*range(5), *range(10, 20))]
    assert run(tmp_path, chosen, pool) == 1
    assert dict(contents(tmp_path / "out")) == {f"{uid_of(0)}-0": whole[0]}
    counts = read_json(tmp_path / "out" / "meta.json")["counts"]
    assert (counts["samples"], counts["missing"], counts["bad_samples"]) == (1, 14, 14)
    told = {line["key"]: line["reason"] for line in read_lines(tmp_path / "out" / "bad_samples.jsonl")}
    assert told["no_txt"] == "no caption: its members are .json, .png"
    assert told["no_png"] == "no image: its members are .json, .txt"
    assert told["blank"] == "empty caption" and told["void"] == "empty image"
    assert all(told[f"{n}"].startswith("its members are not adjacent: .json stands apart") for n in range(10, 20))
    said = capsys.readouterr().out
    assert "bad samples: 14; 1.tar, key 10: its members are not adjacent" in said and "10 of 14 times" in said
    with pytest.raises(UserError, match=r"none of the chosen uids .*; 1.tar, key 10: its members are not adjacent"):
        run(tmp_path, chosen[5:], pool, out="none")


def test_what_is_bad_is_counted_listed_and_told_by_the_status(tmp_path: Path) -> None:
    pool, good = tmp_path / "pool", dict(enumerate(sample(n) for n in range(12)))
    without, wrong = {**good[1]}, {**good[2], "json": b'{"uid": "no"}'}
    del without["json"]
    write_tar(pool / "0.tar", [("a", good[0]), ("b", without), ("c", wrong), ("d", good[3])])
    write_tar(pool / "1.tar", [("a", good[4]), ("b", good[3]), ("c", good[5])])
    cut = write_tar(pool / "2.tar", [("a", good[6]), ("b", good[7])])
    os.truncate(cut, 2000)
    (pool / "3.tar").write_bytes(b"no tar at all" * 100)
    with tarfile.open(pool / "4.tar", "w") as tar:
        for name in ("a.png", "a.json", "a.png"):
            info = tarfile.TarInfo(name)
            info.size = len(good[8][name[2:]])
            tar.addfile(info, io.BytesIO(good[8][name[2:]]))
    assert run(tmp_path, [uid_of(n) for n in (0, 1, 3, 3, 4, 5, 6, 8, 11)], pool) == 1
    keys = [f"{uid_of(n)}-{m}" for n, m in ((0, 0), (3, 0), (3, 1), (4, 0), (5, 0))]
    assert [key for key, _ in contents(tmp_path / "out")] == keys
    assert dict(contents(tmp_path / "out"))[keys[1]] == good[3]
    counts = read_json(tmp_path / "out" / "meta.json")["counts"]
    assert {key: counts[key] for key in ("samples", "missing", "duplicates", "bad_samples", "bad_shards")} == {
        "samples": 5,
        "missing": 4,
        "duplicates": 1,
        "bad_samples": 3,
        "bad_shards": 2,
    }
    missing = Subset(str(tmp_path / "out" / "missing_uids.npy"))
    assert [missing.count(uid_of(n)) for n in (1, 6, 8, 11, 3)] == [1, 1, 1, 1, 0]
    told = {(line["shard"], line["key"]): line["reason"] for line in read_lines(tmp_path / "out" / "bad_samples.jsonl")}
    assert told[("0.tar", "b")] == "no .json with a uid" and "32 hex" in told[("0.tar", "c")]
    assert told[("1.tar", uid_of(3))] == "another sample has its uid"
    assert "cut off" in told[("2.tar", "")] and "damaged" in told[("3.tar", "")]
    assert told[("4.tar", "a")] == "two members .png"


def test_a_shard_that_changes_after_the_index_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", 2, 10)
    subset = [uid_of(n) for n in range(20)]
    assert run(tmp_path, subset, pool, samples_per_shard=5) == 0
    for name in ("00000001.tar", "00000002.tar"):
        (tmp_path / "out" / name).unlink()
    tar = pool / "00000.tar"
    tar.write_bytes(bytes(random.Random(0).randbytes(tar.stat().st_size)))
    assert run(tmp_path, subset, pool, samples_per_shard=5) == 1
    assert "changed since it was indexed" in capsys.readouterr().err
    assert not (tmp_path / "out" / "00000001.tar").exists()
    assert (tmp_path / "out" / "00000002.tar").exists()  # the others are copied all the same
    assert not list((tmp_path / "out").glob(".0*"))


# Each worker writes three shards, and begins no other.
HOLDING = holding("curate.reshard", "curate.reshard.copy._write")


@contextlib.contextmanager
def started(tmp_path: Path, pool: Path, out: str, hold: bool = False) -> Iterator[subprocess.Popen[bytes]]:
    """A resharding in a process of its own, once it has written some shards; it writes no others if it is to hold."""
    options = [f"subset={tmp_path / 'plain.npy'}", f"shards={pool}", f"out={tmp_path / out}", "samples_per_shard=1"]
    command = [sys.executable, *(["-c", HOLDING] if hold else ["-m", "curate.reshard"]), *options, "workers=2"]
    with (tmp_path / "log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            end = time.monotonic() + 300
            while len(list((tmp_path / out).glob("*.tar"))) < 5 and process.poll() is None and time.monotonic() < end:
                time.sleep(0.005)
            yield process
        finally:
            process.kill()


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 4, 40)
    assert run(tmp_path, [uid_of(n) for n in range(160)], pool, "plain", samples_per_shard=1) == 0
    with started(tmp_path, pool, "killed", hold=True) as process:
        process.kill()
        process.wait()
    before = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed" / ".reshard" / "done").glob("0*.json")
    }
    assert 3 <= len(before) <= 6
    written = {name: (tmp_path / "killed" / f"{name[:8]}.tar").stat().st_mtime_ns for name in before}
    os.truncate(tmp_path / "killed" / "00000002.tar", 700)  # what is not whole any more is written again
    (tmp_path / "killed" / ".00000003.tar.abcdefgh").write_text("what a killed run leaves")
    with started(tmp_path, pool, "killed") as process:
        assert process.wait(300) == 0
    assert files(tmp_path / "killed") == {**files(tmp_path / "plain")}
    again = {name: (tmp_path / "killed" / f"{name[:8]}.tar").stat().st_mtime_ns for name in before}
    assert {name for name in before if again[name] != written[name]} == {"00000002.json"} & before.keys()


@pytest.mark.parametrize("victim", ["worker", "itself"])
def test_a_killed_worker_and_a_signal_are_told(tmp_path: Path, victim: str) -> None:
    pool = write_pool(tmp_path / "pool", 4, 40)
    write_subset(tmp_path / "plain.npy", [uid_of(n) for n in range(160)])
    with started(tmp_path, pool, "out", hold=True) as process:
        if victim == "worker":
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        else:
            process.terminate()
        assert process.wait(300) == (1 if victim == "worker" else 130)
    text = (tmp_path / "log").read_text()
    assert "the same command continues" in text and "Traceback" not in text
    assert not (tmp_path / "out" / "meta.json").exists()
    with started(tmp_path, pool, "out") as process:
        assert process.wait(300) == 0
    assert len(contents(tmp_path / "out")) == 160


def test_other_options_are_refused_and_overwrite_deletes_only_its_own(tmp_path: Path) -> None:
    pool, subset = write_pool(tmp_path / "pool", 2, 10), [uid_of(n) for n in range(20)]
    assert run(tmp_path, subset, pool, samples_per_shard=3) == 0
    first = files(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for change in (
        {"samples_per_shard": 4},
        {"shuffle": 1, "samples_per_shard": 3},
        {"size": 9, "samples_per_shard": 3},
    ):
        with pytest.raises(UserError, match=r"begun with another .*overwrite=true"):
            run(tmp_path, subset, pool, **change)
    with pytest.raises(UserError, match="begun with another subset=;"):
        run(tmp_path, subset[1:], pool, samples_per_shard=3)
    assert files(tmp_path / "out") == {**first, "notes.txt": b"mine"}
    assert run(tmp_path, subset[:4], pool, overwrite=True) == 0
    assert set(files(tmp_path / "out")) == {"00000000.tar", "00000000_stats.json", "notes.txt"}
    assert len(contents(tmp_path / "out")) == 4


def test_wrong_inputs_are_one_line_and_leave_nothing(tmp_path: Path) -> None:
    pool, subset = write_pool(tmp_path / "pool", 1, 3), [uid_of(0)]
    for options, says in (
        ({"samples_per_shard": 0}, "samples_per_shard=0 must be at least 1"),
        ({"size": 0}, "size=0 must be"),
        ({"quality": 0, "blur_faces": "x"}, "quality=0 must lie"),
        ({"blur_faces": str(pool)}, "no .parquet there"),
    ):
        with pytest.raises(UserError, match=says):
            run(tmp_path, subset, pool, **options)
    with pytest.raises(UserError, match=r"shards=.* does not exist"):
        run(tmp_path, subset, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"out=.* holds .*00000.tar, which is read"):
        run(tmp_path, subset, pool, "pool", overwrite=True)
    write_pool(tmp_path / "mine", 1, 1)
    with pytest.raises(UserError, match=r"holds 00000.tar, which no resharding wrote"):
        run(tmp_path, subset, pool, "mine", overwrite=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "00000000.tar").write_text("an older one")
    with pytest.raises(UserError, match=r"holds 00000000.tar; choose another folder, or overwrite=true"):
        run(tmp_path, subset, pool, "other")
    with pytest.raises(UserError, match=r"out=s3://b needs work="):
        reshard(ReshardOptions("a.npy", str(pool), "s3://b"))
    with pytest.raises(UserError, match=r"none of the chosen uids is in their 3 samples"):
        run(tmp_path, [uid_of(99)], pool)
    assert len(contents(pool)) == 3 and len(contents(tmp_path / "mine")) == 1
    assert (tmp_path / "other" / "00000000.tar").read_text() == "an older one"


def test_the_command_line_needs_no_torch_and_names_a_wrong_key(tmp_path: Path) -> None:
    code = "import sys, curate.reshard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=300).returncode == 0
    command = [sys.executable, "-m", "curate.reshard", "subst=x"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stdout) == (2, "") and "did you mean 'subset'?" in ran.stderr


@pytest.mark.slow
def test_a_bucket_gives_and_takes_the_same(tmp_path: Path, bucket: str) -> None:
    pool, subset = write_pool(tmp_path / "pool", 3, 10), [uid_of(n) for n in (*range(0, 30, 3), 6)]
    store, url = fsspec.filesystem("s3"), f"{bucket}/reshard"
    store.put(str(pool), f"{url}/pool", recursive=True)
    assert run(tmp_path, subset, pool, "local", shuffle=4, samples_per_shard=6) == 0
    options = ReshardOptions(str(tmp_path / "local.npy"), f"{url}/pool", f"{url}/out", samples_per_shard=6, shuffle=4)
    options.work, options.workers = str(tmp_path / "work"), 1
    assert reshard(options) == 0
    store.rm(f"{url}/out/00000001.tar")
    assert reshard(options) == 0  # what is gone is written again
    store.get(f"{url}/out/", str(tmp_path / "got"), recursive=True)
    assert files(tmp_path / "got") == files(tmp_path / "local")
    assert json.loads(store.cat(f"{url}/out/meta.json"))["counts"]["samples"] == 11
    options.overwrite, options.shuffle = True, None
    assert reshard(options) == 0
    assert run(tmp_path, subset, pool, "plain", samples_per_shard=6) == 0
    assert store.cat(f"{url}/out/00000000.tar") == (tmp_path / "plain" / "00000000.tar").read_bytes()
