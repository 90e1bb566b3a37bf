"""The filters by their names, and a built one from what describes it."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from poolbench import plain
from poolbench.errors import UserError, first_line, nearest
from poolbench.options import Option, check_finite, efficiency_of, listed, located, options_of

import curate.selectors
from curate.selectors.base import Filter

_PACKAGE = curate.selectors.__name__
_NO_FILTERS = {"base", "drawn", "exactly", "registry"}  # modules of the package that are none


def names() -> list[str]:
    """Every filter's name."""
    return sorted({module.name for module in pkgutil.iter_modules(curate.selectors.__path__)} - _NO_FILTERS)


def build(spec: Any, where: str = "filter") -> Filter:
    """The filter that `spec` describes.

    Args:
        spec: a name; a subset file's path, which ends in .npy; or a mapping {"filter": name, option: value, ...}. What
            its option `of` describes, one or a list of them, is built with it.
        where: how messages call it.

    Raises:
        UserError: an unknown name or option, or a value that the filter refuses.
    """
    if isinstance(spec, str):
        is_file = spec.endswith(".npy") or (Path(spec).suffix != "" and Path(spec).is_file())
        spec = {"filter": "subset", "path": spec} if is_file else {"filter": spec}
    if not isinstance(spec, Mapping) or not isinstance(spec.get("filter"), str):
        raise UserError(
            f"{where}: {spec!r} is no filter; give a name, a subset file or {{filter: name, option: value}}"
        )
    name = spec["filter"]
    if name not in names():
        raise UserError(f"{where}={name} is not known; {nearest(name, names())}")
    module = importlib.import_module(f"{_PACKAGE}.{name}")
    options = _options(module.Options, {key: value for key, value in spec.items() if key != "filter"}, where)
    found: list[type[Filter]] = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Filter) and kind.__module__ == module.__name__
    ]
    built = found[0](options, _described_by(options, where))
    check_finite(options, f"{where}.")  # last: what a filter says of its own options says what they may be
    return built


def options_by_filter() -> dict[str, list[Option]]:
    """The options of each filter, for those who ask for help."""
    return {name: list(options_of(_schema(name))) for name in names()}


def options_of_filter(name: Any) -> dict[str, Option]:
    """The options of a filter by their names; none where there is no such filter."""
    return {option.name: option for option in options_of(_schema(name))} if name in names() else {}


def is_text(option: Option) -> bool:
    """Whether an option is a text, or a list of places, which is taken as it was typed."""
    return option.text or (option.words and option.place is not None)


def described(spec: Filter) -> dict[str, Any]:
    """A built filter as a mapping that `build` takes, every option in it; of `of`, only where it is given. An option
    that changes no row stands at its default, so that nothing is known by it."""
    options = {field.name: getattr(spec.options, field.name) for field in fields(spec.options)}
    options |= efficiency_of(type(spec.options))
    of = options.pop("of", None)
    if of is not None:
        children = [described(child) for child in spec.of]
        options["of"] = children if isinstance(of, list) else children[0]
    return {"filter": type(spec).__module__.rpartition(".")[2], **options}


def _schema(name: str) -> type[Any]:
    schema: type[Any] = importlib.import_module(f"{_PACKAGE}.{name}").Options
    return schema


def _described_by(options: Any, where: str) -> list[Filter]:
    """What the option `of` describes, where a filter has it and it is given."""
    of = getattr(options, "of", None)
    if of is None:
        return []
    if not isinstance(of, list):
        return [build(of, f"{where}.of")]
    if get_type_hints(type(options))["of"] is Any:
        raise UserError(f"{where}.of={of} is a list; one filter is asked, which may be a union or an intersection")
    if not of:
        raise UserError(f"{where}.of=[] is empty; name at least one filter or subset file")
    return [build(spec, f"{where}.of.{place}") for place, spec in enumerate(of)]


def _options(schema: type[Any], given: dict[str, Any], where: str) -> Any:
    known = {option.name: option for option in options_of(schema)}
    for key in given:
        if key not in known:
            raise UserError(f"{where}: unknown option {key!r}; {nearest(key, known) if known else 'it has none'}")
    hints = get_type_hints(schema)
    for key, value in given.items():
        if _is_mapping(hints[key]) and value is not None and not isinstance(value, Mapping):
            raise UserError(f"{where}.{key}={value} is no mapping; write {{name: value, ...}}")
    texts = {key: _text(value, known[key], f"{where}.{key}") for key, value in given.items() if is_text(known[key])}
    given = given | dict.fromkeys(texts, "")
    try:
        options = plain.made(schema, given)
    except plain.NotPlainError:
        options = _merged(schema, given, where)
    for key, text in texts.items():  # in which OmegaConf might have seen something else
        setattr(options, key, text)
    return options


def _merged(schema: type[Any], given: dict[str, Any], where: str) -> Any:
    """The options as OmegaConf reads them.

    Raises:
        UserError: a missing one, or a value of the wrong type.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), given)
        missing = [option.name for option in options_of(schema) if OmegaConf.is_missing(merged, option.name)]
        if missing:
            raise UserError(f"{where}: {missing[0]}= is needed")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{error.full_key}: {first_line(error)}") from None


def _is_mapping(hint: Any) -> bool:
    return any(get_origin(one) is dict for one in (hint, *get_args(hint)))


def _text(value: Any, option: Option, where: str) -> str | list[str]:
    """A text as it was typed, where it may be a list of texts too; those that name places, where they say."""
    if option.words:
        words = listed(value) if isinstance(value, str) else value
        if isinstance(words, list):
            return [_one_text(word, option, where) for word in words]
    return _one_text(value, option, where)


def _one_text(value: Any, option: Option, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}={value} is not a text; put it in quotes")
    return value if option.place is None else located(where, value, option.place)
