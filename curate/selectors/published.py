"""A subset that others published, from a local copy, checked against what is known of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from poolbench.errors import UserError, nearest
from poolbench.files import digest_file
from poolbench.options import option, source

from curate.selectors.base import Filter
from curate.selectors.subset import Subset

_REGISTRY = Path(__file__).with_suffix(".yaml")


@dataclass
class Options:
    """The options."""

    name: str = option("of the subset, as curate/selectors/published.yaml lists it")
    path: str = source("local copy, a subset file", "")
    check: bool = option("false: take a copy of another size or digest, too", True)


class Known(BaseModel):
    """What is known of a published subset.

    Attributes:
        rows: how many uids there are at least and at most, as far as the size is told.
        sha256: of the original file, None where nobody has told.
        where: from where it can be had.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    scale: str
    rows: tuple[int, int]
    sha256: str | None
    where: str


class Published(Subset):
    """Keeps the rows whose uids stand in the local copy."""

    def __init__(self, options: Any, of: Sequence[Filter] = ()) -> None:
        known = registry()
        if options.name not in known:
            raise UserError(f"filter.name={options.name} is not known; {nearest(options.name, known)}")
        found = known[options.name]
        if not options.path:
            raise UserError(f"filter.path= is needed, a local copy of {options.name}; it is had from {found.where}")
        super().__init__(options, of)
        if options.check:
            _check(options, found, self.files.size)


def registry() -> Mapping[str, Known]:
    """The subsets that are known, by name."""
    found: dict[str, Any] = yaml.safe_load(_REGISTRY.read_text(encoding="utf-8"))
    return {name: Known.model_validate(one) for name, one in found.items()}


def _check(options: Options, known: Known, size: int) -> None:
    """
    Raises:
        UserError: a copy that is not what was published.
    """
    low, high = known.rows
    if not low <= size <= high:
        raise UserError(
            f"{options.path} has {size:,} uids, {options.name} has from {low:,} to {high:,}; check=false takes it"
        )
    if known.sha256 is not None and (digest := digest_file(options.path)) != known.sha256:
        raise UserError(
            f"{options.path} has the SHA-256 {digest}, {options.name} has {known.sha256}; filter.check=false takes it"
        )
