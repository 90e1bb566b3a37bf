"""The Lorentz model of hyperbolic space, and the numbers by which a hyperbolic CLIP puts its features there.

Formulas: MERU (Desai et al. 2023, facebookresearch/meru, lorentz.py and models.py) and HYPE (Kim et al. 2024,
naver-ai/hype, hyperbolic.py and model.py), with which tests compare. There a point x of a space of curvature -c has
coordinates x_s in space and x_t = sqrt(1/c + |x_s|²) in time. Here a point is X = sqrt(c) x_s, [n, d]: its coordinate
in time is sqrt(1 + |X|²), and c is needed for lifting and for lengths alone. What the published formulas take as a
difference of large numbers is written without one where that can be done, so that nothing has to be kept away from
the bounds of acosh, acos and asin: values and gradients are finite for every finite input.

All functions take float32 or float64 points and give the same; a curvature, [], is best in float64, as its reciprocals
would leave float32 on the way back. A function of pairs takes row i with row i; its twin, named in the plural, takes
each row of x with each row of y.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

SMALLEST_CONE = 0.1  # K: within this radius, times 2 / sqrt(c), cones are half spaces
_FARTHEST = math.asinh(2**15)  # sqrt(c) times a feature's length, where lifting stops: sinh would overflow

# What HYPE's checkpoints call what a model learns besides; each is a logarithm. HYPE keeps them among the weights, this
# project beside them, so that open_clip loads the weights as a CLIP's.
NAMES = ("curvature", "alpha_img", "alpha_txt")
IN_CHECKPOINTS = "hyperbolic"  # of ours: under which key
# Between which MERU holds them while it learns.
BOUNDS = {"curvature": (math.log(0.1), math.log(10)), "alpha_img": (-math.inf, 0.0), "alpha_txt": (-math.inf, 0.0)}


class Learned(NamedTuple):
    """What a hyperbolic CLIP has learned beside its towers, float64 [] each: c, and by what features are multiplied
    before they are lifted."""

    curvature: Tensor
    alpha_img: Tensor
    alpha_txt: Tensor


def first_logarithms(width: int) -> dict[str, float]:
    """What training begins with, logarithms by name: c = 1, and scales that make features of `width` independent
    numbers of variance 1 as long as 1."""
    return {"curvature": 0.0, "alpha_img": -math.log(width) / 2, "alpha_txt": -math.log(width) / 2}


def lift(features: Tensor, curvature: Tensor) -> Tensor:
    """The exponential map at the origin: X = sinh(a) v / |v|, a = sqrt(c) |v|, for features v [n, d] -> [n, d].

    sinh is taken of asinh(2^15) at most, as published. Lengths are in float64: a float32's square may overflow.
    """
    root, long = curvature.double().sqrt(), features.double()
    length = torch.linalg.vector_norm(long, dim=-1, keepdim=True) * root
    factor = length.clamp(max=_FARTHEST).sinh() / length.clamp(min=1e-8)  # of which the limit at 0 is 1
    factor = torch.where(length < 1e-8, 1.0, factor)
    return (factor * root * long).to(features.dtype)


def times(x: Tensor) -> Tensor:
    """The coordinates in time, [n], of points [n, d]."""
    return (1 + x.square().sum(-1)).sqrt()


def distance(x: Tensor, y: Tensor, curvature: Tensor) -> Tensor:
    """Lorentz' distance of pairs, acosh(-c <x, y>) / sqrt(c): [n, d], [n, d] -> [n]; 0, and so its gradient, where two
    points are one."""
    apart = x - y
    later = (apart * (x + y)).sum(-1) / (times(x) + times(y))  # X_t - Y_t
    return _length((apart.square().sum(-1) - later.square()) / 2, curvature)


def distances(x: Tensor, y: Tensor, curvature: Tensor) -> Tensor:
    """`distance` of each with each: [n, d], [m, d] -> [n, m]."""
    before, after = _time_less_one(x)[:, None], _time_less_one(y)[None]
    return _length(before + after + before * after - x @ y.T, curvature)


def half_aperture(x: Tensor) -> Tensor:
    """Half the angle at which the entailment cone of each point opens, asin(2 K / |X|): [n, d] -> [n]; pi / 2 within
    the radius of 2 K."""
    length = torch.linalg.vector_norm(x, dim=-1)
    open_ = length <= 2 * SMALLEST_CONE
    return torch.where(open_, math.pi / 2, torch.where(open_, 0.0, 2 * SMALLEST_CONE / _but(length, open_)).asin())


def exterior_angle(x: Tensor, y: Tensor) -> Tensor:
    """The exterior angle at x of the triangle of origin, x and y, from 0 to pi, of pairs: [n, d], [n, d] -> [n].

    The published cosine of it is (y_t + x_t c <x, y>) / (|x_s| sqrt((c <x, y>)² - 1)). With u = X / |X| that is
    the angle between u and what y is seen as from x: X_t uY - |X| Y_t along u, and the rest of Y across it. Where x is
    the origin or y, it is pi / 2, as published.
    """
    length, ray = _polar(x)
    along = (ray * y).sum(-1)
    across = torch.linalg.vector_norm(y - along[:, None] * ray, dim=-1)
    return _angle(across, times(x) * along - length * times(y))


def exterior_angles(x: Tensor, y: Tensor) -> Tensor:
    """`exterior_angle` of each with each: [n, d], [m, d] -> [n, m]."""
    (length, ray), (far, other) = _polar(x), _polar(y)
    cosines = ray @ other.T
    squares = 1 - cosines.square()
    sines = torch.where(squares > 0, _but(squares, squares <= 0).sqrt(), 0.0)
    return _angle(far * sines, times(x)[:, None] * far * cosines - torch.outer(length, times(y)))


def entailment(x: Tensor, y: Tensor) -> Tensor:
    """How far outside of the cone of x y lies, E(x, y): [n, d], [n, d] -> [n]; negative within. Of pairs."""
    return exterior_angle(x, y) - half_aperture(x)


def entailments(x: Tensor, y: Tensor) -> Tensor:
    """`entailment` of each with each: [n, d], [m, d] -> [n, m]."""
    return exterior_angles(x, y) - half_aperture(x)[:, None]


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """The cosine of the angle that pairs are seen at from the origin, features or points: [n, d], [n, d] -> [n]."""
    return (functional.normalize(x, dim=-1) * functional.normalize(y, dim=-1)).sum(-1)


def _polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Length [n] and direction [n, d] of points; of the origin 0 and 0."""
    length = torch.linalg.vector_norm(x, dim=-1)
    return length, x / _but(length, length == 0)[:, None]


def _time_less_one(x: Tensor) -> Tensor:
    square = x.square().sum(-1)
    return square / (1 + (1 + square).sqrt())


def _length(more: Tensor, curvature: Tensor) -> Tensor:
    """acosh(1 + more) / sqrt(c); 0 where rounding has left less than nothing, or what has no reciprocal."""
    there = more > torch.finfo(more.dtype).tiny
    more = _but(more, ~there)
    arc = torch.where(there, torch.log1p(more + (more * (more + 2)).sqrt()), 0.0)
    return arc * curvature.double().rsqrt().to(arc.dtype)


def _angle(across: Tensor, along: Tensor) -> Tensor:
    size = torch.maximum(across, along.abs()).detach()  # of whose square atan2's gradient takes the reciprocal
    nowhere = size == 0
    size = _but(size, nowhere)
    return torch.where(nowhere, math.pi / 2, torch.atan2(across / size, _but(along / size, nowhere)))


def _but(values: Tensor, where: Tensor) -> Tensor:
    """1 in some places, through which no gradient goes."""
    return torch.where(where, 1.0, values)
