"""How networks are trained: the published recipe, and one for minutes on a CPU."""

import dataclasses
import importlib.util
from dataclasses import dataclass
from typing import Any

from poolbench.errors import UserError, nearest

SMALL, LOGISTIC = "small", "logistic"
_EXTRA = "pip install 'poolbench[classify]'"


@dataclass(frozen=True)
class Recipe:
    """One way to train a network.

    Attributes:
        side: pixels of its input.
        warmup: of the epochs, those in which the rate rises.
        batch: pictures of a step; chunk: those that go through the network at a time, 0: all of them.
        scale: shares of a picture's area that a crop has.
        randaug: RandAugment in timm's words, "": none.
    """

    side: int
    epochs: int
    warmup: float
    batch: int
    learning_rate: float
    weight_decay: float
    betas: tuple[float, float]
    scale: tuple[float, float]
    smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    randaug: str = ""
    chunk: int = 0


# Zeng et al. 2024, table 1 of the appendix, and boyazeng/understand_bias.
PUBLISHED = Recipe(
    side=224,
    epochs=30,
    warmup=2,
    batch=4096,
    learning_rate=1e-3,
    weight_decay=0.3,
    betas=(0.9, 0.95),
    scale=(0.08, 1.0),
    smoothing=0.1,
    mixup=0.8,
    cutmix=1.0,
    randaug="rand-m9-mstd0.5-inc1",
    chunk=256,
)
# Ours, chosen on emoji: it learns from a thousand pictures in a minute on one core.
QUICK = Recipe(
    side=56,
    epochs=10,
    warmup=1,
    batch=64,
    learning_rate=2e-3,
    weight_decay=0.05,
    betas=(0.9, 0.99),
    scale=(0.35, 1.0),
)


def recipe_of(model: str, **changed: Any) -> Recipe:
    """The recipe of a model, `small` or one that timm knows; what is not None is changed.

    A batch that is made smaller has its rate made smaller in proportion, unless that is given.

    Raises:
        UserError: no such model, or a value that cannot be.
    """
    recipe = QUICK if model == SMALL else PUBLISHED
    if model != SMALL:
        _check_timm(model)
    given = {name: value for name, value in changed.items() if value is not None}
    for name, value in given.items():
        if value <= 0:
            raise UserError(f"{name}={value}: more than 0")
    if "batch" in given and given["batch"] < recipe.batch and "learning_rate" not in given:
        given["learning_rate"] = recipe.learning_rate * given["batch"] / recipe.batch
    recipe = dataclasses.replace(recipe, **given)
    if recipe.side % 14:
        raise UserError(f"side={recipe.side} is no multiple of 14: the patches of patch_shuffle are 14 x 14")
    if recipe.batch < 2 or (recipe.mixup and recipe.batch % 2):
        raise UserError(f"batch={recipe.batch}: an even number of pictures, which mixup mixes in pairs")
    return recipe


def _check_timm(model: str) -> None:
    if importlib.util.find_spec("timm") is None:
        raise UserError(f"model={model} needs the package timm: {_EXTRA}")
    import timm  # which brings torch

    if not timm.is_model(model):
        known = [SMALL, LOGISTIC, *timm.list_models()]
        told = nearest(model, known)
        told = told if told.startswith("did you") else "known: small, logistic, convnext_tiny and timm's other models"
        raise UserError(f"model={model} is not known; {told}")
