"""The scorers by their names, and a built one from its options."""

import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from poolbench.errors import UserError, nearest

import curate.scorers
from curate.scorers.base import OBJECTIVES, Scorer, ScorerOptions

_PACKAGE = curate.scorers.__name__
_DEFINED = re.compile(r"^class \w+\(Scorer\):", re.MULTILINE)  # looked for in the text, as importing takes seconds


def names() -> list[str]:
    """The name of every scorer of pictures and captions; other modules of the package score rows, or serve both."""
    paths = [path for folder in curate.scorers.__path__ for path in Path(folder).glob("*.py")]
    return sorted(path.stem for path in paths if _DEFINED.search(path.read_text(encoding="utf-8")))


def schema(arguments: Sequence[str]) -> type[ScorerOptions]:
    """The options that a command line may give: those of the scorer that its `scorer=` names, or its `objective=`.

    Raises:
        UserError: an unknown one.
    """
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    objective = given.get("objective", next(iter(OBJECTIVES)))
    if objective not in OBJECTIVES:
        raise UserError(f"objective={objective} is not known; {nearest(objective, OBJECTIVES)}")
    options: type[ScorerOptions] = _module(given.get("scorer", OBJECTIVES[objective])).Options
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
