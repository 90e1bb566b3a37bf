"""What the leaderboard writes, typed: submission.json and leaderboard.json.

Their JSON Schemas lie in leaderboard/schema/ and are written anew by `python -m leaderboard schema`. What it reads of a
run is described where it is written: poolbench.run_record and tasks.results.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, Field, JsonValue, ValidationError

from poolbench.errors import UserError
from poolbench.fields import Count, Digest, Strict, Time
from poolbench.files import write_json
from poolbench.run_record import Bad, Code

from tasks.grade import Grade

FORMAT: Literal[2] = 2  # of submission.json and leaderboard.json; 1 had no grades
SCHEMAS = Path(__file__).parent / "schema"

Track = Literal["filtering", "byod"]
TRACKS: tuple[Track, ...] = ("filtering", "byod")

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def _one_line(text: str) -> str:
    if not text.strip() or len(text) > 200 or not text.isprintable():
        raise ValueError("must be one line of text, 1 to 200 characters")
    return text


def _web_address(text: str) -> str:
    # Anything else (javascript:, data:) would run in the reader's browser when the page links to it.
    if not re.fullmatch(r"https?://[^\s<>\"']{1,2000}", text):
        raise ValueError("must be a http:// or https:// address")
    return text


Line = Annotated[str, AfterValidator(_one_line), Field(json_schema_extra={"minLength": 1, "maxLength": 200})]
Url = Annotated[str, AfterValidator(_web_address), Field(json_schema_extra={"pattern": "^https?://"})]


class TaskResult(Strict):
    """What one task measured. `metrics` holds `main_metric` and every metric by its own name."""

    key: str
    dataset: str
    metrics: dict[str, float | None]
    stderr: Annotated[float, Field(ge=0)] | None = Field(description="Standard error of the main metric")
    samples: Count
    seconds: Annotated[float, Field(ge=0)]
    data_digest: Digest
    pinned: bool | None = Field(description="whether the data are those of the lock file; null where it has none")
    predictions_sha256: Digest | None = Field(description="of predictions/<task>.parquet beside the run's results")
    precision: str
    limit: int | None
    official: bool = Field(description="true exactly where `grade` is official")
    grade: Grade
    deviations: list[str]


class Data(Strict):
    """The shards that were trained on. `digest` is over their names, sizes and weights."""

    sources: Count
    shards: Count
    bytes: Count
    digest: Digest


class Subset(Strict):
    """The subset file that chose among the data's samples."""

    digest: Digest
    size: Count


class Aggregates(Strict):
    """Means of main metrics; null where one of the tasks is missing."""

    version: int = Field(description="of the aggregates' definition")
    values: dict[str, float | None]


class Private(Strict):
    """Never copied into leaderboard.json or the page."""

    contact: Line | None


class Submission(Strict):
    """submission.json: one run's claim to a place, with everything that is needed to judge it."""

    format: Literal[2]
    method: Line
    author: Line
    writeup: Url | None
    track: Track
    scale: Line
    run: Line
    official: bool = Field(description="true exactly where `grade` is official")
    grade: Grade = Field(description="the worst of the run's and its tasks': unofficial where `deviations` are listed")
    deviations: list[str]
    dataset_size: Annotated[int, Field(ge=1)] | None = Field(description="image-text pairs in the dataset")
    subset: Subset | None
    data: Data
    recipe: dict[str, JsonValue]
    recipe_digest: Digest
    precision: str
    seed: int
    samples_seen: Count
    steps: Count
    world_size: Annotated[int, Field(ge=1)]
    bad: Bad
    checkpoint_sha256: Digest
    tasks: list[TaskResult]
    aggregates: Aggregates
    code: Code
    packages: dict[str, str]
    device: str
    started: Time
    finished: Time | None
    seconds: Annotated[float, Field(ge=0)]
    digest: Digest = Field(description="of everything else but `private`, as canonical JSON: an edited file is noticed")
    private: Private

    def public(self) -> dict[str, Any]:
        """The submission as plain values, without what is private."""
        return self.model_dump(mode="json", exclude={"private"})


class Score(Strict):
    """A task's main metric and its standard error."""

    value: float | None
    stderr: float | None


