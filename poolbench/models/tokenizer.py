"""open_clip's tokenizer of CLIP's captions, in a third of its time: it remembers the tokens of words."""

import torch
from open_clip import SimpleTokenizer

WORDS = 250_000  # that are remembered, here and by open_clip's; some 100 MB


class Tokenizer:
    """Gives the tokens that a tokenizer of open_clip gives, [n, context length]."""

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self._tokenizer, self._words = tokenizer, dict[str, list[int]]()

    def __call__(self, captions: list[str]) -> torch.Tensor:
        """Tokens of captions, int64 [n, context length]: a start, those of the caption as far as there is room, an end,
        and zeros."""
        context = self._tokenizer.context_length
        tokens = torch.zeros((len(captions), context), dtype=torch.int64)
        for row, caption in zip(tokens.numpy(), captions, strict=True):
            own = self._encode(caption)[: context - 2]
            row[: len(own) + 2] = (self._tokenizer.sot_token_id, *own, self._tokenizer.eot_token_id)
        self._forget()
        return tokens

    def _encode(self, caption: str) -> list[int]:
        """Plain ASCII is cleaned and parted word by word alike; all else may be HTML's, or mended across words."""
        if not (caption.isascii() and caption.isprintable()) or "&" in caption:
            return list(self._tokenizer.encode(caption))
        tokens: list[int] = []
        for word in caption.split():
            known = self._words.get(word)
            if known is None:
                known = self._words[word] = self._tokenizer.encode(word)
            tokens += known
        return tokens

    def _forget(self) -> None:
        """Both remember every word that they have met, days of them."""
        for words in (self._words, self._tokenizer.cache):
            while len(words) > WORDS:
                words.popitem()  # the newest; the common ones were met early
