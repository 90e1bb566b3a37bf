"""Ctrl-C before a command has begun and after it has ended: never a traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT

SITE = """
import os, signal, sys

def interrupt():
    if "{before}" == "yes":
        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "{module}":
                    os.kill(os.getpid(), signal.SIGINT)
        sys.meta_path.insert(0, Finder())
    else:
        import atexit
        atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))

interrupt()
"""


def interrupted(folder: Path, before: str, module: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that Ctrl-C finds while it imports a module, or while Python ends."""
    (folder / "sitecustomize.py").write_text(SITE.format(before=before, module=module))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", str(ROOT))])}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("module", "command"),
    [("pyarrow.parquet", "curate"), ("pyarrow.parquet", "curate.columns"), ("poolbench.command", "train")]
    + [("poolbench.command", package) for package in ("evaluate", "tasks", "leaderboard")],
)
def test_an_interrupt_of_the_imports_is_silent(module: str, command: str, tmp_path: Path) -> None:
    done = interrupted(tmp_path, "yes", module, "-m", command, "help")
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_an_interrupt_of_the_end_is_silent(tmp_path: Path) -> None:
    done = interrupted(tmp_path, "no", "", "-m", "tasks", "list")
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "") and done.stdout


def test_an_interrupt_of_the_command_is_told(tmp_path: Path) -> None:
    done = interrupted(tmp_path, "yes", "hydra", "-m", "evaluate", "tasks=demo")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; the same command continues where it stopped\n"


def test_imports_of_a_program_leave_its_handler_alone(tmp_path: Path) -> None:
    code = "import signal, curate, tasks; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    assert interrupted(tmp_path, "yes", "nothing", "-c", code).stdout == "True\n"
