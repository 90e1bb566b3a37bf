"""What the probes of an evaluation leave: a line for each task and probe in probe_results.jsonl.

    read_probes(run / FILE)                   # [ProbeLine(key="mnist", head="linear", shots=None, ...), ...]

They are no part of the benchmark: no mean over tasks holds them.
"""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from poolbench.errors import UserError
from poolbench.fields import ConventionsUsed, Count, Digest, OwnModel, Strict
from poolbench.files import read_lines
from poolbench.validation import first_problem

from tasks.results import BadSample

FILE = "probe_results.jsonl"
# What a result depends on besides the data of both splits.
CONDITIONS = ("head", "shots", "seeds", "checkpoint_sha256", "model", "tag", "precision", "version")


class DrawResult(Strict):
    """One draw of the training pictures and what it led to."""

    seed: int
    train: Count
    validation: Count
    weight_decay: float | None
    metrics: dict[str, float | None]


class ProbeLine(Strict):
    """One line of probe_results.jsonl: the mean over draws, their standard deviation, and each of them."""

    key: str
    dataset: str
    head: Literal["linear", "lp++"]
    shots: int | None
    metrics: dict[str, float | None]
    sd: dict[str, float | None]
    stderr: float | None
    seeds: list[int]
    draws: list[DrawResult]
    samples: Count
    train_samples: Count
    short_classes: Count
    leaked: Count
    seconds: float
    data_digest: Digest
    train_digest: Digest
    shards: Count
    train_shards: Count
    bad: list[BadSample]
    checkpoint_sha256: Digest
    model: str
    tag: str | None
    precision: str
    version: int
    conventions: ConventionsUsed | None = None
    own: OwnModel | None = None

    @property
    def probe(self) -> str:
        """What `probes=` calls it."""
        if self.shots is None:
            return self.head
        return f"{'' if self.head == 'linear' else self.head}{self.shots}"


def read_probes(file: Path) -> list[ProbeLine]:
    """Every line of a file of probes, [] where there is none.

    Raises:
        UserError: a line is not one, or has a field that is not known.
    """
    lines = []
    for number, value in enumerate(read_lines(file), start=1):
        try:
            lines.append(ProbeLine.model_validate(value))
        except ValidationError as error:
            problem = first_problem(error, ProbeLine)
            raise UserError(f"{file}, line {number}, is not a line of probes: {problem}; move the file away") from None
    return lines
