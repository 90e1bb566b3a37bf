"""The two towers of a CLIP model as scoring a pool needs them: pictures and captions to unit vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, UnidentifiedImageError
from torch.nn import functional
from torchvision.transforms import Compose, PILToTensor

from conf.errors import UserError
from conf.files import digest_file, read_json
from train.model import check_checkpoint, encode_text, load, preprocess_of, tokenizer_of
from train.pictures import FORMATS, opened
from train.step import by_length

PRECISIONS = ("fp32", "amp_bf16")


class Weights(NamedTuple):
    """What scores: open_clip's name of the model, a file or pretrained tag, and what tells it from others.

    `tag` is None for a file: with some tags open_clip gives a model another activation or preprocessing, so that the
    digest of the weights alone does not settle the scores.
    """

    model: str
    checkpoint: str
    tag: str | None
    sha256: str


def weights_of(checkpoint: str, model: str | None) -> Weights:
    """Find the weights of `checkpoint=`: a file, a pretrained tag, or the folder of a training run.

    Raises:
        UserError: no such run, model, file or tag, or a model has to be named.
    """
    path = Path(checkpoint).expanduser()
    run = path if path.is_dir() else path.parent.parent
    if path.is_dir() or (model is None and path.is_file() and (run / "run.json").is_file()):
        recorded, newest = _of_run(run)
        path, model = newest if path.is_dir() else path, model or recorded
    if model is None:
        raise UserError(f"model= is needed: open_clip's name of the architecture of {checkpoint}")
    name = str(path) if path.is_file() else checkpoint
    check_checkpoint(model, name)
    tag = None if path.is_file() else checkpoint
    return Weights(model, name, tag, digest_file(path if tag is None else _downloaded(model, tag)))


def _of_run(run: Path) -> tuple[str, Path]:
    """The model of a training run and its newest checkpoint."""
    file = run / "run.json"
    record = read_json(file)
    try:
        return str(record["recipe"]["model"]), run / record["checkpoint"]["path"]
    except (KeyError, TypeError):
        raise UserError(f"{file} does not say which model and checkpoint; is it of a training run?") from None


def _downloaded(model: str, tag: str) -> Path:
    """The file of a pretrained tag, in open_clip's cache."""
    try:
        return Path(open_clip.download_pretrained(open_clip.get_pretrained_cfg(model, tag)))
    except Exception as error:  # network libraries raise many kinds; all mean the same to the user
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"the weights {model}/{tag} cannot be downloaded: {reason}") from None


class Pixels:
    """Bytes of a picture file -> uint8 [3, side, side], by open_clip's evaluation transform; not yet normalised.

    What comes from the web is limited as in training: FORMATS and PIXEL_LIMIT.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        transform = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False)
        *steps, _to_tensor, _normalize = transform.transforms
        self._steps: Callable[[Image.Image], torch.Tensor] = Compose([*steps, PILToTensor()])

    def __call__(self, data: bytes) -> torch.Tensor:
        """Raises:
        ValueError: `data` is no whole picture, or has too many pixels.
        """
        try:
            return self._steps(opened(data).convert("RGB"))
        except UnidentifiedImageError:
            reason = f"it is none of {', '.join(FORMATS)}"
        except Exception as error:  # what a decoder raises on foreign bytes is not documented
            reason = (str(error).splitlines() or [type(error).__name__])[0].partition(" <_io.BytesIO")[0]
        raise ValueError(f"image cannot be decoded: {reason}")


class Towers:
    """A model on a device. Vectors are float32 and of unit length whatever the precision of the towers.

    Raises:
        UserError: the weights cannot be loaded.
    """

    def __init__(self, weights: Weights, device: torch.device, precision: str) -> None:
        if precision == "fp32":
            # TensorFloat-32 keeps 10 bits of the mantissa; it would make fp32 on a GPU something else than on a CPU.
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        self._model: Any = load(weights.model, weights.checkpoint, device=device)
        self._device, self._precision = device, precision
        self.pixels = Pixels(self._model)
        self.tokenizer = tokenizer_of(weights.model)
        settings = preprocess_of(self._model)
        # Tensors, as a GPU multiplies by the rounded reciprocal of a Python number where it should divide.
        self._full = torch.tensor(255.0, device=device)
        self._mean = torch.tensor(settings.mean, device=device).view(3, 1, 1)
        self._std = torch.tensor(settings.std, device=device).view(3, 1, 1)

    @torch.inference_mode()
    def images(self, pictures: torch.Tensor) -> np.ndarray:
        """uint8 [n, 3, side, side] -> float32 [n, d]."""
        pictures = pictures.to(self._device, non_blocking=True)
        scaled = pictures.to(torch.float32).div(self._full).sub(self._mean).div(self._std)
        with self._autocast():
            features = self._model.encode_image(scaled)
        return _unit(features, "picture")

    @torch.inference_mode()
    def texts(self, tokens: torch.Tensor) -> np.ndarray:
        """int64 [n, context length] -> float32 [n, d]."""
        texts = by_length(self._model, tokens).to(self._device)
        with self._autocast():
            parts = [encode_text(self._model, part) for part in texts.parts]
        return _unit(torch.cat(parts).index_select(0, texts.places), "text")

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self._precision == "amp_bf16")


def _unit(features: torch.Tensor, what: str) -> np.ndarray:
    vectors = functional.normalize(features.float(), dim=-1).cpu()
    if not torch.isfinite(vectors).all():
        raise UserError(f"the model gives {what} embeddings that are not finite numbers; did its training diverge?")
    return vectors.numpy()
