"""Processes that find each other: launched here, or by the variables of torchrun and SLURM."""

import os
import time
from pathlib import Path

import pytest
import torch

from poolbench.errors import UserError
from poolbench.processes.place import place
from poolbench.processes.world import joined, launch, on_first


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
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert launch(lambda: 7) == 7
    found = place()
    assert found is not None and found[:4] == (3, 4, 1, 2)


def test_a_batch_script_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """sbatch sets SLURM_PROCID for its own script; only srun's tasks are many."""
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "16")
    assert place() is None


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500"}
SRUN = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "MASTER_ADDR": "a"}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RANK": "0"}, r"^RANK set, but not WORLD_SIZE: .* unset RANK$"),
        ({"WORLD_SIZE": "2"}, r"^WORLD_SIZE set, but not RANK: "),
        ({"LOCAL_RANK": "1"}, r"^LOCAL_RANK set, but not RANK, WORLD_SIZE: "),
        ({"RANK": "0", "WORLD_SIZE": "2"}, r"^RANK, WORLD_SIZE set, but not MASTER_ADDR, MASTER_PORT: "),
        ({**TORCHRUN, "MASTER_ADDR": ""}, r"set, but not MASTER_ADDR: "),
        ({**TORCHRUN, "RANK": "one"}, r"^RANK=one in the environment has to be a number from 0 to 1; "),
        ({**TORCHRUN, "RANK": "2"}, r"^RANK=2 in the environment has to be a number from 0 to 1; "),
        ({**TORCHRUN, "RANK": "-1"}, r"^RANK=-1 in the environment"),
        ({**TORCHRUN, "WORLD_SIZE": "0"}, r"^WORLD_SIZE=0 in the environment has to be a number from 1 on"),
        ({**TORCHRUN, "LOCAL_RANK": "x"}, r"^LOCAL_RANK=x in the environment"),
        (
            {**TORCHRUN, "MASTER_PORT": "http"},
            r"^MASTER_PORT=http in the environment has to be a number from 1 to 65535",
        ),
        ({**TORCHRUN, "MASTER_PORT": "70000"}, r"^MASTER_PORT=70000 "),
        ({"SLURM_STEP_NUM_TASKS": "2"}, r"^SLURM_STEP_NUM_TASKS set, but not SLURM_PROCID, SLURM_LOCALID: "),
        ({**SRUN, "SLURM_STEP_NUM_TASKS": "two"}, r"^SLURM_STEP_NUM_TASKS=two in the environment"),
        ({**SRUN, "SLURM_PROCID": "2"}, r"^SLURM_PROCID=2 in the environment"),
        ({**SRUN, "SLURM_LOCALID": ""}, r"set, but not SLURM_LOCALID: "),
        ({**SRUN, "SLURM_JOB_ID": "x"}, r"^SLURM_JOB_ID=x in the environment"),
        ({**SRUN, "MASTER_PORT": "x"}, r"^MASTER_PORT=x in the environment"),
        (
            {**SRUN, "MASTER_ADDR": "", "PATH": ""},
            r"set MASTER_ADDR, or unset SLURM_STEP_NUM_TASKS for a process alone$",
        ),
    ],
)
def test_a_place_that_is_told_in_part_or_wrongly_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], reason: str
) -> None:
    monkeypatch.setattr(os, "environ", {**variables})
    with pytest.raises(UserError, match=reason) as refused:
        launch(lambda: 7)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (TORCHRUN, (1, 2, 1, 1)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1, 0, 1)),
        ({**SRUN, "SLURM_STEP_TASKS_PER_NODE": "2(x3),1"}, (1, 2, 1, 2)),
        ({**SRUN, "WORLD_SIZE": "2"}, (1, 2, 1, 2)),
        ({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, (0, 1, 0, 1)),
        ({"MASTER_ADDR": "a", "MASTER_PORT": "1"}, None),
        ({"RANK": "", "WORLD_SIZE": ""}, None),
    ],
)
def test_a_place_that_is_told_in_full(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, ...] | None
) -> None:
    monkeypatch.setattr(os, "environ", {**variables})
    found = place()
    assert (found and found[:4]) == expected
