"""The command poolbench where another package is called as one of ours, as Hugging Face's `evaluate` is."""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import poolbench
from poolbench import HOME, PACKAGES

OURS = (2, "error: run=nowhere is not a folder")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder of packages in which another one is called evaluate, with modules that have names of ours."""
    package = tmp_path / "site" / "evaluate"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from .config import THEIRS\n")
    (package / "config.py").write_text("THEIRS = True\n")
    return package


def run(folder: Path, *words: str, path: str = "") -> tuple[int, str]:
    """Status and last line of errors of a Python that is started in `folder`, with `path` to look for packages in."""
    environment = os.environ | {"PYTHONPATH": path}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    return done.returncode, done.stderr.rstrip("\n").rpartition("\n")[2]


def test_the_command_is_ours_whatever_else_is_called_so(theirs: Path, tmp_path: Path) -> None:
    path = f"{theirs.parent}{os.pathsep}{HOME}"
    _, told = run(tmp_path, "-m", "evaluate", "run=nowhere", "data=.", path=path)
    assert "'evaluate' is a package and cannot be directly executed" in told  # theirs, as it comes first
    assert run(tmp_path, "-m", "poolbench", "evaluate", "run=nowhere", "data=.", path=path) == OURS
    # Beside a script of that name, too.
    (tmp_path / "evaluate.py").write_text("raise SystemExit(9)")
    assert run(tmp_path, "-m", "evaluate", path=path)[0] == 9
    assert run(tmp_path, "-m", "poolbench", "evaluate", "run=nowhere", "data=.", path=path) == OURS


def test_what_another_command_starts_is_ours(theirs: Path, tmp_path: Path) -> None:
    path = f"{theirs.parent}{os.pathsep}{HOME}"
    (tmp_path / "evaluate.py").write_text("raise SystemExit(9)")
    code = (
        "import poolbench, subprocess, sys; sys.exit(subprocess.run([sys.executable, '-m', *sys.argv[1:]]).returncode)"
    )
    assert run(tmp_path, "-c", code, "evaluate", "run=nowhere", "data=.", path=path) == OURS
    assert run(tmp_path, "-c", "import poolbench, evaluate.results", path=path) == (0, "")


def test_a_clash_that_cannot_be_mended_is_told_in_one_line(theirs: Path, tmp_path: Path) -> None:
    path = f"{theirs.parent}{os.pathsep}{HOME}"
    status, told = run(tmp_path, "-c", "import evaluate, poolbench", path=path)
    assert status == 2
    assert told == (
        f"error: the package evaluate is {theirs / '__init__.py'}, not poolbench's; use the command poolbench, or "
        "install poolbench again"
    )


def test_files_that_another_package_has_replaced_are_told_in_one_line(theirs: Path, tmp_path: Path) -> None:
    """As pip leaves them: a wheel's files in site-packages, with their digests in RECORD."""
    site = tmp_path / "installed"
    for package in ("poolbench", "conf", *PACKAGES):
        shutil.copytree(HOME / package, site / package, ignore=shutil.ignore_patterns("__pycache__", "submissions"))
    lines = []
    for file in sorted(site.rglob("*.py")):
        digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
        lines.append(f"{file.relative_to(site)},sha256={digest},{file.stat().st_size}")
    (site / "poolbench-0.1.0.dist-info").mkdir()
    (site / "poolbench-0.1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: poolbench\nVersion: 0.1.0\n")
    (site / "poolbench-0.1.0.dist-info/RECORD").write_text("\n".join(lines))
    for words in (("-m", "poolbench", "evaluate"), ("-m", "evaluate")):
        assert run(tmp_path, *words, "run=nowhere", "data=.", path=str(site)) == OURS
    shutil.copytree(theirs, site / "evaluate", dirs_exist_ok=True)
    for words in (("-m", "poolbench", "evaluate"), ("-m", "evaluate"), ("-m", "leaderboard", "build"), ("-m", "train")):
        status, told = run(tmp_path, *words, path=str(site))
        assert status == 2 and told.startswith(f"error: {site / 'evaluate'} is not poolbench's, another package"), told
        assert told.endswith("an environment of its own, or from a checkout with pip install -e")
    shutil.rmtree(site / "evaluate")  # as uninstalling theirs does
    status, told = run(tmp_path, "-m", "poolbench", "evaluate", path=str(site))
    assert status == 2 and told.startswith("error: the package evaluate is ")  # missing, or one of another checkout


def test_in_a_checkout_nothing_has_to_be_mended() -> None:
    before = list(sys.path), os.environ.get("PYTHONPATH")
    poolbench.ours_first()
    assert before == (list(sys.path), os.environ.get("PYTHONPATH"))
