"""Reading tars: every format that tools write, and every way in which one can be damaged."""

import bz2
import gzip
import io
import lzma
import random
import re
import tarfile
from pathlib import Path

import pytest
import webdataset  # type: ignore[import-untyped]
from pools import sample, write_tar

from poolbench.shards import samples as shards
from poolbench.shards.samples import APART, Problem, Reasons, Sample, commonest, read_samples, read_shard, told_once

from curate.reshard.tars import HeldTar, scan

CAPTION = b'{"caption": "a red square"}'


def make(path: Path, names: list[str], form: int = tarfile.GNU_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 700 * number
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    return path


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_reads_as_tarfile_reads_it(tmp_path: Path, form: int) -> None:
    long = "" if form == tarfile.USTAR_FORMAT else "f" * 80 + "/" + "g" * 90 + "/"
    names = ["a.jpg", "a.txt", "folder/b.tar.gz", f"{long}c.json", f"{long}d.é.txt", "e"]
    path = make(tmp_path / "x.tar", names, form)
    found = list(read_shard(str(path)))
    assert all(isinstance(one, Sample) for one in found)
    with tarfile.open(path) as tar:
        expected = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    flat = {f"{s.key}.{ext}": data for s in found for ext, data in s.members.items()}
    assert flat == {name: data for name, data in expected.items() if name != "e"}  # which has no extension


def test_folders_and_links_are_no_samples(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo("thing.txt")
            info.type = kind
            tar.addfile(info)
    assert list(read_shard(str(tmp_path / "x.tar"))) == []


def test_keys_part_at_the_first_dot_of_the_last_component(tmp_path: Path) -> None:
    found = list(read_shard(str(make(tmp_path / "x.tar", ["v1.0/a.seg.PNG", "v1.0/a.txt", "v1.0/b.txt"]))))
    assert [(s.key, list(s.members)) for s in found] == [("v1.0/a", ["seg.png", "txt"]), ("v1.0/b", ["txt"])]  # type: ignore[union-attr]


HIDDEN = ["._a.jpg", "a.jpg", ".DS_Store", "a.txt", "__notes__", "b/._b.jpg", "__MACOSX/._b.jpg", "b/b.jpg", "b/b.txt"]


def test_hidden_members_are_no_data_and_part_no_sample(tmp_path: Path) -> None:
    path = make(tmp_path / "x.tar", [*HIDDEN, "__x__/c.jpg", "README", "__c.jpg", "__c.txt"])
    found = list(read_shard(str(path)))
    assert [(s.key, list(s.members)) for s in found] == [  # type: ignore[union-attr]
        ("a", ["jpg", "txt"]),
        ("b/b", ["jpg", "txt"]),
        ("__c", ["jpg", "txt"]),
    ]
    theirs = webdataset.tariterators.tarfile_samples([{"url": str(path)}])
    # webdataset takes a hidden member of a folder for a sample whose key is the folder
    whole = [(s["__key__"], s["jpg"]) for s in theirs if not s["__key__"].endswith("/")]
    assert whole == [(s.key, s.members["jpg"]) for s in found]  # type: ignore[union-attr]
    make(tmp_path / "y.tar", ["._a.jpg", ".DS_Store"])
    assert list(read_shard(str(tmp_path / "y.tar"))) == []
    (none,) = read_shard(str(make(tmp_path / "z.tar", ["._a.jpg", "0001", "0002"])))
    assert isinstance(none, Problem) and not none.key and "'0001' and the like have no extension" in none.reason


@pytest.mark.parametrize("apart", [["jpg", "txt"], ["txt", "jpg"], ["jpg", "txt", "json"]])
def test_members_that_stand_apart_are_told(tmp_path: Path, apart: list[str]) -> None:
    path = make(tmp_path / "x.tar", [f"{key}.{extension}" for extension in apart for key in "abc"])
    found = list(read_shard(str(path)))
    assert [s.key for s in found] == list("abc") * len(apart)
    assert all(isinstance(s, Sample) for s in found[:3]) and all(isinstance(s, Problem) for s in found[3:])
    problems = [s for s in found if isinstance(s, Problem)]
    assert problems[0].reason.startswith(f"{APART}: .{apart[1]} stands apart from .{apart[0]}; ")
    assert told_once([Problem("x", key, "no caption") for key in "abc"] + problems) == problems[-3:]
    again = make(tmp_path / "y.tar", ["a.jpg", "a.txt", "b.jpg", "b.txt", "a.jpg", "a.txt"])
    assert [s.key for s in read_shard(str(again)) if isinstance(s, Sample)] == ["a", "b", "a"]  # of one key, each whole


def ended(path: Path) -> tuple[bytes, int]:
    """A good shard, and where its end mark begins."""
    data = write_tar(path, [(f"{n:03d}", sample(n)) for n in range(6)]).read_bytes()
    return data, len(data.rstrip(b"\0")) + -len(data.rstrip(b"\0")) % 512


def test_anything_but_zeros_behind_the_end_is_damage(tmp_path: Path) -> None:
    data, end = ended(tmp_path / "x.tar")
    for more in (data, b"\n", bytes(512 * 3) + b"x", bytes(2**17) + data):
        for mark in (512, 1024, len(data) - end):
            *good, problem = read_samples(io.BytesIO(data[: end + mark] + more), "x")
            if isinstance(good[-1], Problem):  # told before the last sample, as any damage is
                good[-1], problem = problem, good[-1]
            assert [s.key for s in good] == [f"{n:03d}" for n in range(6)]
            assert isinstance(problem, Problem) and not problem.key and "more behind them" in problem.reason


def test_a_hole_and_a_tail_of_zeros_are_damage_and_padding_is_not(tmp_path: Path) -> None:
    data, end = ended(tmp_path / "x.tar")
    with tarfile.open(tmp_path / "x.tar") as tar:
        third = tar.getmembers()[6].offset
    for hole in (512, 1024, 5 * 512):
        found = list(read_samples(io.BytesIO(data[:third] + bytes(hole) + data[third + hole :]), "x"))
        assert [s.key for s in found if isinstance(s, Sample)] == ["000", "001"], hole
        assert [p.key for p in found if isinstance(p, Problem)] == [""]
    for zeros in (512, 1024, len(data) - end):
        assert len(list(read_samples(io.BytesIO(data[:end] + bytes(zeros)), "x"))) == 6
    for record in (10240, 2**16, 2**20):
        assert len(list(read_samples(io.BytesIO(data[:end] + bytes(1024 + -(end + 1024) % record)), "x"))) == 6
    for zeros in (20 * 1024, 3 * 2**20):
        *_, problem, last = read_samples(io.BytesIO(data[:end] + bytes(zeros)), "x")
        assert isinstance(problem, Problem) and "never written" in problem.reason
        assert isinstance(last, Sample) and last.key == "005"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(bytes(9999), mtime=0), "a gzip file: gunzip it"),
        (bz2.compress(bytes(9999)), "a bzip2 file"),
        (lzma.compress(bytes(9999)), "an xz file"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 4, "a zstd file"),
        (b"PK\x03\x04" + bytes(range(256)) * 4, "a zip archive"),
        (b"\n<!DOCTYPE html><html>", "a page of HTML"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>" * 20, "a page of HTML or XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ],
)
def test_a_file_that_is_no_tar_is_called_what_it_is(content: bytes, told: str) -> None:
    (problem,) = read_samples(io.BytesIO(content), "x.tar")
    assert isinstance(problem, Problem) and not problem.key
    assert problem.reason.startswith("no tar but ") and told in problem.reason
    (same,) = scan(HeldTar(memoryview(content)), "x.tar")
    assert same == problem


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (
            ["photo.0001.jpg", "photo.0001.txt"],
            "no image: its members are .0001.jpg, .0001.txt; a key ends at the first",
        ),
        (["a.pdf", "a.txt"], "no image: its members are .pdf, .txt"),
        (["a.jpg", "a.json"], "no caption: its members are .jpg, .json; the 'caption' of its .json is not read"),
    ],
)
def test_what_a_sample_lacks_is_told_with_what_it_has(tmp_path: Path, names: list[str], told: str) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(CAPTION)
            tar.addfile(info, io.BytesIO(CAPTION))
    (found,) = read_shard(str(tmp_path / "x.tar"))
    assert isinstance(found, Sample)
    with pytest.raises(ValueError, match=re.escape(told)):
        found.picture(), found.caption()


