"""Selecting from metadata in an object store: a real S3 server on this machine."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from metadata import write_metadata
from pools import uid_of
from selecting import SMALL, curate, selected, write_inputs

from poolbench.errors import UserError

from curate import columns
from curate.pool.files import BadFile, list_pool, read
from curate.scorers.neg_clip_loss import NegClipLoss


@pytest.mark.slow
def test_a_pool_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    store = fsspec.filesystem("s3")
    for path in write_metadata(tmp_path / "pool", 3, 100).iterdir():
        store.put(str(path), f"{bucket}/metadata/{path.name}")
    store.put(str(tmp_path / "pool" / "0000.parquet"), f"{bucket}/metadata/below/0000.parquet")  # is none of its files
    write_inputs(tmp_path)
    options = [f"filter.{name}={tmp_path}/{name}.npy" for name in ("centroids", "targets")]
    words = ("filter=image_based", SMALL, *options)
    far = selected(tmp_path / "far.npy", *words, f"pool={bucket}/metadata", "workers=2")
    np.testing.assert_array_equal(far, selected(tmp_path / "near.npy", *words, f"pool={tmp_path}/pool"))
    assert 0 < len(far) < 300


def stored(bucket: str, below: str) -> dict[str, bytes]:
    """The files below a folder of the bucket, as they are now."""
    store = fsspec.filesystem("s3")
    store.invalidate_cache()
    root = f"{bucket}/{below}".removeprefix("s3://")
    return {path.removeprefix(f"{root}/"): store.cat_file(path) for path in store.find(root)}


def upload(folder: Path, place: str) -> None:
    store = fsspec.filesystem("s3")
    for path in folder.iterdir():
        if path.is_file():
            store.put_file(str(path), f"{place}/{path.name}")


@pytest.fixture
def far(bucket: str, tmp_path: Path) -> str:
    """The URL of a pool in the bucket, of which tmp_path/pool is a copy."""
    place = f"{bucket}/{tmp_path.name}"
    upload(write_metadata(tmp_path / "pool", 3, 60), place)
    return place


LOSS = ("filter=neg_clip_loss", "filter.fraction=0.3", "filter.batch=20")


@pytest.mark.slow
def test_columns_lie_in_the_bucket_beside_the_pool(
    bucket: str, far: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made there by workers, read from there by any name, also by a filter beside the one that makes them, found again,
    listed; the same rows are kept as of a local pool."""
    loss, top = (
        "{filter: neg_clip_loss, fraction: 0.5, batch: 20}",
        "{filter: top, column: neg_clip_loss, fraction: 0.2}",
    )
    both = f"filter.of=[{loss}, {top}]"
    for name, place in (("near", f"{tmp_path}/pool"), ("far", far)):
        selected(tmp_path / f"{name}.npy", "filter=intersection", both, f"pool={place}", "workers=2")
    assert (tmp_path / "near.npy").read_bytes() == (tmp_path / "far.npy").read_bytes()
    (folder,) = (path.name for path in (tmp_path / "pool" / "columns").iterdir())
    made = stored(far, "columns")
    assert made.keys() == {f"{folder}/000{number}.parquet" for number in range(3)}

    monkeypatch.setattr(NegClipLoss, "score", None)  # nothing is made again
    for name, place in (("near", f"{tmp_path}/pool"), ("far", far)):
        selected(tmp_path / f"{name}2.npy", *LOSS, f"pool={place}", "workers=1")
    assert (tmp_path / "near2.npy").read_bytes() == (tmp_path / "far2.npy").read_bytes()
    assert curate(*LOSS, f"pool={far}", f"out={tmp_path}/far2.npy") == 0
    assert "is complete" in capsys.readouterr().err
    assert columns.main([f"pool={far}", "workers=1"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith(f"{folder}/neg_clip_loss")]
    assert "3 of 3" in line and "180" in line
    assert stored(far, "columns") == made


@pytest.mark.slow
def test_columns_of_a_file_that_has_changed_are_made_anew(far: str, tmp_path: Path) -> None:
    selected(tmp_path / "a.npy", *LOSS, f"pool={far}", "workers=1")
    before = stored(far, "columns")
    (folder,) = {name.split("/")[0] for name in before}
    upload(write_metadata(tmp_path / "other", 2, 60), f"{far}/x")
    store = fsspec.filesystem("s3")
    for kind in ("parquet", "npz"):  # the second file of the pool gets other rows
        store.put_file(str(tmp_path / "other" / f"0000.{kind}"), f"{far}/0001.{kind}")
    store.invalidate_cache()
    with pytest.raises(BadFile, match=r"0001\.parquet was made of another .*0001\.parquet") as caught:
        list(read(list_pool(far)[1], [f"{folder}/neg_clip_loss"]))
    assert "\n" not in str(caught.value)
    selected(tmp_path / "b.npy", *LOSS, f"pool={far}", "workers=1")
    after = stored(far, "columns")
    assert [name for name in after if after[name] != before.get(name)] == [f"{folder}/0001.parquet"]


@pytest.mark.slow
def test_columns_are_taken_into_the_bucket_or_into_a_local_folder(
    far: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))
    rows = [f"{uid_of(number)},{number}" for number in range(0, 180, 2)]
    (tmp_path / "judge.csv").write_text("\n".join(["uid,score", *rows]) + "\n")
    words = [f"pool={far}", f"import={tmp_path}/judge.csv", "workers=1"]
    assert columns.main([*words, "name=judge"]) == 0
    assert stored(far, "columns").keys() == {f"judge/000{number}.parquet" for number in range(3)}
    assert not list((tmp_path / "cache" / "imports").iterdir())

    def full(*_: object) -> None:
        raise OSError("Access Denied")

    monkeypatch.setattr("poolbench.remote.put", full)
    with pytest.raises(UserError, match=r"columns/other cannot be written: Access Denied; .*columns="):
        columns.main([*words, "name=other"])
    assert columns.main([*words, "name=other", f"columns={tmp_path}/local"]) == 0
    assert [path.name for path in (tmp_path / "local").iterdir()] == ["other"]
    capsys.readouterr()
    top = ("filter=top", "filter.fraction=0.1", f"pool={far}", f"columns={tmp_path}/local", "workers=1")
    found = [selected(tmp_path / f"{name}.npy", *top, f"filter.column={name}/score") for name in ("judge", "other")]
    np.testing.assert_array_equal(*found)
    assert curate(*top, "filter.column=score", f"out={tmp_path}/none.npy") == 2
    assert "made several times; name other/score or judge/score" in capsys.readouterr().err
