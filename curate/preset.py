"""A published selection, as conf/method/<name>.yaml has it. Apart from presets.py, which every selection imports:
pydantic takes a tenth of a second."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from poolbench.errors import UserError


class Preset(BaseModel):
    """A published selection.

    Attributes:
        method: what it keeps, in a line.
        cite: who published it, and `url` where.
        filter: the name of the filter that does it, and `options` of it at every scale.
        scales: those at which it was published, with the options that differ there.
        results: by scale, the published accuracy on ImageNet and average of 38 tasks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    cite: str
    url: str
    filter: str
    options: dict[str, Any] = {}
    scales: dict[str, dict[str, Any]]
    results: dict[str, tuple[float, float]] = {}


def read_preset(path: Path) -> Preset:
    """
    Raises:
        UserError: the file is not what it should be.
    """
    try:
        return Preset.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(f"{path} is no published selection: {str(error).splitlines()[0]}") from None
