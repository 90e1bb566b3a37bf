"""Reading tars: every format that tools write, and every way in which one can be damaged."""

import io
import random
import tarfile
from pathlib import Path

import pytest
from pools import sample, write_tar

from train.shards import Problem, Sample, read_samples, read_shard


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
    flat = {f"{s.key}.{ext}" if ext else s.key: data for s in found for ext, data in s.members.items()}
    assert flat == expected


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


def test_a_huge_claimed_size_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size = 2**40
    (problem,) = read_samples(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512), "x")
    assert isinstance(problem, Problem) and "claims" in problem.reason
