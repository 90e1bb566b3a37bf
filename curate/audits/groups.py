"""Into which groups a pool's rows fall: by what captions name, by size, by language, by the host of the picture."""

import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from poolbench.errors import UserError, first_line
from poolbench.uids import Uids

from curate.models.languages import detector
from curate.report.words import host_of

Masks = Mapping[str, np.ndarray]  # group -> which of some rows are of it, bool [rows]

CELL = 10  # rows that a group has at least to be told of, as in the source
_PACKAGED = Path(__file__).parent / "captions.yaml"
# RE2's own \b knows the letters of ASCII alone; a mark is part of its letter.
_EDGE = r"[^\pL\pN\pM_]"
_SIZES, _RATIOS = (100, 200, 400, 800), (0.8, 1.25)  # pixels of the shorter side; width by height


class Attribute(ABC):
    """Something that parts rows into groups, of which a row may be in none or in several. Pickled to workers.

    Attributes:
        columns: of the pool that it reads.
        minimum: rows of a group that is told of, and of one that counts in the regression.
    """

    name: str
    columns: tuple[str, ...] = ()
    minimum: int = CELL
    regressed: int = CELL

    def identity(self) -> Any:
        """All that its groups depend on besides the pool, JSON-able."""
        return [type(self).__name__, self.name]

    @abstractmethod
    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        """The groups of some rows, which have `columns`; groups without rows may be left out."""


class _Spelled(BaseModel):
    """An attribute as a YAML file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    groups: dict[str, str]
    compare: tuple[str, str] | None = None
    boundary: bool = True


class Captions(Attribute):
    """The groups that captions name, by patterns."""

    columns = ("text",)

    def __init__(self, name: str, spelled: _Spelled) -> None:
        self.name, self.compare = name, spelled.compare
        edges = (f"(?:^|{_EDGE})", f"(?:$|{_EDGE})") if spelled.boundary else ("", "")
        self.patterns = {group: f"{edges[0]}(?:{words}){edges[1]}" for group, words in spelled.groups.items()}

    def identity(self) -> Any:
        return [*super().identity(), self.patterns]

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        texts = table["text"]
        return {group: _matching(texts, pattern) for group, pattern in self.patterns.items()}


def captions(paths: Iterable[str] = ()) -> list[Captions]:
    """The attributes of captions: the packaged ones, and those of files, which replace what they name again.

    Raises:
        UserError: a file that cannot be read, or is not of that form.
    """
    found: dict[str, Captions] = {}
    for path in (_PACKAGED, *map(Path, paths)):
        for name, spelled in _spelled(path).items():
            found[name] = Captions(name, spelled)
            for group, pattern in found[name].patterns.items():
                try:
                    pc.match_substring_regex(pa.array([""]), pattern, ignore_case=True)
                except pa.ArrowException as error:
                    raise UserError(f"{path}: {name}: {group} is no pattern: {first_line(error)}") from None
    return list(found.values())


def _spelled(path: Path) -> dict[str, _Spelled]:
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"captions={path} cannot be read: {first_line(error)}") from None
    if not isinstance(given, dict) or not given:
        raise UserError(f"captions={path} names no attribute; {_PACKAGED.name} of curate/audits shows the form")
    found = {}
    for name, value in given.items():
        try:
            found[str(name)] = _Spelled.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in (name, *first["loc"]))
            raise UserError(f"captions={path}: {place}: {first['msg']}") from None
        spelled = found[str(name)]
        for group in spelled.compare or ():
            if group not in spelled.groups:
                raise UserError(f"captions={path}: {name}.compare names {group!r}, which is no group of it")
    return found


def _matching(texts: pa.ChunkedArray, pattern: str) -> np.ndarray:
    found = pc.match_substring_regex(texts, pattern, ignore_case=True)
    matching: np.ndarray = pc.fill_null(found, False).to_numpy()
    return matching


class Sides(Attribute):
    """Pictures by their shorter side."""

    name = "shorter side"
    columns = ("original_width", "original_height")

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        return banded(np.minimum(*_sides(table)), _SIZES)


class Shapes(Attribute):
    """Pictures by width and height."""

    name = "shape"
    columns = ("original_width", "original_height")

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        width, height = _sides(table)
        ratio = width / height
        low, high = _RATIOS
        return {"tall": ratio < low, "square": (ratio >= low) & (ratio <= high), "wide": ratio > high}


def _sides(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Widths and heights, float64 [rows]; NaN where one is none."""
    width, height = (pc.fill_null(table[name].cast(pa.float64()), float("nan")).to_numpy() for name in Sides.columns)
    good = (width > 0) & (height > 0)
    return np.where(good, width, np.nan), np.where(good, height, np.nan)


def band_names(edges: Sequence[float]) -> list[str]:
    """What numbers between edges are called, from the lowest on; an edge belongs to the band above it."""
    shown = [f"{edge:.15g}" for edge in edges]  # all different, and .2 as it was written
    between = [f"{low} to below {high}" for low, high in itertools.pairwise(shown)]
    return [f"below {shown[0]}", *between, f"{shown[-1]} or more"]


def banded(values: np.ndarray, edges: Sequence[float]) -> Masks:
    """Numbers [rows] between edges; NaN is in no band."""
    lows, highs = (-np.inf, *edges), (*edges, np.inf)
    bands = zip(band_names(edges), lows, highs, strict=True)
    return {name: (values >= low) & (values < high) if high < np.inf else values >= low for name, low, high in bands}


class Languages(Attribute):
    """Captions by the language that a detector gives."""

    name = "language"
    columns = ("text",)

    def __init__(self, language: str) -> None:
        self._language = language

    def identity(self) -> Any:
        return [*super().identity(), self._language]

    def masks(self, table: pa.Table, uids: Uids) -> Masks:
        texts = [text or "" for text in table["text"].to_pylist()]
        return masks_of([code or None for code in detector(self._language)(texts)])


def masks_of(labels: Sequence[Any]) -> Masks:
    """Which rows bear each label, None being none."""
    given = np.array(["" if label is None else str(label) for label in labels], object)
    return {label: given == label for label in sorted({label for label in given.tolist() if label})}


def domains_of(urls: Iterable[str | None]) -> list[str | None]:
    """The registered domain of each address, by the public suffix list; None where it has none."""
    return [None if url is None else _domain(host_of(url)) for url in urls]


@functools.lru_cache(2**17)
def _domain(host: str) -> str | None:
    return _extractor()(host).top_domain_under_public_suffix or None


@functools.cache
def _extractor() -> Any:
    """The package's own list of suffixes: fetching a newer one would make results depend on the day."""
    try:
        import tldextract
    except ModuleNotFoundError:
        raise UserError("domains=true needs the package tldextract: pip install -e '.[audit]'") from None
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def check_domains() -> None:
    """Make sure that domains can be told.

    Raises:
        UserError: the package is missing.
    """
    _extractor()
