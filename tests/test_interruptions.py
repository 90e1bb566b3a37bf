"""Runs that are killed, stopped, suspended or out of room: what is left, and what they come to in the end."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from lives import Fault, started, statuses, wait_for
from pools import write_pool
from trained import losses, weights

from poolbench.errors import UserError
from poolbench.files import claimed, read_json, read_lines
from poolbench.processes.preemption import STOPPED

ROOT = Path(__file__).parent.parent
SMALL = (
    "scale=small",
    "precision=fp32",
    "recipe.model=test-tiny",
    "recipe.batch_size=16",
    "recipe.samples=1000",  # 62 batches of 16 and one of 8
    "recipe.warmup=3",
    "recipe.streams=8",
    "recipe.shuffle_buffer=40",
)
STEPS = 63
SHORT = (*(word for word in SMALL if "samples" not in word), "recipe.samples=64")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("data") / "pool", shards=4, per_shard=20)


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two processes"])
def whole(request: pytest.FixtureRequest, pool: Path, tmp_path_factory: pytest.TempPathFactory) -> "Whole":
    """A run that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    given = [*SMALL, f"data={pool}", f"out={out}", "name=whole", "efficiency.workers=0"]
    with started(given, out / "log", request.param) as group:
        assert statuses(group) == [0] * request.param, (out / "log").read_text()
    return Whole(request.param, out / "whole")


class Whole:
    """The run that others must come to in the end."""

    def __init__(self, processes: int, folder: Path) -> None:
        self.processes, self.losses, self.weights = processes, losses(folder), weights(folder)

    def assert_equals(self, folder: Path) -> None:
        assert losses(folder) == self.losses and len(self.losses) == STEPS
        found = weights(folder)
        assert all(torch.equal(found[key], value) for key, value in self.weights.items())


def options(pool: Path, out: Path, *more: str) -> list[str]:
    return [*SMALL, f"data={pool}", f"out={out}", "name=run", *more]


def step_of(folder: Path) -> int:
    """The newest checkpoint that has its digest."""
    return max((int(path.stem[5:]) for path in (folder / "checkpoints").glob("*.sha256")), default=0)


def logged(folder: Path) -> int:
    """The last step in metrics.jsonl, 0 where there is none."""
    lines = read_lines(folder / "metrics.jsonl")
    return int(lines[-1]["step"]) if lines else 0


