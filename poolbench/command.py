"""From a command line to a typed configuration: Hydra composes, a dataclass checks, a wrong key names the right one."""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from poolbench import HOME, plain
from poolbench.errors import UserError, exit_on_user_error, nearest, status_of
from poolbench.options import Option, Place, check_above, check_finite, field_of, listed, located, options_of, split
from poolbench.usage import GROUPS, asked_for, composed_usage, usage

# Hydra takes a tenth of a second, OmegaConf alone half of one, and most commands have nothing to compose and no option
# that is not plain: they are imported where one has.
if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

Schema = TypeVar("Schema")

_FOLDER = HOME / "conf"
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


class Command(NamedTuple):
    """A command that is told key=value options, and perhaps words: `python -m <package> [word ...] key=value ...`."""

    schema: type[Any]  # a dataclass of its options
    run: Callable[..., int | None]  # of the options, behind the words if it takes some; gives the exit status
    takes_words: bool = False
    refusal: str = "unknown word {word!r}; options are written key=value"  # of a word where it takes none
    rewritten: Callable[[Sequence[str]], list[str]] = list  # the arguments, which it may take in other forms too

    def answer(self, arguments: Sequence[str]) -> int:
        """Do what the words of a command line say, or show what can be said, and return the exit status.

        Raises:
            UserError: a word too many, a wrong option, or whatever the command raises.
        """
        arguments = self.rewritten(arguments)
        if not self.takes_words and not asked_for(arguments):
            # Before the options are looked at: an unquoted `method=two words` is told as what it is.
            for word in filter(_is_word, arguments):
                raise UserError(self.refusal.format(word=word))
        words, options = parse(arguments, self.schema)
        return (self.run(words, options) if self.takes_words else self.run(options)) or 0

    def start(self) -> None:
        """The entry point: answer the command line of this process and end it."""
        exit_on_user_error(lambda: self.answer(sys.argv[1:]))


class Verbs(NamedTuple):
    """The commands of a package, of which the command line names one: `python -m <package> <verb> ...`."""

    package: str
    commands: Mapping[str, Callable[[], Command]]  # each is made, and what it needs is imported, when it is named

    def answer(self, arguments: Sequence[str]) -> int:
        """As that of the command that is named.

        Raises:
            UserError: no command is named, an unknown one, or whatever it raises.
        """
        if not arguments:
            raise UserError(f"python -m {self.package} needs a command; known: {', '.join(self.commands)}")
        name, *rest = arguments
        if asked_for([name]):
            print(usage(None))
            return 0
        if name not in self.commands:
            raise UserError(f"unknown command {name!r}: {nearest(name, self.commands)}")
        return self.commands[name]().answer(rest)

    def start(self) -> None:
        """The entry point: answer the command line of this process and end it."""
        exit_on_user_error(lambda: self.answer(sys.argv[1:]))


def start(answer: Callable[[list[str]], int | None], told: Callable[[], str]) -> None:
    """The entry point of a command that reads its command line itself: answer that, or show what `told` gives where
    help is asked for; end the process."""
    arguments = sys.argv[1:]

    def main() -> int | None:
        if not asked_for(arguments):
            return answer(arguments)
        print(told())
        return 0

    exit_on_user_error(main)


def hydra_command(config: str, schema: type[Schema], run: Callable[[Schema], int | None]) -> None:
    """The entry point `python -m <package> key=value ...`: compose conf/<config>.yaml, type it, run, exit.

    Every key on the command line is checked before Hydra sees it, so that a typing mistake costs one line and not a
    page. `-m` (Hydra's multi-run) and `--cfg job` are Hydra's own and work as it documents them.
    """

    def task(composed: "DictConfig") -> None:
        # Hydra would print the traceback of an error that passes through it; an exit it lets through.
        status = status_of(lambda: run(typed(composed, schema)))
        if status:
            sys.exit(status)

    def main(arguments: list[str]) -> None:
        import hydra

        multirun = "-m" in arguments or "--multirun" in arguments
        sys.argv[1:] = [quoted(argument, schema, multirun) for argument in arguments]
        if not any(argument in _HYDRA_FLAGS for argument in arguments):
            check_overrides(config, [word for word in sys.argv[1:] if not word.startswith("-")], multirun)
        hydra.main(version_base="1.3", config_path=str(_FOLDER), config_name=config)(task)()

    start(main, lambda: composed_usage(config))


