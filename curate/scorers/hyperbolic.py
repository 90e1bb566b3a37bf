"""What a hyperbolic CLIP sees in a pair, as HYPE selects by it (Kim et al. 2024, naver-ai/hype): the distance of
picture and caption, and how specific each of them is.

A caption of little meaning lies near the origin, where its cone holds most pictures. Specific is what lies outside of
the cones of reference captions, or the caption outside of whose cone reference pictures lie.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from poolbench.errors import UserError
from poolbench.options import option, source

from curate.models.references import FILES, KEYS, Chosen, Reference, References
from curate.pool.scored import Identity, Made, Scores
from curate.scorers.base import Clock, Scorer
from curate.scorers.of_model import ModelOptions, arch_of

if TYPE_CHECKING:  # see base.py
    import torch

    from curate.scorers.stream import Batch

_COLUMNS = ("distance", "image_specificity", "text_specificity", "cosine")
_PAIRS = 2**21  # of a batch with references, in memory at a time
_AT_ONCE = 32  # samples that become references


@dataclass
class Options(ModelOptions):
    """The options; docs/score.md says more."""

    scorer: str = option("what makes the scores: a module of curate/scorers", "hyperbolic")
    objective: str = option("hyperbolic: what the model was trained by", "hyperbolic")
    reference: Any = source(
        f"features to compare with: a {' or '.join(FILES)} with {' and '.join(KEYS)}, or shards to draw samples of",
        None,
        remote=True,
        shards=True,
    )
    reference_samples: int = option("how many are drawn of shards", 5000)
    reference_seed: int = option("by which they are drawn", 0)

    def check(self) -> None:
        super().check()
        if self.reference is None:
            raise UserError(
                f"reference= is needed: a {' or '.join(FILES)} with features {' and '.join(KEYS)}, or shards of samples"
            )
        if self.reference_samples < 1:
            raise UserError(f"reference_samples={self.reference_samples}: at least 1")


class Hyperbolic(Scorer):
    """`hype_<arch>_distance`, `hype_<arch>_image_specificity`, `hype_<arch>_text_specificity`, `hype_<arch>_cosine`.

    Numbers are made in float64 of the float32 features.

    Raises:
        UserError: no such weights, or no such reference.
    """

    options: Options

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        from poolbench.models.weights import weights_named

        self._weights = weights_named(options.checkpoint, options.model)
        name = f"hype_{arch_of(options, self._weights)}"
        self.made = Made(name, tuple(f"{name}_{column}" for column in _COLUMNS), ())
        self._reference = Reference(options.reference, options.reference_samples, options.reference_seed)
        model, _, tag, sha256, _ = self._weights
        asked = {"objective": options.objective, **self._reference.identity}
        self.identity = Identity(model=model, tag=tag, sha256=sha256, precision=options.precision, options=asked)

    def __str__(self) -> str:
        return f"{self._weights.model}, {self._weights.checkpoint}, as {self.made.name}"

    def load(self, device: "torch.device") -> None:
        import torch

        from poolbench.models.clip import load_hyperbolic, tokenizer_of
        from poolbench.models.conventions import conventions_of
        from poolbench.models.hyperbolic import lift
        from poolbench.models.towers import Towers
        from poolbench.models.transforms import WebPixels, evaluation_transform

        model, checkpoint, _, _, folder = self._weights
        clip, self._learned = load_hyperbolic(model, checkpoint, folder=folder, device=device, say=print)
        self._towers = Towers(clip, device, self.options.precision, unit=False)
        self.pixels, self.tokenizer = WebPixels(evaluation_transform(clip)), tokenizer_of(model, folder)
        self.conventions = conventions_of(clip)._asdict()
        width = self._captions(["a"]).shape[1]  # which no model tells in the same way
        found = self._reference.found(self._embedded, self.identity.model_dump(), width)
        images, texts = (torch.from_numpy(matrix).to(device) for matrix in found)
        self._images, self._texts = (lift(features, self._learned.curvature) for features in (images, texts))

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        import torch

        from poolbench.models.hyperbolic import cosine, distance, entailments, lift

        curvature = self._learned.curvature
        with clock.on("image tower"):
            images = self._towers.images(batch.pictures).double() * self._learned.alpha_img
        with clock.on("text tower"):
            texts = self._towers.captions(batch.tokens).double() * self._learned.alpha_txt
        with clock.on("geometry"):
            x, y = lift(images, curvature), lift(texts, curvature)
            at_once = max(1, _PAIRS // len(x))
            of_images = torch.stack([entailments(part, x).sum(0) for part in torch.split(self._texts, at_once)]).sum(0)
            of_texts = torch.stack([entailments(y, part).sum(1) for part in torch.split(self._images, at_once)]).sum(0)
            specific = of_images / len(self._texts), of_texts / len(self._images)
            found = (distance(x, y, curvature), *specific, cosine(images, texts))
            columns = [one.float().cpu().numpy() for one in found]
        return Scores(dict(zip(self.made.columns, columns, strict=True)), {})

    def _embedded(self, chosen: Sequence[Chosen]) -> References:
        """Samples as references, without those whose picture cannot be decoded, which are told."""
        import torch

        images, texts, bad = [], [], 0
        for start in range(0, len(chosen), _AT_ONCE):
            good = []
            for one in chosen[start : start + _AT_ONCE]:
                try:
                    good.append((self.pixels(one.picture), one.caption))
                except ValueError:
                    bad += 1
            if good:
                pictures, captions = zip(*good, strict=True)
                images.append(self._towers.images(torch.stack(pictures)).double() * self._learned.alpha_img)
                texts.append(self._captions(captions))
        if not images:
            raise UserError("reference= has no picture that can be decoded")
        if bad:
            print(f"reference=: {bad:,} of {len(chosen):,} pictures cannot be decoded and are none of it")
        return References(torch.cat(images).cpu().numpy(), torch.cat(texts).cpu().numpy())

    def _captions(self, captions: Sequence[str]) -> "torch.Tensor":
        """Scaled features, float64 [n, d]."""
        from poolbench.shards.samples import shortened

        tokens = self.tokenizer([shortened(one) for one in captions])
        return self._towers.captions(tokens).double() * self._learned.alpha_txt
