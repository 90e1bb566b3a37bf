"""overlap.json, in which `curate.overlap` says which training pictures show evaluation pictures: one typed model for
whoever writes or reads it."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from poolbench.errors import UserError
from poolbench.fields import AnyText, Count, Digest, Share, Strict
from poolbench.files import read_json
from poolbench.validation import first_problem

FILE = "overlap.json"
FORMAT: Literal[1] = 1


class DataLookedAt(Strict):
    """The training shards; the digest is of their names, sizes and weights, as in run.json."""

    shards: Count
    bytes: Count
    digest: Digest


class SubsetLookedAt(Strict):
    """The subset file that training is given, too."""

    digest: Digest
    size: Count


class SetLookedAt(Strict):
    """An evaluation set by the name of its folder.

    `digest` is what evaluation calls the set's data digest; `blank` pictures have nothing that a hash could tell.
    """

    name: AnyText
    pictures: Count
    left_out: Count
    blank: Count
    digest: Digest


class Edit(Strict):
    """What became of edited copies of evaluation pictures: which share is found, and how far they are away, in bits."""

    name: str
    recall: Share
    median: float


class ByHash(Strict):
    """The search by hashes: up to which distance two pictures are taken for one, and how sure that is.

    `false_positives` is the share of `negatives` pictures, of other sets than those they are compared with, that are
    called hits; `positives` is how many pictures were edited.
    """

    hash: str
    bits: Count
    distance: Count
    chosen: bool = Field(description="whether the distance was given, not derived")
    false_positives: Share | None
    negatives: Count
    positives: Count
    edits: list[Edit]


class ByEmbedding(Strict):
    """The search by embeddings: from which cosine on two pictures are taken for one."""

    model: str
    sha256: Digest
    cosine: float
    pictures: Count
    samples: Count
    false_positives: Share | None


class OverlapReport(Strict):
    """What was looked at, how, and how many training samples show how many evaluation pictures."""

    format: Literal[1]
    data: DataLookedAt
    subset: SubsetLookedAt | None
    samples: Count
    left_out: Count
    sets: list[SetLookedAt]
    by_hash: ByHash
    by_embedding: ByEmbedding | None
    found: Count = Field(description="training samples that show an evaluation picture")
    shown: Count = Field(description="evaluation pictures that they show")


def read_report(path: Path | str) -> OverlapReport:
    """
    Raises:
        UserError: there is none, or it is not one of this version.
    """
    value = read_json(path)
    if isinstance(value, dict) and value.get("format", FORMAT) != FORMAT:
        raise UserError(f"{path} has format {value['format']}, this version reads {FORMAT}; run curate.overlap again")
    try:
        return OverlapReport.model_validate(value)
    except ValidationError as error:
        raise UserError(f"{path} is no report of curate.overlap: {first_problem(error, OverlapReport)}") from None