def compose(config: str, overrides: Sequence[str], schema: type[Schema]) -> Schema:
    """The typed configuration for `overrides`, as the command line would give it.

    Raises:
        UserError: an unknown key, an unknown choice, or a value of the wrong type.
    """
    import hydra

    overrides = [quoted(override, schema) for override in overrides]
    check_overrides(config, overrides)
    with _initialized():
        return typed(hydra.compose(config, overrides=overrides), schema)


def typed(composed: "DictConfig", schema: type[Schema]) -> Schema:
    """Merge a composed configuration into its dataclass; an unknown key or a wrong type fails.

    Texts are taken as they stand: `${seed}` and `???`, which OmegaConf has a meaning for, are texts too.
    """
    from omegaconf import OmegaConf

    told = OmegaConf.to_container(composed, resolve=False)
    assert isinstance(told, dict)
    texts: dict[str, Any] = {}
    for option in options_of(schema):
        *path, last = option.name.split(".")
        within = reduce(lambda node, key: node.get(key) or {}, path, told)
        kinds = (str, list) if option.words else str if option.text else ()
        if isinstance(given := within.get(last), kinds):
            texts[option.name] = _unescaped(given) if isinstance(given, str) else list(map(_unescaped, given))
            within[last] = "" if isinstance(given, str) else []
    with _readable_errors():
        value = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), told))
    assert isinstance(value, schema)
    check_finite(value)
    _set(value, texts)
    return value


def check_overrides(config: str, overrides: Sequence[str], multirun: bool = False) -> None:
    """Refuse an override whose key or choice is not known, naming the nearest one that is.

    Raises:
        UserError: as said, or a key given twice (a shell expands an unquoted brace pattern to that).
    """
    import hydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for word in overrides:
        if "=" not in word and not word.startswith("~"):
            raise UserError(f"{word!r} is not key=value; --help shows the keys")
    with _initialized():
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        parsed = [override for override in parsed if not _is_hydras(override)]
        for group in GROUPS:
            for override in parsed:
                if override.key_or_group == group and not multirun and override.value() not in _choices(group):
                    choices = nearest(str(override.value()), _choices(group))
                    raise UserError(f"{group}={override.value()} is not known; {choices}")
        given = {override.key_or_group: override.input_line or "" for override in parsed}
        for group in _required_groups(config):
            if group not in given:
                raise UserError(f"{group}= is needed: {', '.join(_choices(group))}")
        chosen = {group: given[group] for group in GROUPS if group in given}
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


def quoted(argument: str, schema: type[Any], multirun: bool = False) -> str:
    """A key=value as Hydra's grammar has to be told it, so that a text stays as it was typed: in quotes.

    Quotes around a whole value are Hydra's own and no part of it; so are `[a,b]` for an option that may be a list, and
    `null` for one that is null by default. With `multirun`, commas separate what is swept.

    Raises:
        UserError: a place that cannot be read or written.
    """
    key, equals, value = argument.partition("=")
    if not equals or argument.startswith("-"):
        return argument
    option = {option.name: option for option in options_of(schema)}.get(key.lstrip("+"))
    if option is None or key in GROUPS or not (option.text or option.words):
        return argument if _parsed(argument) else f"{key}={in_quotes(value)}"
    if multirun and re.match(r"(choice|range|interval|glob|shuffle|sort)\(", value):
        return argument
    parts = split(value) if multirun else [value]
    return f"{key}={','.join(_text(part, option) for part in parts)}"


def _text(value: str, option: Option) -> str:
    """A text, or a list of texts, as Hydra reads it."""
    if option.nullable and value == "null":
        return value
    if option.words and value.startswith("[") and value.endswith("]"):
        elements = [element.strip() for element in split(value[1:-1])] if value[1:-1].strip() else []
        return f"[{','.join(_text(element, option._replace(words=False, nullable=False)) for element in elements)}]"
    if value[:1] in ("'", '"') and (read := _parsed(f"x={value}")) and isinstance(text := read.value(), str):
        value = _unescaped(text)
    return in_quotes(value if option.place is None else located(option.name, value, option.place))


def _placed(value: str | list[str], option: Option) -> str | list[str]:
    """A text or a list of texts, each where it says it is if the option names a place."""
    if option.place is None:
        return value
    if isinstance(value, list):
        return [located(option.name, text, option.place) for text in value]
    place = located(option.name, value, option.place)
    if option.place.writes:
        check_above(f"{option.name}={value}", Path(place))
    return place


