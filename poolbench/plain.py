"""Options that are numbers, switches, texts and numbers by name, as a dataclass types them, without OmegaConf.

OmegaConf is a fifth of the start of a command, and what most command lines say needs none of it. Whatever is not
plainly of its type (another way to write a number, a list, a reference, a mistake) is OmegaConf's to read or to refuse.
"""

import re
from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from poolbench.options import MISSING

Schema = TypeVar("Schema")

_SCALARS = (bool, int, float, str)
# Only what int(), float(), YAML and OmegaConf all read alike: no zeros in front, no underscores, no name of a number.
_WHOLE = r"(?!-0)-?(?:0|[1-9][0-9]{0,17})"
_INTEGER = re.compile(_WHOLE)
_NUMBER = re.compile(rf"(?:{_WHOLE}(?:\.[0-9]+)?|-?\.[0-9]+)(?:e[-+]?[0-9]{{1,3}})?")
_NAME = r"[A-Za-z_][A-Za-z0-9_/.-]*"
_ENTRY = re.compile(rf"\s*({_NAME}):\s+([^\s,]+)\s*")
_NO_NAMES = {"yes", "no", "on", "off", "true", "false", "null"}  # which YAML reads as something else
_SWITCHES = {"true": True, "false": False}


class NotPlainError(Exception):
    """A value, or a type, that is OmegaConf's to deal with."""


def made(schema: type[Schema], given: Mapping[str, Any]) -> Schema:
    """The dataclass with these fields, and its defaults for the others, as OmegaConf makes it of them.

    Raises:
        NotPlainError: a field is missing, unknown, or not plainly of its type.
    """
    hints, known = get_type_hints(schema), {one.name: one.default for one in fields(schema)}  # type: ignore[arg-type]
    if not given.keys() <= known.keys():
        raise NotPlainError
    return schema(**{name: _typed(hints[name], given.get(name, default)) for name, default in known.items()})


def _typed(kind: Any, said: Any) -> Any:
    """As `value`; and of any type what is typed already."""
    if kind is not Any:
        return value(kind, said)
    if said is not None and type(said) not in _SCALARS:
        raise NotPlainError
    return _text(said) if isinstance(said, str) else said


def value(kind: Any, said: Any) -> Any:
    """What is said of an option of this type, be it typed already or the text of it.

    Raises:
        NotPlainError: as said.
    """
    kinds = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    if said is None and type(None) in kinds:
        return None
    own, *others = (one for one in kinds if one is not type(None))
    if own == dict[str, float] and not others:
        return _numbers(said)
    if others or own not in _SCALARS:
        raise NotPlainError
    if type(said) is own:
        return _text(said) if own is str else said
    if isinstance(said, str):
        return _read(own, said)
    if own is float and type(said) is int:
        return float(said)
    raise NotPlainError


def written(kind: Any, text: str) -> Any:
    """What a text means as YAML: as `value`, or numbers by name, `{name: number, ...}`.

    Raises:
        NotPlainError: as said.
    """
    if not (text[:1] == "{" and text[-1:] == "}"):
        return value(kind, text)
    entries = [_ENTRY.fullmatch(entry) for entry in text[1:-1].split(",")]
    named = {entry[1]: entry[2] for entry in entries if entry is not None and entry[1].lower() not in _NO_NAMES}
    if len(named) < len(entries):  # one is none, or named twice
        raise NotPlainError
    return value(kind, named)


def _numbers(said: Any) -> dict[str, float]:
    if type(said) is not dict or any(type(name) is not str for name in said):
        raise NotPlainError
    return {name: value(float, number) for name, number in said.items()}


def _text(said: str) -> str:
    """A text in which OmegaConf sees nothing else."""
    if said == MISSING or "${" in said:
        raise NotPlainError
    return said


def _read(kind: type[Any], said: str) -> Any:
    if kind is bool and said in _SWITCHES:
        return _SWITCHES[said]
    if kind is int and _INTEGER.fullmatch(said):
        return int(said)
    if kind is float and _NUMBER.fullmatch(said):
        return float(said)
    raise NotPlainError
