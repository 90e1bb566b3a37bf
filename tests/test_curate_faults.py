"""Selecting goes on where it was: behind a mended file, a server that fails, a worker that dies and a full disk."""

import resource
from pathlib import Path

import numpy as np
import pytest
from faulty_server import Faulty, serving
from metadata import columns_of, rows_or_death, write_file, write_metadata
from pools import uid_of
from selecting import SMALL, curate, selected

from poolbench.errors import UserError
from poolbench.uids import write_subset

from curate.pool.files import list_pool
from curate.pool.passes import Passes


def test_a_mended_file_is_all_that_is_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 4, 20)
    good = (pool / "0001.parquet").read_bytes()
    (pool / "0001.parquet").write_bytes(good[:-100])
    words = ("filter=basic", SMALL, f"pool={pool}", f"out={tmp_path}/out.npy")
    assert curate(*words) == 1
    assert curate(*words) == 2 and "overwrite=true" in capsys.readouterr().err
    results = list((tmp_path / "out.npy.work").glob("judge-*/*.uids"))
    before = {path: path.stat().st_mtime_ns for path in results}
    (pool / "0001.parquet").write_bytes(good)
    assert curate(*words, "overwrite=true", f"work={tmp_path}/out.npy.work") == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.npy.work").glob("judge-*/*.uids")}
    assert len(before) == 3 and len(after) == 4 and before.items() <= after.items()
    assert "3 of 4 files" in capsys.readouterr().err
    selected(tmp_path / "anew.npy", *words[:-1])
    assert (tmp_path / "anew.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()
    assert curate(*words) == 0 and "is complete" in capsys.readouterr().err
    write_file(pool / "0002.parquet", columns_of(20, 900))  # other rows in a file that was good before
    assert curate(*words, "overwrite=true", f"work={tmp_path}/out.npy.work") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), selected(tmp_path / "other.npy", *words[:-1]))
    assert (tmp_path / "anew.npy").read_bytes() != (tmp_path / "out.npy").read_bytes()


def test_a_pool_behind_a_server_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolbench.remote._PAUSES", (0.01, 0.02))
    write_metadata(tmp_path / "pool", 3, 40)
    with serving(Faulty(folder=tmp_path, busy_every=3)) as server:
        found = selected(tmp_path / "far.npy", "filter=clip_score", "filter.fraction=0.3", f"pool={server.url}/pool")
        assert server.failed > 1
    near = selected(tmp_path / "near.npy", "filter=clip_score", "filter.fraction=0.3", f"pool={tmp_path}/pool")
    np.testing.assert_array_equal(found, near)


def test_a_worker_that_dies_is_told_and_the_next_run_continues(tmp_path: Path) -> None:
    files = list_pool(str(write_metadata(tmp_path / "pool", 5, 20)))
    marker = str(tmp_path / "marker")
    with pytest.raises(UserError, match="a worker died"), Passes(files, tmp_path / "work", 2) as passes:
        list(passes.map(rows_or_death, marker))
    found = len(list((tmp_path / "work").glob("*/*.json")))
    with Passes(files, tmp_path / "work", 2) as passes:
        assert [(file.name, rows) for file, rows in passes.map(rows_or_death, marker)] == [
            (f"{n:04d}", 20) for n in range(5)
        ]
        assert passes.done == 5 - found > 0


def test_a_full_disk_is_one_line_and_loses_nothing(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit on the size of a file stands for the disk's: the kernel refuses the write in the same way."""
    out, some = tmp_path / "out.npy", tmp_path / "some.npy"
    write_subset(some, [uid_of(5)])
    work = out.with_name("out.npy.work")
    for kept, room, named, found in (
        ("no_filter", 3000, work, 0),  # for no file's result
        ("no_filter", 10_000, out, 4),  # for these, but not for the subset
        (str(some), 700, out, 4),  # for the subset, but not for its summary
    ):
        words = (f"filter={kept}", f"pool={pool}")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            assert curate(*words, f"out={out}") == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said = capsys.readouterr().err
        assert said.startswith(f"error: {named} cannot be written: File too large; make room") and said.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} == {"some.npy", work.name}
        assert len(list(work.glob("judge-*/*.uids"))) == found
        if found:
            assert len(selected(out, *words)) in (1, 1000)
            assert "4 of 4 files are done" in capsys.readouterr().err
            out.unlink()
            out.with_name("out.npy.json").unlink()
