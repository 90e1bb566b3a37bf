"""MetaCLIP's metadata, a list of some 500,000 entries, and which of them stand in a caption.

A caption has blanks put around its ends and around each of `, . ; : ? ! ` and backtick, and its tabs and line ends made
blanks; an entry matches where it stands in that between blanks. Upper and lower case differ, and an entry counts once
for a caption however often it stands there. All entries are looked for at once, by an automaton of Aho and Corasick.

Entries by language are MetaCLIP 2's: a caption is compared with those of its own language only, and beside ideographs,
letters of languages that are written without blanks, and punctuation no blank is asked for.
"""

import functools
import importlib.util
import itertools
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from poolbench.assets import fetched
from poolbench.errors import UserError, first_line
from poolbench.files import digest_json, once

from curate.models.assets import METACLIP_METADATA
from curate.models.languages import check_detector, detector
from curate.models.wordnet import DATA, find_wordnet, synset_names

PUBLISHED, WORDNET = "published", "wordnet"  # instead of a file
OTHER = "other"  # the list for captions whose language has none
_VERSION = 1  # raised by a change that finds other entries
_MARKS, _BLANKS = ",.;:?!`", "\t\n\r"
_TO_BLANKS = bytes.maketrans(_BLANKS.encode(), b" " * len(_BLANKS))
_END = b"\xff"  # stands in no UTF-8
_TOGETHER = 2**13  # captions that are searched as one text; what is found there is a list of Python's tuples
# As MetaCLIP 2 lists them: ideographs; Thai, Lao, Tibetan, Burmese, Khmer; its punctuation beside ASCII's.
_UNSPACED = re.compile(
    r"[\u2e80-\u2fdf\u2ff0-\u2fff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ebef"
    r"\u0e00-\u109f\u1780-\u17ff"
    f"{re.escape(string.punctuation)}，。、；：？！“”‘’（）【】《》〈〉「」『』～—]"
)


class Entries(NamedTuple):
    """Entries by language, "" where they are for captions of any, each once; and how many were left out."""

    lists: dict[str, list[str]]
    duplicates: int
    blanks: int


class Matches(NamedTuple):
    """Which entries stand in which captions, each pair once, by row.

    Attributes:
        rows: int64 [pairs].
        entries: their numbers, over all lists one after the other, int64 [pairs].
    """

    rows: np.ndarray
    entries: np.ndarray


def load_entries(given: str, wordnet: str = "") -> Entries:
    """The entries of a JSON file, a list of texts or an object of such lists by language.

    Args:
        given: a path; "published" for MetaCLIP's own file, or "wordnet" for `wordnet_entries`.
        wordnet: the folder of WordNet, see `find_wordnet`.

    Raises:
        UserError: the file is something else, has no entry or cannot be fetched.
    """
    if given == WORDNET:
        found: Any = wordnet_entries(find_wordnet(wordnet, DATA))
    else:
        path = fetched(METACLIP_METADATA) if given == PUBLISHED else Path(given)
        try:
            found = json.loads(path.read_bytes(), object_pairs_hook=once)
        except UserError as error:
            raise UserError(f"filter.metadata={given}: {error}") from None
        except OSError as error:
            raise UserError(f"filter.metadata={given} cannot be read: {error.strerror or error}") from None
        except ValueError as error:
            raise UserError(f"filter.metadata={given} is not JSON: {first_line(error)}") from None
    lists = found if isinstance(found, dict) else {"": found}
    for language, entries in lists.items():
        _check(f"filter.metadata={given}" + (f": {language!r}" if language else ""), entries)
    distinct = {language: list(dict.fromkeys(entries)) for language, entries in lists.items()}
    named = {language: [entry for entry in entries if entry.strip()] for language, entries in distinct.items()}
    if not any(named.values()):
        raise UserError(f"filter.metadata={given} has no entry")
    count = sum(map(len, named.values()))
    blanks = sum(not entry.strip() for entries in lists.values() for entry in entries)
    return Entries(named, sum(map(len, lists.values())) - blanks - count, blanks)


def _check(where: str, entries: Any) -> None:
    if not isinstance(entries, list):
        raise UserError(f"{where} is no list of texts, nor an object of such lists by language")
    for place, entry in enumerate(entries):
        if not isinstance(entry, str):
            raise UserError(f"{where}: entry {place} is {json.dumps(entry)[:40]}, not a text")


def wordnet_entries(folder: Path) -> list[str]:
    """What MetaCLIP takes without a dump of Wikipedia, 86,654 entries: the numbers below 100 and WordNet's synsets."""
    names = (name for name in synset_names(folder) if name and name not in string.punctuation)
    return list(dict.fromkeys([*map(str, range(100)), *names]))


@dataclass(frozen=True)
class Metadata:
    """Entries by what they are made of, so that each process can make their matcher once for itself.

    Attributes:
        given, wordnet: see `load_entries`.
        detector: what tells the language of a caption; "" where the entries are for captions of any.
        digest: of the entries.
    """

    given: str
    wordnet: str
    detector: str
    digest: str

    def identity(self) -> Any:
        return ["metaclip", _VERSION, self.digest, self.detector]

    def matcher(self) -> "Matcher":
        return _matcher(self)