class Entry(Strict):
    """One submission on a board.

    `rank` counts the entries that are better by more than noise, plus one; `rank_last` is the last place that noise
    leaves open. Both are null outside the ranking: `grade` is unverified there, or `deviations` says why.
    """

    rank: Annotated[int, Field(ge=1)] | None
    rank_last: Annotated[int, Field(ge=1)] | None
    digest: Digest = Field(description="of the submission, by which the entry is known")
    method: Line
    author: Line
    writeup: Url | None
    aggregates: dict[str, Score] = Field(description="by name; a standard error does not cover the seed")
    scores: dict[str, Score] = Field(description="by task key")
    dataset_size: int | None
    samples_seen: int
    seed: int
    precision: str
    official: bool
    grade: Grade
    deviations: list[str]
    recipe_digest: Digest
    data_digest: Digest
    subset_digest: Digest | None
    checkpoint_sha256: Digest
    bad: Bad
    version: str = Field(description="of the program that trained")
    finished: Time | None


class Citation(Strict):
    """Where published numbers were read."""

    text: str
    url: Url | None = Field(description="null where it is a page of this project")


class Reference(Strict):
    """A published result, for comparison: nobody submitted it, so it has no rank and nothing of it was checked."""

    method: Line
    author: Line
    aggregates: dict[str, float | None] = Field(description="by name, as published")
    scores: dict[str, float] = Field(description="by task key, as published; empty where they are not public")
    dataset_size: int | None
    citations: list[Citation]
    notes: list[str] = Field(description="where the sources disagree")


class Noise(Strict):
    """How far apart the aggregates of two runs can be that differ only in the seed."""

    values: dict[str, float] = Field(description="by aggregate; one that is not here is not known")
    citation: Citation


class BoardTask(Strict):
    """A column of the per-task table."""

    key: str
    name: str
    main_metric: str | None
    groups: list[str]


class Spread(Strict):
    """An aggregate over the seeds of a method; the mean is null where one of its entries has none."""

    mean: float | None
    sd: Annotated[float, Field(ge=0)] | None = Field(description="sample standard deviation; null with one seed")


class Gain(Strict):
    """By how much a mean average is above the baseline's.

    `low` and `high` are the ends of Welch's interval of 95 %, null where one of the two methods has fewer than two
    seeds. They cover what seeds do, not the sampling of the test images.
    """

    value: float
    low: float | None
    high: float | None


class Method(Strict):
    """Ranked entries that differ in the seed alone: one method, author, dataset and recipe."""

    method: Line
    author: Line
    dataset_size: int | None
    entries: list[Digest] = Field(description="digests of its entries, in the order of their ranks")
    seeds: list[int] = Field(description="each once; entries with the same seed count once, by their mean")
    aggregates: dict[str, Spread] = Field(description="by name, over the seeds")
    baseline: bool = Field(description="whether it is what the others' gains are over: training on the whole pool")
    gain: Gain | None = Field(description="null for the baseline, and on a board without one")


class Board(Strict):
    """All entries of a track at a scale, each list best first: by average, then by ImageNet."""

    track: Track
    scale: str
    pool_size: int | None = Field(description="samples of the pool that the filtering track chooses from")
    aggregates: list[str] = Field(description="names of the aggregates, in the order of the columns")
    tasks: list[BoardTask]
    noise: Noise | None
    ranked: list[Entry] = Field(description="official entries, the only ones with ranks")
    unverified: list[Entry] = Field(description="entries whose evaluation data nothing pins")
    unranked: list[Entry] = Field(description="unofficial entries, with the reasons")
    references: list[Reference]
    methods: list[Method] = Field(description="the ranked entries by method, best mean average first")


class Leaderboard(Strict):
    """leaderboard.json: the same bytes for the same submissions."""

    format: Literal[2]
    aggregates_version: int
    boards: list[Board]


def problems(error: ValidationError) -> list[str]:
    """One line "field: what is wrong" for each thing a model refused."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        field = ".".join(str(part) for part in item["loc"]) or "the file"
        lines.append(f"{field}: {' '.join(item['msg'].removeprefix('Value error, ').split())}")
    return lines


def read_leaderboard(path: Path | str) -> Leaderboard:
    """Read a leaderboard.json.

    Raises:
        UserError: it cannot be read, or is not one of this format.
    """
    try:
        return Leaderboard.model_validate_json(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        why = f"is no leaderboard.json of format {FORMAT}: {problems(error)[0]}"
        raise UserError(f"{path} {why}; python -m leaderboard build writes one") from None


def write_schemas(folder: Path = SCHEMAS) -> list[Path]:
    """Write the JSON Schemas of the two published files."""
    paths = []
    for model in (Submission, Leaderboard):
        path = folder / f"{model.__name__.lower()}.schema.json"
        write_json(path, schema(model))
        paths.append(path)
    return paths


def schema(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a published file."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
