"""Tars that are damaged, odd or hostile: the resharder's scanner finds in them what the reader finds."""

import io
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import sample, write_tar

from poolbench.shards import members as reading
from poolbench.shards import samples as grouping
from poolbench.shards.members import BLOCK, read_members
from poolbench.shards.samples import Problem, Sample, read_samples, read_shard

from curate.reshard import tars
from curate.reshard.tars import HeldTar, OpenTar, Stored, TarStream, scan

ODD_TYPES = [b"1", b"2", b"5", b"6", b"7", b"\0", b"D", b"K", b"L", b"S", b"V", b"X", b"Z", b"g", b"x"]
STEMS = ["x" * 120 + "/{}", "größe{}", "d" * 90 + "/{}", "folder/{}", "v1.0/{}"]
EXTENSIONS = ["__key__", "__bad__", "__url__", "__local_path__", "a.b", "JSON", "", "_x"]
NOTES = ["._x.jpg", "README", "__m__", "d/", "__notes__/a.jpg"]
PAX = [b"13 path=ab.c\n", b"23 GNU.sparse.major=1\n\n", b"99 path=ab.c\n", b"13 path=ab.cx", b"no record", b"9" * 5000]


def members_of(rng: random.Random, number: int) -> list[tuple[str, bytes]]:
    """A sample's, most often good: (extension, content)."""
    found = list(sample(number).items())
    if rng.random() < 0.3:
        rng.shuffle(found)
    if rng.random() < 0.2:
        del found[rng.randrange(3) :]
    if rng.random() < 0.2:
        found.append(rng.choice(found) if found else ("txt", b"x"))
    if rng.random() < 0.2:
        found.append((rng.choice(EXTENSIONS), b"odd"))
    return found


def made(rng: random.Random) -> bytearray:
    """A tar of any format, of samples good and bad, with what else tools put into tars."""
    form, buffer = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for number in range(rng.randrange(1, 5)):
            stem = f"{number:03d}"
            if rng.random() < 0.4 and form != tarfile.USTAR_FORMAT:
                stem = rng.choice(STEMS).format(number)
            for extension, data in members_of(rng, number):
                info = tarfile.TarInfo(f"{stem}.{extension}" if rng.random() < 0.95 else rng.choice(NOTES))
                if rng.random() < 0.1:
                    info.type = rng.choice(ODD_TYPES)
                    data = rng.choice([data, *PAX])
                if rng.random() < 0.1 and form == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "x" * rng.randrange(600)}
                info.size = len(data)
                if info.type in (b"S", b"x", b"g", b"X", b"K", b"L"):  # which tarfile would not write as they are
                    header = info.tobuf(tarfile.GNU_FORMAT, errors="surrogateescape")
                    buffer.write(header + data + bytes(-len(data) % BLOCK))
                    tar.offset = buffer.tell()
                else:
                    tar.addfile(info, io.BytesIO(data))
    return bytearray(buffer.getvalue())


def damage(rng: random.Random, data: bytearray) -> None:
    """Cut, overwrite, lengthen or join a tar, or change a bit of it or a byte of a header."""
    at = rng.randrange(len(data)) if data else 0
    block = at // BLOCK * BLOCK
    headers = [place for place in range(0, len(data) - BLOCK + 1, BLOCK) if data[place + 257 : place + 262] == b"ustar"]
    kind = rng.choice(["cut", "block", "zeros", "bit", "join", "tail", "header", "forged header"])
    if kind == "cut":
        del data[at:]
    elif kind == "block":
        del data[block:]
    elif kind == "zeros":
        data[block : block + BLOCK * rng.randrange(1, 5)] = bytes(BLOCK * rng.randrange(4))
    elif kind == "bit" and data:
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "join":
        data += data[:block]
    elif kind == "tail":
        data += bytes(BLOCK * rng.choice([1, 2, 30, 3000]))
    elif headers:
        start = rng.choice(headers)
        header = data[start : start + BLOCK]
        header[rng.choice([rng.randrange(BLOCK), 124 + rng.randrange(12), 156, 345])] = rng.choice(b"\0 017\x80\xffx")
        if kind == "forged header":
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
        data[start : start + BLOCK] = header


def judged(found: Sample | Problem) -> str | Problem:
    """What the resharder has to say of what the reader found: the key of a sample that it can use."""
    if isinstance(found, Problem):
        return found
    try:
        found.record(), found.picture(), found.caption()
    except ValueError as error:
        return Problem("a", found.key, str(error))
    return found.key


class Pipe(io.BytesIO):
    """Bytes that come one after the other."""

    def seekable(self) -> bool:
        return False


def read(data: bytes) -> list[str | Problem]:
    """What the reader finds, the same whether it can seek or not."""
    found = [judged(one) for one in read_samples(io.BytesIO(data), "a")]
    assert [judged(one) for one in read_samples(io.BufferedReader(Pipe(data)), "a")] == found  # type: ignore[type-var]
    return found


