"""Some of a pool's pictures beside their masked ones, as a folder: `<shard>.jsonl`, a MaskedSample a line, and JPEGs.

Scoring writes it (curate/scorers/masked_samples.py), the report on a subset shows it (curate/report/masked.py).
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from poolbench.errors import UserError
from poolbench.files import atomic, files_in, json_line, read_lines
from poolbench.validation import first_refusal


class MaskedSample(BaseModel):
    """One of them.

    Attributes:
        picture: the name of a file beside the index: on the left the picture, on the right the masked one.
        scores: by column, None where there is none.
        text: what the text was read as, a line each.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    uid: str
    caption: str
    picture: str
    scores: dict[str, float | None]
    text: str


def write(folder: Path, shard: str, samples: Sequence[MaskedSample]) -> None:
    """Write the index of a shard's samples, when their pictures are there."""
    with atomic(folder / f"{shard}.jsonl") as file:
        file.writelines(json_line(one.model_dump()) for one in samples)


def read(folder: Path) -> list[MaskedSample]:
    """The samples of all shards in a folder.

    Raises:
        UserError: there are none, or an index is not what it should be.
    """
    found = []
    for path in files_in(folder, "*.jsonl"):
        try:
            found += [MaskedSample.model_validate(line) for line in read_lines(path)]
        except ValidationError as error:
            raise UserError(f"{path} lists no masked samples ({first_refusal(error)}); export them again") from None
    if not found:
        raise UserError(f"{folder} has no masked samples, which curate.score mask=text export=… writes")
    return found
