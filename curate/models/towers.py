"""A CLIP model as scoring a pool needs it: pictures and captions to unit vectors in numpy."""

from pathlib import Path

import numpy as np
import torch

from poolbench.errors import UserError
from poolbench.models import towers
from poolbench.models.clip import CONFIG, load, tokenizer_of
from poolbench.models.conventions import conventions_of
from poolbench.models.texts import by_length
from poolbench.models.transforms import WebPixels, evaluation_transform
from poolbench.models.weights import Weights, trained, weights_of


def weights_named(checkpoint: str | None, model: str | None) -> Weights:
    """Find the weights of `checkpoint=`: a file, a pretrained tag, or the folder of a training run or of a model with
    its configuration; without it those that `model=` brings.

    Raises:
        UserError: no such run, model, file or tag, or a model has to be named.
    """
    if checkpoint is None:
        if model is None:
            raise UserError("checkpoint= is needed, or model= with weights of its own: hf-hub:<repository>, a folder")
        return weights_of(model, None)
    path = Path(checkpoint).expanduser()
    if path.is_dir() and (path / CONFIG).is_file() and not (path / "run.json").is_file():
        return weights_of(model or str(path), None)
    if path.is_dir():
        newest = trained(path)
        return weights_of(model or newest.model, str(newest.checkpoint))
    if model is None and path.is_file() and (path.parent.parent / "run.json").is_file():
        model = trained(path.parent.parent).model
    if model is None:
        if not path.is_file():
            raise UserError(f"checkpoint={checkpoint} is no file and no run; a pretrained tag needs model= as well")
        raise UserError(f"model= is needed: open_clip's name of the architecture of {checkpoint}")
    return weights_of(model, str(path) if path.is_file() else checkpoint)


class Towers:
    """A model on a device. Vectors are float32 and of unit length whatever the precision of the towers.

    Raises:
        UserError: the weights cannot be loaded.
    """

    def __init__(self, weights: Weights, device: torch.device, precision: str) -> None:
        self._model = load(weights.model, weights.checkpoint, folder=weights.folder, device=device, say=print)
        self._towers = towers.Towers(self._model, device, precision)
        self.pixels = WebPixels(evaluation_transform(self._model))
        self.conventions = conventions_of(self._model)
        self.tokenizer = tokenizer_of(weights.model, weights.folder)

    def images(self, pictures: torch.Tensor) -> np.ndarray:
        """uint8 [n, 3, side, side] -> float32 [n, d]."""
        return self._towers.images(pictures).cpu().numpy()

    def texts(self, tokens: torch.Tensor) -> np.ndarray:
        """int64 [n, context length] -> float32 [n, d]."""
        parts, places = by_length(self._model, tokens)
        return self._towers.texts(parts).cpu()[places].numpy()