def test_a_shard_that_would_be_one_sample_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "MEMBER_LIMIT", 700 * 20)
    (found,) = read_shard(str(make(tmp_path / "x.tar", [f"photo.{n:04d}.jpg" for n in range(12)])))
    assert isinstance(found, Problem) and found.key == "photo"
    assert ".0005.jpg and 6 more; a key ends at the first dot" in found.reason


def test_the_commonest_reason_is_told_with_one_key() -> None:
    mine, theirs = Reasons(), Reasons()
    assert commonest([]) == mine.commonest() == ""
    for key in "abc":
        mine.add(Problem("x.tar", key, f"no image: its members are .{key}"))
        theirs.add(Problem("y.tar", key, f"cut off within '{key}'"))
    theirs.add(Problem("y.tar", "z", "no image: its members are .z"))
    mine.update(theirs)
    assert mine.commonest() == "; x.tar, key a: no image: its members are .a (the commonest reason, 4 of 7 times)"
    apart = [Problem("x", "a", "no caption: .jpg"), Problem("x", "a", f"{APART}: .txt")]
    assert commonest(apart) == f"; x, key a: {APART}: .txt (the commonest reason, 1 of 2 times)"


def test_two_members_of_one_name_are_told(tmp_path: Path) -> None:
    found = list(read_shard(str(make(tmp_path / "x.tar", ["a.txt", "a.jpg", "a.txt", "b.txt"]))))
    assert found[0] == Problem(str(tmp_path / "x.tar"), "a", "two members .txt")
    assert isinstance(found[1], Sample) and found[1].key == "b"


