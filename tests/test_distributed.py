"""Processes that find each other: launched here, or by the variables of torchrun and SLURM."""

import os
import time
from pathlib import Path

import pytest
import torch

from train import distributed
from train.distributed import joined, launch, on_first


def note(folder: Path, status: int) -> int:
    """What each launched process does."""
    ranks = {key: os.environ[key] for key in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")}
    (folder / ranks["RANK"]).write_text(" ".join(ranks.values()))
    return status if ranks["RANK"] == "1" else 0


@pytest.mark.parametrize("status", [0, 2])
def test_a_machine_with_gpus_needs_no_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch(note, tmp_path, status) == status
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["0 2 0 2", "1 2 1 2"]


def join_again_and_again() -> int:
    """What each process of a sweep does; the pause lets the first one fall behind."""
    for turn in range(4):
        with joined() as world:
            if on_first(world, lambda turn=turn: time.sleep(0.3) or turn) != turn:  # type: ignore[misc]
                return 3
    return 0


def test_runs_of_a_sweep_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert launch(join_again_and_again) == 0


def test_torchruns_processes_are_not_launched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    for key, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(key, value)
    assert launch(lambda: 7) == 7
    assert distributed._from_environment() == (3, 4, 1, 2)


def test_a_batch_script_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch sets SLURM_PROCID for its own script; only srun's tasks are many."""
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "16")
    assert distributed._from_environment() is None