def described(entries: Entries, given: str, wordnet: str, language: str) -> Metadata:
    """
    Raises:
        UserError: what is needed to look for them is missing.
    """
    if importlib.util.find_spec("ahocorasick_rs") is None:
        raise UserError("this filter needs the package ahocorasick-rs: pip install -e '.[curate]'")
    by_language = set(entries.lists) != {""}
    if by_language:
        check_detector(language)
    return Metadata(given, wordnet, language if by_language else "", digest_json(entries.lists))


@functools.lru_cache(1)
def _matcher(metadata: Metadata) -> "Matcher":
    lists = load_entries(metadata.given, metadata.wordnet).lists
    if digest_json(lists) != metadata.digest:
        raise UserError(f"filter.metadata={metadata.given} was changed meanwhile; start the same command again")
    return Matcher(lists, metadata.detector)


class Matcher:
    """Looks for entries in captions; some 0.5 KB of memory an entry.

    Attributes:
        hashes: of the entries' texts, so that what is drawn for one depends on no order, u8 [entries].
        lists: the number of each entry's list, int64 [entries].
    """

    def __init__(self, lists: Mapping[str, Sequence[str]], language: str = "") -> None:
        """
        Args:
            lists: entries by language; {"": entries} for captions of any.
            language: the detector.
        """
        self._detector = language
        self._languages = list(lists)
        every = [_bytes(entry) for entries in lists.values() for entry in entries]
        self.hashes = np.frombuffer(b"".join(blake2b(entry, digest_size=8).digest() for entry in every), "<u8")
        sizes = [len(entries) for entries in lists.values()]
        self.lists = np.repeat(np.arange(len(sizes)), sizes)
        self._starts = np.cumsum([0, *sizes])
        self._automata = [_automaton([_spaced(entry, bool(name)) for entry in lists[name]]) for name in lists]

    def find(self, texts: pa.ChunkedArray) -> Matches:
        """
        Args:
            texts: captions; in a missing one nothing stands.

        Raises:
            pa.ArrowInvalid: a caption is not UTF-8.
        """
        texts.validate(full=True)
        if not self._detector:
            return self._found(texts, 0)
        texts = pc.fill_null(texts, "")
        names = np.array(detector(self._detector)(texts.to_pylist()), object)
        known = np.isin(names, self._languages)
        names[~known] = OTHER
        parts = []
        for place, name in enumerate(self._languages):
            rows = np.flatnonzero(names == name)
            rows_found, entries = self._found(texts.take(pa.array(rows)), place)
            parts.append((rows[rows_found], entries))
        rows, entries = (np.concatenate(some) for some in zip(*parts, strict=True))
        order = np.argsort(rows, kind="stable")
        return Matches(rows[order], entries[order])

    def _found(self, texts: pa.ChunkedArray, place: int) -> Matches:
        """What one list has in captions."""
        rows, entries = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for start in range(0, len(texts), _TOGETHER):
            some = texts.slice(start, _TOGETHER)
            row, entry = np.divmod(self._pairs(some, place), len(self.hashes))
            rows.append(row + start)
            entries.append(entry + self._starts[place])
        return Matches(np.concatenate(rows), np.concatenate(entries))

    def _pairs(self, texts: pa.ChunkedArray, place: int) -> np.ndarray:
        """Row and entry as one number, each pair once, ascending."""
        spaced = _one_text(texts)
        found = self._automata[place].find_matches_as_indexes(spaced, overlapping=True)
        flat = np.fromiter(itertools.chain.from_iterable(found), np.int64, 3 * len(found))
        ends = np.flatnonzero(np.frombuffer(spaced, np.uint8) == _END[0])
        pairs: np.ndarray = np.searchsorted(ends, flat[1::3]) * len(self.hashes) + flat[::3]
        pairs.sort()
        once: np.ndarray = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique takes three times as long
        return once


def _one_text(texts: pa.ChunkedArray) -> bytes:
    """Captions one after the other, with _END between them, as entries are looked for in them."""
    pieces = pc.fill_null(texts, "").cast(pa.large_binary()).combine_chunks()
    pieces = pieces.combine_chunks() if isinstance(pieces, pa.ChunkedArray) else pieces
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(pieces)], pa.int64()), pieces)
    joined: bytes = pc.binary_join(whole, pa.scalar(b" " + _END + b" ", pa.large_binary()))[0].as_py()
    joined = b" " + joined.translate(_TO_BLANKS) + b" "
    for mark in _MARKS.encode():
        joined = joined.replace(b"%c" % mark, b" %c " % mark)
    return joined


def _spaced(entry: str, by_language: bool) -> bytes:
    """An entry as it is looked for; see the head of this module."""
    before = "" if by_language and _UNSPACED.match(entry[0]) else " "
    after = "" if by_language and _UNSPACED.match(entry[-1]) else " "
    return _bytes(before + entry + after)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # JSON can spell lone surrogates, which stand in no caption


def _automaton(patterns: list[bytes]) -> Any:
    from ahocorasick_rs import BytesAhoCorasick, Implementation

    # The automaton that needs least memory but for one that is half as fast.
    return BytesAhoCorasick(patterns, implementation=Implementation.ContiguousNFA)
