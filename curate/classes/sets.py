"""The data sets that are told apart: shards or pool metadata, each by its name, each narrowed by subset files."""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from poolbench.errors import UserError, nearest
from poolbench.files import digest_file, digest_json
from poolbench.options import Place, listed, located, split
from poolbench.shards.sources import Shard, resolve

from curate.pool.files import File, list_pool
from curate.report.members import Members

NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")  # it names folders and a class
_KEYS = ("shards", "pool", "subset", "without")
_MAPPING = re.compile(r"\{\s*(shards|pool|subset|without)\s*:")  # and no brace pattern


class DataSet(NamedTuple):
    """One data set.

    Attributes:
        source: as it was typed.
        items: its shards, or the files of its metadata.
        digest: of what it consists of.
        subset, without: subset files of uids that belong to it, and that do not; None: all, and none.
    """

    name: str
    source: str
    items: Sequence[Shard] | Sequence[File]
    digest: str
    subset: Members | None = None
    without: Members | None = None


def named(option: str, text: str, metadata: bool) -> list[DataSet]:
    """The data sets of an option `'{a: <shards>, b: {shards: <shards>, subset: b.npy}}'`.

    Args:
        metadata: whether they are pools' metadata and not shards.

    Raises:
        UserError: another form, a name twice, or a place where nothing is.
    """
    found: dict[str, DataSet] = {}
    for name, value in pairs(option, text):
        if name in found:
            raise UserError(f"{option}= names {name!r} twice")
        found[name] = _made(option, name, value, metadata)
    return list(found.values())


def pairs(option: str, text: str) -> Iterator[tuple[str, str]]:
    """The names and values of a text `'{a: x, b: y}'`; a value may hold braces, brackets and colons itself.

    Raises:
        UserError: another form.
    """
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise UserError(f"{option}={text} is not of the form '{{a: …, b: …}}'")
    for part in split(inner[1:-1]):
        name, colon, value = part.partition(":")
        name, value = name.strip().strip("'\""), value.strip()
        if not colon or not value or not NAME.fullmatch(name):
            raise UserError(f"{option}= has {part.strip()!r} where a name: value is due; a name is letters and digits")
        yield name, value.strip("'\"") if value[0] in "'\"" else value


def _made(option: str, name: str, value: str, metadata: bool) -> DataSet:
    key = f"{option}.{name}"
    given = dict(pairs(key, value)) if _MAPPING.match(value) else {"pool" if metadata else "shards": value}
    for word in given:
        if word not in _KEYS:
            raise UserError(f"{key} has no {word!r}; {nearest(word, _KEYS)}")
    kind = "pool" if metadata else "shards"
    if kind not in given:
        other = "model=logistic reads metadata" if metadata else "this model reads pictures"
        raise UserError(f"{key} has no {kind!r}; {other}")
    files = {word: _members(f"{key}.{word}", given[word]) for word in ("subset", "without") if word in given}
    items, digest = _items(key, given[kind], metadata)
    digest = digest_json([digest, *((word, digest_file(one.path)) for word, one in sorted(files.items()))])
    return DataSet(name, value, items, digest, files.get("subset"), files.get("without"))


def _members(key: str, path: str) -> Members:
    return Members(located(key, path, Place(writes=False, remote=False)), empty=key.endswith(".without"))


def _items(key: str, text: str, metadata: bool) -> tuple[Any, str]:
    """The shards or files at a place, and a digest of what they are called and how large they are."""
    places = listed(text)
    some = [places] if isinstance(places, str) else places
    found = [located(key, one, Place(writes=False, remote=True, shards=not metadata)) for one in some]
    try:
        if metadata:
            files = [file for place in found for file in list_pool(place)]
            return files, digest_json([[file.name, file.stamp] for file in files])
        data = resolve(found)
    except UserError as error:
        raise UserError(re.sub("^(data|pool)=", f"{key}=", str(error))) from None
    return data.shards, data.digest
