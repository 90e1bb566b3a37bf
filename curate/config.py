"""The keys of `python -m curate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from conf.command import parse
from conf.errors import UserError, first_line


@dataclass
class CurateConfig:
    """See curate/__main__.py.

    Attributes:
        filter: a filter's name, a subset file, or a YAML file that describes a filter.
        pool: the folder of the metadata; None to combine subset files.
        out: the subset file to write.
        workers: processes; None: one for each core.
        part: i/n, i from 1: do only one of n parts of the files; the same command without it merges.
        work: folder of results of single files, which an interrupted run continues from; None: <out>.work, which is
            removed at the end.
        memory: GB that merging may take at most.
        overwrite: whether a subset that is there is replaced.
    """

    filter: str = MISSING
    out: str = MISSING
    pool: str | None = None
    workers: int | None = None
    part: str | None = None
    work: str | None = None
    memory: float = 2.0
    overwrite: bool = False


def parsed(arguments: Sequence[str]) -> tuple[CurateConfig, dict[str, Any]]:
    """The configuration, and what describes the filter, from the words of a command line.

    Raises:
        UserError: an unknown key, one given twice, a missing one, or a value of the wrong type.
    """
    options = [argument for argument in arguments if argument.startswith("filter.")]
    words, config = parse([argument for argument in arguments if argument not in options], CurateConfig)
    if words:
        raise UserError(f"{words[0]!r} is not key=value; --help shows the keys")
    if config.workers is not None and config.workers < 1:
        raise UserError(f"workers={config.workers} must be positive")
    if not config.memory > 0:
        raise UserError(f"memory={config.memory} must be positive")
    spec = _spec(config.filter)
    given = set()
    for option in options:
        key, equals, value = option.removeprefix("filter.").partition("=")
        if not equals or not key:
            raise UserError(f"{option!r} is not filter.<option>=value")
        if key in given:
            raise UserError(f"filter.{key}= is given twice")
        given.add(key)
        try:
            OmegaConf.update(spec, key, OmegaConf.from_dotlist([f"value={value}"])["value"])
        except (OmegaConfBaseException, YAMLError, TypeError) as error:
            raise UserError(f"filter.{key}={value}: {first_line(error)}") from None
    described = OmegaConf.to_container(spec)
    assert isinstance(described, dict)
    return config, {str(key): value for key, value in described.items()}


def _spec(word: str) -> DictConfig:
    """What filter= means: a YAML file's content, a subset file, or a name."""
    if not word.endswith((".yaml", ".yml")):
        return OmegaConf.create({"filter": "subset", "path": word} if word.endswith(".npy") else {"filter": word})
    try:
        spec = OmegaConf.load(Path(word).expanduser())
    except (OSError, YAMLError) as error:
        raise UserError(f"filter={word} cannot be read: {first_line(error)}") from None
    if not isinstance(spec, DictConfig) or "filter" not in spec:
        raise UserError(f"filter={word} has no key 'filter' that names a filter")
    return spec
