"""Versions of packages are those that importlib.metadata tells."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from poolbench.versions import version


@pytest.mark.parametrize("package", ["poolbench", "numpy", "pyarrow", "open_clip_torch", "hydra-core", "pip"])
def test_a_version_is_the_one_that_is_installed(package: str) -> None:
    """Names with other signs than their folders, too."""
    assert version(package) == importlib.metadata.version(package)


def test_another_package_whose_name_begins_so_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path / "nowhere"), str(tmp_path)])
    for folder, told in (("ours_more-2.0", "2.0"), ("ours-1.5", "1.5")):
        (tmp_path / f"{folder}.dist-info").mkdir()
        text = f"Metadata-Version: 2.4\nName: {folder[:-4]}\nVersion: {told}\n\nVersion: 9 of the description\n"
        (tmp_path / f"{folder}.dist-info" / "METADATA").write_text(text)
    assert version("ours") == importlib.metadata.version("ours") == "1.5"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        version("theirs")


@pytest.mark.parametrize("name", ["ours.egg-info", "ours-1.5-py3.11.egg-info"])
def test_of_two_installations_the_one_that_is_imported_counts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that setuptools has left in a checkout, say, from which Python was started."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "checkout"), str(tmp_path / "packages")])
    for place, told in ((f"checkout/{name}/PKG-INFO", "1.5"), ("packages/ours-2.0.dist-info/METADATA", "2.0")):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_text(f"Metadata-Version: 2.4\nName: ours\nVersion: {told}\n")
    assert version("ours") == importlib.metadata.version("ours") == "1.5"
