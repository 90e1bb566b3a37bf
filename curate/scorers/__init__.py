"""What makes score columns from pictures and captions: one module for each scorer, found by its name, and the runner
that all of them share. docs/score.md says how to add one."""

import importlib
import pkgutil
from collections.abc import Sequence
from types import ModuleType

from curate.scorers.base import Scorer, ScorerOptions
from poolbench.errors import UserError, nearest

DEFAULT = "clip_similarity"
_SHARED = {"base", "run", "stream"}  # modules of this package that are no scorer


def names() -> list[str]:
    """Every scorer's name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in _SHARED)


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
    return importlib.import_module(f"{__name__}.{name}")