@pytest.mark.slow
def test_a_run_killed_again_and_again_comes_to_the_same_weights(whole: Whole, pool: Path, tmp_path: Path) -> None:
    """Ten times, at any moment: while it starts, in a step, while a checkpoint is written or dropped."""
    folder, rng = tmp_path / "run", random.Random(f"{whole.processes}")
    given = options(pool, tmp_path, "efficiency.checkpoint_every=2")
    steps, writing = [], 0
    for life in range(10):
        before, left = logged(folder), set((folder / "checkpoints").glob(".step_*"))
        workers = f"efficiency.workers={life % 3}"
        with started([*given, workers], tmp_path / "log", whole.processes, patience=6) as group:
            if life % 3 == 0:  # in the write of a checkpoint
                wait_for(lambda left=left: {*(folder / "checkpoints").glob(".step_*")} - left != set(), group)
                writing += {*(folder / "checkpoints").glob(".step_*")} - left != set()
            elif life % 3 == 1:  # some steps on
                goal = before + rng.randrange(1, 7)
                wait_for(lambda goal=goal: step_of(folder) > 0 and logged(folder) >= goal, group)
                time.sleep(0.02 * rng.random())
            else:  # while it starts, most likely
                time.sleep(2 * rng.random())
            for process in group if life % 2 else group[:1]:
                process.kill()
            assert None not in statuses(group), (tmp_path / "log").read_text()[-3000:]
            steps.append(step_of(folder))
    assert steps == sorted(steps) and 0 < steps[-1] < STEPS, "no life may lose what one before it had finished"
    assert writing > 0
    with started(given, tmp_path / "log", whole.processes) as group:
        assert statuses(group) == [0] * whole.processes, (tmp_path / "log").read_text()[-3000:]
    whole.assert_equals(folder)
    assert not list((folder / "checkpoints").glob(".step_*")), "what a crash left is cleared away"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_process_stops_all_behind_a_checkpoint(
    whole: Whole, pool: Path, tmp_path: Path, number: signal.Signals
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    given = options(pool, tmp_path, "efficiency.workers=1")
    with started(given, log, whole.processes) as group:
        assert wait_for(lambda: logged(folder) >= 5, group), log.read_text()
        os.kill(group[-1].pid or 0, number)
        assert statuses(group) == [STOPPED] * whole.processes, log.read_text()
    stopped = step_of(folder)
    assert 5 <= stopped == logged(folder) < STEPS
    assert f"stopped behind step {stopped}; the same command again goes on" in log.read_text()
    assert read_json(folder / "run.json")["steps"] == stopped
    with started(given, log, whole.processes) as group:
        assert statuses(group) == [0] * whole.processes
    assert f"continuing behind step {stopped} " in log.read_text()
    whole.assert_equals(folder)


def test_an_interrupt_of_one_process_ends_all_without_a_traceback(pool: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    with started(options(pool, tmp_path, "efficiency.workers=1"), log, 2) as group:
        assert wait_for(lambda: logged(folder) >= 3, group), log.read_text()
        os.kill(group[0].pid or 0, signal.SIGINT)
        assert statuses(group) == [130, 130], log.read_text()
    said = log.read_text()
    assert said.count("interrupted; the same command continues") == 1 and "Traceback" not in said, said


def test_a_signal_to_the_whole_job_leaves_the_workers_to_their_process(pool: Path, tmp_path: Path) -> None:
    """SLURM signals every process of a step; a worker that ended at once would take the last step with it."""
    folder, log = tmp_path / "run", tmp_path / "log"
    with started(options(pool, tmp_path, "efficiency.workers=2"), log) as (process,):
        assert wait_for(lambda: logged(folder) >= 5, [process]), log.read_text()
        workers = children(process)
        assert len(workers) >= 2
        for pid in [*workers, process.pid or 0]:
            os.kill(pid, signal.SIGTERM)
        assert statuses([process]) == [STOPPED], log.read_text()
        assert "Traceback" not in log.read_text() and step_of(folder) >= 5
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_worker_that_is_killed_is_told(pool: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    with started(options(pool, tmp_path, "efficiency.workers=1"), log) as (process,):
        assert wait_for(lambda: logged(folder) >= 3, [process]), log.read_text()
        for pid in children(process):
            os.kill(pid, signal.SIGKILL)
        assert statuses([process]) == [2]
    assert "error: DataLoader worker" in log.read_text() and "Traceback" not in log.read_text()


def children(process: BaseProcess) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def test_workers_without_shared_memory_are_told(pool: Path, tmp_path: Path) -> None:
    """The limit on files holds for shared memory too; what cannot be sent would be waited for forever."""
    folder, log = tmp_path / "run", tmp_path / "log"
    with started(options(pool, tmp_path, "efficiency.workers=2"), log) as (process,):
        assert wait_for(lambda: logged(folder) >= 3, [process]), log.read_text()
        for pid in children(process):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, 1000))
        assert statuses([process]) == [2], log.read_text()
    (line,) = [line for line in log.read_text().splitlines() if "error: " in line]
    assert "--shm-size" in line and "efficiency.workers=0" in line and "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_is_heard_while_no_data_come(pool: Path, tmp_path: Path, processes: int) -> None:
    """Workers that are suspended stand for a store that does not answer."""
    folder, log = tmp_path / "run", tmp_path / "log"
    given = options(pool, tmp_path, "efficiency.workers=1")
    with started(given, log, processes) as group:
        assert wait_for(lambda: logged(folder) >= 3, group), log.read_text()
        workers = [pid for process in group for pid in children(process)]
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        assert wait_for(lambda: not any(running(process) for process in group), group)
        for process in group:
            os.kill(process.pid or 0, signal.SIGTERM)
        assert statuses(group) == [STOPPED] * processes, log.read_text()
        assert "Traceback" not in log.read_text()
        assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), group) or processes == 2
        for pid in workers:  # of a job of several, which ends without clearing up
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if processes == 1:
        assert step_of(folder) == logged(folder) >= 3
    with started(given, log, processes) as group:
        assert statuses(group) == [0] * processes, log.read_text()
    assert logged(folder) == STEPS


