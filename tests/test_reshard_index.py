"""Indexes of shards: found again, never trusted where the shard or the file has changed, and the same however made;
and what is copied by them is what is copied without."""

import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pools import sample, uid_of, write_pool, write_tar
from test_reshard import contents, files, run

from poolbench.files import read_json
from poolbench.shards.samples import Sample, read_shard
from poolbench.uids import DTYPE, uid_text

from curate.reshard.index import _listed
from curate.reshard.quick import quick
from curate.reshard.stored import Contents, Index, read_index, write_index
from curate.reshard.straight import headers
from curate.reshard.tars import OpenTar, header, scan

ALL = [uid_of(number) for number in range(12)]


def forbid(*_: object) -> None:
    raise AssertionError("a shard was read that has an index")


def indexed(pool: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in pool.glob("*.idx")}


def turn(shard: Path) -> None:
    """Write the samples of a shard in the opposite order."""
    data = shard.read_bytes()
    write_tar(shard, [(one.key, one.members) for one in read_shard(str(shard)) if isinstance(one, Sample)][::-1])
    assert shard.stat().st_size == len(data) and shard.read_bytes() != data


def test_an_index_is_found_again_whatever_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = write_pool(tmp_path / "pool", 3, 4)
    assert run(tmp_path, ALL, pool, "first", index=str(pool)) == 0
    assert sorted(indexed(pool)) == ["00000.idx", "00001.idx", "00002.idx"]
    assert run(tmp_path, ALL[3:9], pool, "plain", index=str(tmp_path / "elsewhere")) == 0  # beside them are some
    assert not (tmp_path / "elsewhere").exists()
    with monkeypatch.context() as patch:
        patch.setattr("curate.reshard.index._contents", forbid)  # which the workers have from this process
        assert run(tmp_path, ALL[3:9], pool, "second") == 0
        assert run(tmp_path, ALL[3:9], pool, "third", shuffle=1) == 0
    assert files(tmp_path / "second") == files(tmp_path / "plain")
    for path in pool.glob("*.idx"):
        path.unlink()
    assert run(tmp_path, ALL[3:9], pool, "fourth", index=str(tmp_path / "kept")) == 0
    assert not indexed(pool) and len(list((tmp_path / "kept").glob("*.idx"))) == 3
    with monkeypatch.context() as patch:
        patch.setattr("curate.reshard.index._contents", forbid)
        assert run(tmp_path, ALL, pool, "fifth", index=str(tmp_path / "kept")) == 0
    assert files(tmp_path / "fourth") == files(tmp_path / "plain")
    assert files(tmp_path / "fifth") == files(tmp_path / "first")


def test_an_index_of_a_shard_as_it_was_is_made_anew(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 2, 4)
    assert run(tmp_path, ALL[:8], pool, "first", index=str(pool)) == 0
    before, shard = indexed(pool), pool / "00001.tar"
    turn(shard)  # as many bytes: only the time tells
    assert run(tmp_path, ALL[:8], pool, "second", index=str(pool)) == 0
    assert [name for name, when in indexed(pool).items() if before[name] != when] == ["00001.idx"]
    assert [key[:32] for key, _ in contents(tmp_path / "second")] == [uid_of(n) for n in (0, 1, 2, 3, 7, 6, 5, 4)]
    # As old as before, with another size.
    when = shard.stat()
    write_tar(shard, [("a", sample(4))])
    os.utime(shard, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert run(tmp_path, ALL[:8], pool, "third", index=str(pool)) == 1
    assert len(contents(tmp_path / "third")) == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "zeros"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, damage: str) -> None:
    pool = write_pool(tmp_path / "pool", 1, 12)
    assert run(tmp_path, ALL, pool, "first", index=str(pool)) == 0
    path = pool / "00000.idx"
    data = path.read_bytes()
    at = random.randrange(data.index(b"\n") + 1, len(data))
    spoilt = bytes([data[at] ^ 1 << random.randrange(8)])
    made = {"cut": data[:at], "flip": data[:at] + spoilt + data[at + 1 :], "empty": b"", "zeros": bytes(len(data))}
    path.write_bytes(made[damage])
    assert run(tmp_path, ALL, pool, "second", index=str(pool)) == 0
    assert path.read_bytes() == data and files(tmp_path / "second") == files(tmp_path / "first")


def test_another_file_of_that_name_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_pool(tmp_path / "pool", 1, 3)
    (pool / "00000.idx").write_text("somebody's own\n")
    assert run(tmp_path, ALL[:3], pool, "first", index=str(pool)) == 1
    assert "00000.idx is no index of a shard, and is not replaced" in capsys.readouterr().err
    assert (pool / "00000.idx").read_text() == "somebody's own\n"
    assert run(tmp_path, ALL[:3], pool, "second") == 0


def test_a_shard_that_changed_before_the_same_command_goes_on_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, options = write_pool(tmp_path / "pool", 2, 6), {"samples_per_shard": 3}
    assert run(tmp_path, ALL, pool, **options) == 0
    (tmp_path / "out" / "00000003.tar").unlink()
    turn(pool / "00001.tar")
    assert run(tmp_path, ALL, pool, **options) == 1
    assert "00001.tar has changed since it was indexed; overwrite=true begins anew" in capsys.readouterr().err
    assert run(tmp_path, ALL, pool, **options, overwrite=True) == 0
    assert read_json(tmp_path / "out" / "meta.json")["counts"]["samples"] == 12


def listed(handle: int) -> Contents:
    return _listed(list(scan(OpenTar(handle), "a")))


def same(one: Contents, other: Contents) -> bool:
    arrays = zip(one[:2], other[:2], strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in arrays) and one[2:] == other[2:]


