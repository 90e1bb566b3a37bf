"""Commands that another one starts end with it, also where it is killed and cannot say so."""

import contextlib
import os
import signal
import sys
from pathlib import Path

import forked
import pytest
from waiting import runs, until

# An interpreter that does this, whatever it is asked for.
ENDLESS = """#!{python}
import os, sys, threading
sys.path.insert(0, {root!r})
from pathlib import Path
from poolbench.errors import exit_on_user_error

def work():
    Path({folder!r}, str(os.getpid())).touch()
    threading.Event().wait()

exit_on_user_error(work)
"""
STARTS = {
    "an evaluation": "from train import evaluation\n"
    "evaluation._run([sys.argv[1]], open(os.devnull, 'wb'), lambda: False)",
    "the processes of devices": "from curate.scorers import run\n"
    "run.sys = SimpleNamespace(executable=sys.argv[1])\n"
    "run._on_each(['cpu', 'cpu'], SimpleNamespace(part='1/1', workers=0), [])",
}


@pytest.mark.parametrize("what", STARTS)
def test_what_a_command_starts_ends_with_it(what: str, tmp_path: Path) -> None:
    begun, endless = tmp_path / "begun", tmp_path / "endless"
    begun.mkdir()
    endless.write_text(ENDLESS.format(python=sys.executable, root=str(forked.ROOT), folder=str(begun)))
    endless.chmod(0o755)
    code = f"import os, sys\nfrom types import SimpleNamespace\n{STARTS[what]}"
    process = forked.start("-c", code, endless)
    count = 2 if "processes" in what else 1
    try:
        until(lambda: len(list(begun.iterdir())) == count or process.poll() is not None)
        process.kill()
        process.wait()
        started = [int(path.name) for path in begun.iterdir()]
        assert len(started) == count
        until(lambda: not any(runs(pid) for pid in started))
    finally:
        for path in begun.iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.name), signal.SIGKILL)
