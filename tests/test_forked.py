"""Commands that the fork server starts behave as those with an interpreter of their own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import forked
import pytest


def own(*words: str | Path, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Started as by a shell; pytest's own process may ignore signals, as one that nohup started."""

    def defaults() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=env, preexec_fn=defaults,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip


ENDS = {
    "nothing": "",
    "status": "import sys; sys.exit(3)",
    "message": "import sys; sys.exit('why')",
    "signal": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "interrupt": "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
    "at exit": "import atexit; atexit.register(print, 'last')\nprint('first', end=' ')",
    "thread": "import threading, time; threading.Thread(target=lambda: (time.sleep(0.1), print('late'))).start()",
    "places": "import os, sys, tempfile; print(sys.argv, os.getcwd(), sys.path[0], tempfile.gettempdir())",
    "main": "import __main__\nprint(__name__, __main__.__name__)",
    "streams": "import sys; print(sys.stdin.read() == '', sys.stdout.isatty(), sys.stdout.line_buffering)",
    "handlers": "import signal; print(*(signal.getsignal(n) is signal.SIG_DFL for n in (1, 2, 10, 12, 15)))",
}


@pytest.mark.parametrize("name", ENDS)
def test_code_comes_to_the_same(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    words = ("-c", ENDS[name], "a b", "--c")
    expected = own(*words, cwd=tmp_path, env=environment)
    found = forked.run(*words, cwd=tmp_path, env=environment)
    assert (found.returncode, found.stdout) == (expected.returncode, expected.stdout)
    if name == "interrupt":
        assert found.stderr.splitlines()[-1] == expected.stderr.splitlines()[-1] == "KeyboardInterrupt"
    else:
        assert found.stderr == expected.stderr


def test_modules_and_scripts_come_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    code = "import sys, __main__\nprint(__name__, __package__, __file__, sys.argv, sys.path[0], __main__.__file__)\n"
    (tmp_path / "package/__main__.py").write_text(code)
    (tmp_path / "script.py").write_text(code)
    environment = dict(os.environ)
    for words in (("-m", "package", "x"), ("-m", "package.__main__"), ("script.py", "y"), ("-m", "no_such")):
        expected = own(*words, cwd=tmp_path, env=environment)
        found = forked.run(*words, cwd=tmp_path, env=environment)
        assert (found.returncode, found.stdout, found.stderr) == (
            expected.returncode, expected.stdout, expected.stderr
        )  # fmt: skip


def test_commands_of_the_packages_are_their_own_main_modules() -> None:
    """The server has imported them; none complains of that, and each begins anew."""
    done = forked.run("-m", "curate.score", "x=1")
    assert done.returncode == 2 and done.stderr.startswith("error: unknown key 'x'")


def test_a_command_is_forked_unless_its_imports_would_differ() -> None:
    code = "import sys; print('torch' in sys.modules)"
    assert forked.run("-c", code).stdout == "True\n"
    assert forked.run("-c", code, env={**os.environ, "HF_ENDPOINT": "http://x"}).stdout == "False\n"


def test_signals_reach_it_and_its_time_can_be_up() -> None:
    process = forked.start("-c", "import time; print('up', flush=True); time.sleep(600)", new_session=True)
    assert process.stdout is not None and process.stdout.readline() == "up\n"
    assert process.poll() is None and os.getpgid(process.pid) == process.pid
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == process.poll() == -signal.SIGTERM


def test_processes_of_a_world_know_their_places() -> None:
    code = "import os; print(*(os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK')))"
    assert [process.communicate()[0] for process in forked.world(2, "-c", code)] == ["0 2 0\n", "1 2 1\n"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_stand_in_for_the_interpreter_ends_with_its_command(number: int, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text("import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n")
    command = [forked.interpreter(), "-u", tmp_path / "script.py"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert pid != process.pid
        process.send_signal(number)
        assert process.wait() == -number
        assert process.stdout.read() == "", "the stream is closed when the command is gone"
    assert subprocess.run([forked.interpreter(), "-c", "raise SystemExit(5)"], check=False).returncode == 5
