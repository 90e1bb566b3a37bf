"""A real SLURM on this machine for as long as a test session: one controller and two nodes on one host."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PROGRAMS = ("slurmctld", "slurmd", "munged", "srun", "sbatch", "scontrol")


def missing() -> list[str]:
    """The programs that are not installed (Debian: slurm-wlm munge)."""
    return [name for name in PROGRAMS if _where(name) is None]


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and two slurmd; yield the environment in which srun and sbatch reach them."""
    # A socket's path must be short, so this does not lie in pytest's folder.
    with tempfile.TemporaryDirectory(prefix="slurm") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "key").write_bytes(os.urandom(128))
        (folder / "key").chmod(0o600)
        _start(
            stack, folder, "munged", "--foreground", "--force", f"--key-file={folder}/key", f"--socket={folder}/munge",
            f"--pid-file={folder}/munged.pid", f"--seed-file={folder}/seed", f"--log-file={folder}/munged.log",
        )  # fmt: skip
        (folder / "slurm.conf").write_text(_configuration(folder))
        environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
        for variable in [key for key in environment if key.startswith(("SLURM_", "MASTER_"))]:
            if variable != "SLURM_CONF":
                del environment[variable]
        _wait(lambda: (folder / "munge").exists(), "munged", folder)
        _start(stack, folder, "slurmctld", "-D", environment=environment)
        for node in ("node1", "node2"):
            (folder / node).mkdir()
            _start(stack, folder, "slurmd", "-D", "-N", node, environment=environment)
        _wait(lambda: _idle(environment) == 2, "two idle nodes", folder)
        yield environment


def stopping_jobs(folder: Path, cluster: dict[str, str], script: str) -> "Jobs":
    """Jobs whose Python runs `script`, which is given the path of a file to make when it has stopped, "started", and
    the words that Python was to run."""
    (folder / "stopping.py").write_text(script)
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/stopping.py {folder}/started "$@"\n')
    (folder / "python").chmod(0o755)
    return Jobs(folder, cluster | {"PYTHON": str(folder / "python"), "PYTHONPATH": str(ROOT)})


class Jobs:
    """Jobs of slurm/train.sbatch, as users submit and manage them; their logs lie in `folder`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = {"PYTHON": sys.executable} | environment | {"OMP_NUM_THREADS": "1"}

    def submit(self, sbatch: list[str], words: list[str]) -> str:
        """The number of the new job."""
        log = f"--output={self._folder}/log.%j"
        return self.run("sbatch", "--parsable", log, *sbatch, "slurm/train.sbatch", *words).strip()

    def run(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(command, cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def show(self, job: str) -> dict[str, str]:
        """SLURM's fields of a job, such as JobState, ExitCode and Restarts; an element of an array is `<job>_<i>`."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", job, "-o")))

    def end(self, job: str) -> dict[str, str]:
        """Wait until a job is over, however often it is requeued; its fields."""

        def over() -> bool:
            state = self.show(job)["JobState"]
            if state == "PENDING":
                self.start_now(job)
            return state not in ("PENDING", "RUNNING", "COMPLETING")

        self.wait(over)
        return self.show(job)

    def start_now(self, job: str) -> None:
        """SLURM lets a job that was requeued wait for two minutes."""
        with contextlib.suppress(AssertionError):  # it began this moment
            self.run("scontrol", "update", f"JobId={job}", "StartTime=now")

    def wait(self, ready: Callable[[], bool], seconds: float = 900) -> None:
        end = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < end, self.logs()
            time.sleep(0.2)

    def logs(self) -> str:
        logs = [f"{path.name}:\n{path.read_text()}" for path in sorted(self._folder.glob("log.*"))]
        return "\n".join([*logs, self.run("squeue")])


def _configuration(folder: Path) -> str:
    host = socket.gethostname()
    ports = iter(_free_ports(3))
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={next(ports)} CPUs=2 State=UNKNOWN"
        for node in ("node1", "node2")
    )
    # The processes of a job meet at a port that follows from its number: two clusters on one host must not share them.
    controller = next(ports)
    return f"""ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
FirstJobId={1 + 10 * (controller % 1200)}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
KillWait=30
{nodes}
PartitionName=main Nodes=node1,node2 Default=YES MaxTime=INFINITE State=UP
"""


def _start(stack: contextlib.ExitStack, folder: Path, program: str, *words: str, environment: object = None) -> None:
    with (folder / f"{program}.out").open("ab") as log:
        process = subprocess.Popen([_where(program), *words], stdout=log, stderr=log, env=environment)  # type: ignore[call-overload]
    stack.callback(process.wait, 20)
    stack.callback(process.terminate)


def _idle(environment: dict[str, str]) -> int:
    done = subprocess.run(["sinfo", "-h", "-N", "-o", "%t"], capture_output=True, text=True, env=environment)
    return done.stdout.split().count("idle")


def _wait(ready: object, what: str, folder: Path) -> None:
    end = time.monotonic() + 300
    while not ready():  # type: ignore[operator]
        if time.monotonic() > end:
            logs = "\n".join(
                f"{path.name}: {path.read_text()[-1500:]}" for path in [*folder.glob("*.log"), *folder.glob("*.out")]
            )
            raise RuntimeError(f"no {what} after a minute\n{logs}")
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _where(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
