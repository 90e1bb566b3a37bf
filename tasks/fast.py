"""The group `fast`: a few cheap tasks whose mean foretells the average of 38, for what is evaluated again and again.

    fast().tasks                # ["imagenetv2", ...]
    foretold(0.41)              # the average that a mean of .41 over these goes with

It is chosen by bench/fast_tasks.py on public models, and no average: nothing of it is ever official.
"""

from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field

from poolbench.fields import Count, Digest, Strict

NAME = "fast"
FILE = Path(__file__).with_suffix(".yaml")

Correlation = Annotated[float, Field(ge=-1, le=1)]


class Fast(Strict):
    """The group and how far it can be trusted.

    Attributes:
        tasks: keys, in the registry's order.
        models: how many published models it was chosen on.
        published: SHA-256 of the table of their scores.
        spearman, kendall: rank correlations of its mean with the average, on models that were held out from the choice.
        error: of the average that is foretold, root mean square on models that were held out.
        slope, intercept: of the line that foretells the average, fitted on all models.
    """

    tasks: Annotated[list[str], Field(min_length=1)]
    models: Count
    published: Digest
    spearman: Correlation
    kendall: Correlation
    error: Annotated[float, Field(ge=0)]
    slope: float
    intercept: float


@cache
def fast() -> Fast:
    """The group as it was chosen last."""
    return Fast.model_validate(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def foretold(mean: float) -> float:
    """The average over 38 tasks that goes with a mean over the group."""
    return fast().intercept + fast().slope * mean