def test_a_missing_and_an_empty_file_are_told(tmp_path: Path) -> None:
    (tmp_path / "empty.tar").touch()
    (missing,) = read_shard(str(tmp_path / "none.tar"))
    (empty,) = read_shard(str(tmp_path / "empty.tar"))
    assert isinstance(missing, Problem) and "No such file" in missing.reason
    assert isinstance(empty, Problem) and "cut off" in empty.reason


def test_every_truncation_is_told_and_loses_nothing_before_it(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [(f"{n:03d}", sample(n)) for n in range(6)])
    data = path.read_bytes()
    whole = [s for s in read_shard(str(path)) if isinstance(s, Sample)]
    end = max(i for i in range(0, len(data), 512) if data[i : i + 512].strip(b"\0")) + 512
    rng = random.Random(0)
    for length in [0, 1, 511, 512, 513, end - 1, end, *(rng.randrange(end) for _ in range(60))]:
        found = list(read_samples(io.BytesIO(data[:length]), "x"))
        assert isinstance(found[-1], Problem) or isinstance(found[-2], Problem), length
        good = [s for s in found if isinstance(s, Sample)]
        # All but the last are whole; the last may have lost members with the end of the tar.
        assert good[:-1] == whole[: max(0, len(good) - 1)]


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "x.tar", [(f"{n:03d}", sample(n)) for n in range(6)])
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        header = tar.getmembers()[9].offset  # the first member of sample 003
    data[header + 150] = ord("0") + (data[header + 150] - ord("0") + 1) % 8  # a digit of its checksum
    found = list(read_samples(io.BytesIO(bytes(data)), "x"))
    assert [s.key for s in found if isinstance(s, Sample)] == ["000", "001", "002"]
    assert [p.reason for p in found if isinstance(p, Problem)] == ["damaged tar header (bad checksum)"]
    with tarfile.open(fileobj=io.BytesIO(bytes(data)), mode="r|") as silent:
        assert len(silent.getmembers()) == 9, "tarfile itself says nothing: that is why we read tars ourselves"


def test_random_bytes_never_raise() -> None:
    rng = random.Random(1)
    for _ in range(200):
        noise = rng.randbytes(rng.randrange(3000))
        assert all(isinstance(one, Problem) for one in read_samples(io.BytesIO(noise), "x"))


def test_a_huge_claimed_size_takes_no_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 2**40
    (problem,) = read_samples(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512), "x")
    assert isinstance(problem, Problem) and problem.reason == "cut off within 'a.jpg'"
