"""What models say of pictures: how likely they are pornographic, how many faces they show, and of a single face an
estimate of age and gender. `python -m curate.attributes` makes a table for audits of it (docs/audits.md)."""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from poolbench.errors import UserError, first_line, nearest
from poolbench.options import option
from poolbench.shards.pictures import decoding, opened, rgb

from curate.models.face_attributes import Faces
from curate.models.nsfw import Nsfw
from curate.models.picture_attributes import ListedFaces, PictureAttribute
from curate.pool.scored import Identity, Made, Scores
from curate.scorers.base import Clock, Product, Scorer, ScorerOptions
from curate.scorers.views import Seen, add

if TYPE_CHECKING:  # see base.py
    import torch

    from curate.scorers.stream import Batch

_KINDS: dict[str, Callable[["Options"], PictureAttribute]] = {
    Nsfw.name: lambda options: Nsfw(),
    Faces.name: lambda options: Faces(options.face_side, options.gender_confidence),
    ListedFaces.name: lambda options: ListedFaces(),
}


@dataclass
class Options(ScorerOptions):
    """The options; docs/audits.md says more."""

    scorer: str = option("what makes the scores: a module of curate/scorers", "attributes")
    device: str = option("cpu: these models are looked through in the workers", "cpu")
    attributes: Any = option(f"what to ask of pictures, [a,b] of {', '.join(_KINDS)}; null: all", None)
    face_side: int = option("faces are looked for in pictures of this longer side, in pixels", 640)
    gender_confidence: float = option("from which on a face's gender makes a group in a table", 0.99)

    def check(self) -> None:
        super().check()
        if self.precision != "fp32" or self.device != "cpu":
            raise UserError("scorer=attributes has precision=fp32 and device=cpu and no others")
        for name in self.chosen:
            if name not in _KINDS:
                raise UserError(f"attributes={name} is not known; {nearest(name, _KINDS)}")
        if not self.chosen or len(set(self.chosen)) < len(self.chosen):
            raise UserError(f"attributes= names one or several of {', '.join(_KINDS)}, each once")
        if not 80 <= self.face_side <= 4096:
            raise UserError(f"face_side={self.face_side}: from 80, the smallest face that is found, to 4096")
        if not 0 <= self.gender_confidence <= 1:
            raise UserError(f"gender_confidence={self.gender_confidence}: from 0 to 1")

    @property
    def chosen(self) -> list[str]:
        """The names of the attributes."""
        given = self.attributes
        return list(_KINDS) if given is None else [given] if isinstance(given, str) else list(given)


class Attributes(Scorer):
    """The columns of each attribute, recorded for itself.

    Raises:
        UserError: a package is missing.
    """

    options: Options
    tokenizer = None

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.attributes = [_KINDS[name](options) for name in options.chosen]
        self._products = [_product(one) for one in self.attributes]
        self.made, self.identity = self._products[0].made, self._products[0].identity

    def __str__(self) -> str:
        return ", ".join(f"{one.made.name} by {_model(one.identity)}" for one in self._products)

    @property
    def products(self) -> Sequence[Product]:
        return self._products

    @property
    def look(self) -> Callable[[bytes, Set[str]], Seen]:
        return Look(self.attributes)

    def load(self, device: "torch.device") -> None:
        for one in self.attributes:
            one.open()

    def score(self, batch: "Batch", clock: Clock) -> Scores:
        columns = {}
        for one in self.attributes:
            if one.name not in batch.wanted:
                continue
            of_rows = [one.of_row(row) for row in batch.rows]
            for name in one.columns:
                values = batch.facts[name] if name in batch.facts else [row[name] for row in of_rows]
                columns[name] = np.array(values, object if name in one.texts else np.float32)
        return Scores(columns, {})


class Look:
    """A picture file to what the wanted attributes' models say of it; sent to the workers."""

    def __init__(self, attributes: Sequence[PictureAttribute]) -> None:
        self._attributes = list(attributes)

    def __call__(self, data: bytes, wanted: Set[str]) -> Seen:
        """
        Raises:
            ValueError: `data` is no whole picture, or has too many pixels.
        """
        with decoding():
            image = rgb(opened(data))
        facts: dict[str, float | str] = {}
        seconds: dict[str, float] = {}
        problems = []
        for one in self._attributes:
            if one.name not in wanted:
                continue
            clock = Clock()
            try:
                with clock.on(one.name):
                    facts |= one.of_picture(image)
            except Exception as error:  # of packages that promise none in particular
                facts |= {name: "" if name in one.texts else float("nan") for name in one.columns}
                problems.append(f"no {one.name}: {first_line(error)}")
            add(seconds, clock.spent)
        return Seen({}, facts, "; ".join(problems), seconds)


def _product(attribute: PictureAttribute) -> Product:
    made = Made(attribute.name, attribute.columns, (), attribute.texts)
    conventions: Mapping[str, Any] = attribute.versions
    return Product(made, attribute.identity, True, conventions)


def _model(identity: Identity) -> str:
    return identity.model if identity.tag is None else f"{identity.model} {identity.tag}"
