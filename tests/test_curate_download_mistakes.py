"""Wrong input for a download: options, folders, other metadata and damaged shards, each told in a line."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from downloading import QUICK, download, good_pool, main, report_of, write_metadata
from forked import ROOT
from web_server import Web

from poolbench.errors import UserError, status_of

from curate.download import processes
from curate.download.images import Settings, Shard, make
from curate.download.run import _rows_of


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["scale=smal"], "did you mean 'small'?"),
        (["scale=small", "thread=3"], "did you mean 'threads'?"),
        (["scale=small", "threads=0"], "threads=0: at least 1"),
        (["scale=small", "timeout=0"], "timeout=0.0: more than 0 seconds"),
        (["scale=small", "shards"], "unknown word 'shards'"),
        (["scale=small", "metadata=false"], "holds no parquet file; metadata=true brings the pool's"),
        (["scale=small", "metadata=false", "images=false"], "nothing to do"),
        (["scale=small", "metadata=false", "npz=true"], "npz=true needs metadata=true"),
    ],
)
def test_wrong_options(options: list[str], said: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert status_of(lambda: main([f"out={tmp_path / 'out'}", *options])) == 2
    errors = capfd.readouterr().err
    assert said in errors and errors.count("\n") == 1


def test_wrong_folders(tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(out: Path | str, *options: str) -> str:
        assert status_of(lambda: main(["scale=small", f"out={out}", *QUICK, *options])) == 2
        errors = capfd.readouterr().err
        assert errors.count("\n") == 1, errors
        return errors

    (tmp_path / "file").touch()
    assert "is not a folder" in refused(tmp_path / "file")
    assert "out=s3://bucket/pool is not written: only local files and folders are" in refused("s3://bucket/pool")
    out = tmp_path / "out"
    path = write_metadata(out / "metadata/a.parquet", hosts, [hosts.url("good")])
    pq.write_table(pq.read_table(path).drop_columns(["face_bboxes"]), path)
    assert f"{path} has no column face_bboxes; blur_faces=false downloads without" in refused(out)
    assert download(out, "blur_faces=false") == 0
    capfd.readouterr()
    assert download(out, "blur_faces=false", "shard_size=50") == 2
    assert "shards that were made with shard_size=100" in capfd.readouterr().err
    pq.write_table(pq.read_table(path).drop_columns(["url"]), path)
    assert f"{path} has no column url" in refused(out, "blur_faces=false")
    path.write_bytes(b"PAR1 and no more")
    assert f"{path} is no parquet file" in refused(out, "blur_faces=false")


def test_other_metadata_are_not_mixed_in(tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str]) -> None:
    good_pool(tmp_path, hosts, 3)
    assert download(tmp_path) == 0
    good_pool(tmp_path, hosts, 4)
    assert download(tmp_path) == 2
    assert "made with other files or rows" in capfd.readouterr().err


def test_a_part_opens_all_metadata_to_plan_and_else_those_of_its_own_shards(
    tmp_path: Path, hosts: Web, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, opened = tmp_path / "metadata", list[str]()
    for number, name in enumerate("abc"):
        write_metadata(folder / f"{name}.parquet", hosts, [hosts.url("good", 2 * number + row) for row in range(2)])

    def rows_of(paths: Sequence[Path], faces: bool) -> Iterator[tuple[Path, int]]:
        opened.extend(path.stem for path in paths)
        return _rows_of(paths, faces)

    monkeypatch.setattr("curate.download.run._rows_of", rows_of)
    for part, wanted in (("2/3", "abc" + "b"), ("1/3", "a"), ("3/3", "c"), ("1/2", "ac"), (None, "abc")):
        opened.clear()
        assert download(tmp_path, "shard_size=2", *([f"part={part}"] if part else [])) == 0
        assert "".join(opened) == wanted, part
    write_metadata(folder / "c.parquet", hosts, [hosts.url("good", 4)])
    assert download(tmp_path, "shard_size=2", "part=2/3") == 0
    capfd.readouterr()
    assert download(tmp_path, "shard_size=2", "part=3/3") == 2
    said = f"{folder}/c.parquet has 1 rows, the shards were planned with 2; go on with the file as it was, "
    assert capfd.readouterr().err == f"error: {said}or choose another out=\n"
    assert download(tmp_path, "shard_size=2", "merge=3") == 2
    assert "made with other files or rows" in capfd.readouterr().err


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cv2'] = None; import runpy; runpy.run_module('curate.download', run_name='__main__')"
    )
    words = ["scale=small", f"out={tmp_path}"]
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: cv2 is missing; pip install 'poolbench[download]'\n")


def test_a_damaged_list_is_named(tmp_path: Path, hosts: Web) -> None:
    path = write_metadata(tmp_path / "metadata/a.parquet", hosts, [hosts.url("silent", 0), hosts.url("good", 1)])
    assert download(tmp_path, "timeout=6") == 0
    listed = tmp_path / "shards/00000000.parquet"
    listed.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"00000000\.parquet cannot be read"):
        make(Shard(0, path, 0, 2), tmp_path / "shards", Settings(shard_size=100))


def test_a_damaged_tar_is_not_added_to(tmp_path: Path, hosts: Web) -> None:
    path = write_metadata(tmp_path / "metadata/a.parquet", hosts, [hosts.url("silent", 0), hosts.url("good", 1)])
    assert download(tmp_path, "timeout=6") == 0
    tar = tmp_path / "shards/00000000.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"00000000\.tar: cut off within '.*jpg'; delete the shard's files"):
        make(Shard(0, path, 0, 2), tmp_path / "shards", Settings(shard_size=100))
    assert tar.stat().st_size == 1000


def test_the_death_of_the_process_that_starts_the_others_is_told(
    tmp_path: Path, hosts: Web, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def start(process: object) -> None:
        raise EOFError("unexpected EOF")  # as multiprocessing says it

    good_pool(tmp_path, hosts, 3)
    with monkeypatch.context() as patch:
        patch.setattr(processes._CONTEXT.Process, "start", start)
        assert download(tmp_path) == 2
    said = capfd.readouterr().err
    assert said.startswith("error: the process that starts the others was killed, ") and said.count("\n") == 1
    assert download(tmp_path) == 0 and report_of(tmp_path)["arrived"] == 3