def test_an_ordinary_tar_is_looked_through_quickly_and_a_spoilt_one_never_differently(tmp_path: Path) -> None:
    rng, path = random.Random(), tmp_path / "a.tar"
    forms = ("PNG", "JPEG", "WEBP")
    write_tar(path, ((f"f/{n:03d}", sample(n, rng.choice(forms))) for n in range(30)))
    data, quickly = path.read_bytes(), 0
    with path.open("rb") as file:
        found = quick(file.fileno())
        assert found is not None and same(found, listed(file.fileno())) and len(found.samples) == 30
    with tarfile.open(path) as tar:
        starts = [info.offset for info in tar]
    for _ in range(300):
        spoilt, start = bytearray(data), rng.choice(starts)
        for _ in range(rng.choice((1, 1, 2))):
            place = start + rng.choice((rng.randrange(512), rng.randrange(1200), 124 + rng.randrange(12), 148, 156))
            spoilt[place] = rng.choice((0, 32, 46, 47, 48, 55, 56, 95, rng.randrange(256)))
        if rng.random() < 0.5:  # with a sum that fits
            block = spoilt[start : start + 512]
            block[148:156] = b" " * 8
            spoilt[start + 148 : start + 156] = b"%06o\0 " % sum(block)
        path.write_bytes(spoilt[: rng.choice((len(spoilt), len(spoilt), rng.randrange(len(spoilt))))])
        with path.open("rb") as file:
            found = quick(file.fileno())
            assert found is None or same(found, listed(file.fileno()))
            quickly += found is not None
    assert 10 < quickly < 290  # else nothing was compared, or nothing was spoilt


@pytest.mark.parametrize("odd", ["directory", "hidden", "long", "twice", "apart", "blank", "none", "note"])
def test_what_is_odd_is_left_to_the_scanner(tmp_path: Path, odd: str) -> None:
    first, second = (list(sample(number).items()) for number in (1, 2))
    members = [(f"a.{extension}", data) for extension, data in first]
    members += [(f"b.{extension}", data) for extension, data in second]
    changes = {
        "hidden": [*members[:1], ("._a.txt", b"mac"), *members[1:]],
        "long": [(f"{'k' * 120}{name}", data) for name, data in members],
        "twice": [*members, ("b.txt", b"again")],
        "apart": [*members[:2], *members[3:], members[2]],
        "blank": [*members[:1], ("a.txt", b" \0"), *members[2:]],
        "none": [("README", b"no extension"), *members],
        "note": [("__n__/a.txt", b"note"), *members],
    }
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        if odd == "directory":
            tar.addfile(directory := tarfile.TarInfo("folder"))
            directory.type = tarfile.DIRTYPE
            directory.name = "folder2"
            tar.addfile(directory)
        for name, data in changes.get(odd, members):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with (tmp_path / "a.tar").open("rb") as file:
        assert quick(file.fileno()) is None
        assert len(listed(file.fileno()).samples) in (0, 1, 2)


@given(
    st.lists(st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 2**32 - 1)), min_size=1, max_size=8),
    st.lists(st.text("abcé.", min_size=1, max_size=20), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_headers_made_together_are_those_made_alone(
    samples: list[tuple[int, int]], extensions: list[str], rng: random.Random
) -> None:
    kinds = [[rng.choice(extensions) for _ in range(rng.randrange(1, 4))] for _ in samples]
    sizes = [rng.randrange(2 ** rng.randrange(1, 29)) for kind in kinds for _ in kind]
    uids = np.array([(uid >> 64, uid & 2**64 - 1) for uid, _ in samples], DTYPE)
    repeats = np.array([repeat for _, repeat in samples], np.uint32)
    left, wanted = iter(sizes), b""
    for uid, repeat, kind in zip(uids, repeats.tolist(), kinds, strict=True):
        for extension in kind:
            wanted += header(f"{uid_text(uid)}-{repeat}.{extension}", next(left))
    assert headers(uids, repeats, kinds, np.array(sizes)).tobytes() == wanted


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 29), min_size=1, max_size=60), st.integers(1, 40))
def test_what_is_copied_straight_is_what_is_copied_by_reading(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], per_shard: int
) -> None:
    tmp_path = tmp_path_factory.mktemp("both")
    pool, subset = write_pool(tmp_path / "pool", 3, 10), [uid_of(number) for number in numbers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("curate.reshard.straight._WINDOW", random.choice((1, 5_000, 20_000)))
        patch.setattr("curate.reshard.straight._ROWS", random.choice((1, 3, 1024)))
        assert run(tmp_path, subset, pool, "straight", samples_per_shard=per_shard, workers=1) == 0
        patch.setattr("curate.reshard.copy.can", lambda *_: False)  # as where nothing can be mapped
        assert run(tmp_path, subset, pool, "read", samples_per_shard=per_shard, workers=1) == 0
    assert files(tmp_path / "straight") == files(tmp_path / "read")
    assert [key[:32] for key, _ in contents(tmp_path / "read")] == [uid_of(number) for number in sorted(numbers)]


def test_an_index_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", ((f"{n}", sample(n)) for n in range(5)))
    with (tmp_path / "a.tar").open("rb") as file:
        index = Index([1, 2], listed(file.fileno())._replace(problems=[("größe\udcff", "why")]))
    write_index(tmp_path / "a.idx", index)
    again = read_index(tmp_path / "a.idx")
    assert again is not None and again.stamp == [1, 2] and again.contents.problems == [("größe\\udcff", "why")]
    assert same(again.contents, index.contents._replace(problems=again.contents.problems))