def in_quotes(value: str) -> str:
    """A text as `quoted` takes it for itself and nothing else, be it `null`, a list or in quotes."""
    from hydra.core.override_parser.types import Quote, QuotedString

    # OmegaConf, too, must not take `${` for its own: the backslashes before it are doubled, and one is added.
    escaped = re.sub(r"(\\*)(?=\$\{)", r"\1\1\\", value)
    quoted_: str = QuotedString(escaped, Quote.double).with_quotes()
    return quoted_


def _unescaped(value: str) -> str:
    """The text that became `value` when `in_quotes` wrote it and Hydra read it."""
    return re.sub(r"(\\*)\\(?=\$\{)", lambda found: found[1][: len(found[1]) // 2], value)


def _parsed(override: str) -> "Override | None":
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _is_hydras(override: "Override") -> bool:
    """Whether this is one of Hydra's own options, some of which name folders.

    Raises:
        UserError: a folder that is not local.
    """
    if not override.key_or_group.startswith("hydra"):
        return False
    if re.search("dir|folder", override.key_or_group) and isinstance(value := override.value(), str):
        located(override.key_or_group, value, Place(writes=True, remote=False))
    return True


def _set(value: Any, texts: Mapping[str, Any]) -> None:
    for name, text in texts.items():
        *path, last = name.split(".")
        setattr(reduce(getattr, path, value), last, text)


def parse(arguments: Sequence[str], schema: type[Schema]) -> tuple[list[str], Schema]:
    """Positional words, which are local paths, and key=value options, for the commands that need no composition.

    -h, --help or the word help alone prints the options and ends the process.

    Raises:
        UserError: an unknown key, a key given twice, a missing mandatory one, a value of the wrong type, or a place
            that cannot be read or written.
    """
    if asked_for(arguments):
        print(usage(schema))
        raise SystemExit(0)
    known = {option.name: option for option in options_of(schema)}
    words, options, texts = [], {}, {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if _is_word(argument):
            words.append(located("", argument, Place(writes=False, remote=False)))
            continue
        if key not in known:
            raise UserError(f"unknown key {key!r}: {nearest(key, known)}")
        if key in options:
            raise UserError(f"{key}= is given twice")
        options[key] = None if known[key].nullable and value == "null" else value
        if (known[key].text or known[key].words) and options[key] is not None:
            texts[key], options[key] = _placed(listed(value) if known[key].words else value, known[key]), ""
    given = {field_of(key): value for key, value in options.items()}
    try:
        value_ = plain.made(schema, given)
    except plain.NotPlainError:
        value_ = _merged(schema, given)
    check_finite(value_)
    _set(value_, {field_of(key): text for key, text in texts.items()})
    return words, value_


def _merged(schema: type[Schema], given: Mapping[str, Any]) -> Schema:
    """The dataclass with these fields, as OmegaConf reads them.

    Raises:
        UserError: a missing one, or a value of the wrong type.
    """
    from omegaconf import OmegaConf

    with _readable_errors():
        merged = OmegaConf.merge(OmegaConf.structured(schema), given)
        missing = [one.name for one in options_of(schema) if OmegaConf.is_missing(merged, field_of(one.name))]
        if missing:
            raise UserError(f"{missing[0]}= is needed")
        value = OmegaConf.to_object(merged)
    assert isinstance(value, schema)
    return value


def _is_word(argument: str) -> bool:
    """Whether an argument is no key=value, of which no key has a slash, but a path may."""
    key, equals, _ = argument.partition("=")
    return not equals or "/" in key


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
    text = (_FOLDER / f"{config}.yaml").read_text(encoding="utf-8")
    return [group for group in GROUPS if f"- {group}: ???" in text]


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    from omegaconf import DictConfig

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
    """Hydra knows conf/ within the block, and its errors are told in a line.

    Raises:
        UserError: as said.
    """
    import hydra
    from hydra.errors import HydraException

    with _readable_errors(HydraException), hydra.initialize_config_dir(str(_FOLDER), version_base="1.3"):
        yield


@contextlib.contextmanager
def _readable_errors(*kinds: type[Exception]) -> Iterator[None]:
    """OmegaConf's own errors, and those of other kinds, span several lines; the first says what is wrong."""
    from omegaconf.errors import OmegaConfBaseException

    known: tuple[type[Exception], ...] = (*kinds, OmegaConfBaseException)
    try:
        yield
    except known as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        key = getattr(error, "full_key", None)
        raise UserError(f"{key}: {lines[0]}" if key else lines[0]) from None
