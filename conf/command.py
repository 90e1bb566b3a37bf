"""From a command line to a typed configuration: Hydra composes, a dataclass checks, a wrong key names the right one."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from conf.errors import UserError, exit_on_user_error, nearest, status_of

Schema = TypeVar("Schema")

_GROUPS = ("scale", "efficiency")  # folders of conf/, of whose files one is chosen
_HYDRA_FLAGS = (
    "--hydra-help",
    "--version",
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--shell-completion",
    "-sc",
)


def hydra_command(config: str, schema: type[Schema], run: Callable[[Schema], int | None]) -> None:
    """The entry point `python -m <package> key=value ...`: compose conf/<config>.yaml, type it, run, exit.

    Every key on the command line is checked before Hydra sees it, so that a typing mistake costs one line and not a
    page. `-m` (Hydra's multi-run) and `--cfg job` are Hydra's own and work as it documents them.
    """
    arguments = sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]

    def task(composed: DictConfig) -> None:
        # Hydra would print the traceback of an error that passes through it; an exit it lets through.
        status = status_of(lambda: run(typed(composed, schema)))
        if status:
            sys.exit(status)

    def main() -> None:
        if "-h" in arguments or "--help" in arguments:
            print(_help(config))
            return
        if not any(argument in _HYDRA_FLAGS for argument in arguments):
            overrides = [argument for argument in arguments if not argument.startswith("-")]
            check_overrides(config, overrides, multirun="-m" in arguments or "--multirun" in arguments)
        hydra.main(version_base="1.3", config_path="pkg://conf", config_name=config)(task)()

    exit_on_user_error(main)


def compose(config: str, overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """The typed configuration for `overrides`, as the command line would give it.

    Raises:
        UserError: an unknown key, an unknown choice, or a value of the wrong type.
    """
    overrides = [quoted(override) for override in overrides]
    check_overrides(config, overrides)
    with _initialized(), _readable_errors():
        return typed(hydra.compose(config, overrides=overrides), schema)


def typed(composed: DictConfig, schema: type[Schema]) -> Schema:
    """Merge a composed configuration into its dataclass; an unknown key or a wrong type fails."""
    with _readable_errors():
        merged = OmegaConf.merge(OmegaConf.structured(schema), composed)
        value = OmegaConf.to_object(merged)
    assert isinstance(value, schema)
    return value


def check_overrides(config: str, overrides: Sequence[str], multirun: bool = False) -> None:
    """Refuse an override whose key or choice is not known, naming the nearest one that is.

    Raises:
        UserError: as said, or a key given twice (a shell expands an unquoted brace pattern to that).
    """
    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise UserError(f"{word!r} is not key=value; --help shows the keys")
    with _initialized(), _readable_errors():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        parsed = [override for override in parsed if not override.key_or_group.startswith("hydra")]
        for group in _GROUPS:
            for override in parsed:
                if override.key_or_group == group and not multirun and override.value() not in _choices(group):
                    choices = nearest(str(override.value()), _choices(group))
                    raise UserError(f"{group}={override.value()} is not known; {choices}")
        given = {override.key_or_group: override.input_line or "" for override in parsed}
        for group in _required_groups(config):
            if group not in given:
                raise UserError(f"{group}= is needed: {', '.join(_choices(group))}")
        chosen = {group: given[group] for group in _GROUPS if group in given}
        if multirun:  # a sweep over choices; all of a group have the same keys
            chosen = {group: f"{group}={_choices(group)[0]}" for group in chosen}
        known = set(_flatten(hydra.compose(config, overrides=list(chosen.values()))))
        seen: set[str] = set()
        for override in parsed:
            key = override.key_or_group
            if key not in known:
                raise UserError(f"unknown key {key!r}; {nearest(key, known)}")
            if key in seen:
                raise UserError(f"{key}= is given twice; put a brace pattern in quotes, a list in [...]")
            seen.add(key)
        if not multirun:
            hydra.compose(config, overrides=list(overrides))


def quoted(argument: str) -> str:
    """A key=value that Hydra's grammar cannot read (a brace pattern, blanks, an = in a path) with its value in quotes.

    A list `[a,b]` is quoted element by element. A leading ~ becomes the home folder, which no shell does behind a `=`.
    """
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    value = _at_home(value)
    argument = f"{key}={value}"
    try:
        OverridesParser.create().parse_override(argument)
        return argument
    except HydraException:
        if value.startswith("[") and value.endswith("]"):
            elements = re.split(r",(?![^{]*})", value[1:-1])  # commas, but for those within braces
            return f"{key}=[{','.join(_quote(element.strip()) for element in elements)}]"
        return f"{key}={_quote(value)}"


def _at_home(value: str) -> str:
    return str(Path(value).expanduser()) if value.startswith("~/") else value


def _quote(value: str) -> str:
    return value if value[:1] in "\"'" else '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def parse(arguments: Sequence[str], schema: type[Schema]) -> tuple[list[str], Schema]:
    """Positional words and key=value options, for the commands that need no composition.

    Raises:
        UserError: an unknown key, a key given twice, a missing mandatory one, or a value of the wrong type.
    """
    words = [argument for argument in arguments if "=" not in argument]
    options: dict[str, str] = {}
    known = list(schema.__dataclass_fields__)  # type: ignore[attr-defined]
    for argument in arguments:
        if "=" not in argument:
            continue
        key, value = argument.split("=", 1)
        if key not in known:
            raise UserError(f"unknown key {key!r}: {nearest(key, known)}")
        if key in options:
            raise UserError(f"{key}= is given twice")
        options[key] = _at_home(value)
    with _readable_errors():
        merged = OmegaConf.merge(OmegaConf.structured(schema), options)
        missing = [key for key in known if OmegaConf.is_missing(merged, key)]
        if missing:
            raise UserError(f"{missing[0]}= is needed")
        value_ = OmegaConf.to_object(merged)
    assert isinstance(value_, schema)
    return words, value_


def part_of(part: str) -> tuple[int, int]:
    """(i, n) of "i/n", the part of `part=`.

    Raises:
        UserError: it is not of that form with 1 <= i <= n.
    """
    index, _, count = part.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise UserError(f"part={part} is not i/n with i from 1 to n, such as part=1/4")
    return int(index), int(count)


def _required_groups(config: str) -> list[str]:
    """The groups of which a command has to name a choice, `???` in the defaults of its file."""
    text = (Path(__file__).parent / f"{config}.yaml").read_text(encoding="utf-8")
    return [group for group in _GROUPS if f"- {group}: ???" in text]


def _help(config: str) -> str:
    """What the entry point says of itself, and the files that explain its keys."""
    folder = Path(__file__).parent
    text = (folder / f"{config}.yaml").read_text(encoding="utf-8")
    parts = [(sys.modules["__main__"].__doc__ or "").strip(), text.split("\nhydra:")[0].strip()]
    for group in _GROUPS:
        if f"- {group}:" in text:
            files = sorted(path for path in (folder / group).glob("[!_.]*.yaml"))
            shown = files[0].read_text(encoding="utf-8").strip()
            parts.append(f"{group}= {' | '.join(path.stem for path in files)}; for example {files[0].stem}:\n\n{shown}")
    return "\n\n".join(parts)


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    for key in node:
        name = f"{prefix}{key}"
        yield name
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not child._is_none() and not child._is_missing():
            yield from _flatten(child, f"{name}.")


def _choices(group: str) -> list[str]:
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    return [name for name in loader.get_group_options(group) if not name.startswith("_")]


@contextlib.contextmanager
def _initialized() -> Iterator[None]:
    with hydra.initialize_config_module("conf", version_base="1.3"):
        yield


@contextlib.contextmanager
def _readable_errors() -> Iterator[None]:
    """Hydra's and OmegaConf's own errors span several lines; the first says what is wrong."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        key = getattr(error, "full_key", None)
        raise UserError(f"{key}: {lines[0]}" if key else lines[0]) from None
