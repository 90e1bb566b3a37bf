"""What a worker makes of a picture file: views of it, as a model sees them, and facts."""

from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # see base.py
    import torch

PLAIN = "plain"  # the view of a picture as it is


class Seen(NamedTuple):
    """What a worker makes of a picture file.

    Attributes:
        views: uint8 [3, h, w] each, by name, the same names and sizes for every picture of a shard.
        facts: numbers or texts, by name, the same names for every picture of a shard.
        problem: why some of it stands for nothing though the picture is good; see base.Product.may_lack.
        seconds: what in particular it took, by name.
    """

    views: "Mapping[str, torch.Tensor]"
    facts: Mapping[str, float | str] = {}
    problem: str = ""
    seconds: Mapping[str, float] = {}


class OneView:
    """A picture as it is, and nothing else: PLAIN."""

    def __init__(self, pixels: "Callable[[bytes], torch.Tensor]") -> None:
        self._pixels = pixels

    def __call__(self, data: bytes, wanted: Set[str]) -> Seen:
        return Seen({PLAIN: self._pixels(data)})


def add(seconds: dict[str, float], more: Mapping[str, float]) -> None:
    """Sum up times by name."""
    for what, part in more.items():
        seconds[what] = seconds.get(what, 0.0) + part
