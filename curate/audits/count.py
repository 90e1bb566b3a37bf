"""The passes of an audit over a pool: rows of every group, words beside two groups, domains; raw, and kept by each
subset.

Each file is counted by itself, in any process of any part; its counts are kept as an npz, packed into an array of
bytes. Words and domains take a second pass, which counts those that the first found in full buckets
(curate/audits/frequent.py).
"""

import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from poolbench.errors import UserError
from poolbench.files import digest_bytes
from poolbench.uids import malformed

from curate.audits.frequent import Buckets, bucket
from curate.audits.groups import Attribute, Captions, Masks, domains_of
from curate.pool.files import File, Rows, read
from curate.pool.parts import Part
from curate.pool.passes import Passes
from curate.report.members import Members
from curate.report.words import words_of

_SEVERAL = " and "  # between the groups of a pair, and between their attributes
_VERSION = 1  # raised by a change that gives other counts
_FILLED = ("word_gaps", "word_counts", "domain_gaps", "domain_counts")  # see Buckets.filled


class Key(NamedTuple):
    """A group."""

    attribute: str
    group: str


class Words(NamedTuple):
    """Which attribute's two groups the words are counted beside, and how often a word must stand beside each."""

    attribute: str
    groups: tuple[str, str]
    minimum: int


@dataclass(frozen=True)
class Question:
    """What to count: of which subsets, in which groups.

    Attributes:
        digests: SHA-256 of each subset's file.
        pairs: whether groups of two attributes of captions are taken together, too.
        words: None: not counted.
        domains: rows that a domain has at least; None: not counted.
    """

    subsets: Sequence[Members]
    digests: Sequence[str]
    attributes: Sequence[Attribute]
    pairs: bool
    words: Words | None
    domains: int | None

    @property
    def columns(self) -> list[str]:
        """Of the pool, that the groups are told by."""
        every = [name for attribute in self.attributes for name in attribute.columns]
        return list(dict.fromkeys([*every, *(["url"] if self.domains is not None else [])]))

    def identity(self) -> Any:
        """All that the counts of a file depend on besides the file; least counts of words and domains come later."""
        attributes = [attribute.identity() for attribute in self.attributes]
        words = None if self.words is None else [self.words.attribute, self.words.groups]
        return [_VERSION, list(self.digests), attributes, self.pairs, words, self.domains is not None]


@dataclass
class Tallies:
    """Counts of a file, or of all so far: of all rows and of each group, raw and kept by each, int64 [1 + subsets]."""

    rows: np.ndarray
    groups: dict[Key, np.ndarray] = field(default_factory=dict)
    words: Buckets = field(default_factory=lambda: Buckets(2))
    domains: Buckets = field(default_factory=lambda: Buckets(1))
    malformed: int = 0
    example: str = ""

    def merge(self, other: "Tallies") -> None:
        self.rows += other.rows
        for key, counts in other.groups.items():
            self.groups[key] = self.groups[key] + counts if key in self.groups else counts
        self.words.merge(other.words)
        self.domains.merge(other.domains)
        self.malformed += other.malformed
        self.example = self.example or other.example

    def packed(self) -> np.ndarray:
        """As bytes, uint8 [n]."""
        told = {"groups": list(self.groups), "malformed": self.malformed, "example": self.example}
        counts = np.array(list(self.groups.values()), np.int64).reshape(-1, len(self.rows))
        buckets = (*self.words.filled(), *self.domains.filled())
        return _packed(told, {"rows": self.rows, "groups": counts, **dict(zip(_FILLED, buckets, strict=True))})

    @classmethod
    def unpacked(cls, data: np.ndarray) -> "Tallies":
        told, arrays = _unpacked(data)
        groups = {Key(*key): counts for key, counts in zip(told["groups"], arrays["groups"], strict=True)}
        found = cls(arrays["rows"], groups, malformed=told["malformed"], example=told["example"])
        found.words.fill(*(arrays[name] for name in _FILLED[:2]))
        found.domains.fill(*(arrays[name] for name in _FILLED[2:]))
        return found


