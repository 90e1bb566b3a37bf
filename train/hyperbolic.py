"""The objective of a hyperbolic CLIP, as MERU has it (Desai et al. 2023, facebookresearch/meru, models.py).

Pictures and captions that belong together are to lie near each other in hyperbolic space, and a caption's cone is to
hold its picture.
"""

import torch
from open_clip.loss import gather_features
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from poolbench.models.hyperbolic import BOUNDS, distances, entailment, first_logarithms, lift

ENTAILMENT = 0.2  # weight of the entailment loss


class Curved(nn.Module):
    """What is learned beside the towers, as logarithms: curvature, and the scales of the two towers' features.

    It is trained without weight decay, since each is a single number.
    """

    def __init__(self, width: int) -> None:
        """
        Args:
            width: of the features.
        """
        super().__init__()
        for name, value in first_logarithms(width).items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def forward(self) -> dict[str, Tensor]:
        """The numbers themselves by name, float64 []."""
        return {name: value.double().exp() for name, value in self.named_parameters()}

    @torch.no_grad()
    def clamp(self) -> None:
        """Hold them within their bounds: behind each step."""
        for name, value in self.named_parameters():
            value.clamp_(*BOUNDS[name])


class HyperbolicLoss(nn.Module):
    """CLIP's loss with distances for logits, and the entailment loss, in float32 whatever the precision of the towers.

    It is of one process's share of a batch, which is compared with the whole batch; as open_clip's ClipLoss with
    `local_loss` and `gather_with_grad`.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        super().__init__()
        self._rank, self._world_size = rank, world_size

    def forward(
        self,
        image_features: Tensor,
        text_features: Tensor,
        logit_scale: Tensor,
        curvature: Tensor,
        alpha_img: Tensor,
        alpha_txt: Tensor,
    ) -> Tensor:
        """The loss, [], of features [n, d] as they leave the towers."""
        with torch.autocast(image_features.device.type, enabled=False):
            images = lift(_full(image_features) * alpha_img, curvature)
            texts = lift(_full(text_features) * alpha_txt, curvature)
            every_image, every_text = images, texts
            if self._world_size > 1:
                every_image, every_text = gather_features(images, texts, local_loss=True, gather_with_grad=True)
            labels = torch.arange(len(images), device=images.device) + len(images) * self._rank
            of_images = cross_entropy(-logit_scale * distances(images, every_text, curvature), labels)
            of_texts = cross_entropy(-logit_scale * distances(texts, every_image, curvature), labels)
            outside = entailment(texts, images).clamp(min=0).mean()
            return (of_images + of_texts) / 2 + ENTAILMENT * outside


def _full(features: Tensor) -> Tensor:
    """In float32 at least."""
    return features.to(torch.promote_types(features.dtype, torch.float32))
