"""Our tokenizer gives the tokens that open_clip's gives, whatever the caption."""

import string

import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poolbench.models import tokenizer
from poolbench.models.clip import tokenizer_of
from poolbench.models.tokenizer import Tokenizer

# Plain words; what is cleaned, unescaped, mended or split in some way of its own; and letters of all kinds.
PLAIN = st.sampled_from(
    ["a", "photo", "Of", "the", "don't", "it's,", "2,000", "C++", "<end_of_text>x", "_a_", "~", "x" * 99]
)
ODD = [
    "&amp;amp;",
    "&lt",
    "<b>&#39;",
    "caf\u00c3\u00a9",
    "\u2018quoted\u2019",
    "\x1b[1m",
    "\x00",
    "\r\n",
    "\t",
    "\xa0",
    "\x85",
    "\ufb01",
]
WORDS = st.one_of(PLAIN, st.sampled_from(ODD), st.text(string.printable, max_size=8), st.text(max_size=8))
CAPTIONS = st.lists(WORDS, max_size=90).map(" ".join)
PLAIN_CAPTIONS = st.lists(PLAIN, max_size=90).map(" ".join)


@pytest.fixture(scope="module")
def inner() -> open_clip.SimpleTokenizer:
    """The one that ours asks."""
    return open_clip.get_tokenizer("ViT-B-32")


@pytest.fixture(scope="module")
def theirs() -> open_clip.SimpleTokenizer:
    return open_clip.get_tokenizer("ViT-B-32")


@settings(max_examples=200, deadline=None)
@given(captions=st.lists(st.one_of(CAPTIONS, PLAIN_CAPTIONS), max_size=4))
def test_tokens_are_open_clips(
    inner: open_clip.SimpleTokenizer, theirs: open_clip.SimpleTokenizer, captions: list[str]
) -> None:
    ours = Tokenizer(inner)
    for _ in range(2):  # the second time from memory
        tokens = ours(captions)
        assert tokens.dtype == torch.int64
        assert torch.equal(tokens, theirs(captions))


@pytest.mark.parametrize("name", ["ViT-B-32", "ViT-L-14", "ViT-S-32-alt", "ViT-B-16-SigLIP2", "roberta-ViT-B-32"])
def test_only_open_clips_own_tokenizer_is_replaced(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of transformers, and one that leaves words out at random, stay as they are."""
    made = object()
    if open_clip.get_model_config(name)["text_cfg"].get("hf_tokenizer_name"):
        monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: made)
        assert tokenizer_of(name) is made
    else:
        assert torch.equal(tokenizer_of(name)(["A photo, of it"]), open_clip.get_tokenizer(name)(["A photo, of it"]))
        monkeypatch.setattr(open_clip, "get_tokenizer", lambda _: open_clip.SimpleTokenizer(reduction_mask="random"))
        assert type(tokenizer_of(name)) is open_clip.SimpleTokenizer


def test_no_more_words_are_remembered_than_said(
    theirs: open_clip.SimpleTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer, "WORDS", 5)
    inner = open_clip.SimpleTokenizer()
    ours = Tokenizer(inner)
    for captions in (["one two three four"], ["five six seven eight", "\u00fcber"], ["one nine"]):
        assert torch.equal(ours(captions), theirs(captions))
    assert len(ours._words) == 5 and next(iter(ours._words)) == "one" and len(inner.cache) <= 5