@dataclass
class Items:
    """Counts of words and domains, exact: word -> int64 [2, 1 + subsets], domain -> int64 [1 + subsets]."""

    words: dict[str, np.ndarray] = field(default_factory=dict)
    domains: dict[str, np.ndarray] = field(default_factory=dict)

    def merge(self, other: "Items") -> None:
        for mine, theirs in ((self.words, other.words), (self.domains, other.domains)):
            for name, counts in theirs.items():
                mine[name] = mine[name] + counts if name in mine else counts

    def packed(self) -> np.ndarray:
        """As bytes, uint8 [n]."""
        told = {"words": list(self.words), "domains": list(self.domains)}
        arrays = {"words": list(self.words.values()), "domains": list(self.domains.values())}
        return _packed(told, {name: np.array(counts, np.int64) for name, counts in arrays.items()})

    @classmethod
    def unpacked(cls, data: np.ndarray) -> "Items":
        told, arrays = _unpacked(data)
        return cls(*(dict(zip(told[name], arrays[name], strict=True)) for name in ("words", "domains")))


class Full(NamedTuple):
    """The full buckets of words and of domains, packed bits."""

    words: np.ndarray
    domains: np.ndarray

    def identity(self) -> Any:
        return [digest_bytes(bits.tobytes()) for bits in self]


def count(passes: Passes, question: Question, part: Part) -> None:
    """Count a part's files; of the first pass, where there is a second one, also those that no other part has."""
    if question.words is None and question.domains is None:
        passes.do(passes.prepared(tallied, question), part.own(passes.files))
        return
    full = full_of(question, tallies(passes, question))
    passes.do(passes.prepared(itemized, question, full), part.own(passes.files))


def tallies(passes: Passes, question: Question) -> Tallies:
    """Count every group of the pool in one pass. Files that cannot be read are left out.

    Raises:
        UserError: none can be read, or they have no row with a uid.
    """
    total = Tallies(np.zeros(1 + len(question.subsets), np.int64))
    for _, found in passes.map(tallied, question):
        total.merge(Tallies.unpacked(found))
    if not total.rows[0]:
        wrong = f": {malformed(total.malformed, total.example)}" if total.malformed else ""
        raise UserError(f"the pool has no rows with a uid{wrong}")
    return total


def items(passes: Passes, question: Question, total: Tallies) -> Items:
    """Count the words and domains that may be frequent, in a second pass; in none where neither is asked for."""
    found = Items()
    if question.words is None and question.domains is None:
        return found
    for _, one in passes.map(itemized, question, full_of(question, total)):
        found.merge(Items.unpacked(one))
    if question.words:
        least = question.words.minimum
        found.words = {word: counts for word, counts in found.words.items() if counts[:, 0].min() >= least}
    if question.domains is not None:
        found.domains = {name: counts for name, counts in found.domains.items() if counts[0] >= question.domains}
    return found


def full_of(question: Question, total: Tallies) -> Full:
    """The buckets in which a frequent word or domain may be."""
    words = total.words.full(question.words.minimum) if question.words else np.zeros(0, bool)
    domains = total.domains.full(question.domains) if question.domains is not None else np.zeros(0, bool)
    return Full(np.packbits(words), np.packbits(domains))


def tallied(file: File, question: Question) -> np.ndarray:
    """The counts of one file, packed Tallies.

    Raises:
        BadFile: it cannot be read.
    """
    found = Tallies(np.zeros(1 + len(question.subsets), np.int64))
    for rows in read(file, question.columns):
        chosen, masks = _chosen(rows, question), _masks(rows, question)
        found.rows += _counts(np.ones(len(rows.table), bool), chosen)
        found.malformed += len(rows.malformed)
        found.example = found.example or (rows.malformed[0] if rows.malformed else "")
        for key, mask in _grouped(masks, question):
            if mask.any():
                counts = _counts(mask, chosen)
                found.groups[key] = found.groups[key] + counts if key in found.groups else counts
        for channel, mask in enumerate(_beside(masks, question)):
            found.words.add(channel, (word for words in _words(rows.table, mask) for word in words))
        if question.domains is not None:
            found.domains.add(0, (one for one in domains_of(rows.table["url"].to_pylist()) if one))
    return found.packed()


