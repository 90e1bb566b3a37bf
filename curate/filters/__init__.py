"""The filters, found by their names: one module each. docs/curate.md says how to add one."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError, first_line, nearest
from curate.filters.base import Composite, Filter


def names() -> list[str]:
    """Every filter's name."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def build(spec: Any, where: str = "filter") -> Filter:
    """The filter that `spec` describes.

    Args:
        spec: a name; a subset file's path, which ends in .npy; or a mapping {"filter": name, option: value, ...}.
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
    module = importlib.import_module(f"{__name__}.{name}")
    options = _options(module.Options, {key: value for key, value in spec.items() if key != "filter"}, where)
    found: list[type[Filter]] = [
        kind
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Filter) and kind.__module__ == module.__name__
    ]
    return found[0](options)


def described(spec: Filter) -> dict[str, Any]:
    """A built filter as a mapping that `build` takes, every option in it."""
    options = {field.name: getattr(spec.options, field.name) for field in fields(spec.options)}
    if isinstance(spec, Composite) and "of" in options:
        children = [described(child) for child in spec.children]
        options["of"] = children if isinstance(options["of"], list) else children[0]
    return {"filter": type(spec).__module__.rpartition(".")[2], **options}


def _options(schema: Any, given: dict[str, Any], where: str) -> Any:
    assert is_dataclass(schema)
    known = [field.name for field in fields(schema)]
    for key in given:
        if key not in known:
            raise UserError(f"{where}: unknown option {key!r}; {nearest(key, known) if known else 'it has none'}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), given)
        missing = [key for key in known if OmegaConf.is_missing(merged, key)]
        if missing:
            raise UserError(f"{where}: {missing[0]}= is needed")
        return OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{error.full_key}: {first_line(error)}") from None
