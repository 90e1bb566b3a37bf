"""WordNet for the tests: the real one where Debian's package is installed, and one of a few words for all others."""

from pathlib import Path
from typing import Any

import pytest

from poolbench.files import digest_file

from curate.models.wordnet import _EDITIONS, FILES

DEBIAN = Path("/usr/share/wordnet")
# As in WordNet 3.0: the nouns with their own offsets, which are ImageNet's, and one verb that is none of its things.
SMALL = {
    "index.noun": (
        "apple n 2 3 @ ~ #p 2 1 07739125 12633994  \nbridge n 1 2 @ ~ 1 1 02898711  \n"
        "car n 1 2 @ ~ 1 1 02958343  \ndog n 1 4 @ ~ #m %p 1 1 02084071  \n"
    ),
    "index.verb": "run v 1 1 @ 1 1 01926311  \n",
}


def missing() -> list[str]:
    """What is not installed (Debian: wordnet-base)."""
    return [] if (DEBIAN / "index.noun").is_file() else [str(DEBIAN)]


needs_wordnet = pytest.mark.system("wordnet-base", missing)


def write_wordnet(folder: Path) -> None:
    """SMALL in the files of WordNet 3.0; each has something of its own, as it is known by its digest."""
    folder.mkdir()
    for name in FILES:
        first = f"  1 This is {name}; lines of the licence begin with blanks.\n" if "index" in name else f"{name} a\n"
        (folder / name).write_text(first + SMALL.get(name, ""), encoding="ascii")


def editions(folder: Path) -> dict[str, Any]:
    """What makes the files of a folder be taken for WordNet 3.0's."""
    kind = type(next(iter(_EDITIONS.values())))
    return {digest_file(folder / name): kind(name) for name in FILES}