def itemized(file: File, question: Question, full: Full) -> np.ndarray:
    """The exact counts of a file's words and domains in full buckets, packed Items.

    Raises:
        BadFile: it cannot be read.
    """
    found, full_words, full_domains = Items(), np.unpackbits(full.words), np.unpackbits(full.domains)
    for rows in read(file, question.columns):
        chosen, masks = _chosen(rows, question), _masks(rows, question)
        for channel, mask in enumerate(_beside(masks, question)):
            times = np.stack(chosen, axis=1)[mask]
            for row, present in zip(times, _words(rows.table, mask), strict=True):
                for word in present:
                    if full_words[bucket(word)]:
                        counts = found.words.setdefault(word, np.zeros((2, len(chosen)), np.int64))
                        counts[channel] += row
        if question.domains is not None:
            named = domains_of(rows.table["url"].to_pylist())
            for row, domain in zip(np.stack(chosen, axis=1), named, strict=True):
                if domain and full_domains[bucket(domain)]:
                    counts = found.domains.setdefault(domain, np.zeros(len(chosen), np.int64))
                    counts += row
    return found.packed()


def _packed(told: Any, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Something that JSON can hold, and arrays, as bytes of an npz."""
    stream = io.BytesIO()
    np.savez_compressed(stream, told=np.frombuffer(json.dumps(told).encode(), np.uint8), **arrays)  # type: ignore[arg-type]
    return np.frombuffer(stream.getvalue(), np.uint8)


def _unpacked(data: np.ndarray) -> tuple[Any, dict[str, np.ndarray]]:
    """What `_packed` packed."""
    with np.load(io.BytesIO(data.tobytes()), allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return json.loads(arrays.pop("told").tobytes()), arrays


def _chosen(rows: Rows, question: Question) -> list[np.ndarray]:
    """Which rows count: all of them, and those that each subset keeps, bool [rows] each."""
    uids = rows.arrays["uid"]
    return [np.ones(len(uids), bool), *(subset.find(uids)[1] > 0 for subset in question.subsets)]


def _masks(rows: Rows, question: Question) -> list[tuple[Attribute, Masks]]:
    return [(attribute, attribute.masks(rows.table, rows.arrays["uid"])) for attribute in question.attributes]


def _grouped(masks: Sequence[tuple[Attribute, Masks]], question: Question) -> Iterator[tuple[Key, np.ndarray]]:
    """Every group, and every pair of groups of two attributes of captions."""
    for attribute, groups in masks:
        yield from ((Key(attribute.name, group), mask) for group, mask in groups.items())
    if not question.pairs:
        return
    told = [(attribute, groups) for attribute, groups in masks if isinstance(attribute, Captions)]
    for (first, ones), (second, others) in itertools.combinations(told, 2):
        name = f"{first.name}{_SEVERAL}{second.name}"
        for (one, mask), (other, also) in itertools.product(ones.items(), others.items()):
            yield Key(name, f"{one}{_SEVERAL}{other}"), mask & also


def _beside(masks: Sequence[tuple[Attribute, Masks]], question: Question) -> list[np.ndarray]:
    """The rows of the two groups whose words are compared."""
    if question.words is None:
        return []
    groups = next(found for attribute, found in masks if attribute.name == question.words.attribute)
    return [groups[group] for group in question.words.groups]


def _words(table: pa.Table, mask: np.ndarray) -> Iterator[set[str]]:
    """The words of each chosen caption."""
    texts = pc.fill_null(table["text"].filter(pa.array(mask)), "")
    return (words_of(text) for text in texts.to_pylist())


def _counts(mask: np.ndarray, chosen: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of a mask, raw and kept by each subset, int64 [1 + subsets]."""
    return np.array([int(np.count_nonzero(mask & one)) for one in chosen], np.int64)
