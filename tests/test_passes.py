"""Passes over a pool's files: in order, in processes, kept or handed on, and what one file can do to the others."""

import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metadata import rows_or_death, write_metadata
from threadpoolctl import threadpool_info, threadpool_limits

from poolbench.errors import UserError

from curate.pool.files import BadFile, File, list_pool
from curate.pool.parts import WHOLE, Part
from curate.pool.passes import Passes, light
from curate.pool.work import work_folder


@pytest.fixture
def files(tmp_path: Path) -> list[File]:
    """Six of 20 rows."""
    return list_pool(str(write_metadata(tmp_path / "pool", 6, 20, npz=False)))


def name_of(file: File, number: int) -> dict[str, Any]:
    """Something that JSON can hold; the third file is bad."""
    if file.name == "0002":
        raise BadFile("it is the third")
    return {"name": file.name, "number": number, "process": os.getpid()}


def squares(file: File, power: "Power") -> np.ndarray:
    return np.arange(file.number + 1) ** power.power


class Power:
    """An argument that JSON does not hold."""

    def __init__(self, power: int) -> None:
        self.power = power

    def identity(self) -> Any:
        return ["power", self.power]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_files(files: list[File], tmp_path: Path, kept: bool, workers: int) -> None:
    with Passes(files, tmp_path / "work" if kept else None, workers) as passes:
        found = dict(passes.map(name_of, 7))
        assert [file.name for file in found] == [f"{n:04d}" for n in range(6) if n != 2]
        assert [one["name"] for one in found.values()] == [file.name for file in found]
        assert {one["number"] for one in found.values()} == {7}
        assert passes.bad == {"0002": f"{files[2].path}: it is the third"}
        assert (os.getpid() in {one["process"] for one in found.values()}) == (workers == 1)
        powers = [array.tolist() for _, array in passes.map(squares, Power(2))]
        assert powers == [[n**2 for n in range(file.number + 1)] for file in files if file.name != "0002"]
    assert (tmp_path / "work").exists() == kept


_BOTH = threading.Barrier(2)


@light
def process_and_thread(file: File, *_: object) -> tuple[int, int]:
    if multiprocessing.parent_process() is None:
        _BOTH.wait(240)  # so that one thread cannot take all files
    return os.getpid(), threading.get_ident()


class Heavy:
    """An argument that asks for processes."""

    light = False

    def identity(self) -> Any:
        return "heavy"


class Slow:
    """An argument that is worth processes where a pool is not small."""

    slow = True

    def identity(self) -> Any:
        return "slow"


