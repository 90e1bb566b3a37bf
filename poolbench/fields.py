"""Types of fields that several of our files have, and the strictness that all of these files share."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator


class Strict(BaseModel):
    """A file of ours or a part of it: an unknown field is refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True, strict=True)


def _iso(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time in ISO 8601") from None
    return text


def _is_text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("Input should be a valid string")
    return value


class ConventionsUsed(Strict):
    """How a model wanted its pictures: the fields of `poolbench.models.conventions.Conventions`."""

    activation: str
    mean: Annotated[list[float], Field(strict=False)]  # a tuple, where it does not come from a file
    std: Annotated[list[float], Field(strict=False)]
    interpolation: str
    resize_mode: str


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256, hexadecimal")]
Time = Annotated[str, AfterValidator(_iso), Field(description="ISO 8601")]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
# What may quote names of files and members: pydantic's own check refuses those that are not UTF-8.
AnyText = Annotated[str, PlainValidator(_is_text)]


class OwnModel(Strict):
    """What a model that open_clip does not know told of itself (evaluate.python_model.ImageTextModel).

    Attributes:
        transform: what its transform calls itself.
        tokenizer: what its tokenizer calls itself.
        normalised: whether its embeddings were brought to unit length.
        width: numbers in an embedding.
        logit_scale: None of a model without, for which 100 was taken.
        logit_bias: None of a model without.
    """

    transform: AnyText
    tokenizer: AnyText
    normalised: bool
    width: Count
    logit_scale: float | None
    logit_bias: float | None
