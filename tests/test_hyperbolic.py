"""The geometry of hyperbolic space: against formulas of our own in float64 and those that were published, at its
limits, and its gradients."""

import importlib.util
import math
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from poolbench.models.hyperbolic import (
    cosine,
    distance,
    distances,
    entailment,
    entailments,
    exterior_angle,
    exterior_angles,
    first_logarithms,
    half_aperture,
    lift,
    times,
)

K = 0.1
CURVATURES = (0.1, 1.0, 10.0)
PUBLISHED = "POOLBENCH_HYPE_FORMULAS"  # the path of naver-ai/hype's hyperbolic.py


def drawn(seed: int, rows: int = 7, width: int = 5, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    return (
        torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype) * scale
    )


def constant(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def textbook(v: np.ndarray, w: np.ndarray, c: float) -> dict[str, np.ndarray]:
    """Of tangent vectors [n, d] and [m, d], as the papers have it, in numpy's longest floats: [n, m] each."""
    v, w, c = v.astype(np.longdouble), w.astype(np.longdouble), np.longdouble(c)

    def lifted(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length = np.sqrt(c * (u**2).sum(1))[:, None]
        space = np.sinh(length) * u / length
        return space, np.sqrt(1 / c + (space**2).sum(1))

    (x, x_time), (y, y_time) = lifted(v), lifted(w)
    inner = x @ y.T - np.outer(x_time, y_time)
    radius = np.sqrt((x**2).sum(1))
    angle = np.arccos((y_time[None] + x_time[:, None] * c * inner) / (radius[:, None] * np.sqrt((c * inner) ** 2 - 1)))
    aperture = np.arcsin(np.minimum(1, 2 * K / (np.sqrt(c) * radius)))
    return {
        "space": x,
        "time": x_time,
        "distance": np.arccosh(-c * inner) / np.sqrt(c),
        "angle": angle,
        "entailment": angle - aperture[:, None],
    }


@pytest.mark.parametrize("c", CURVATURES)
@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-7), (torch.float32, 2e-3)])
def test_it_is_the_textbooks(c: float, scale: float, dtype: torch.dtype, close: float) -> None:
    v, w = drawn(1, 7, 5, scale, dtype), drawn(2, 7, 5, scale, dtype)
    told, curvature = textbook(v.numpy(), w.numpy(), c), constant(c)
    x, y = lift(v, curvature), lift(w, curvature)

    def same(found: Tensor, expected: np.ndarray) -> None:
        assert found.dtype == dtype
        np.testing.assert_allclose(found.numpy(), expected.astype(np.float64), rtol=close, atol=close)

    same(x / math.sqrt(c), told["space"])
    same(times(x) / math.sqrt(c), told["time"])
    for found, twin, name in (
        (distance(x, y, curvature), distances(x, y, curvature), "distance"),
        (exterior_angle(x, y), exterior_angles(x, y), "angle"),
        (entailment(x, y), entailments(x, y), "entailment"),
    ):
        same(found, np.diagonal(told[name]))
        same(twin, told[name])


def published(name: str = "hyperbolic") -> ModuleType:
    """A module of naver-ai/hype, which the environment says where to find."""
    given = os.environ.get(PUBLISHED)
    if given is None:
        pytest.skip(f"{PUBLISHED}=<naver-ai/hype's hyperbolic.py> is not set: not compared with the published code")
    path = Path(given).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"published_{name}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_: {"img": drawn(3), "txt": drawn(4)})  # its reference.pt
        spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("c", CURVATURES)
