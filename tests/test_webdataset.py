"""Shards between us and webdataset: it reads ours, we read its, sample for sample, whichever version it is of.

Another version, as `pip install --no-deps --target <folder> webdataset==0.2.86` makes one, is tested where
POOLBENCH_OLD_WEBDATASET names its folder.
"""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
import webdataset  # type: ignore[import-untyped]
from PIL import Image
from pools import by_webdataset, picture, sample, uid_of, write_pool

from poolbench.shards.members import read_members
from poolbench.shards.samples import Problem, Sample, read_shard
from poolbench.shards.sources import resolve
from poolbench.shards.writer import SampleWriter, write_shard
from poolbench.uids import write_subset

from curate.reshard.options import ReshardOptions
from curate.reshard.run import reshard
from tasks.examples import Example
from tasks.readers import read_examples

Samples = list[tuple[str, dict[str, bytes]]]
OLD = "POOLBENCH_OLD_WEBDATASET"
NUMBERS = range(7)


def by_us(paths: Iterable[Path]) -> Samples:
    """The same as we read them."""
    found = [one for path in paths for one in read_shard(str(path))]
    assert all(isinstance(one, Sample) for one in found), found
    return [tuple(one) for one in found]  # type: ignore[misc]


def tars(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_webdataset_reads_what_we_write(tmp_path: Path, form: str) -> None:
    made = [(f"{n:08d}", sample(n, form)) for n in NUMBERS]
    made += [("folder/größe " + "x" * 90, sample(8)), ("v1.0/a", {**sample(9), "cls": b"3", "seg.png": picture(9)})]
    write_shard(tmp_path / "a.tar", made)
    assert by_webdataset(tars(tmp_path)) == by_us(tars(tmp_path)) == made


def test_webdataset_reads_what_the_resharder_writes(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 2, 10)
    write_subset(tmp_path / "some.npy", [uid_of(n) for n in (*range(0, 20, 3), 6)])
    assert reshard(ReshardOptions(str(tmp_path / "some.npy"), str(pool), str(tmp_path / "out"), 3, workers=1)) == 0
    read = by_webdataset(tars(tmp_path / "out"))
    assert read == by_us(tars(tmp_path / "out"))
    assert [key for key, _ in read if key.endswith("-1")] == [f"{uid_of(6)}-1"]
    assert [members for _, members in read if members == sample(6, "PNG")] == [sample(6, "PNG")] * 2


def test_our_bytes_depend_on_names_and_contents_alone(tmp_path: Path) -> None:
    """As plain tarfile writes them, without time, owner or umask."""
    made = [(f"{n:08d}", sample(n)) for n in NUMBERS]
    write_shard(tmp_path / "a.tar", made)
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for key, members in made:
            for extension, data in members.items():  # in their order, which is not that of the alphabet
                info = tarfile.TarInfo(f"{key}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    assert list(made[0][1]) != sorted(made[0][1])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    write_shard(tmp_path / "odd.tar", [("a", {"txt": b"one", "_x": b"two", "__url__": b"three"})])
    with (tmp_path / "odd.tar").open("rb") as file:
        assert [name for name, _ in read_members(file)] == ["a.txt", "a._x", "a.__url__"]  # none is left out


def test_a_writer_that_fails_leaves_no_end_mark_of_a_whole_shard(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError),
        (tmp_path / "a.tar").open("wb") as file,
        SampleWriter(file) as tar,
    ):
        tar.write("a", sample(1))
        raise RuntimeError("the disk is full")
    problem, _ = read_shard(str(tmp_path / "a.tar"))
    assert isinstance(problem, Problem) and "cut off" in problem.reason


def encoded(number: int) -> dict[str, object]:
    """A sample as people hand it to webdataset, which encodes it: not one member is bytes yet."""
    pixels = np.asarray(Image.open(io.BytesIO(picture(number))))
    told = {"uid": uid_of(number), "nested": {"list": [1, {"größe": None}]}}
    return {"png": pixels, "txt": f"größe {number}", "json": told, "cls": number % 3, "npy": pixels[:2]}


def kept(members: Mapping[str, bytes]) -> dict[str, bytes]:
    return dict(sorted(members.items()))


def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    pattern = str(tmp_path / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=3, verbose=0) as writer:
        for number in NUMBERS:
            writer.write({"__key__": f"folder.1/{number:04d}", "__note__": "not kept", **encoded(number)})
    assert len(tars(tmp_path)) == 3
    read = by_us(tars(tmp_path))
    assert read == by_webdataset(tars(tmp_path))
    assert [key for key, _ in read] == [f"folder.1/{number:04d}" for number in NUMBERS]
    for number, (key, members) in enumerate(read):
        one = Sample(key, members)
        assert (one.record()["uid"], one.caption()) == (uid_of(number), f"größe {number}")
        assert np.array_equal(Image.open(io.BytesIO(one.picture())), encoded(number)["png"])  # type: ignore[arg-type]
    assert [shard.name for shard in resolve(f"{tmp_path}/{{00000..00009}}.tar").shards] == [
        path.name for path in tars(tmp_path)
    ]
    found = [one for path in tars(tmp_path) for one in read_examples(path, frozenset({"label"}), 3)]
    assert [one.label for one in found if isinstance(one, Example)] == [number % 3 for number in NUMBERS]


def test_notes_of_webdataset_are_no_data_or_do_no_harm(tmp_path: Path) -> None:
    """Of a sample that was read and written again with all its notes, and of the shard."""
    with (tmp_path / "a.tar").open("wb") as file:
        writer = webdataset.TarWriter(file, keep_meta=True)
        writer.write({"__key__": "__meta__/shard", "json": {"samples": 2}})
        for number in range(2):
            notes = {"__url__": "s3://somewhere/x.tar", "__local_path__": "/x", "__bad__": "yes"}
            writer.write({"__key__": f"{number}", **encoded(number), **notes})
        writer.close()
    read = by_us([tmp_path / "a.tar"])
    assert [key for key, _ in read] == ["0", "1"]
    for number, (key, members) in enumerate(read):
        assert Sample(key, members).caption() == f"größe {number}"
        assert members["__bad__"] == b"yes"


def test_keys_and_names_of_all_kinds_are_read_alike(tmp_path: Path) -> None:
    names = ["A.JPG", "A.Txt", "b/c.tar.gz", "b/c.JSON", "b.d/e.x.y", "b.d/e.x.z", "_f.jpg", "g h.jpg", "ü.jpg"]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(name.encode())
            tar.addfile(info, io.BytesIO(name.encode()))
    read = by_us([tmp_path / "a.tar"])
    assert read == by_webdataset([tmp_path / "a.tar"])
    assert sum(len(members) for _, members in read) == len(names)


@pytest.mark.parametrize(("compress", "told"), [(True, "a gzip file: gunzip it"), ("name", "a gzip file: gunzip it")])
def test_compressed_shards_are_refused_by_name(tmp_path: Path, compress: object, told: str) -> None:
    """webdataset unpacks them as it goes; here a shard is read in ranges, and its bytes are copied."""
    path = tmp_path / "a.tar.gz"
    if compress == "name":
        with webdataset.TarWriter(str(path)) as writer:
            writer.write({"__key__": "a", **encoded(1)})
    else:
        with path.open("wb") as file, webdataset.TarWriter(file, compress=compress) as writer:
            writer.write({"__key__": "a", **encoded(1)})
    (problem,) = read_shard(str(path))
    assert isinstance(problem, Problem) and problem.reason == f"no tar but {told}"


def missing() -> list[str]:
    return [] if Path(os.environ.get(OLD) or "none", "webdataset").is_dir() else [OLD]


@pytest.mark.slow
@pytest.mark.system("another version of webdataset", missing)
@pytest.mark.skipif(bool(os.environ.get(f"{OLD}_RUNS")), reason="this is that run")
def test_another_version_of_webdataset() -> None:
    """This file and that on shards once more, with the older version that is declared to do."""
    folder = os.environ[OLD]
    paths = os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, f"{OLD}_RUNS": "1"}
    code = "import webdataset; print(webdataset.__file__)"
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.startswith(folder)
    here = Path(__file__).parent
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, str(here / "test_shards.py")]
    done = subprocess.run(command, env=environment, cwd=here.parent, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