def scanned(data: bytes, path: Path) -> list[str | Problem]:
    """What the resharder finds, the same in whichever way it comes by the bytes."""
    path.write_bytes(data)
    with path.open("rb") as file, path.open("rb") as stream:
        ways = (OpenTar(file.fileno()), TarStream(stream), HeldTar(memoryview(data)))
        first, second, third = (list(scan(tar, "a")) for tar in ways)
    assert first == second == third
    return [one.key if isinstance(one, Stored) else one for one in first]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 2**32), times=st.integers(0, 2))
def test_the_resharder_finds_what_the_reader_finds(
    tmp_path_factory: pytest.TempPathFactory, seed: int, times: int
) -> None:
    rng = random.Random(seed)
    data = made(rng)
    for _ in range(times):
        damage(rng, data)
    known = [one for one in read(bytes(data)) if not (isinstance(one, Problem) and "no sample in it" in one.reason)]
    found = scanned(bytes(data), tmp_path_factory.getbasetemp() / "a.tar")
    end = next((place for place, one in enumerate(known) if isinstance(one, Problem) and not one.key), len(known)) + 1
    assert found[:end] == known[:end]
    # Behind the damage stands the sample that it may have cut into, which the resharder leaves out.
    assert found[end:] in ([], known[end:]) or (not known[end:] and isinstance(found[end], Problem))


def test_the_flaws_of_a_sample_are_told_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (tars, grouping):
        monkeypatch.setattr(module, "MEMBER_LIMIT", 9000)
    parts, small = {f"{n:02d}.png": bytes(1000) for n in range(20)}, {"txt": b"x", "cls": b"1"}
    made = [("photo", parts), ("photo", parts), ("twice", small), ("twice", {"cls": b"2"}), ("twice", {"txt": b"y"})]
    path = write_tar(tmp_path / "x.tar", [*made, ("b", sample(1))])
    found = read(path.read_bytes())
    assert isinstance(found[0], Problem) and found[0].reason.startswith("more than 256 MiB in one sample: its members")
    assert found[1:] == [Problem("a", "twice", "two members .cls"), "b"]
    assert found == scanned(path.read_bytes(), tmp_path / "a.tar")


