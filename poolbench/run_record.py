"""run.json, in which training says what it trained: one typed model for whoever writes or reads it."""

from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue, ValidationError, field_validator

from poolbench.errors import UserError
from poolbench.fields import ConventionsUsed, Count, Digest, Strict, Time
from poolbench.files import read_json, write_json
from poolbench.validation import first_problem

FILE = "run.json"
FORMAT: Literal[1] = 1


class SourceOfRun(Strict):
    """One entry of `data=`; `missing` counts the names of a brace pattern that do not exist."""

    spec: str
    shards: Count
    bytes: Count
    weight: float
    missing: Count


class DataOfRun(Strict):
    """What the run draws from; the digest is of the shards' names, sizes and weights."""

    sources: list[SourceOfRun]
    shards: Count
    digest: Digest


class SubsetOfRun(Strict):
    """The subset file, None where all of the data are used."""

    path: str
    digest: Digest
    size: Count


class InitOfRun(Strict):
    """The weights that the run started from; `checkpoint` is a file or, where `tag` is not null, a pretrained tag."""

    model: str
    checkpoint: str
    tag: str | None
    sha256: Digest


class CheckpointOfRun(Strict):
    """The newest checkpoint, its path being relative to the run's folder."""

    path: str
    sha256: Digest


class Bad(Strict):
    """How much of the training data could not be read."""

    samples: Count
    shards: Count


class Code(Strict):
    """The version of this program; `commit` and `dirty` are null outside a git checkout."""

    version: str
    commit: str | None
    dirty: bool | None


class RunRecord(Strict):
    """run.json. Its recipe, objective, data, subset, init, seed and precision say what the weights depend on."""

    format: Literal[1]
    name: str
    scale: str
    status: Literal["running", "complete"]
    official: bool
    deviations: list[str]
    recipe: dict[str, JsonValue]
    recipe_digest: Digest
    precision: str
    seed: int
    data: DataOfRun
    subset: SubsetOfRun | None
    samples_seen: Count
    steps: Count
    world_size: int
    bad: Bad
    code: Code
    packages: dict[str, str]
    device: str
    started: Time
    finished: Time | None
    seconds: float
    checkpoint: CheckpointOfRun | None
    init: InitOfRun | None = None  # None where it started from scratch, as all did before there was this field
    conventions: ConventionsUsed | None = None  # not known before the model is built
    objective: str = "clip"  # of which all runs were before there was another

    @field_validator("recipe")
    @classmethod
    def _of_a_model(cls, recipe: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if not isinstance(recipe.get("model"), str):
            raise ValueError("it names no model")
        return recipe

    @property
    def model(self) -> str:
        """open_clip's name of the architecture."""
        return str(self.recipe["model"])


def read_record(folder: Path) -> RunRecord:
    """run.json of the training run in a folder.

    Raises:
        UserError: there is none, or it is not one of a training run of this version.
    """
    file = folder / FILE
    value: Any = read_json(file)
    if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
        raise UserError(f"{file} has format {value['format']}, this version reads {FORMAT}")
    try:
        return RunRecord.model_validate(value)
    except ValidationError as error:
        problem = first_problem(error, RunRecord)
        raise UserError(f"{file}: {problem}; is it of a training run?") from None


def write_record(folder: Path, record: RunRecord) -> None:
    """Write run.json, without what is not known yet."""
    write_json(folder / FILE, record.model_dump(exclude_unset=True))
