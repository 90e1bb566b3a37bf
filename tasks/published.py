"""Scores that others have published of public models, to stand beside one's own: open_clip's table of main metrics.

    read("openclip").models                   # [Model("ViT-H-14-quickgelu/dfn5b", {"imagenet1k": 0.8344, ...}), ...]
    chosen(models, ["ViT-B-32/openai", "ViT-B-16/*"])

The table is a CSV with a row a model: `name`, `pretrained`, and a column for each of the 38 tasks that have a main
metric, under the task's display name; other columns are passed over. It is not part of this project: it is read from a
copy, or fetched once into the cache, where its digest is known. Nothing in it was evaluated here, and none is official.
"""

import csv
import difflib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from poolbench.assets import Asset, fetched
from poolbench.errors import UserError, nearest
from poolbench.files import digest_bytes

from tasks.registry import load_tasks, words_of

_COMMIT = "29b90b8dde9125c479c0ddbab477310f665a0435"  # November 2023; the file has not changed since
_DIGEST = "6b3f9313e2e24691b31ab69b534b2553165be1a975dd149ee9b4a7facb384d21"
_REPOSITORY = "mlfoundations/open_clip"
_PATH = "docs/openclip_results.csv"
_NAMES = ("name", "pretrained")  # columns
_PINNED = re.compile(r"(?P<place>.*)#sha256=(?P<digest>[0-9a-f]{64})")


class Known(NamedTuple):
    """A table that can be asked for by a word: its file, what a page says of it, and where a reader finds it."""

    asset: Asset
    text: str
    url: str


KNOWN = {
    "openclip": Known(
        Asset(
            "openclip_results.csv",
            f"https://raw.githubusercontent.com/{_REPOSITORY}/{_COMMIT}/{_PATH}",
            f"sha256:{_DIGEST}",
            "or name a copy of it: published=<file>",
        ),
        f"open_clip, {_PATH}, November 2023",
        f"https://github.com/{_REPOSITORY}/blob/{_COMMIT}/{_PATH}",
    )
}


class Model(NamedTuple):
    """A row: the model as `name/pretrained`, and its main metric by task key, None where the table has none."""

    name: str
    scores: dict[str, float | None]


class Published(NamedTuple):
    """A table: where it comes from, in words and as an address (None where that is not known), its digest, its rows."""

    text: str
    url: str | None
    sha256: str
    models: list[Model]


def read(place: str) -> Published:
    """Read a table.

    Args:
        place: a word of KNOWN, a file, or a web address; `#sha256=<64 hex digits>` behind it says what its content is,
            which an address has to.

    Raises:
        UserError: it cannot be read or fetched, is another content, or is no such table.
    """
    pinned = _PINNED.fullmatch(place)
    named, digest = (pinned["place"], pinned["digest"]) if pinned else (place, None)
    path = _path(named, digest)
    try:
        content = path.read_bytes()
    except OSError as error:
        words = "" if path.exists() else f"; {nearest(named, KNOWN)}"
        raise UserError(f"published={named} cannot be read: {error.strerror}{words}") from None
    sha256 = digest_bytes(content)
    if digest not in (None, sha256):
        raise UserError(f"published={named}: its digest is {sha256} instead of {digest}; it is not the file you pinned")
    known = next((known for known in KNOWN.values() if known.asset.digest == f"sha256:{sha256}"), None)
    text, url = (known.text, known.url) if known else (f"{path.name}, SHA-256 {sha256[:16]}", None)
    return Published(text, url, sha256, list(_models(named, content)))


def chosen(models: Sequence[Model], patterns: str | Sequence[str] | None) -> list[Model]:
    """The models whose names any of the patterns fits, in their own order; `*` and `?` as in a shell. None: all.

    Args:
        patterns: as an option has them, a text in which commas part them or a list of such texts.

    Raises:
        UserError: a pattern that fits none; it names those nearest to it.
    """
    if patterns is None:
        return list(models)
    texts = [patterns] if isinstance(patterns, str) else patterns
    words = [word for text in texts for word in words_of(text)]
    names = [model.name for model in models]
    for word in words:
        if not any(fnmatchcase(name, word) for name in names):
            near = difflib.get_close_matches(word, names, n=3, cutoff=0.0)
            raise UserError(f"models: {word!r} is no published model; near it are {', '.join(near)}")
    return [model for model in models if any(fnmatchcase(model.name, word) for word in words)]


def _path(named: str, digest: str | None) -> Path:
    """Where the file lies, fetched if it has to be.

    Raises:
        UserError: an address without a digest, or that gives nothing or something else.
    """
    for word, known in KNOWN.items():
        if named in (word, known.asset.url):
            return fetched(known.asset)
    if "://" not in named:
        return Path(named)
    if not named.startswith(("http://", "https://")):
        raise UserError(f"published={named}: a file, {' or '.join(KNOWN)}, or a http(s) address is read")
    if digest is None:
        way = "#sha256=<64 hex digits> behind it, or load it down and name the copy"
        raise UserError(f"published={named}: what lies at an address can change; write {way}")
    return fetched(Asset(f"published_{digest[:16]}.csv", named, f"sha256:{digest}", KNOWN["openclip"].asset.instead))


def _models(named: str, content: bytes) -> Iterator[Model]:
    """The rows of a table.

    Raises:
        UserError: naming the line and the column.
    """
    columns = {task.name: task.key for task in load_tasks().values() if task.suite == "main" and task.main_metric}
    try:
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
    except (UnicodeDecodeError, csv.Error, ValueError):  # ValueError: it is empty
        raise UserError(f"published={named} is not a CSV of results by model") from None
    _check_header(named, header, columns)
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        where = f"published={named}, line {number}"
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{where}: {len(row)} cells, where the first line has {len(header)}")
        cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
        name = "/".join(filter(None, (cells[column] for column in _NAMES)))
        if not cells["name"] or not name.isprintable():
            raise UserError(f"{where}: {name!r} is no name of a model")
        if name in seen:
            raise UserError(f"{where}: the model {name} stands there twice")
        seen.add(name)
        yield Model(name, {key: _score(where, column, cells[column]) for column, key in columns.items()})
    if not seen:
        raise UserError(f"published={named} has no models below its first line")


def _check_header(named: str, header: Sequence[str], columns: Mapping[str, str]) -> None:
    needed = [*_NAMES, *columns]
    if not set(header) & set(needed):
        raise UserError(f"published={named} is not a CSV of results by model: it begins with {','.join(header)[:60]!r}")
    for column in needed:
        if header.count(column) != 1:
            what = f"is missing; {nearest(column, header)}" if column not in header else "is there twice"
            raise UserError(f"published={named}: the column {column!r} {what}")


def _score(where: str, column: str, cell: str) -> float | None:
    if not cell:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise UserError(f"{where}: {column} is {cell!r}, not a share from 0 to 1")
    return value