def running(process: BaseProcess) -> bool:
    """Whether it computes, rather than wait for something."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "R"


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_gone_ends_the_others(
    pool: Path, tmp_path: Path, victim: int, number: signal.Signals
) -> None:
    """Killed: its connections break. Stopped: they stay, as those of a node without power, and nothing is heard."""
    folder, log = tmp_path / "run", tmp_path / "log"
    with started(options(pool, tmp_path, "efficiency.workers=0"), log, 2, patience=6) as group:
        assert wait_for(lambda: logged(folder) >= 3, group), log.read_text()
        os.kill(group[victim].pid or 0, number)
        assert statuses([group[1 - victim]]) == [1], log.read_text()
    if number == signal.SIGSTOP:
        assert f"error: process {victim} of 2: nothing was heard of it for 6 s" in log.read_text()
    else:
        assert "Traceback" in log.read_text()


PHASES = (
    "poolbench.processes.rendezvous._serve",  # before there is a store, or with it there and nobody connected
    "poolbench.processes.heartbeat:Heartbeat.start",
    "poolbench.processes.world.dist.init_process_group",
    "poolbench.processes.world:_Turns.wait",
    "train.loop:_Run.finish",
    "train.loop.gather",
    "poolbench.processes.heartbeat:Heartbeat.leave",
    "poolbench.processes.world.dist.destroy_process_group",
)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_gone_in_any_phase_ends_the_others(
    pool: Path, tmp_path: Path, victim: int, number: signal.Signals
) -> None:
    phases = [phase for phase in PHASES if victim == 0 or phase != PHASES[0]]
    groups = []
    with contextlib.ExitStack() as stack:
        for phase in phases:  # all at once, as they mostly wait
            given = [*SHORT, f"data={pool}", f"out={tmp_path / phase}", "name=run", "efficiency.workers=0"]
            fault = Fault(victim, phase, number)
            groups.append(stack.enter_context(started(given, tmp_path / f"{phase}.log", 2, patience=8, fault=fault)))
        for phase, group in zip(phases, groups, strict=True):
            (status,) = statuses([group[1 - victim]])
            text = (tmp_path / f"{phase}.log").read_text()
            assert group[victim].exitcode in (None, -number), f"{phase}: the fault did not come\n{text}"
            at_the_end = phase in PHASES[-2:]  # what was to be done is done; the first still sees to a run's last word
            assert status == 0 if at_the_end else status in (1, 2), f"{phase}: {status}\n{text}"


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_a_process_that_comes_late_is_named_and_waited_for(pool: Path, tmp_path: Path, late: int) -> None:
    log = tmp_path / "log"
    given = [*SHORT, f"data={pool}", f"out={tmp_path}", "name=run", "efficiency.workers=0"]
    with started(given, log, 2, fault=Fault(late, "poolbench.processes.world.connect", signal.SIGSTOP)) as group:
        line = f"process {1 - late} of 2 waits for process {late}"
        assert wait_for(lambda: log.exists() and line in log.read_text(), group), log.read_text()
        os.kill(group[late].pid or 0, signal.SIGCONT)
        assert statuses(group) == [0, 0], log.read_text()
    (told,) = [text for text in log.read_text().splitlines() if line in text]
    assert "127.0.0.1:" in told and "up to 600 s; start the others with the same MASTER_ADDR" in told
    assert told.endswith("or unset RANK WORLD_SIZE LOCAL_RANK for a process alone")


@pytest.mark.slow
@pytest.mark.parametrize("late", [0, 1])
def test_a_process_that_never_comes_is_given_up(pool: Path, tmp_path: Path, late: int) -> None:
    log = tmp_path / "log"
    given = [*SHORT, f"data={pool}", f"out={tmp_path}", "name=run", "efficiency.workers=0"]
    with started(
        given, log, 2, patience=6, fault=Fault(late, "poolbench.processes.world.connect", signal.SIGKILL)
    ) as group:
        assert statuses(group)[1 - late] == 2, log.read_text()
    (told,) = [text for text in log.read_text().splitlines() if text.startswith("error: ")]
    assert f"process {1 - late} of 2: process {late}" in told and "did not come within" in told and "unset RANK" in told


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["mistake", "folder", "crash"])
def test_an_error_of_one_process_ends_all_with_its_reason(pool: Path, tmp_path: Path, fault: str) -> None:
    """The second process cannot read its list of bad samples; the first would wait for it in a collective operation."""
    folder, log, blocked = tmp_path / "run", tmp_path / "log", tmp_path / "run/bad_samples.1.jsonl"
    given = options(pool, tmp_path, "efficiency.workers=0")
    with started(given, log, 2) as group:
        assert wait_for(lambda: logged(folder) >= 3, group), log.read_text()
        os.kill(group[0].pid or 0, signal.SIGTERM)
        assert statuses(group) == [STOPPED] * 2
    log.unlink()
    if fault == "crash":
        blocked.symlink_to(blocked)
    elif fault == "folder":
        blocked.mkdir()
    else:
        blocked.write_text("{}}\n")
    with started(given, log, 2) as group:
        found = statuses(group)
    text = log.read_text()
    if fault == "crash":
        assert found == [1, 1] and "Too many levels of symbolic links" in text
    else:
        assert found == [2, 2] and "Traceback" not in text, text
        assert f"error: {blocked}{' is a folder' if fault == 'folder' else ', line 1, is not JSON'}" in text


def test_a_mistake_of_all_is_told_once(pool: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started([*options(pool, tmp_path), "max_bad_share=3"], log, 2) as group:
        assert statuses(group) == [2, 2]
    assert log.read_text().count("error: ") == 1, log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("every", "room"), [(5, 50_000), (1000, 10_000)], ids=["in a checkpoint", "in metrics.jsonl"])
def test_a_full_disk_stops_the_run_with_its_last_checkpoint_intact(
    whole: Whole, pool: Path, tmp_path: Path, every: int, room: int
) -> None:
    """The limit on the size of a file stands for the disk's: the kernel refuses the write in the same way."""
    folder, log = tmp_path / "run", tmp_path / "log"
    given = options(pool, tmp_path)
    with started(given, log, whole.processes) as group:
        assert wait_for(lambda: logged(folder) >= 5, group), log.read_text()
        os.kill(group[0].pid or 0, signal.SIGTERM)
        assert statuses(group) == [STOPPED] * whole.processes, log.read_text()
    log.unlink()  # the limit holds for it too, and for the memory that data workers share
    full = [*given, f"efficiency.checkpoint_every={every}", "efficiency.workers=0"]
    with started(full, log, whole.processes) as group:
        assert wait_for(lambda: folder.exists() and log.exists(), group)
        for process in group:
            resource.prlimit(process.pid or 0, resource.RLIMIT_FSIZE, (room, room))
        assert statuses(group) == [2] * whole.processes, log.read_text()
    text, stopped = log.read_text(), step_of(folder)
    assert "cannot be written: " in text and "File too large" in text and "Traceback" not in text, text
    assert stopped >= 5 and not list((folder / "checkpoints").glob(".step_*"))
    with started(given, log, whole.processes) as group:
        assert statuses(group) == [0] * whole.processes
    assert f"continuing behind step {stopped} " in log.read_text()
    whole.assert_equals(folder)


