"""WordNet 3.0 as the published text filter asks it: the offset of a word's first synset.

    words = WordNet(find_wordnet())
    words.first_synset_offset("Dogs")       # 2084071, as nltk 3.8.1's wordnet.synsets("Dogs")[0].offset()

The filter compares offsets with ImageNet's identifiers whatever their part of speech, so an edition whose offsets are
others gives another subset. That is why each file is known by its digest: docs/curate_models.md has the editions.
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from poolbench.assets import fetched
from poolbench.errors import UserError
from poolbench.files import atomic, cache, digest_bytes

from curate.models.assets import WORDNET

# The order in which nltk asks, and how it takes endings off. A rule's result is looked up before the next rule's.
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "noun": (
        ("s", ""),
        ("ses", "s"),
        ("ves", "f"),
        ("xes", "x"),
        ("zes", "z"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("men", "man"),
        ("ies", "y"),
    ),
    "verb": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "adj": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "adv": (),
}
FILES = tuple(f"index.{part}" for part in _ENDINGS) + tuple(f"{part}.exc" for part in _ENDINGS)
DATA = tuple(f"data.{part}" for part in _ENDINGS)  # the synsets
_DEBIAN = Path("/usr/share/wordnet")  # of the package wordnet-base


class _Edition(NamedTuple):
    """What a file with a known content needs: offsets from `first` to before `last` are `shift` too large."""

    name: str
    first: int = 0
    last: int = 0
    shift: int = 0


# Debian corrects the spelling of one explanation of a verb and one of an adjective, which moves all that lie behind.
_EDITIONS = {
    "a490d99d93d017bf4822fe2f0ffa51fd73911ce271dc7535fade21f8814b5a04": _Edition("index.noun"),
    "c7c79b558d787f1e31c6f8b3eeadb8fcbb26a64545ecc1241e21d9b61f95ee8e": _Edition("index.verb"),
    "42f58dda2c7cff66eb8fa55ba62e0a873a9b3f43c878e8201108f5dab6dcff28": _Edition("index.adj"),
    "6f5465ed5758fe9c8a2f7ec17b1300f3aa875756c70ff7cba162f7e71bcf88ea": _Edition("index.adv"),
    "2b5d675c380b39ecf595af9fa9d4e7feb1d58c643b0bff08c40ed5bfe41fab7a": _Edition("noun.exc"),
    "dbbcf9a601b2d77e934e413b91d90e88ec7f933a8b77cfc00602a923b891b42c": _Edition("verb.exc"),
    "8824cc24bbedd797b9702316b27f07cd4c2b76b629539f0a1276f03926758016": _Edition("adj.exc"),
    "e7291461b629abfe63301bbe1998cee09fd575ed7107abd7ea9763adb05bf0a8": _Edition("adv.exc"),
    "e2ac24816c3a8289dcb72aaa9cf8db81fdf25ec34d792bfc96ac5b7a20c8b4ae": _Edition("index.verb", 613036, 2422967, 18),
    "c9865d7b4d1f805bdef82ccdcea5282436e23083e6f6f1b33e716327c4eda810": _Edition("index.adj", 1681478, 10**8, 1),
}


class WordNet:
    """The words of WordNet 3.0 and the offsets of their first synsets, some 25 MB of memory.

    Raises:
        UserError: a file is missing or is not WordNet 3.0's.
    """

    def __init__(self, folder: Path) -> None:
        self._offsets = {part: dict(_first_offsets(folder, f"index.{part}")) for part in _ENDINGS}
        self._exceptions = {part: dict(_irregular(folder, f"{part}.exc")) for part in _ENDINGS}

    def first_synset_offset(self, token: str) -> int | None:
        """The offset that nltk 3.8.1's `synsets(token)[0].offset()` has, None where it finds no synset."""
        word = token.lower()
        for part in _ENDINGS:
            offset = self._first(word, part)
            if offset is not None:
                return offset
        return None

    def _first(self, word: str, part: str) -> int | None:
        """Of one part of speech: of the word, of its irregular base forms, else of what taking endings off leads to."""
        offsets = self._offsets[part]
        irregular = self._exceptions[part].get(word)
        if irregular is not None:
            return next((offsets[form] for form in (word, *irregular) if form in offsets), None)
        if word in offsets:
            return offsets[word]
        forms = _shortened([word], part)
        while forms:  # nltk since 3.9 takes one ending off only; the published subsets were made with 3.8.1
            for form in forms:
                if form in offsets:
                    return offsets[form]
            forms = _shortened(forms, part)
        return None


def _shortened(forms: list[str], part: str) -> list[str]:
    """Every form with every ending that it has taken off. Each once, or "eses…" would take for ever."""
    ends = _ENDINGS[part]
    return list(dict.fromkeys(form[: -len(old)] + new for form in forms for old, new in ends if form.endswith(old)))


def _first_offsets(folder: Path, name: str) -> Iterator[tuple[str, int]]:
    """Lemma and offset of its most frequent sense, of an index file: its fields are those of WordNet's wndb(5)."""
    content, edition = _read(folder, name)
    for line in content.splitlines():
        if line.startswith(" "):  # the licence
            continue
        fields = line.split()
        offset = int(fields[-int(fields[2])])
        yield fields[0], offset - edition.shift if edition.first <= offset < edition.last else offset


def _irregular(folder: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    for line in _read(folder, name)[0].splitlines():
        form, *bases = line.split()
        yield form, bases


def _read(folder: Path, name: str) -> tuple[str, _Edition]:
    """A file's text and its edition, line ends as they may be."""
    path = folder / name
    try:
        content = path.read_bytes().replace(b"\r", b"")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; filter.wordnet= is a folder with {name}") from None
    edition = _EDITIONS.get(digest_bytes(content))
    if edition is None or edition.name != name:
        why = "the offsets of other editions would choose other captions"
        raise UserError(f"{path} is not WordNet 3.0's; {why}; filter.wordnet= names a folder with those of 3.0")
    return content.decode("ascii"), edition


def synset_names(folder: Path) -> Iterator[str]:
    """What nltk's `synset.name()` has before its first dot, of every synset, "_" as a blank; some are empty.

    Raises:
        UserError: a file is missing, or holds no synsets.
    """
    for name in DATA:
        try:
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            words = [line.split(None, 5)[4] for line in lines if line and not line.startswith(" ")]
        except OSError as error:
            raise UserError(f"{folder / name} cannot be read: {error.strerror}; it is one of WordNet 3.0") from None
        except (IndexError, ValueError):
            raise UserError(f"{folder / name} is not one of WordNet's files of synsets") from None
        # An adjective may carry where it stands, "galore(ip)".
        yield from (word.partition("(")[0].lower().partition(".")[0].replace("_", " ") for word in words)


def find_wordnet(given: str = "", files: Sequence[str] = FILES) -> Path:
    """The folder of the database: the given one, else Debian's where it is installed, else a downloaded one.

    Args:
        files: those that will be read.

    Raises:
        UserError: it is nowhere and cannot be downloaded.
    """
    if given:
        return Path(given)
    if (_DEBIAN / FILES[0]).is_file():
        return _DEBIAN
    folder = cache() / "wordnet-3.0"
    if not all((folder / name).is_file() for name in files):
        with zipfile.ZipFile(fetched(WORDNET)) as archive:
            for name in files:
                with atomic(folder / name, "wb") as file:
                    file.write(archive.read(f"wordnet/{name}"))
    return folder
