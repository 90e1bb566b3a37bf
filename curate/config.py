"""The keys of `python -m curate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench import plain
from poolbench.command import parse
from poolbench.errors import UserError, first_line
from poolbench.options import option, output, source

from curate.presets import presets, selection
from curate.selectors.registry import is_text, names, options_of_filter

# What most command lines say is plain; see poolbench.plain. Where one is not, OmegaConf is imported.
if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass
class CurateConfig:
    """The options, besides those of the filter."""

    filter: str = source("name of a filter or method, a subset file, or a YAML file that describes a filter")
    out: str = output("subset file to write, .npy")
    scale: str | None = option("small, ...: take the options as published there; null: only those given", None)
    pool: str | None = source("folder or URL of the pool's metadata; null: combine subset files", None, remote=True)
    columns: str | None = output("folder of columns that are made of the pool; null: <pool>/columns", None)
    workers: int | None = option("processes; null: one for each core", None)
    part: str | None = option("i/n, i from 1: do one of n parts only; merge=n puts all together", None)
    merge: int | None = option("n: put n parts together; what one has not done is told, and not made", None)
    work: str | None = output("folder to continue an interrupted run from; null: <out>.work, removed at the end", None)
    memory: float = option("GB that merging may take at most", 2.0)
    overwrite: bool = option("true: replace a subset that is there", False)


def parsed(arguments: Sequence[str]) -> tuple[CurateConfig, dict[str, Any]]:
    """The configuration, and what describes the filter, from the words of a command line.

    Raises:
        UserError: an unknown key, one given twice, a missing one, or a value of the wrong type.
    """
    of_filter = [argument for argument in arguments if argument.startswith("filter.")]
    words, config = parse([argument for argument in arguments if argument not in of_filter], CurateConfig)
    if words:
        raise UserError(f"{words[0]!r} is not key=value; --help shows the keys")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"workers={config.workers} must be positive")
    if not config.memory > 0:
        raise UserError(f"memory={config.memory} must be positive")
    spec = _spec(config.filter, config.scale, [word.removeprefix("filter.").split("=")[0] for word in of_filter])
    known = options_of_filter(spec["filter"])
    given = set()
    for word in of_filter:
        key, equals, value = word.removeprefix("filter.").partition("=")
        if not equals or not key:
            raise UserError(f"{word!r} is not filter.<option>=value")
        if key in given:
            raise UserError(f"filter.{key}= is given twice")
        given.add(key)
        if key in known and is_text(known[key]):
            spec[key] = value
            continue
        try:
            spec[key] = plain.written(known[key].kind if key in known else None, value)
        except plain.NotPlainError:
            spec = _updated(spec, key, value)
    return config, spec


def _updated(spec: dict[str, Any], key: str, value: str) -> dict[str, Any]:
    """What describes a filter, with a value in YAML at a key, which may lie further inside, such as `of.fraction`.

    Raises:
        UserError: it is no YAML, or there is no such place.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        held = DictConfig(spec)
        OmegaConf.update(held, key, OmegaConf.from_dotlist([f"value={value}"])["value"])
    except (OmegaConfBaseException, YAMLError, TypeError) as error:
        raise UserError(f"filter.{key}={value}: {first_line(error)}") from None
    return _described(held)


def _spec(word: str, scale: str | None, given: Sequence[str]) -> dict[str, Any]:
    """What filter= means: a YAML file's content, a subset file, a method as published at a scale, or a name."""
    if not word.endswith((".yaml", ".yml")):
        if scale is not None or (word in presets() and word not in names()):
            found = selection(word, scale, given)
        else:
            found = {"filter": "subset", "path": word} if word.endswith(".npy") else {"filter": word}
        return found
    if scale is not None:
        raise UserError(f"scale={scale} is for a published method by its name, not for {word}")
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    try:
        spec = OmegaConf.load(Path(word).expanduser())
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UserError(f"filter={word} cannot be read: {first_line(error)}") from None
    if not isinstance(spec, DictConfig) or "filter" not in spec:
        raise UserError(f"filter={word} has no key 'filter' that names a filter")
    return _described(spec)


def _described(spec: "DictConfig") -> dict[str, Any]:
    from omegaconf import OmegaConf

    described = OmegaConf.to_container(spec)
    assert isinstance(described, dict)
    return {str(key): value for key, value in described.items()}
