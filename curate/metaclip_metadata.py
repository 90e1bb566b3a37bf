"""A list of entries for the filter metaclip, from WordNet and what is given of a language's texts.

    python -m curate.metaclip_metadata out=metadata.json [unigrams=<file>] [bigrams=<file>] [titles=<file or folder>]

As the authors of MetaCLIP made theirs: the numbers below 100; the names of WordNet's synsets; words that are counted at
least `count` times; pairs of words whose pointwise mutual information is at least `pmi`; titles of Wikipedia that were
viewed at least `views` times. Empty ones and single punctuation marks are left out.

    unigrams    a line each: word count
    bigrams     a line each: first second count; pairs of words that the unigrams lack are left out
    titles      dumps of Wikipedia's page views (https://dumps.wikimedia.org/other/pageviews/), of an hour each, lines:
                en Some_title views bytes; fewer than 50 views in an hour do not count, nor do titles with a colon

Each may be gzip (.gz). The published thresholds are for all of Wikipedia; of fewer words the information is less.
"""

import gzip
import math
import string
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from poolbench.command import parse
from poolbench.errors import UserError, exit_on_user_error
from poolbench.files import write_json
from poolbench.options import option, output, source

from curate.models.entries import wordnet_entries
from curate.models.wordnet import DATA, find_wordnet

_AN_HOUR = 50  # views from which an hour counts
_ENGLISH = "en"  # of dumps of page views: the site as desktops see it


@dataclass
class MetadataConfig:
    """The options."""

    out: str = output("file of the entries, JSON")
    unigrams: str | None = source("file of words and how often they stand", None)
    bigrams: str | None = source("file of pairs of words and how often they stand; needs unigrams=", None)
    titles: str | None = source("file, or folder of files, of page views", None)
    wordnet: str = source("folder of WordNet 3.0; empty: Debian's wordnet-base or a downloaded one", "")
    count: int = option("from which a word is an entry", 100)
    pmi: float = option("pointwise mutual information, in bits, from which a pair is an entry", 30.0)
    views: int = option("from which a title is an entry", 70)


def main(arguments: list[str]) -> int:
    words, config = parse(arguments, MetadataConfig)
    if words:
        raise UserError(f"{words[0]!r} is not key=value")
    if config.bigrams is not None and config.unigrams is None:
        raise UserError("bigrams= needs unigrams=, by whose counts a pair is judged")
    found: dict[str, None] = {}
    for what, entries in sources(config):
        before = len(found)
        found |= dict.fromkeys(entry for entry in entries if entry and entry not in string.punctuation)
        print(f"{what}: {len(found) - before:,} entries", file=sys.stderr)
    write_json(config.out, list(found))
    print(f"wrote {config.out}: {len(found):,} entries")
    return 0


def sources(config: MetadataConfig) -> Iterator[tuple[str, Iterator[str]]]:
    """What entries are of, and they, each source as it is asked for."""
    yield "wordnet", iter(wordnet_entries(find_wordnet(config.wordnet, DATA)))
    if config.unigrams is not None:
        counts = dict(counted(Path(config.unigrams), 1))
        yield "unigrams", (word for (word,), count in counts.items() if count >= config.count)
        if config.bigrams is not None:
            of_words = {word: count for (word,), count in counts.items()}
            yield "bigrams", informative(of_words, dict(counted(Path(config.bigrams), 2)), config.pmi)
    if config.titles is not None:
        views = viewed(Path(config.titles))
        yield "titles", (title for title, count in views.items() if count >= config.views)


def counted(path: Path, words: int) -> Iterator[tuple[tuple[str, ...], int]]:
    """The words and the count of each line.

    Raises:
        UserError: a line has something else, or the file cannot be read.
    """
    for number, line in _lines(path):
        *fields, count = line.split() or [""]
        if len(fields) != words or not count.isdecimal():
            named = "word count" if words == 1 else "first second count"
            raise UserError(f"{path}: line {number} is {line.strip()[:40]!r}, not {named!r}")
        yield tuple(fields), int(count)


def informative(words: dict[str, int], pairs: dict[tuple[str, ...], int], least: float) -> Iterator[str]:
    """The pairs whose pointwise mutual information is at least `least`: log2 of how many times more often they stand
    together than they would by chance."""
    total = sum(words.values())
    for (first, second), count in pairs.items():
        apart = words.get(first, 0) * words.get(second, 0)
        if count and apart and math.log2(count * total) - math.log2(apart) >= least:
            yield f"{first} {second}"


def viewed(path: Path) -> Counter[str]:
    """How often each English title was viewed, of a file or of all in a folder."""
    views: Counter[str] = Counter()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        for number, line in _lines(file):
            site, *fields = line.split(" ")
            if site != _ENGLISH:
                continue
            if len(fields) != 3 or not fields[1].isdecimal():
                raise UserError(f"{file}: line {number} is {line.strip()[:40]!r}, not 'en Some_title views bytes'")
            title, count = fields[0].replace("_", " ").strip(), int(fields[1])
            if count >= _AN_HOUR and ":" not in title:
                views[title] += count
    return views


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, numbered from 1."""
    try:
        with _opened(path) as file:
            yield from enumerate(file, 1)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _opened(path: Path) -> TextIO:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8")


if __name__ == "__main__":
    exit_on_user_error(lambda: main(sys.argv[1:]))