@pytest.mark.parametrize("form", ["GNU", "pax"])
def test_a_member_that_is_too_large_is_passed_over(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the two forms in which tars tell sizes of 8 GiB and more: as a binary number, and in a header before."""
    for module in (tars, grouping, reading):
        monkeypatch.setattr(module, "MEMBER_LIMIT", 9000)
    rng = random.Random()
    huge = {"txt": b"x", "json": sample(1)["json"], "png": rng.randbytes(rng.randrange(9001, 20_000))}
    if rng.random() < 0.5:  # a text, which the resharder reads of others
        huge["txt"], huge["png"] = huge["png"], huge["txt"]
    data = b""
    for key, members in (("a", sample(0)), ("b", huge), ("c", sample(2))):
        for extension, content in members.items():
            data += sized_header(f"{key}.{extension}", len(content), form) + content + bytes(-len(content) % BLOCK)
    data += bytes(2 * BLOCK)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert {one.name: one.size for one in tar}["b.png"] == len(huge["png"])
    found = read(data)
    assert found == ["a", Problem("a", "b", "more than 256 MiB in one sample: its members are .json, .png, .txt"), "c"]
    assert scanned(data, tmp_path / "a.tar") == found
    cut = data[: data.index(huge["png"] if len(huge["png"]) > 9000 else huge["txt"]) + 5000]
    told = Problem("a", "", f"cut off within 'b.{'png' if len(huge['png']) > 9000 else 'txt'}'")
    assert told in scanned(cut, tmp_path / "a.tar") and told in read(cut)


def sized_header(name: str, size: int, form: str) -> bytes:
    """The header of a member whose size does not stand there in digits."""
    info = tarfile.TarInfo(name)
    if form == "pax":
        info.pax_headers = {"size": str(size)}
        return info.tobuf(tarfile.PAX_FORMAT)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\x80" + size.to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


class Counting(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def readinto(self, buffer: Any) -> int:
        found = super().readinto(buffer)
        self.count += found or 0
        return found or 0


def test_nine_gigabytes_are_passed_over_without_being_read(tmp_path: Path) -> None:
    """Of a tar on a disk; the resharder reads headers, captions and .json alone."""
    path, size = tmp_path / "a.tar", 9 * 2**30
    with path.open("wb") as file:
        for key, members in (("a", sample(0)), ("b", {**sample(1), "png": b""}), ("c", sample(2))):
            for extension, content in members.items():
                huge = (key, extension) == ("b", "png")
                file.write(sized_header(f"{key}.{extension}", size if huge else len(content), "GNU"))
                file.write(content + bytes(-len(content) % BLOCK))
                file.seek(size if huge else 0, 1)
        file.write(bytes(2 * BLOCK))
    assert path.stat().st_blocks * 512 < 2**20, "a file with a hole"
    with path.open("rb") as file:
        found = list(tars.scan(tars.OpenTar(file.fileno()), "a"))
    assert [one.key for one in found] == ["a", "b", "c"] and isinstance(found[1], Problem)
    with Counting(path) as raw:
        assert [judged(one) for one in read_samples(io.BufferedReader(raw, 2**16), "a")] == ["a", found[1], "c"]
        assert 0 < raw.count < 2**20


@pytest.mark.parametrize("name", ["._b.jpg", "__notes__/b.npy", "README"])
def test_what_is_no_data_is_not_read(name: str, tmp_path: Path) -> None:
    path, members = tmp_path / "a.tar", [(f"a.{extension}", data) for extension, data in sample(0).items()]
    with tarfile.open(path, "w") as tar:
        for member, data in [*members, (name, bytes(5 * 2**20)), *((f"c{one[1:]}", data) for one, data in members)]:
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with Counting(path) as raw:
        assert [judged(one) for one in read_samples(io.BufferedReader(raw, 2**16), "a")] == ["a", "c"]
        assert 0 < raw.count < 2**20
    assert read(path.read_bytes()) == ["a", "c"]
    assert read(path.read_bytes()[: 5 * 2**20]) == [Problem("a", "", f"cut off within {name!r}"), "a"]


def one_header(change: Callable[[bytearray], None]) -> bytes:
    """A tar of one text of 10 bytes, its header changed and its checksum made good."""
    info = tarfile.TarInfo("a.txt")
    info.size = 10
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    change(header)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + b"0123456789".ljust(BLOCK, b"\0") + bytes(2 * BLOCK)


def put(at: int, value: bytes) -> Callable[[bytearray], None]:
    def change(header: bytearray) -> None:
        header[at : at + len(value)] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put(156, b"S"), "member 'a.txt' is sparse: write the tar anew without --sparse"),
        (put(124, b"\xff" * 12), "damaged tar header (negative size)"),
        (put(124, b"77777777777\0"), "cut off within 'a.txt'"),
        (put(124, b"\x80\0\0\0\0\xff\xff\xff\xff\xff\xff\xff"), "cut off within 'a.txt'"),
        (lambda header: header.__setitem__(slice(124, 157), b"77777777777\0" + header[136:156] + b"L"), "claims"),
        (put(100, b"rw-r--r-"), "damaged tar header (invalid header)"),
        (put(156, b"x"), "damaged pax header"),
        (put(156, b"X"), "damaged pax header"),
        (put(124, b"00000004000\0"), "cut off within 'a.txt'"),
    ],
)
def test_what_tarfile_would_read_otherwise_is_told(
    change: Callable[[bytearray], None], told: str, tmp_path: Path
) -> None:
    data = one_header(change)
    (problem,) = read_samples(io.BytesIO(data), "a")
    assert isinstance(problem, Problem) and told in problem.reason
    assert scanned(data, tmp_path / "a.tar") == [problem]


@pytest.mark.parametrize("form", ["GNU", "pax"])
@pytest.mark.parametrize("bits", [33, 45, 59, 64, 87])
def test_a_size_beyond_all_files_is_a_cut(bits: int, form: str, tmp_path: Path) -> None:
    """Of a file on a disk, which refuses to seek so far, and of a stream, which has its end where it has one."""
    size = 2**bits if form == "GNU" else 2 ** min(bits, 59)  # a pax header with more digits is damaged
    path = tmp_path / "a.tar"
    path.write_bytes(sized_header("a.png", size, form) + bytes(BLOCK))
    told = [Problem(str(path), "", "cut off within 'a.png'")]
    assert list(read_shard(str(path))) == told
    with Pipe(path.read_bytes()) as pipe:
        assert list(read_samples(pipe, str(path))) == told


def test_what_has_no_data_has_none_whatever_size_it_claims() -> None:
    """As tarfile takes it: tools give the size of what a hard link or a folder stands for."""
    link = one_header(put(156, b"1"))[:BLOCK]
    assert list(read_members(io.BytesIO(link + one_header(lambda _: None)))) == [("a.txt", b"0123456789")]


def test_thousands_of_long_names_in_a_row_are_no_recursion() -> None:
    long = one_header(put(156, b"L"))[: 2 * BLOCK]
    assert list(read_members(io.BytesIO(long * 3000 + one_header(lambda _: None)))) == [("0123456789", b"0123456789")]


def test_members_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """tarfile would keep the header of each, which a worker has no use for."""
    opened, real = [], tarfile.open
    monkeypatch.setattr(reading.tarfile, "open", lambda **options: opened.append(real(**options)) or opened[0])
    data = one_header(lambda _: None)[: 2 * BLOCK] * 50 + bytes(2 * BLOCK)
    assert [len(opened[0].members) for _ in read_members(io.BytesIO(data))] == [0] * 50
