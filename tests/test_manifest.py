"""Manifests: which run has which number, and what is said of a bad one."""

from pathlib import Path

import pytest

from poolbench.errors import UserError, status_of

from train import folder, manifest
from train.manifest import check, read_runs

GOOD = """
common:
  - scale=small
  - data=/pool/{0000..1287}.tar
methods:
  everything: []
  clip: [subset=/clip.npy, data=/other pool]
seeds: [0, 7]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.yaml"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def printed(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    status = status_of(lambda: manifest.main(list(map(str, words))))
    return status, "".join(capsys.readouterr())


def test_all_seeds_of_a_method_come_together(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, GOOD)
    names = [run.name for run in read_runs(path)]
    assert names == ["everything-seed0", "everything-seed7", "clip-seed0", "clip-seed7"]
    status, text = printed(capsys, path)
    assert status == 0 and "4  clip-seed7" in text and "sbatch --array=1-4 slurm/train.sbatch" in text
    status, text = printed(capsys, path, "4")
    words = ["scale=small", "data=/other pool", "subset=/clip.npy", "name=clip-seed7", "seed=7"]
    assert (status, text.splitlines()) == (0, words)
    assert status_of(lambda: folder.main(words)) == 0 and capsys.readouterr().out == "runs/clip-seed7\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("methods: {a: []}\nseed: [1]", "unknown key 'seed'; did you mean 'seeds'?"),
        ("method: {a: []}", "unknown key 'method'; did you mean 'methods'?"),
        ("seeds: [1]", "the key 'methods' is missing"),
        ("methods: {}", "methods: Dictionary should have at least 1 item"),
        ("methods: {a: []}\nseeds: []", "seeds: List should have at least 1 item"),
        ("methods: {a: []}\nseeds: [1, x]", "seeds.1: Input should be a valid integer"),
        ("methods: {a: scale=small}", "methods.a: Input should be a valid list"),
        ("methods: {a: []}\nseeds: [1, 2, 1]", "seeds names 1 twice"),
        ("methods:\n  a: []\n  a: []", "found duplicate key a"),
        ("methods: {a/b: []}", "a method cannot be called 'a/b'"),
        ("methods: {a: [subset]}", "methods.a: 'subset' is not key=value"),
        ("methods: {a: [name=x]}", "methods.a: name= follows from the keys methods and seeds"),
        ("methods: {a: []}\ncommon: [seed=1]", "common: seed= follows from"),
        ("methods: {a: [out=x, out=y]}", "methods.a: out= is given twice"),
        ("methods: {a: []}\ncommon: [scale=small, sead=1]", "a-seed0: unknown key 'sead'; did you mean 'seed'?"),
        ("methods: [", "is not YAML"),
        ("- a", "it is not a mapping of fields"),
    ],
)
def test_a_bad_manifest_costs_one_line(path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        check(path, read_runs(write(path, text)))
    message = str(caught.value)
    assert message.startswith(f"manifest {path}") and told in message and "\n" not in message


def test_a_wrong_call_costs_one_line(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(path, GOOD)
    for words, told in (
        ((path, "5"), "has no run 5; they are numbered 1 to 4, as in --array="),
        ((path, "0"), "has no run 0"),
        ((path, "x"), "has no run x"),
        ((path.parent / "no.yaml",), "no.yaml cannot be read: No such file"),
        ((), "give a manifest"),
    ):
        status, text = printed(capsys, *words)
        assert status == 2 and told in text and text.count("\n") == 1
