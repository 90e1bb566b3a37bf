"""What `data=` and `subset=` may be."""

import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from pools import uid_of, write_pool

from poolbench.errors import UserError
from poolbench.shards.sources import resolve
from poolbench.subset import Subset
from poolbench.uids import DTYPE, write_subset


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    write_pool(tmp_path / "pool", 3, 2)
    write_pool(tmp_path / "pool" / "more" / "deep", 2, 2)
    (tmp_path / "pool" / "readme.txt").write_text("no tar")
    (tmp_path / "pool" / ".hidden.tar").write_text("unfinished download")
    return tmp_path / "pool"


def names(data: object) -> list[str]:
    return [shard.name for shard in resolve(data).shards]


def test_a_folder_is_searched_recursively(pool: Path) -> None:
    assert names(str(pool)) == ["00000.tar", "00001.tar", "00002.tar", "more/deep/00000.tar", "more/deep/00001.tar"]


def test_links_are_followed_and_loops_end(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    for name in ("one", "two"):  # two paths to one folder
        (tmp_path / "links" / name).symlink_to(pool)
    (pool / "more" / "deep" / "up").symlink_to(pool)
    (pool / "more" / "self").symlink_to(".")
    (tmp_path / "links" / "one.tar").symlink_to(pool / "00000.tar")
    own = ["00000.tar", "00001.tar", "00002.tar", "more/deep/00000.tar", "more/deep/00001.tar"]
    assert names(str(pool)) == own
    expected = sorted([*(f"{link}/{name}" for link in ("one", "two") for name in own), "one.tar"])
    assert names(str(tmp_path / "links")) == names(f"file://{tmp_path}/links") == expected
    (tmp_path / "links" / "gone.tar").symlink_to("nowhere")
    assert [shard.name for shard in resolve(str(tmp_path / "links")).shards if not shard.size] == ["gone.tar"]
    (tmp_path / "links" / "three").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"links/three is a link that leads nowhere; mend it"):
        resolve(str(tmp_path / "links"))


def test_hidden_files_and_folders_are_no_data(pool: Path) -> None:
    before = names(str(pool))
    for name in ("._00000.tar", "more/._00001.tar", ".Trash/00000.tar", "more/.snapshot/deep/00000.tar"):
        (pool / name).parent.mkdir(exist_ok=True, parents=True)
        (pool / name).write_bytes(b"x")
    assert names(str(pool)) == before
    memory = fsspec.filesystem("memory")
    for name in ("a.tar", "b/c.tar", "b/._c.tar", ".Trash/a.tar", ".a.tar"):
        memory.pipe(f"/hidden/{name}", b"x")
    assert names("memory://hidden") == ["a.tar", "b/c.tar"]
    assert names("memory://hidden/a.tar") == ["a.tar"]


def test_a_folder_without_a_tar_is_told_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "00000.tar.gz").write_bytes(b"x")
    with pytest.raises(
        UserError, match=r"no \.tar in it, but 1 files like 00000\.tar\.gz; shards are uncompressed tars"
    ):
        resolve(str(tmp_path))


def test_one_tar_and_a_pattern_with_gaps(pool: Path) -> None:
    (pool / "00001.tar").unlink()
    assert names(f"{pool}/00002.tar") == ["00002.tar"]
    data = resolve(f"{pool}/{{00000..00005}}.tar")
    assert [shard.name for shard in data.shards] == ["00000.tar", "00002.tar"]
    assert data.sources[0].missing == 4
    assert names(f"{pool}/{{00000,00002}}.tar") == ["00000.tar", "00002.tar"]


def test_any_url_of_fsspec(pool: Path) -> None:
    assert names(f"file://{pool}") == names(str(pool))
    assert names(f"file://{pool}/00002.tar") == ["00002.tar"]
    data = resolve(f"file://{pool}/{{00000..00004}}.tar")
    assert [shard.name for shard in data.shards] == ["00000.tar", "00001.tar", "00002.tar"] and data.sources[
        0
    ].missing == 2


def test_digest_follows_content_names_and_weights_not_the_place(pool: Path, tmp_path: Path) -> None:
    digest = resolve(str(pool)).digest
    moved = pool.rename(tmp_path / "elsewhere")
    assert resolve(str(moved)).digest == digest
    assert resolve(f"file://{moved}").digest == digest
    assert resolve([str(moved)], [2.0]).digest != digest
    (moved / "00000.tar").rename(moved / "00009.tar")
    assert resolve(str(moved)).digest != digest


@pytest.mark.parametrize(
    ("data", "weights", "message"),
    [
        ("{pool}/nothing", None, "nothing does not exist$"),
        ("{pool}/00000.tar/x", None, r"does not exist: .*/pool/00000.tar is a file, not a folder$"),
        ("{pool}/pipe", None, "pipe is neither a file nor a folder$"),
        ("{pool}/list.txt", None, "list.txt is a file, but no tar; shards are uncompressed tars"),
        ("{pool}/empty", None, "no .tar in it"),
        ("file://{pool}/empty", None, "no .tar in it"),
        ("{pool}/x{{0..3}}.tar", None, "none of its 4 names exists"),
        ("{pool}/{{0..", None, "no brace pattern"),
        ("nosuch://bucket/x", None, "cannot be listed"),
        ([], None, "needs a folder"),
        (["{pool}", ""], None, "needs a folder"),
        (["{pool}"], [1.0, 2.0], "2 numbers for 1 sources"),
        (["{pool}"], [0.0], "must be positive"),
        (["{pool}"], [float("nan")], "must be positive"),
    ],
)
def test_wrong_data_is_told_in_one_line(pool: Path, data: object, weights: list[float] | None, message: str) -> None:
    (pool / "empty").mkdir()
    os.mkfifo(pool / "pipe")
    (pool / "list.txt").write_text("00000.tar")
    filled = data.format(pool=pool) if isinstance(data, str) else [one.format(pool=pool) for one in data]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=message) as caught:
        resolve(filled, weights)
    assert "\n" not in str(caught.value)


def test_subset_counts_repeats(tmp_path: Path) -> None:
    uids = [uid_of(n) for n in range(500)] + [uid_of(7)] * 2
    write_subset(tmp_path / "s.npy", uids)
    subset = Subset(str(tmp_path / "s.npy"))
    subset.check_sorted()
    assert subset.size == 502
    assert [subset.count(uid_of(n)) for n in (0, 7, 499, 500)] == [1, 3, 1, 0]
    assert subset.count(uid_of(7).upper()) == 3
    assert subset.count("0" * 31 + "1") == 0 and subset.count("f" * 32) == 0


def test_wrong_subset_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "s.npy"
    for array, message in (
        (np.zeros(3), "not a list of u8,u8 uids"),
        (np.zeros((2, 2), DTYPE), "not a list of u8,u8 uids"),
        (np.zeros(0, DTYPE), "is empty"),
    ):
        np.save(path, array)
        with pytest.raises(UserError, match=message):
            Subset(str(path))
    for text, message in (("no array", "is text, which begins 'no array'"), ("", "is an empty file")):
        path.write_text(text)
        with pytest.raises(UserError, match=rf"subset .*s\.npy {message}"):
            Subset(str(path))
    np.save(path, np.array([(1, 5), (1, 4), (2, 0)], DTYPE))
    with pytest.raises(UserError, match="not sorted at row 1"):
        Subset(str(path)).check_sorted()
