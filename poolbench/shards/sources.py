"""From what a user calls data to a list of shards: folders, tars, brace patterns, several sources, any URL of
fsspec."""

import posixpath
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import braceexpand

from poolbench.errors import UserError, absent
from poolbench.files import digest_json, files_below
from poolbench.remote import LISTING, StoreError, call, patiently, system_of

_SHARDS = "shards are uncompressed tars whose names end in .tar"


class Shard(NamedTuple):
    """One tar: where it lies, what it is called within its source, its bytes, and how often it is drawn."""

    path: str
    name: str
    size: int
    weight: float


class Source(NamedTuple):
    """One entry of `data=`; `missing` counts the names of a brace pattern that do not exist."""

    spec: str
    shards: int
    bytes: int
    weight: float
    missing: int


class Data(NamedTuple):
    """Everything a run draws from."""

    sources: list[Source]
    shards: list[Shard]
    digest: str  # of the shards' names, sizes and weights; 450 TB of content cannot be hashed before each run


def resolve(data: Any, weights: list[float] | None = None) -> Data:
    """List the shards of `data=` (a string or a list of strings).

    A weight says how often a sample of that source is drawn relative to a sample of the others, whatever the sizes of
    their shards. Without weights every shard is equally likely.

    Raises:
        UserError: nothing there, no tar in it, or weights that do not fit.
    """
    specs = [data] if isinstance(data, str) else list(data)
    if not specs or not all(isinstance(spec, str) and spec for spec in specs):
        raise UserError("data= needs a folder, a tar, a brace pattern, or a list of them")
    factors = weights if weights is not None else [1.0] * len(specs)
    if len(factors) != len(specs):
        raise UserError(f"weights= has {len(factors)} numbers for {len(specs)} sources of data=")
    if any(not 0 < factor < float("inf") for factor in factors):
        raise UserError(f"weights={factors} must be positive numbers")
    sources, shards = [], []
    for spec, factor in zip(specs, factors, strict=True):
        found, missing = _list(spec)
        if not found:
            raise UserError(f"data={spec}: no .tar in it")
        shards += [Shard(path, name, size, factor) for path, name, size in found]
        sources.append(Source(spec, len(found), sum(size for _, _, size in found), factor, missing))
    digest = digest_json([[shard.name, shard.size, shard.weight] for shard in shards])
    return Data(sources, shards, digest)


class _Found(NamedTuple):
    path: str
    name: str
    size: int


def _list(spec: str) -> tuple[list[_Found], int]:
    """The tars of one source, sorted by name, and how many names of a pattern are missing."""
    spec = re.sub("^(file|local)://", "", spec)  # fsspec would not follow links to folders
    if "{" in spec:
        return _list_pattern(spec)
    if "://" in spec:
        return _list_remote(spec), 0
    path = Path(spec).expanduser()
    if path.is_file():
        if not _is_tar(path):
            raise UserError(f"data={spec} is a file, but no tar; {_SHARDS}")
        return [_Found(str(path), path.name, path.stat().st_size)], 0
    if not path.is_dir():
        raise UserError(f"data={spec} {absent(path)}")
    files = list(files_below(path))
    tars = [
        _Found(str(tar), tar.relative_to(path).as_posix(), _size(tar)) for tar in files if tar.name.endswith(".tar")
    ]
    if not tars:
        raise UserError(f"data={spec}: no .tar in it{_instead(file.name for file in files)}")
    return _finished(tars), 0


def _is_tar(path: Path) -> bool:
    """Whether a file is one by its name, or begins as one. Damage is told when it is read."""
    if path.name.endswith(".tar"):
        return True
    try:
        with path.open("rb") as file:
            tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    except OSError:
        pass
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # a link to nowhere, which is a shard that cannot be read
        return 0


def _instead(names: Iterable[str]) -> str:
    """What lies where no tar is, for those who may take it for one."""
    packed = sorted(
        name for name in names if re.search(r"\.(tar\.\w+|tgz|tbz2?|txz|tzst|zip|parquet|arrow|npz)$", name)
    )
    if not packed:
        return ""
    return f", but {len(packed):,} files like {packed[0]}; {_SHARDS}"


def _list_pattern(spec: str) -> tuple[list[_Found], int]:
    """Expand a brace pattern. Gaps are fine (a pool loses shards), but counted; nothing at all is an error."""
    try:
        names = list(dict.fromkeys(braceexpand.braceexpand(spec)))
    except ValueError as error:
        raise UserError(f"data={spec} is no brace pattern: {error}") from None
    if "://" in spec:
        sizes = {}
        for folder in dict.fromkeys(posixpath.dirname(name) for name in names):
            sizes.update({found.path: found.size for found in _list_remote(folder, empty_is_fine=True)})
        found = [_Found(name, posixpath.basename(name), sizes[name]) for name in names if name in sizes]
    else:
        paths = [Path(name).expanduser() for name in names]
        found = [_Found(str(path), path.name, path.stat().st_size) for path in paths if path.is_file()]
    if not found:
        raise UserError(f"data={spec}: none of its {len(names)} names exists, the first is {names[0]}")
    return found, len(names) - len(found)


def _list_remote(spec: str, empty_is_fine: bool = False) -> list[_Found]:
    """The tars at or below a URL, in one listing."""
    try:
        system, root, entries = patiently(lambda: _find(spec))
    except StoreError as error:
        raise UserError(f"data={spec} cannot be listed {error}") from None
    except OSError as error:
        raise UserError(f"data={spec} cannot be listed: {error}") from None
    found = [
        _Found(system.unstrip_protocol(name), posixpath.relpath(name, root), int(entry.get("size") or 0))
        for name, entry in entries.items()
        if name.endswith(".tar")
    ]
    found = _finished(found)
    if not found and not empty_is_fine:
        raise UserError(f"data={spec}: no .tar in it{_instead(map(posixpath.basename, entries))}")
    if len(found) == 1 and found[0].name == ".":
        return [found[0]._replace(name=posixpath.basename(spec))]
    return found


def _find(spec: str) -> tuple[Any, str, dict[str, dict[str, Any]]]:
    """The filesystem of a URL, the URL's path there, and the files at or below it."""
    system, root = system_of(spec)
    # The plain walk over folders, which HTTP is listed by, would leave out those that it cannot reach just now.
    strict = {"on_error": "raise"} if "http" in system.protocol else {}
    entries: dict[str, dict[str, Any]] = call(system, "find", root, detail=True, seconds=LISTING, **strict)
    return system, root, entries


def _finished(found: list[_Found]) -> list[_Found]:
    """Sorted by name, the same wherever the data lie; without what is hidden: what a download has not finished, and
    what systems keep beside files."""
    return sorted((one for one in found if not _is_hidden(one)), key=lambda one: one.name)


def _is_hidden(one: _Found) -> bool:
    names = [posixpath.basename(one.path), *one.name.split("/")]
    return any(name.startswith(".") and name != "." for name in names)
