"""The scorers by their names, and a built one from its options."""

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from poolbench.errors import UserError, nearest

import curate.scorers
from curate.scorers.base import DEFAULT, Scorer, ScorerOptions

_PACKAGE = curate.scorers.__name__
# Modules of the package that make no columns from pictures and captions: those that score rows, and what all stand on.
_OF_ROWS = {"clusters", "imported", "mixed", "neg_clip_loss", "norm_sim", "vas", "vas_d", "votes"}
_NO_SCORERS = {"base", "embeddings", "registry", "rows", "run", "stream", *_OF_ROWS}


def names() -> list[str]:
    """Every scorer's name."""
    return sorted({module.name for module in pkgutil.iter_modules(curate.scorers.__path__)} - _NO_SCORERS)


def schema(arguments: Sequence[str]) -> type[ScorerOptions]:
    """The options that a command line may give: those of the scorer that its `scorer=` names.

    Raises:
        UserError: an unknown one.
    """
    named = [word.partition("=")[2] for word in arguments if word.startswith("scorer=")]
    options: type[ScorerOptions] = _module(named[0] if named else DEFAULT).Options
    return options


def build(options: ScorerOptions) -> Scorer:
    """The scorer that `options.scorer` names.

    Raises:
        UserError: an option that it refuses.
    """
    module = _module(options.scorer)
    found: list[type[Scorer]] = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Scorer) and kind.__module__ == module.__name__
    ]
    return found[0](options)


def _module(name: str) -> ModuleType:
    if name not in names():
        raise UserError(f"scorer={name} is not known; {nearest(name, names())}")
    return importlib.import_module(f"{_PACKAGE}.{name}")
