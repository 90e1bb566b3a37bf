"""From a compressed picture to the pixels that a finished model sees, by open_clip's own evaluation transform.

The transform is cut in two. Decoding, resizing and cropping run in the workers and give bytes (uint8), a quarter of
what floats would be to move between processes; scaling and normalising run on the model's device.
"""

import io
from collections.abc import Callable

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose, Normalize, PILToTensor, ToTensor

from poolbench.shards.pictures import decoding, opened, rgb


class Pixels:
    """Bytes of a picture file -> uint8 tensor [3, height, width], as the model wants it but not yet normalised.

    The picture becomes RGB before anything else, see `rgb`; EXIF orientation is not applied.
    """

    def __init__(self, transform: Compose) -> None:
        *steps, to_tensor, normalize = transform.transforms
        assert isinstance(to_tensor, ToTensor) and isinstance(normalize, Normalize), transform
        self._steps: Callable[[Image.Image], torch.Tensor] = Compose([*steps, PILToTensor()])

    def __call__(self, data: bytes) -> torch.Tensor:
        """Raises whatever Pillow raises for bytes that are not a whole picture."""
        with Image.open(io.BytesIO(data)) as image:
            return self.of(image)

    def of(self, image: Image.Image) -> torch.Tensor:
        """The same for a picture that is open."""
        return self._steps(rgb(image))


class WebPixels(Pixels):
    """Pixels of pictures from the web, limited as in training: FORMATS and PIXEL_LIMIT."""

    def __call__(self, data: bytes) -> torch.Tensor:
        """Raises:
        ValueError: `data` is no whole picture, or has too many pixels.
        """
        with decoding():
            return self.of(opened(data))


class Scale(torch.nn.Module):
    """uint8 [n, 3, h, w] -> normalised float32 of the same shape, bit for bit as ToTensor and Normalize give it."""

    def __init__(self, transform: Compose) -> None:
        super().__init__()
        normalize = transform.transforms[-1]
        # Tensors, as a GPU multiplies by the rounded reciprocal of a Python number where it should divide.
        self.register_buffer("full", torch.tensor(255.0), persistent=False)
        self.register_buffer("mean", torch.tensor(normalize.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalize.std).view(3, 1, 1), persistent=False)

    full: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32).div(self.full).sub(self.mean).div(self.std)


def evaluation_transform(model: torch.nn.Module) -> Compose:
    """open_clip's evaluation transform for a model it built: PIL image -> float32 [3, h, w]."""
    transform: Compose = image_transform_v2(PreprocessCfg(**open_clip.get_model_preprocess_cfg(model)), is_train=False)
    return transform
