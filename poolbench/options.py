"""What an option of a command is besides its type: text, how it is explained, and whether it names a place.

Every command's options are the fields of a dataclass. One of type str is the text that was typed; Any and list[str] are
words, a text or a list of texts. `option`, `source` and `output` declare a field.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, field, fields, is_dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from poolbench.errors import UserError

MISSING: Any = "???"  # OmegaConf's word, of a value that is needed; it takes too long to load for that

# What only a URL, or a path on another machine, begins with: `s3://`, `s3:/`, `host:/`, a scheme without slashes.
# Not open_clip's own word before the folder of a model, `local-dir:`.
_ELSEWHERE = re.compile(
    r"(?!local-dir:)(?:[^/]*:(?:/|$)|[^/]*::|(?:s3|s3a|gs|gcs|hf|hdfs|abfss?|az|https?|s?ftp|pipe):)", re.IGNORECASE
)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_READ_ONLY = re.compile(r"https?://", re.IGNORECASE)
_CACHED = re.compile(r"(?:simplecache|filecache|blockcache)::")  # fsspec's way of keeping what a store sends


class Place(NamedTuple):
    """What an option that names a place may name."""

    writes: bool  # whether something is written there
    remote: bool  # whether it may be a URL
    shards: bool = False  # whether it names tars, as folder, pattern or URL


class Option(NamedTuple):
    """A field of a dataclass of options. `name` has dots where it lies in one below."""

    name: str
    kind: Any  # the type of the field
    text: bool  # a str
    words: bool  # a str or a list of str
    nullable: bool  # whether `null` means None, which is then the default
    default: Any  # MISSING where it is needed
    explanation: str
    place: Place | None


def option(explanation: str = "", default: Any = MISSING, *, efficiency: bool = False) -> Any:
    """A field that names no place; without a default it is needed.

    Args:
        efficiency: whether it makes no difference to results, so that none of them is known by it.
    """
    return field(default=default, metadata={"explanation": explanation, "place": None, "efficiency": efficiency})


def source(explanation: str = "", default: Any = MISSING, *, remote: bool = False, shards: bool = False) -> Any:
    """A field that names what is read: a local file or folder, with `remote` a URL too, with `shards` tars."""
    return _declared(explanation, default, Place(False, remote, shards))


def output(explanation: str = "", default: Any = MISSING, *, remote: bool = False) -> Any:
    """A field that names where to write: a local file or folder, with `remote` a URL too."""
    return _declared(explanation, default, Place(True, remote))


def options_of(schema: type[Any], prefix: str = "") -> Iterator[Option]:
    """The options of a command, those of dataclasses within its own too."""
    hints = get_type_hints(schema)
    for one in fields(schema):
        kind, name = hints[one.name], f"{prefix}{one.name.removesuffix('_')}"
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from options_of(kind, f"{name}.")
            continue
        words = kind in (Any, list[str], list[str] | None)
        nullable = kind is Any or type(None) in getattr(kind, "__args__", ())
        explanation, place = one.metadata.get("explanation", ""), one.metadata.get("place")
        yield Option(name, kind, kind in (str, str | None), words, nullable, _default(one), explanation, place)


def efficiency_of(schema: type[Any]) -> dict[str, Any]:
    """The options that make no difference to results, with their defaults: as if they had not been given."""
    return {one.name: _default(one) for one in fields(schema) if one.metadata.get("efficiency")}


def check_finite(options: Any, prefix: str = "") -> None:
    """Refuse NaN and infinities, which are no value of any option, though they can be written as numbers.

    Args:
        options: of a dataclass that `options_of` takes.
        prefix: of their names, as they are told.

    Raises:
        UserError: as said.
    """
    for one in fields(options):
        value, name = getattr(options, one.name), f"{prefix}{one.name.removesuffix('_')}"
        if is_dataclass(value):
            check_finite(value, f"{name}.")
        elif isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{name}={value} is no finite number")


def field_of(name: str) -> str:
    """The field of an option: Python's own words, such as `import`, end with `_` there."""
    return f"{name}_" if iskeyword(name) else name


def located(key: str, text: str, place: Place) -> str:
    """The place that was typed: a path, without `~` or `file://`, or a URL where those are supported.

    Args:
        key: how a message calls the option; empty for a word that stands alone.

    Raises:
        UserError: it is a URL that is not supported there, or a form that only other tools know.
    """
    named = f"{key}={text}" if key else text
    text = re.sub(r"^file:(?://(?:localhost)?)?(?=/)", "", text)
    if text.startswith("~"):
        text = _at_home(text)
    if place.shards:
        _check_shards(key, text)
    if not _ELSEWHERE.match(text) or (not place.writes and Path(text).exists()):
        return text
    if place.remote and (_URL.match(text) or _CACHED.match(text)) and not (place.writes and _READ_ONLY.match(text)):
        return text
    where = "files, folders and URLs such as s3://bucket/folder" if place.remote else "local files and folders"
    if place.writes:
        raise UserError(f"{named} is not written: only {where} are; copy it there when it is whole")
    raise UserError(f"{named} is not read: only {where} are; copy it to this machine first")


def check_above(named: str, path: Path) -> None:
    """
    Args:
        named: the option and its value.
        path: what will be written.

    Raises:
        UserError: it lies below a file.
    """
    for above in path.parents:
        with contextlib.suppress(PermissionError):  # below a folder that may not be entered
            if above.is_dir():
                return
            if above.exists():
                raise UserError(f"{named} cannot be written: {above} is a file, not a folder")


def listed(text: str) -> str | list[str]:
    """A text, or the texts of a list `[a,b]`."""
    if not (text.startswith("[") and text.endswith("]")):
        return text
    return [part.strip().strip("'\"") for part in split(text[1:-1])] if text[1:-1].strip() else []


def split(text: str) -> list[str]:
    """The parts of a text between commas, but for those within braces, brackets, parentheses or quotes."""
    parts, depth, quote = [""], 0, ""
    for at, letter in enumerate(text):
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if quote:
            escaped = (at - len(text[:at].rstrip("\\"))) % 2
            quote = "" if letter == quote and not escaped else quote
        elif letter in "\"'" and not parts[-1][:-1].strip():
            quote = letter
        else:
            depth = max(0, depth + (letter in "{[(") - (letter in ")]}"))
    return parts


def _declared(explanation: str, default: Any, place: Place | None) -> Any:
    return field(default=default, metadata={"explanation": explanation, "place": place})


def _default(one: "Field[Any]") -> Any:
    return MISSING if one.default is NO_DEFAULT else one.default


def _at_home(text: str) -> str:
    try:
        return str(Path(text).expanduser())
    except RuntimeError:  # of a user that this machine does not know
        return text


def _check_shards(key: str, text: str) -> None:
    """Refuse the forms of webdataset and of open_clip that are not ours, naming the one that is."""
    if text.startswith("pipe:"):
        raise UserError(f"{key}={text}: what a command prints is not read; name a folder, a .tar, a pattern or a URL")
    if ("::" in text and not _CACHED.match(text)) or (len(split(text)) > 1 and not Path(text).exists()):
        raise UserError(f"{key}={text} is no folder, .tar, brace pattern or URL; several are {key}=[a.tar,b.tar]")
