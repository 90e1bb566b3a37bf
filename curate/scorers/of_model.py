"""What scorers have in common that embed pictures and captions by a model: its options, and what columns are called."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from poolbench.errors import UserError
from poolbench.options import option, source

from curate.scorers.base import ScorerOptions

if TYPE_CHECKING:  # see base.py
    from poolbench.models.weights import Weights

ARCHS = {"ViT-B-32": "b32", "ViT-L-14": "l14"}  # the names that published pools give these


@dataclass
class ModelOptions(ScorerOptions):
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


def arch_of(options: ModelOptions, weights: "Weights") -> str:
    """What columns and arrays are called after."""
    return options.arch or ARCHS.get(weights.model.removesuffix("-quickgelu")) or _slug(weights)


def _slug(weights: "Weights") -> str:
    """The name of the model, of its repository or of its folder, as that of a column."""
    name = weights.model if weights.folder is None else weights.model.split("/")[-1]
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
