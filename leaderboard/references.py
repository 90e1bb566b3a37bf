"""Published results, one YAML file a paper below leaderboard/references/, read strictly.

docs/leaderboard.md says how to add a paper.
"""

from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError

from poolbench import recipes
from poolbench.errors import UserError, nearest
from poolbench.fields import Share, Strict
from poolbench.files import files_in

from leaderboard.models import Citation, Line, Reference, Track, problems
from leaderboard.rank import descending
from tasks.aggregates import members
from tasks.registry import suite_of

FOLDER = Path(__file__).parent / "references"


class Result(Strict):
    """One row of a published table. An aggregate that is not there was not published."""

    method: Line
    scale: str
    dataset_size: Annotated[int, Field(ge=1)] | None
    cite: Annotated[list[str], Field(min_length=1)]
    aggregates: dict[str, Share]
    scores: dict[str, Share] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)


class Paper(Strict):
    """A file of published results; `cite` of each names some of `citations`."""

    author: Line
    track: Track
    citations: dict[str, Citation]
    results: list[Result]


def references(track: Track, scale: str, folder: Path = FOLDER) -> list[Reference]:
    """The published results of a track at a scale, best first.

    Raises:
        UserError: a file is not what it should be.
    """
    chosen = [
        _reference(paper, result)
        for paper in _papers(folder)
        for result in paper.results
        if (paper.track, result.scale) == (track, scale)
    ]
    return sorted(chosen, key=_order)


def read_paper(path: Path) -> Paper:
    """Read and check one file.

    Raises:
        UserError: naming the file and the field.
    """
    try:
        paper = Paper.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UserError(f"{path}: {problems(error)[0]}") from None
    for place, result in enumerate(paper.results):
        _check(f"{path}: results.{place}", paper, result)
    return paper


def _check(where: str, paper: Paper, result: Result) -> None:
    if result.scale not in recipes.scales():
        raise UserError(f"{where}.scale: unknown scale {result.scale!r}; {nearest(result.scale, recipes.scales())}")
    aggregates = members(suite_of(result.scale))
    named: list[tuple[str, Iterable[str], Collection[str]]] = [
        ("cite", result.cite, paper.citations),
        ("aggregates", result.aggregates, aggregates),
        ("scores", result.scores, aggregates["average"]),
    ]
    for field, names, right in named:
        for name in names:
            if name not in right:
                raise UserError(f"{where}.{field}: unknown name {name!r}; {nearest(name, right)}")


@cache
def _papers(folder: Path) -> list[Paper]:
    return [read_paper(path) for path in files_in(folder, "*.yaml")]


def _reference(paper: Paper, result: Result) -> Reference:
    aggregates = members(suite_of(result.scale))
    return Reference(
        method=result.method,
        author=paper.author,
        aggregates={name: result.aggregates.get(name) for name in aggregates},
        scores={key: result.scores[key] for key in aggregates["average"] if key in result.scores},
        dataset_size=result.dataset_size,
        citations=[paper.citations[name] for name in result.cite],
        notes=result.notes,
    )


def _order(reference: Reference) -> tuple[float, float, str, str]:
    merit = descending(reference.aggregates["average"], reference.aggregates.get("imagenet"))
    return (*merit, reference.method, reference.author)
