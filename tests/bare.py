"""A machine without system packages, for every test that is not marked as needing one.

CI has them all, so that a test that reaches one by chance would fail on a newcomer's machine only.
"""

import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from poolbench.assets import Asset
from poolbench.errors import UserError

import curate.models.wordnet

# What the packages that tests may be marked with bring: Debian's slurm-wlm, munge, chromium, chromium-driver.
PROGRAMS = {
    *("srun", "sbatch", "scontrol", "scancel", "sacct", "salloc", "sinfo", "squeue", "slurmctld", "slurmd", "munged"),
    *("chromium", "chromium-browser", "google-chrome", "chromedriver"),
}
_NOWHERE = Path("/nowhere/a-system-package/that/only/marked/tests/reach")
_held: list[tempfile.TemporaryDirectory[str]] = []


class Machine:
    """What tests see of this machine: all of it, or what a bare one has."""

    def __init__(self) -> None:
        self._all = os.environ.get("PATH", "")
        self._bare = without(self._all.split(os.pathsep))
        self._patch = pytest.MonkeyPatch()

    def show(self, packages: bool) -> None:
        """Let what runs from now on in this process, and what it starts, reach the system packages, or not."""
        self._patch.undo()
        if not packages:
            self._patch.setenv("PATH", self._bare)
            self._patch.setattr(curate.models.wordnet, "_DEBIAN", _NOWHERE)
            self._patch.setattr(curate.models.wordnet, "cache", lambda: _NOWHERE)
            self._patch.setattr(curate.models.wordnet, "fetched", _refuse)
        if text_based := sys.modules.get("curate.selectors.text_based"):
            text_based.entity_test.cache_clear()


def _refuse(asset: Asset) -> Path:
    raise UserError(f"{asset.name} is asked for by a test that is not marked `system`")


def without(places: Iterable[str], programs: Iterable[str] = PROGRAMS) -> str:
    """A PATH on which all is found but the programs: a folder that has some is replaced by one of links to the rest."""
    wanted = set(programs)
    found = []
    for place in places:
        folder = Path(place)
        if any((folder / name).exists() for name in wanted):
            _held.append(tempfile.TemporaryDirectory(prefix="poolbench-bare-"))
            for path in folder.iterdir():
                if path.name not in wanted:
                    Path(_held[-1].name, path.name).symlink_to(path)
            place = _held[-1].name
        found.append(place)
    return os.pathsep.join(found)
