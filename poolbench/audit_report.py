"""groups.json, in which `curate.audit` says which share of each group a selection keeps: one typed model for whoever
writes or reads it."""

import math
from pathlib import Path
from statistics import NormalDist
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from poolbench.errors import UserError
from poolbench.fields import AnyText, Count, Digest, Share, Strict
from poolbench.files import read_json
from poolbench.validation import first_problem

FILE = "groups.json"
VERSION: Literal[2] = 2  # 1 did not say which subset files were audited

_Z = NormalDist().inv_cdf(0.975)


class AuditedSubset(Strict):
    """A subset file, by its SHA-256 and the uids in it, and which of the pool's rows it keeps.

    `base` is kept / pool, with which a group's share is compared.
    """

    subset: AnyText
    digest: Digest
    size: Count
    kept: Count
    base: Share


class Group(Strict):
    """One group and one subset; `p_corrected` is of all groups of the subset together.

    `ratio` is kept / raw, `low` and `high` are Wilson's interval of 95 % around it.
    """

    subset: AnyText
    attribute: AnyText
    group: AnyText
    raw: Annotated[int, Field(ge=1)]
    kept: Count
    ratio: Share
    stderr: float
    low: Share
    high: Share
    base: Share
    p: Share
    p_corrected: Share
    different: bool


class Line(Strict):
    """The regression of an attribute's kept shares on the sizes of its groups."""

    subset: AnyText
    attribute: AnyText
    slope: float
    intercept: float
    r: Annotated[float, Field(ge=-1, le=1)]
    p: Share
    groups: Annotated[int, Field(ge=3)]


class Word(Strict):
    """A word beside two groups: the share that is kept with the first less that with the second."""

    subset: AnyText
    word: AnyText
    first_raw: Count
    first_kept: Count
    second_raw: Count
    second_kept: Count
    difference: float
    stderr: float
    p: Share
    p_corrected: Share
    different: bool


class AuditReport(Strict):
    """All of an audit."""

    version: Literal[2]
    pool: Annotated[int, Field(ge=1, description="rows")]
    level: Share = Field(description="of the tests together, after Benjamini and Hochberg: `different` is below it")
    subsets: list[AuditedSubset]
    groups: list[Group]
    amplification: list[Line]
    words: list[Word]
    compared: list[AnyText] | None = Field(description="the two groups that words stand beside, if there are any")
    below_minimum: dict[str, Count] = Field(description="groups with fewer rows than are told of, by attribute")
    notes: list[AnyText] = Field(description="what was left out, a line each")


def wilson(kept: int, raw: int) -> tuple[float, float]:
    """The interval of 95 % of a share, kept / raw with raw > 0, which holds for small cells and shares of 0 and 1.

    Wilson's score interval (Journal of the American Statistical Association 22, 1927).
    """
    ratio, weight = kept / raw, _Z * _Z / raw
    middle = (ratio + weight / 2) / (1 + weight)
    half = _Z / (1 + weight) * math.sqrt(ratio * (1 - ratio) / raw + weight / (4 * raw))
    return max(0.0, middle - half), min(1.0, middle + half)


def read_report(path: Path | str) -> AuditReport:
    """
    Raises:
        UserError: there is none, or it is not one of this version.
    """
    value = read_json(path)
    version = value.get("version") if isinstance(value, dict) else None
    if version is not None and version != VERSION:
        raise UserError(f"{path} is of version {str(version)[:20]}, and {VERSION} is needed; run curate.audit again")
    try:
        return AuditReport.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{path} is no {FILE} of curate.audit: {first_problem(error, AuditReport)}") from None
