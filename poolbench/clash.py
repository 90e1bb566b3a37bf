"""That our packages are the ones that are imported, where others have their names.

Hugging Face's `evaluate` is the one that people have.
"""

import functools
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import importlib.metadata

HOME = Path(__file__).resolve().parent.parent  # the folder that holds our packages: a checkout, or site-packages
PACKAGES = ("train", "evaluate", "tasks", "curate", "leaderboard", "demodata")


class ClashError(ImportError):
    """Another package has the name of one of ours. The message is one line that says what to do."""


def ours_first() -> None:
    """Put HOME in front of what is imported, here and in the processes that this one starts, where that is needed.

    Raises:
        ClashError: too late, as another package is loaded already, or its files have replaced ours.
    """
    if not all(map(_is_ours, PACKAGES)):
        sys.path.insert(0, str(HOME))
        importlib.invalidate_caches()
        paths = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = f"{HOME}{os.pathsep}{paths}" if paths else str(HOME)
        os.environ["PYTHONSAFEPATH"] = "1"  # else the current folder would come before it
    for package in PACKAGES:
        if not _is_ours(package):
            theirs = f"is {_origin(package)}, not poolbench's" if _origin(package) else f"is missing from {HOME}"
            raise ClashError(f"the package {package} {theirs}; use the command poolbench, or install poolbench again")
        if _is_replaced(package):
            raise ClashError(
                f"{HOME / package} is not poolbench's, another package of that name was installed over it; install "
                "poolbench in an environment of its own, or from a checkout with pip install -e"
            )


def _is_ours(package: str) -> bool:
    origin = _origin(package)
    return origin is not None and Path(origin).resolve().parent.parent == HOME


def _origin(package: str) -> str | None:
    """The file that is, or would be, imported under this name."""
    loaded = sys.modules.get(package)
    if loaded is not None:
        return getattr(loaded, "__file__", None)
    found = importlib.util.find_spec(package)
    return None if found is None else found.origin


def _is_replaced(package: str) -> bool:
    """Whether a package that came as a wheel has another __init__.py than that. In a checkout none has."""
    path = f"{package}/__init__.py"
    for file in _installed():
        if str(file) == path and file.hash is not None:
            import base64  # here and below, for those alone who are no checkout: every command begins with this module
            import hashlib

            digest = hashlib.new(file.hash.mode, (HOME / path).read_bytes()).digest()
            return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value
    return False


@functools.cache
def _installed() -> "Sequence[importlib.metadata.PackagePath]":
    """What was installed with us, if we are not a checkout."""
    if not any(HOME.glob("poolbench*-info")):
        return []
    import importlib.metadata

    return [
        file for one in importlib.metadata.distributions(name="poolbench", path=[str(HOME)]) for file in one.files or ()
    ]
