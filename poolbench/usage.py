"""What a command answers to --help."""

import sys
from collections.abc import Sequence
from typing import Any

from poolbench import HOME
from poolbench.options import MISSING, Option, options_of
from poolbench.text import aligned

GROUPS = ("scale", "efficiency")  # folders of conf/, of whose files one is chosen

_FOLDER = HOME / "conf"


def asked_for(arguments: Sequence[str]) -> bool:
    """Whether the words of a command line ask what the command is told."""
    return bool({"-h", "--help"} & set(arguments)) or list(arguments) == ["help"]


def usage(schema: type[Any] | None) -> str:
    """What the program that runs says of itself, and each option of `schema` with its default, a line each."""
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    if schema is not None:
        parts.append(titled(" ".join((schema.__doc__ or "").split()), list(options_of(schema))))
    return "\n\n".join(parts)


def titled(title: str, options: Sequence[Option], indent: str = "  ") -> str:
    """A title, and below it the options with their defaults and what they mean, a line each."""
    rows = [(f"{indent}{one.name}=", _shown(one), one.explanation) for one in options]
    return "\n".join([title, aligned(rows)]) if rows else f"{title}: no options"


def composed_usage(config: str) -> str:
    """What the program that runs says of itself, and the files that explain its keys."""
    text = (_FOLDER / f"{config}.yaml").read_text(encoding="utf-8")
    parts = [(sys.modules["__main__"].__doc__ or "").strip(), text.split("\nhydra:")[0].strip()]
    for group in GROUPS:
        if f"- {group}:" in text:
            files = sorted(path for path in (_FOLDER / group).glob("[!_.]*.yaml"))
            shown = [files[0], *sorted((_FOLDER / group).glob("_*.yaml"))]  # an example, and what all of them share
            told = "\n\n".join(path.read_text(encoding="utf-8").strip() for path in shown)
            parts.append(f"{group}= {' | '.join(path.stem for path in files)}; for example {files[0].stem}:\n\n{told}")
    return "\n\n".join(parts)


def _shown(one: Option) -> str:
    """The default of an option as it would be typed."""
    if one.default == MISSING:
        return "(needed)"
    if one.default is None or isinstance(one.default, bool):
        return {None: "null", True: "true", False: "false"}[one.default]
    return str(one.default)
