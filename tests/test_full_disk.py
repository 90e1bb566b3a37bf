"""A full disk: one line that names the file and says what to do, whatever was being written."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from poolbench import HOME
from poolbench.errors import UserError, no_room, status_of, unwritable
from poolbench.files import append_line, atomic, claimed, write_json, writing
from poolbench.processes.world import World, on_first

from curate.pool.work import work_folder


@contextmanager
def limited(room: int) -> Iterator[None]:
    """The limit on the size of a file stands for the disk's: the kernel refuses the write in the same way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def as_array(path: Path) -> None:
    with atomic(path, "wb") as file:
        np.save(file, np.zeros(10_000))


def as_parquet(path: Path) -> None:
    with atomic(path, "wb") as file:
        pq.write_table(pa.table({"a": np.random.default_rng(0).random(10_000)}), file)


@pytest.mark.parametrize(
    "write",
    [
        as_array,
        as_parquet,
        partial(write_json, value=["x" * 10_000]),
        partial(append_line, value=["x" * 10_000]),
    ],
    ids=["array", "parquet", "json", "line"],
)
def test_whatever_is_written(tmp_path: Path, write: Callable[[Path], None], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "below" / "file"
    path.parent.mkdir()
    with limited(1000):
        assert status_of(lambda: write(path)) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {path} cannot be written: ") and told.count("\n") == 1
    assert told.endswith("; make room and start the same command again\n")
    assert write in (as_array, as_parquet) or "File too large" in told
    assert [one.name for one in path.parent.iterdir()] in ([], ["file"]), "no part of a file stays under another name"
    write(path)


def test_a_folder_that_cannot_be_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *_: Any) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError) as caught, claimed(tmp_path):
        pass
    assert no_room(caught.value) and caught.value.filename == str(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written: No space left on device"):
        on_first(World(0, 1, 1, None), partial(next, iter_claiming(tmp_path)))  # type: ignore[arg-type]


def test_a_stream_that_does_not_know_its_file_is_told_by_its_work_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> int:
        with work_folder(tmp_path / "out", None):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    assert status_of(fail) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/out.work cannot be written: No space left on device")


def iter_claiming(folder: Path) -> Iterator[None]:
    with claimed(folder):
        yield


@pytest.mark.parametrize(("number", "way"), [(errno.EDQUOT, "make room"), (errno.EROFS, "choose another folder")])
def test_other_ways_to_be_full(number: int, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        with writing("here"):
            raise OSError(number, os.strerror(number))

    assert status_of(fail) == 2
    assert capsys.readouterr().err.startswith(f"error: here cannot be written: {os.strerror(number)}; {way}")


def test_what_is_no_full_disk_keeps_its_traceback(tmp_path: Path) -> None:
    def fail() -> int:
        with writing(tmp_path):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output error") as caught:
        status_of(fail)
    assert not unwritable(caught.value) and caught.value.filename is None


@pytest.mark.parametrize("way", ["mkdir", "claimed", "below", "written", "moved"])
def test_a_file_in_place_of_a_folder_and_the_reverse(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file := tmp_path / "file").write_text("kept")
    (folder := tmp_path / "folder").mkdir()

    def claim() -> None:
        with claimed(file):
            pass

    do: dict[str, Callable[[], Any]] = {
        "mkdir": lambda: file.mkdir(parents=True, exist_ok=True),
        "claimed": claim,
        "below": lambda: write_json(file / "a" / "b.json", 1),
        "written": lambda: folder.write_text("x"),
        "moved": lambda: write_json(folder, 1),
    }
    assert status_of(lambda: do[way]() and 0) == 2
    wrong = f"{folder} is a folder, not a file" if way in ("written", "moved") else f"{file} is a file, not a folder"
    assert capsys.readouterr().err == f"error: {wrong}; choose another\n"
    assert file.read_text() == "kept" and not list(folder.iterdir()) and len(list(tmp_path.iterdir())) == 2


def test_output_that_goes_nowhere() -> None:
    words = [sys.executable, "-m", "tasks", "list"]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        environment = {**os.environ, "PYTHONPATH": str(HOME)}
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr == (
        "error: a file cannot be written: No space left on device; make room and start the same command again\n"
    )
