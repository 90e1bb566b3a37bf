"""What the leaderboard writes, typed: submission.json and leaderboard.json.

Their JSON Schemas lie in leaderboard/schema/ and are written anew by `python -m leaderboard schema`. What it reads of a
run is described where it is written: poolbench.run_record and tasks.results.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)
from pydantic.dataclasses import dataclass

from poolbench.errors import UserError
from poolbench.fields import Count, Digest, Share, Strict, Time
from poolbench.files import write_json
from poolbench.run_record import Bad, Code

from leaderboard.probes import ProbeResult
from tasks.grade import Grade

FORMAT: Literal[2] = 2  # of submission.json and leaderboard.json; 1 had no grades
SCHEMAS = Path(__file__).parent / "schema"

Track = Literal["filtering", "byod"]
TRACKS: tuple[Track, ...] = ("filtering", "byod")

MOST_GROUPS, MOST_LINES = 30, 20  # of an audit

_ANY: TypeAdapter[Any] = TypeAdapter(Any)

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


class Grown(Strict):
    """What has fields that came `later`. They are left out where they say nothing, so that whatever was written before
    them still has the content, and the digest, that it had."""

    later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _plain(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        return {name: value for name, value in fields.items() if value is not None or name not in self.later}


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


class AuditedGroup(Strict):
    """A group of the pool's rows of which a subset keeps another share than of the rest, beyond chance."""

    attribute: Line
    group: Line
    raw: Annotated[int, Field(ge=1)] = Field(description="rows of the pool")
    kept: Count = Field(description="of them")
    ratio: Share = Field(description="kept / raw")
    low: Share = Field(description="of Wilson's interval of 95 %")
    high: Share


class AuditedLine(Strict):
    """The regression of an attribute's kept shares on the sizes of its groups; r above 0: rarer groups are cut more."""

    attribute: Line
    slope: float = Field(description="of the share, by a row")
    r: Annotated[float, Field(ge=-1, le=1)]
    p: Share
    groups: Annotated[int, Field(ge=3)]


class Audit(Strict):
    """Who is in the subset and who is out: what curate.audit found, shortened (docs/audits.md)."""

    digest: Digest = Field(description="of groups.json, which has all of it")
    pool: Annotated[int, Field(ge=1)] = Field(description="rows of the pool")
    kept: Count = Field(description="of them; kept / pool is what a group's share is compared with")
    level: Share = Field(description="of Benjamini and Hochberg's correction over all groups")
    groups: Count = Field(description="how many were looked at")
    less: Count = Field(description="of them are kept less often than the rest, beyond chance")
    more: Count = Field(description="of them are kept more often than the rest, beyond chance")
    different: list[AuditedGroup] = Field(max_length=MOST_GROUPS, description="the farthest from kept / pool first")
    amplification: list[AuditedLine] = Field(max_length=MOST_LINES, description="the least p first")


class Overlap(Strict):
    """Training samples that show evaluation pictures: what curate.overlap found, shortened (docs/audits.md)."""

    digest: Digest = Field(description="of overlap.json, which has all of it")
    samples: Count = Field(description="training samples that were looked at")
    left_out: Count = Field(description="that could not be")
    found: Count = Field(description="training samples that show an evaluation picture")
    shown: Count = Field(description="evaluation pictures that they show")
    tasks: list[str] = Field(description="tasks whose pictures were looked for")
    distance: Count = Field(description="bits in which two hashes of one picture may differ")
    bits: Count = Field(description="of a hash")
    cosine: float | None = Field(description="of embeddings, from which on two pictures are one; null: not compared")


class Private(Strict):
    """Never copied into leaderboard.json or the page."""

    contact: Line | None


class Submission(Grown):
    """submission.json: one run's claim to a place, with everything that is needed to judge it."""

    later = frozenset({"audit", "overlap", "probes"})

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
    audit: Audit | None = Field(None, description="of the subset; left out where there is none")
    overlap: Overlap | None = Field(None, description="with evaluation pictures; left out where nobody looked")
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
    probes: list[ProbeResult] | None = Field(default=None, description="beside the benchmark; part of no aggregate")

    def public(self) -> dict[str, Any]:
        """The submission as plain values, without what is private."""
        return self.model_dump(mode="json", exclude={"private"})


# With slots: a board of 100,000 entries has five million of them, which as models would take 2.5 GB.
@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False, strict=True))
class Score:
    """A task's main metric and its standard error."""

    value: float | None
    stderr: float | None


class Entry(Grown):
    """One submission on a board.

    `rank` counts the entries that are better by more than noise, plus one; `rank_last` is the last place that noise
    leaves open. Both are null outside the ranking: `grade` is unverified there, or `deviations` says why.
    """

    later = frozenset({"audit", "overlap", "probes"})

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
    audit: Audit | None = Field(None, description="of its subset; left out where there is none")
    overlap: Overlap | None = Field(None, description="with evaluation pictures; left out where nobody looked")
    probes: dict[str, dict[str, Score]] | None = Field(
        default=None, description="by task key, then by probe, such as linear or 16; part of no aggregate"
    )


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


def as_json(leaderboard: Leaderboard) -> Iterator[str]:
    """The text of leaderboard.json in pieces, an entry each: whole, that of 100,000 entries takes 3 GB to make.

    Joined they are what `model_dump_json(indent=2)` gives, and the end of the last line.
    """
    yield from _pieces(leaderboard, "\n")
    yield "\n"


def _pieces(value: object, line: str) -> Iterator[str]:
    """A value as JSON; `line` is the end of a line with the indentation of the value."""
    deeper = line + "  "
    if isinstance(value, Leaderboard | Board):
        for number, name in enumerate(type(value).model_fields):
            yield f"{',' if number else '{'}{deeper}{json.dumps(name)}: "
            yield from _pieces(getattr(value, name), deeper)
        yield f"{line}}}"
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield f"{',' if number else '['}{deeper}"
            yield from _pieces(item, deeper)
        yield f"{line}]"
    else:
        yield _ANY.dump_json(value, indent=2).decode().replace("\n", line)  # no text has a line's end: JSON escapes it


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