def test_it_is_the_published_code(c: float) -> None:
    """Which computes in single precision, so that it is compared away from its bounds."""
    theirs, curvature = published(), constant(c)
    v, w = drawn(5, 6, dtype=torch.float32), drawn(6, 9, dtype=torch.float32)
    x, y = lift(v, curvature), lift(w, curvature)
    torch.testing.assert_close(distances(x, y, curvature), -theirs.similarity(v, w, curvature), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(entailments(x, y), theirs.entailment(v, w, curvature), atol=5e-3, rtol=5e-3)
    images, texts = lift(drawn(3).float(), curvature), lift(drawn(4).float(), curvature)
    mine = entailments(texts, x).mean(0), entailments(x, images).mean(1)
    theirs.txt_ref, theirs.img_ref = drawn(4).float(), drawn(3).float()
    torch.testing.assert_close(mine[0], theirs.specificity(image=v, curv=curvature), atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(mine[1], theirs.specificity(text=v, curv=curvature), atol=2e-3, rtol=2e-3)


def everything(v: Tensor, w: Tensor, logarithm: Tensor) -> list[Tensor]:
    curvature = logarithm.double().exp()
    x, y = lift(v, curvature), lift(w, curvature)
    return [
        *(distance(x, y, curvature), distances(x, y, curvature), half_aperture(x), exterior_angle(x, y)),
        *(entailment(x, y), entailments(y, x)),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("c", [1e-38, 1e-30, 1e-8, 0.1, 1.0, 10.0, 1e6, 1e30])
@pytest.mark.parametrize("scale", [0.0, 1e-44, 1e-38, 1e-20, 1e-6, 1.0, 1e3, 1e20, 3e37])
def test_nothing_is_ever_nan(dtype: torch.dtype, c: float, scale: float) -> None:
    """Neither values nor gradients: of points that are one, opposite, on a ray, and the origin."""
    v = drawn(7, dtype=dtype) * scale
    w = drawn(8, dtype=dtype) * scale
    w[0], w[1], w[2], w[3] = v[0], 2 * v[1], -v[2], 0
    inputs = [v.requires_grad_(), w.requires_grad_(), torch.tensor(math.log(c), dtype=dtype, requires_grad=True)]
    found = everything(*inputs)
    assert all(torch.isfinite(one).all() for one in found)
    # What is not finite stays so in a sum.
    gradients = torch.autograd.grad(found, inputs, [torch.ones_like(one) for one in found])
    assert all(torch.isfinite(one).all() for one in gradients)


@pytest.mark.parametrize("c", [0.1, 0.7, 10.0])
@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_gradients_are_those_of_finite_differences(c: float, scale: float) -> None:
    inputs = [drawn(9, 4, 3, scale), drawn(10, 4, 3, scale), constant(math.log(c))]
    for place in range(6):
        assert torch.autograd.gradcheck(
            lambda *given, place=place: everything(*given)[place],  # type: ignore[misc]
            [one.clone().requires_grad_() for one in inputs],
        )


def test_a_flat_space_is_euclids() -> None:
    v, w = drawn(11), drawn(12)
    for c in (1e-6, 1e-12, 1e-24):
        x, y = lift(v, constant(c)), lift(w, constant(c))
        torch.testing.assert_close(distance(x, y, constant(c)), (v - w).norm(dim=1), rtol=1e-4, atol=0)
        torch.testing.assert_close(distances(x, y, constant(c)), torch.cdist(v, w), rtol=1e-4, atol=0)
        straight = torch.acos(cosine(v, w - v))
        torch.testing.assert_close(exterior_angle(x, y), straight, rtol=1e-4, atol=0)


def test_distances_are_those_of_a_metric() -> None:
    for c in CURVATURES:
        curvature = constant(c)
        v, w = drawn(13), drawn(14)
        x, y = lift(v, curvature), lift(w, curvature)
        origin = torch.zeros_like(x)
        assert (distance(x, x, curvature) == 0).all()
        torch.testing.assert_close(distance(x, y, curvature), distance(y, x, curvature))
        torch.testing.assert_close(distance(origin, x, curvature), v.norm(dim=1))  # what the exponential map says
        through = distance(x, origin, curvature) + distance(origin, y, curvature)
        assert (distance(x, y, curvature) <= through).all()


def test_far_points_stay_apart() -> None:
    """At 2^15, where lifting stops, and from pairs that differ in a direction alone."""
    v = drawn(15, dtype=torch.float32)
    v = v / v.norm(dim=1, keepdim=True)
    x = lift(v * 1e6, constant(1.0))
    torch.testing.assert_close(x.norm(dim=1), torch.full((7,), 2.0**15), rtol=1e-4, atol=0)
    apart = distances(x, x, constant(1.0))
    assert apart[~torch.eye(7, dtype=torch.bool)].min() > 15


def test_what_lies_on_a_ray_is_entailed_and_what_lies_behind_is_not() -> None:
    ray = drawn(16, 1, 4)
    ray = ray / ray.norm()
    near, far = (lift(ray * length, constant(1.0)) for length in (0.5, 2.0))
    assert exterior_angle(near, far).item() == pytest.approx(0, abs=1e-12)
    assert entailment(near, far).item() == pytest.approx(-half_aperture(near).item())
    assert exterior_angle(far, near).item() == pytest.approx(math.pi)
    assert exterior_angle(near, -far).item() == pytest.approx(math.pi)
    assert half_aperture(torch.zeros(1, 4)).item() == pytest.approx(math.pi / 2)
    assert half_aperture(near).item() > half_aperture(far).item()
    assert half_aperture(lift(ray * 1e9, constant(1.0))).item() == pytest.approx(2 * K / 2**15, rel=1e-3)


def test_one_row_of_many_is_that_row_alone() -> None:
    x, y = lift(drawn(17), constant(1.0)), lift(drawn(18), constant(1.0))
    for alone, pairs in (
        (distance(x, y, constant(1.0)), distances(x, y, constant(1.0))),
        (entailment(x, y), entailments(x, y)),
    ):
        torch.testing.assert_close(alone, pairs.diagonal())


def test_training_begins_with_features_of_length_one() -> None:
    logarithms = first_logarithms(512)
    assert logarithms["curvature"] == 0
    features = drawn(19, 100, 512)
    long = (features * math.exp(logarithms["alpha_img"])).norm(dim=1)
    assert long.mean().item() == pytest.approx(1, abs=0.01) and logarithms["alpha_txt"] == logarithms["alpha_img"]
