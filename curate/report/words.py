"""What is more frequent in one sample of texts than in another."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_LONGEST = 40  # characters; what is longer is no word
_PRIOR = 1000.0  # texts' worth of the mean of both samples that each is mixed with


class Contrast(NamedTuple):
    """How often something is found in two samples: the shares of their texts that have it, and the z-score of the
    log-odds ratio, above 0 where it is more frequent in the first."""

    item: str
    first: float
    second: float
    z: float


def words_of(text: str) -> set[str]:
    """The different words of a caption, in small letters."""
    return {word for word in _WORD.findall(text.lower()) if len(word) <= _LONGEST}


def host_of(url: str) -> str:
    """The host of an address without www., "(none)" where it has none."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = ""
    return host.removeprefix("www.") or "(none)"


def counted(items: Iterable[str | None], parts: Callable[[str], Iterable[str]]) -> Counter[str]:
    """In how many of the items each part is found."""
    counts: Counter[str] = Counter()
    for item in items:
        counts.update(parts(item or ""))
    return counts


def contrasts(first: Counter[str], second: Counter[str], sizes: tuple[int, int]) -> list[Contrast]:
    """Everything that is in either sample, what is most over-represented in the first at the front.

    The log-odds ratio with an informative Dirichlet prior (Monroe, Colaresi and Quinn, "Fightin' Words", 2008): the
    prior is the mean of both samples, so that rare words, whose ratios are noise, do not come first. A text counts once
    for a word, so the variance is that of two shares: with the texts that lack it.

    Args:
        sizes: texts of each sample.
    """
    total = sum(sizes)
    rows = []
    for item in first.keys() | second.keys():
        prior = _PRIOR * (first[item] + second[item]) / total
        ratio = variance = 0.0
        for sign, count, size in ((1, first[item], sizes[0]), (-1, second[item], sizes[1])):
            # What every text has leaves none without it.
            with_it, without = count + prior, max(size - count + _PRIOR - prior, 0.5)
            ratio += sign * math.log(with_it / without)
            variance += 1 / with_it + 1 / without
        shares = (first[item] / max(sizes[0], 1), second[item] / max(sizes[1], 1))
        rows.append(Contrast(item, *shares, ratio / math.sqrt(variance)))
    return sorted(rows, key=lambda row: (-row.z, row.item))


def top(rows: Sequence[Contrast], count: int, key: Callable[[Contrast], float]) -> list[Contrast]:
    """The `count` rows with the largest `key`, equals by name."""
    return sorted(rows, key=lambda row: (-key(row), row.item))[:count]
