"""The similarity of picture and caption as any CLIP model sees it, and the embeddings that it is the product of; with
`mask=text` also that of the picture with its text painted over, with `flip=true` the mean with its mirror image's."""

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from poolbench.errors import UserError, nearest
from poolbench.options import option, output, source

from curate.models.painting import FILLS
from curate.pool.scored import Identity, Made, Scores
from curate.scorers.base import Clock, Part, Product, Scorer
from curate.scorers.of_model import ModelOptions, arch_of
from curate.scorers.text_masks import MASKED, REGIONS, SHARE, TEXT, Look, TextMask
from curate.scorers.views import PLAIN, OneView, Seen

if TYPE_CHECKING:  # see base.py
    import torch

    from curate.scorers.stream import Batch

# Options that say nothing without one.
_NEED_MASK = ("detector", "recognized", "export", "fill", "ring", "detector_side", "legible", "export_count")


@dataclass
class Options(ModelOptions):
    """The options; docs/score.md says more."""

    flip: bool = option("true: the mean of the scores of picture and mirror image, too", False)
    mask: str | None = option("text: the score of the picture with its text painted over, too", None)
    fill: str = option("ring | picture: by the mean colour around a text, or of the whole picture", "ring")
    ring: int = option("pixels around a text whose mean colour it gets", 8)
    detector: str | None = source("ONNX file that finds text; null: PP-OCR's, which rapidocr carries", None)
    detector_side: int = option("text is looked for in pictures as large as a square of this side", 512)
    legible: float = option("what is read with at least this mean probability is text; 0: all that is detected", 0.7)
    recognized: bool = option("true: a column of the text that was read", False)
    export: str | None = output("folder for some pictures beside their masked ones", None)
    export_count: int = option("how many of those with text, and as many without", 24)

    def check(self) -> None:
        super().check()
        if self.mask not in (None, "text"):
            raise UserError(f"mask={self.mask} is not known: it is text, or null")
        usual = {one.name: one.default for one in fields(self)}
        needing = next((name for name in _NEED_MASK if getattr(self, name) != usual[name]), None)
        if self.mask is None and needing is not None:
            raise UserError(f"{needing}= needs mask=text")
        if self.fill not in FILLS:
            raise UserError(f"fill={self.fill} is not known; {nearest(self.fill, FILLS)}")
        for name, least in (("ring", 1), ("detector_side", 32), ("export_count", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name}={getattr(self, name)}: at least {least}")
        if not 0 <= self.legible <= 1:
            raise UserError(f"legible={self.legible}: a probability, from 0 to 1")


class ClipSimilarity(Scorer):
    """`clip_<arch>_similarity_score`, `<arch>_img` and `<arch>_txt`; with flip=true `clip_<arch>_flipped_…`, with
    mask=text `clip_<arch>_masked_…`, `text_share` and `text_regions`.

    Raises:
        UserError: no such weights, see poolbench.models.weights.weights_named, or no network that finds text.
    """

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        from poolbench.models.weights import weights_named

        self._mask = None
        if options.mask is not None:
            how = (options.detector_side, options.legible, options.fill, options.ring, options.recognized)
            self._mask = TextMask(options.detector, *how)
            self._mask.open()
        self._weights = weights_named(options.checkpoint, options.model)
        arch = arch_of(options, self._weights)
        self.made = Made(arch, (_column(arch),), (f"{arch}_img", f"{arch}_txt"))
        self.flipped, self.masked = f"{arch}_flipped", f"{arch}_masked"
        model, _, tag, sha256, _ = self._weights
        self.identity = Identity(model=model, tag=tag, sha256=sha256, precision=options.precision)
        self._products = [Product(self.made, self.identity), *self._more_products()]

    def _more_products(self) -> list[Product]:
        def like(name: str, **options: Any) -> Product:
            made = Made(name, (_column(name),), ())
            return Product(made, _with(self.identity, options), name == self.masked)

        found = [like(self.flipped, flip=True)] if self.options.flip else []
        mask = self._mask
        if mask is None:
            return found
        text = mask.identity
        whole = {"mask": "text", "detector": text.sha256, **text.options, **mask.painting}
        found += [like(self.masked, **whole), Product(Made("text", (SHARE, REGIONS), ()), text, True, mask.conventions)]
        if self.options.recognized:
            read = _with(text, {**text.options, "reader": mask.reader})
            found.append(Product(Made(TEXT, (TEXT,), (), texts=(TEXT,)), read, True, mask.conventions))
        return found

    @property
    def products(self) -> Sequence[Product]:
        return self._products

    def __str__(self) -> str:
        names = ", ".join(product.made.name for product in self._products)
        return f"{self._weights.model}, {self._weights.checkpoint}, as {names}"

    def load(self, device: "torch.device") -> None:
        from poolbench.models.clip import load, tokenizer_of
        from poolbench.models.conventions import conventions_of
        from poolbench.models.towers import Towers
        from poolbench.models.transforms import WebPixels, evaluation_transform

        model, checkpoint, _, _, folder = self._weights
        clip = load(model, checkpoint, folder=folder, device=device, say=print, plain=True)
        self._towers = Towers(clip, device, self.options.precision)
        self.pixels: WebPixels = WebPixels(evaluation_transform(clip))
        self.tokenizer = tokenizer_of(model, folder)
        self.conventions = conventions_of(clip)._asdict()

    @property
    def look(self) -> Callable[[bytes, Set[str]], Seen]:
        if self._mask is None:
            return OneView(self.pixels)
        return Look(self.pixels, self._mask, {self.made.name, self.flipped}, {self.masked}, {"text", TEXT})

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        columns = {name: np.array(batch.facts[name], np.float32) for name in (SHARE, REGIONS) if name in batch.facts}
        if TEXT in batch.facts:
            columns[TEXT] = np.array(batch.facts[TEXT], object)
        if not batch.views:
            return Scores(columns, {})
        with clock.on("text tower"):
            texts = self._towers.captions(batch.tokens).cpu().numpy()
        arrays, plain = {}, None
        if PLAIN in batch.views:
            plain = self._embedded(batch.pictures, clock)
            columns[_column(self.made.name)] = _similarity(plain, texts)
            arrays = dict(zip(self.made.arrays, (plain, texts), strict=True))
        if plain is not None and self.flipped in batch.wanted:
            mirrored = _similarity(self._embedded(batch.pictures.flip(-1), clock), texts)
            columns[_column(self.flipped)] = (_similarity(plain, texts) + mirrored) / 2
        if MASKED in batch.views:
            columns[_column(self.masked)] = self._masked_similarity(batch, plain, texts, clock)
        return Scores(columns, arrays)

    def _masked_similarity(
        self, batch: "Batch", plain: np.ndarray | None, texts: np.ndarray, clock: Clock
    ) -> np.ndarray:
        """The similarity of pictures without their text, float32 [n]; NaN where nobody knows what text they have. Those
        that have none are as they were, which need not be embedded twice."""
        regions, views = np.array(batch.facts[REGIONS]), batch.views[MASKED]
        images = np.zeros_like(texts) if plain is None else plain.copy()
        changed = np.flatnonzero(regions != 0) if plain is not None else np.arange(len(views))
        if len(changed):
            images[changed] = self._embedded(views[changed], clock)
        found = _similarity(images, texts)
        found[np.isnan(regions)] = np.nan
        return found

    def _embedded(self, pictures: "torch.Tensor", clock: Clock) -> np.ndarray:
        with clock.on("image tower"):
            images: np.ndarray = self._towers.images(pictures).cpu().numpy()
        return images

    def finish(self, every: Sequence[Part], ours: Sequence[Part]) -> None:
        if self.options.export is not None and self._mask is not None:
            from curate.scorers.masked_samples import exported

            columns = (_column(self.made.name), _column(self.masked), SHARE, REGIONS)
            exported(self.options.export, self.options.export_count, self._mask, columns, every, ours)


def _with(identity: Identity, options: dict[str, Any]) -> Identity:
    return Identity(**{**identity.model_dump(), "options": options})


def _column(name: str) -> str:
    return f"clip_{name}_similarity_score"


def _similarity(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Of the float32 embeddings, not of what the npz keeps of them; float32 [n]."""
    found: np.ndarray = np.einsum("nd,nd->n", images, texts, dtype=np.float32)
    return found
