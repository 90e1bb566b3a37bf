"""The guard of tests/bare.py: what a test may reach that is not marked `system`."""

import shutil
from pathlib import Path

import bare
import pytest

from poolbench.errors import UserError

import curate.models.wordnet
from curate.models.wordnet import find_wordnet
from curate.selectors.text_based import entity_test


def test_this_test_sees_a_bare_machine() -> None:
    assert not [name for name in bare.PROGRAMS if shutil.which(name)]
    assert shutil.which("sh") is not None
    with pytest.raises(UserError, match="a test that is not marked `system`"):
        find_wordnet()


@pytest.mark.system("nothing", list)
def test_a_marked_test_sees_all_of_it() -> None:
    assert Path("/usr/share/wordnet") == curate.models.wordnet._DEBIAN
    assert curate.models.wordnet.fetched.__module__ == "poolbench.assets"


def test_programs_are_hidden_and_their_neighbours_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("usual/srun", "usual/sort", "other/sort", "other/srunner"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/usual:{tmp_path}/other:{tmp_path}/none")
    assert shutil.which("srun") == f"{tmp_path}/usual/srun"
    machine = bare.Machine()
    machine.show(packages=False)
    assert shutil.which("srun") is None and shutil.which("srunner") == f"{tmp_path}/other/srunner"
    assert Path(shutil.which("sort") or "").resolve() == tmp_path / "usual/sort"
    machine.show(packages=True)
    assert shutil.which("srun") == f"{tmp_path}/usual/srun"


def test_what_a_marked_test_has_read_is_not_remembered() -> None:
    calls = entity_test.cache_info()
    assert (calls.hits, calls.misses) == (0, 0)
