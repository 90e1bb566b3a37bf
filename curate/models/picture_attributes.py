"""What models say of pictures that people want groups by: an attribute each, by its name.

Such a model is wrong now and then, and more often about some people than about others: what it says of one picture is
no fact about who is in it (docs/audits.md). None of them knows who anybody is.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from poolbench.errors import UserError

from curate.pool.scored import Identity

EXTRA = "pip install 'poolbench[attributes]'"

Values = Mapping[str, float | str]


class PictureAttribute(ABC):
    """One of them. Sent to workers, each of which opens the model for itself.

    Attributes:
        columns: of what is said of a picture: numbers, NaN for none, or those in `texts`, "" for none.
        packages: that carry the model and run it; their versions are recorded.
    """

    name: str
    columns: tuple[str, ...]
    texts: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """What its numbers depend on besides the picture.

        Raises:
            UserError: a package is missing.
        """

    @property
    def versions(self) -> dict[str, str]:
        """The packages as they are installed."""
        return {name: version_of(name) for name in self.packages}

    def open(self) -> None:  # noqa: B027 (one that has no model has nothing to open)
        """Try the model, before it is sent to the workers.

        Raises:
            UserError: it cannot be loaded.
        """

    def of_picture(self, image: Image.Image) -> Values:
        """What the model says of a picture in RGB, some of the columns.

        Raises:
            Exception: whatever the model's package raises.
        """
        return {}

    def of_row(self, row: Mapping[str, Any]) -> Values:
        """What the sample's own metadata say, the other columns."""
        return {}

    @abstractmethod
    def groups(self, columns: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
        """Columns by which an audit can part rows, from those of some pictures; null where nothing is said."""


class ListedFaces(PictureAttribute):
    """How many faces the pool's own `face_bboxes` list, with which published pools come."""

    name, columns = "listed_faces", ("listed_faces",)

    @property
    def identity(self) -> Identity:
        return Identity(model="face_bboxes of the samples", tag=None, sha256="", precision="fp32")

    def of_row(self, row: Mapping[str, Any]) -> Values:
        boxes = row.get("face_bboxes")
        return {self.name: float("nan") if boxes is None else float(len(boxes))}

    def groups(self, columns: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
        return {self.name: whole(columns[self.name])}


def whole(values: np.ndarray) -> pa.Array:
    """Numbers as whole ones, int32; null for NaN."""
    missing = np.isnan(values)
    return pa.array(np.where(missing, 0, values).astype(np.int32), mask=missing)


def version_of(package: str) -> str:
    """Of an installed package, "?" where it is not."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def folder_of(module: str, package: str, attribute: str) -> Path:
    """Where an installed module lies, which is not imported.

    Raises:
        UserError: it is not there.
    """
    found = find_spec(module)
    if found is None or found.origin is None:
        raise UserError(f"the attribute {attribute} needs the package {package}; {EXTRA}")
    return Path(found.origin).parent
