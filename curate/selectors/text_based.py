"""The benchmark's text filter: English captions with a word for a thing that ImageNet-21k has pictures of."""

import functools
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from poolbench.errors import UserError
from poolbench.files import digest_bytes
from poolbench.options import option, source

from curate.models.captions import is_english
from curate.models.languages import check_detector
from curate.models.wordnet import WordNet, find_wordnet
from curate.pool.passes import Passes
from curate.selectors.base import Filter

# timm carries the very file with which the published subsets were made.
_SYNSETS = Path("data/_info/imagenet21k_goog_synsets.txt")
_DIGEST = "66362bdedf36d933382edca5493fc562dcc17128ce36403c9e730a75f48cb2f2"
_WORDS_REMEMBERED = 2**20


@dataclass
class Options:
    """The options."""

    language: str = option("what tells English, see curate/models/languages.py; as published: fasttext", "fasttext")
    wordnet: str = source("folder of WordNet 3.0; empty: Debian's wordnet-base or a downloaded one", "")


class TextBased(Filter):
    """Keeps English captions of which a word, as str.split parts them, has its first sense among ImageNet-21k's.

    Only the offset is compared: a verb's that is by chance a noun's in ImageNet counts, as in the published filter.
    """

    columns = ("text",)

    def learn(self, passes: Passes) -> None:
        check_detector(self.options.language)
        entity_test(self.options.wordnet)

    def keep(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        is_entity = entity_test(self.options.wordnet)
        texts = rows["text"].to_pylist()
        kept = np.fromiter((any(map(is_entity, (text or "").split())) for text in texts), bool, len(texts))
        kept[kept] = is_english(rows["text"].filter(pa.array(kept)), self.options.language)  # the dear rule, last
        return kept

    def tallies(self, rows: pa.Table, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
        return {"rows without a caption": rows["text"].null_count}


@functools.cache
def entity_test(wordnet: str) -> Callable[[str], bool]:
    """Whether a word's first synset is one of ImageNet-21k's; captions repeat their words, so answers are remembered.

    Raises:
        UserError: WordNet or ImageNet's list is missing or another edition.
    """
    words, entities = WordNet(find_wordnet(wordnet)), imagenet_offsets()
    return functools.lru_cache(_WORDS_REMEMBERED)(lambda word: words.first_synset_offset(word) in entities)


def imagenet_offsets() -> frozenset[int]:
    """The WordNet 3.0 offsets of ImageNet-21k's classes.

    Raises:
        UserError: timm no longer carries the list.
    """
    spec = importlib.util.find_spec("timm")  # not imported: it would bring torch
    path = Path(str(spec.origin if spec else "")).parent / _SYNSETS
    content = path.read_bytes() if path.is_file() else b""
    if digest_bytes(content) != _DIGEST:
        raise UserError(f"{path} is not ImageNet-21k's list of 21,843 classes, which timm 1.0.31 carries")
    return frozenset(int(line[1:]) for line in content.decode().split())
