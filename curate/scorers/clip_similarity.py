"""The similarity of picture and caption as any CLIP model sees it, and the embeddings that it is the product of."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from poolbench.errors import UserError
from poolbench.options import option, source

from curate.pool.scored import Identity, Made, Scores
from curate.scorers.base import Clock, Scorer, ScorerOptions

if TYPE_CHECKING:  # see base.py
    import torch

    from poolbench.models.weights import Weights

    from curate.scorers.stream import Batch

ARCHS = {"ViT-B-32": "b32", "ViT-L-14": "l14"}  # the names that published pools give these


@dataclass
class Options(ScorerOptions):
    """The options; docs/score.md says more."""

    checkpoint: str | None = source(
        "file of weights, one of open_clip's pretrained tags, or folder of a run; null: what model= brings", None
    )
    model: str | None = source("open_clip's name of the model; null: as the run says", None, remote=True)
    arch: str | None = option("what columns and arrays are called; null: after the model, b32 for ViT-B-32", None)

    def check(self) -> None:
        super().check()
        if self.arch is not None and not re.fullmatch(r"[a-z0-9_]+", self.arch):
            raise UserError(f"arch={self.arch}: small letters, digits and _ only, as it becomes the name of a column")


class ClipSimilarity(Scorer):
    """`clip_<arch>_similarity_score`, `<arch>_img` and `<arch>_txt`.

    Raises:
        UserError: no such weights; see poolbench.models.weights.weights_named.
    """

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        from poolbench.models.weights import weights_named

        self._weights = weights_named(options.checkpoint, options.model)
        arch = options.arch or ARCHS.get(self._weights.model.removesuffix("-quickgelu")) or _slug(self._weights)
        self.made = Made(arch, (f"clip_{arch}_similarity_score",), (f"{arch}_img", f"{arch}_txt"))
        model, _, tag, sha256, _ = self._weights
        self.identity = Identity(model=model, tag=tag, sha256=sha256, precision=options.precision)

    def __str__(self) -> str:
        return f"{self._weights.model}, {self._weights.checkpoint}, as {self.made.name}"

    def load(self, device: "torch.device") -> None:
        from poolbench.models.clip import load, tokenizer_of
        from poolbench.models.conventions import conventions_of
        from poolbench.models.towers import Towers
        from poolbench.models.transforms import WebPixels, evaluation_transform

        model, checkpoint, _, _, folder = self._weights
        clip = load(model, checkpoint, folder=folder, device=device, say=print)
        self._towers = Towers(clip, device, self.options.precision)
        self.pixels, self.tokenizer = WebPixels(evaluation_transform(clip)), tokenizer_of(model, folder)
        self.conventions = conventions_of(clip)._asdict()

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        with clock.on("image tower"):
            images = self._towers.images(batch.pictures).cpu().numpy()
        with clock.on("text tower"):
            texts = self._towers.captions(batch.tokens).cpu().numpy()
        # Of the float32 embeddings, not of what the npz keeps of them.
        similarity = np.einsum("nd,nd->n", images, texts, dtype=np.float32)
        (column,), arrays = self.made.columns, self.made.arrays
        return Scores({column: similarity}, dict(zip(arrays, (images, texts), strict=True)))


def _slug(weights: "Weights") -> str:
    """The name of the model, of its repository or of its folder, as that of a column."""
    name = weights.model if weights.folder is None else weights.model.split("/")[-1]
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