def test_two_jobs_do_not_write_one_run(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    given = options(pool, tmp_path)
    with started(given, log) as first:
        assert wait_for(lambda: logged(folder) >= 1, first), log.read_text()
        os.kill(first[0].pid or 0, signal.SIGSTOP)
        with pytest.raises(UserError, match=r"run is in use by another process"), claimed(folder, wait=0.3):
            pass
        os.kill(first[0].pid or 0, signal.SIGCONT)
        assert statuses(first) == [0]
    with claimed(folder, wait=0):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_the_processes_of_this_machines_gpus(pool: Path, tmp_path: Path, number: int) -> None:
    """Two processes that the command starts by itself, where it takes this machine for one with two GPUs."""
    script, folder = tmp_path / "script.py", tmp_path / "run"
    script.write_text(f"""
import sys
import open_clip
import torch
from train.__main__ import main

open_clip.add_model_config({str(ROOT / "tests/models")!r})
if __name__ == "__main__":
    torch.cuda.device_count = lambda: 2
    main()
""")
    command = [sys.executable, str(script), *options(pool, tmp_path, "efficiency.workers=0", "recipe.samples=16000")]
    given = dict(word.split("=", 1) for word in command[2:])  # the later of two wins
    command[2:] = [f"{key}={value}" for key, value in given.items()]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 300
        while logged(folder) < 3 and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=300)
    assert process.returncode == STOPPED, errors[-3000:]
    assert step_of(folder) >= 3 and read_json(folder / "run.json")["world_size"] == 2
    assert f"stopped behind step {step_of(folder)}" in errors
