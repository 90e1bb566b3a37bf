"""What is wrong with the content of a file that a pydantic model describes, in one line."""

from collections.abc import Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from poolbench.errors import nearest

_SAID = {"model_type": "not a mapping of fields", "dict_type": "not a mapping", "tuple_type": "not a list"}


def first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """The first thing that `model` refused, and where; of a word that is not known, the nearest one that is.

    A key that is written wrong is missing, too, and the first of the two says what to do.
    """
    first = min(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
    place = ".".join(map(str, first["loc"]))
    within, _, last = place.rpartition(".")
    within = within and f"{within}: "
    match first["type"]:
        case "extra_forbidden":
            return f"{within}unknown key {last!r}; {nearest(last, _model_at(model, first['loc'][:-1]).model_fields)}"
        case "missing":
            return f"{within}the key {last!r} is missing"
        case "literal_error":
            known = _words(_model_at(model, first["loc"]).model_fields[_name(first["loc"])].annotation)
            return f"{place}: unknown {first['input']!r}; {nearest(str(first['input']), known)}"
        case "model_type" | "dict_type" | "tuple_type" as kind:
            return f"{place or 'it'} is {_SAID[kind]}"
    said = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{place}: {said}" if place else said


def first_refusal(error: ValidationError) -> str:
    """The first thing that was refused, in pydantic's words: for a record that a program wrote, not a person."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _name(path: Sequence[int | str]) -> str:
    """The last field of a path, which may end with the place in a list."""
    return next(part for part in reversed(path) if isinstance(part, str))


def _model_at(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """The model that holds what lies at `path`."""
    for part in path:
        kind = model.model_fields[part].annotation if part in model.model_fields else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            model = kind
    return model


def _words(kind: Any) -> list[str]:
    """The values of the Literal in an annotation, whatever is around it."""
    found: list[str] = []
    for argument in get_args(kind):
        found += [argument] if isinstance(argument, str) else _words(argument)
    return found