def test_light_functions_are_called_in_threads(
    files: list[File], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless they are given something heavy, the pool is in a store, or it is large and there are cores for it, or
    something slow and a worker for each core."""
    elsewhere = [file._replace(path=f"s3://bucket/{file.name}.parquet") for file in files]
    large = [file._replace(size=10**9) for file in files]
    medium = [file._replace(size=5 * 10**7) for file in files]
    for pool, workers, of, arguments, in_threads in (
        (files, 2, 2, (), True),
        (files, 2, 2, (Heavy(),), False),
        (elsewhere, 2, 2, (), False),
        (large, 2, 2, (), True),
        (large, 5, 2, (), False),
        (files, 2, 2, (Slow(),), True),
        (medium, 2, 2, (Slow(),), False),
        (medium, 2, 3, (Slow(),), True),
    ):
        monkeypatch.setattr("curate.pool.passes.cores", lambda cores=of: cores)
        with Passes(pool, tmp_path / "work", workers) as passes:
            found = [tuple(one) for _, one in passes.map(process_and_thread, *arguments)]
        processes, threads_ = {pid for pid, _ in found}, {thread for _, thread in found}
        assert len(found) == 6 and (processes == {os.getpid()}) == in_threads
        assert not in_threads or (len(threads_) == workers and threading.get_ident() not in threads_)


@light
def blas_threads(file: File) -> list[int]:
    return [one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"]


@pytest.mark.parametrize("workers", [1, 2])
def test_light_functions_multiply_in_their_own_thread(files: list[File], workers: int) -> None:
    """All others, where they are called in this process, on as many as they were given."""
    with threadpool_limits(3, "blas"):
        before = blas_threads(files[0])
        with Passes(files, None, workers) as passes:
            counts = [count for _, found in passes.map(blas_threads) for count in found]
            assert set(counts) == {1} and len(counts) == len(files) * len(before) > 0
            if workers == 1:
                assert [found for _, found in passes.map(squares, Power(1))] and blas_threads(files[0]) == before
            for _ in passes.map(blas_threads):
                pass
        assert blas_threads(files[0]) == before and set(before) == {3}


def test_what_is_light_is_kept_for_other_parts_and_their_merge(files: list[File], tmp_path: Path) -> None:
    for number, part in enumerate((WHOLE, Part(1, 1), Part(1, 2))):
        with Passes(files, tmp_path, 2, part) as passes:
            assert len(list(passes.map(process_and_thread, number))) == 6
        assert len(list(tmp_path.rglob("*.json"))) == 6 * number
    with Passes(files, tmp_path, 2, merge=2) as passes:
        assert len(list(passes.map(process_and_thread, 2))) == 6 and not passes.done
        with pytest.raises(UserError, match=r"6 of 6 files are missing"):
            list(passes.map(process_and_thread, 0))


def noted(file: File, folder: str) -> int:
    Path(folder, file.name).touch()
    return file.number


@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_not_kept_does_not_pile_up(tmp_path: Path, workers: int) -> None:
    """Results that nobody takes hold up those behind them."""
    files = [File(str(number), "", 0, "", number=number) for number in range(40)]
    with Passes(files, None, workers) as passes:
        found = passes.map(noted, str(tmp_path))
        taken = [next(found)[1] for _ in range(20)]
        time.sleep(0.2)
        assert 20 <= len(list(tmp_path.iterdir())) <= 20 + 2 * workers
        taken += [number for _, number in found]
    assert taken == list(range(40))


def test_arguments_tell_results_apart(files: list[File], tmp_path: Path) -> None:
    for number, (power, made) in enumerate(((2, 6), (3, 6), (2, 0))):
        with Passes(files, tmp_path, 1) as passes:
            sums = [int(array.sum()) for _, array in passes.map(squares, Power(power))]
            assert sums == [sum(n**power for n in range(k + 1)) for k in range(6)] and passes.done == made, number


@pytest.mark.parametrize("left", ["nothing", "a part", "zeros"])
def test_what_a_crash_left_of_a_mark_is_none(left: str, files: list[File], tmp_path: Path) -> None:
    """The file is there, and what was written into it is not, or not all of it."""
    for done in (6, 1, 0):
        with Passes(files, tmp_path, 1, Part(1, 1)) as passes:
            found = {file.name: array.tolist() for file, array in passes.map(squares, Power(3))}
            assert found == {file.name: [n**3 for n in range(file.number + 1)] for file in files}
            assert passes.done == done
        (mark,) = tmp_path.glob("squares-*/0004.*.json")
        if done == 6:
            whole = mark.read_bytes()
            mark.write_bytes({"nothing": b"", "a part": whole[:-2], "zeros": bytes(len(whole))}[left])


def test_a_whole_pool_is_asked_for(files: list[File], tmp_path: Path) -> None:
    """The first bad file ends the pass; those that were done stay."""
    with (
        pytest.raises(UserError, match=r"0002.parquet: it is the third"),
        Passes(files, tmp_path, 1, whole=True) as one,
    ):
        list(one.map(name_of, 1))
    assert len(list(tmp_path.glob("name_of-*/*.json"))) == 2


def too_large(file: File, said: str) -> None:
    """Fails as torch does where the memory of a GPU is full."""
    import torch

    raise (torch.OutOfMemoryError if "Tried" in said else RuntimeError)(said)


@pytest.mark.parametrize(
    ("said", "where", "workers"),
    [
        ("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 3 has a total capacity of 139.80 GiB", "cuda:3", 2),
        ("CUDA error: out of memory\nCUDA kernel errors might be reported at some other API call", "the GPU", 1),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "the GPU", 1),
    ],
)
def test_a_full_gpu_is_told_in_a_line(files: list[File], tmp_path: Path, said: str, where: str, workers: int) -> None:
    with Passes(files[:2], tmp_path / "work", workers) as passes, pytest.raises(UserError) as caught:
        passes.made(too_large, said)
    why = f"out of memory on {where}; give fewer workers=, of which each holds its blocks there, or filter.device=cpu"
    assert str(caught.value) == why and not passes.bad and not list((tmp_path / "work").rglob("*.json"))


def test_another_error_of_torch_keeps_its_traceback(files: list[File], tmp_path: Path) -> None:
    with Passes(files, tmp_path / "work", 1) as passes, pytest.raises(RuntimeError, match="illegal memory access"):
        passes.made(too_large, "CUDA error: an illegal memory access was encountered")


def test_no_file_that_can_be_used_is_a_mistake(files: list[File]) -> None:
    with pytest.raises(UserError, match=r"no file of the pool can be used; .*0002"), Passes(files[2:3], None, 1) as one:
        list(one.map(name_of, 1))


def test_a_worker_that_dies_where_nothing_is_kept(files: list[File], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a worker died, .*; give fewer workers= if so"), Passes(files, None, 2) as one:
        list(one.map(rows_or_death, str(tmp_path / "marker")))


def test_a_part_does_its_own_files_first_and_then_the_others(files: list[File], tmp_path: Path) -> None:
    assert [file.number for file in Part(2, 3).own(files)] == [1, 4]
    with Passes(files, tmp_path, 1, Part(2, 3)) as passes:
        step = passes.prepared(squares, Power(2))
        passes.do(step, Part(2, 3).own(files))
        assert passes.done == 2
        assert len(list(passes.map(squares, Power(2)))) == 6 and passes.done == 6


def threads(file: File) -> str:
    return os.environ["OPENBLAS_NUM_THREADS"]


def test_workers_share_the_cores_where_they_multiply_matrices(
    files: list[File], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("curate.pool.passes.cores", lambda: 7)
    for said, found in ((None, "3"), ("5", "5")):
        for library in ("OMP", "OPENBLAS", "MKL"):
            monkeypatch.setenv(f"{library}_NUM_THREADS", said or "")
            if said is None:
                monkeypatch.delenv(f"{library}_NUM_THREADS")
        before = dict(os.environ)
        with Passes(files, None, 2) as passes:
            assert {value for _, value in passes.map(threads)} == {found}
        assert dict(os.environ) == before  # nobody else is told


def test_a_work_folder_is_claimed_and_removed_but_where_it_was_named(tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    for named in (None, str(tmp_path / "mine")):
        with work_folder(out, named) as work:
            assert work.path == (tmp_path / "mine" if named else tmp_path / "out.npy.work") and work.path.is_dir()
            with work_folder(out, named, shared=True) as other:
                assert other.path == work.path
            work.remove()
            assert work.path.exists() == bool(named)
