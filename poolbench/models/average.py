"""The average of the weights of several checkpoints of one model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from poolbench.errors import UserError
from poolbench.models import state_dict
from poolbench.models.clip import check_tensors, load
from poolbench.models.cost import shapes_of
from poolbench.models.weights import Weights
from poolbench.text import some

Tensors = dict[str, torch.Tensor]


def average(checkpoints: Sequence[Weights], shares: Sequence[float]) -> Tensors:
    """The sum of share times weights over the sum of the shares, taken in float64, in the dtype of the checkpoints.

    All there is in a checkpoint counts, the logit scale (the logarithm of the factor) too; integers have to be equal.

    Args:
        checkpoints: of one model.
        shares: one for each, 0 or more, not all of them 0.

    Raises:
        UserError: a file that cannot be read, is of another model, has other names, shapes or dtypes than the first
            one or other integers, or holds what is not finite.
    """
    name = checkpoints[0].model
    own = list(shapes_of(name).state_dict())
    first: Tensors = {}
    sums: Tensors = {}
    for weights, share in zip(checkpoints, shares, strict=True):
        tensors = _tensors(weights, own)
        _check_finite(tensors, weights.checkpoint)
        if not first:
            first = tensors
            sums = {key: torch.zeros_like(one, dtype=torch.float64) for key, one in _floats(first)}
        problem = _difference(first, tensors)
        if problem is not None:
            raise UserError(f"{weights.checkpoint} cannot be averaged with {checkpoints[0].checkpoint}: {problem}")
        for key, tensor in _floats(tensors):
            sums[key] += share * tensor.double()
    total = sum(shares)
    averaged = {key: (sums[key] / total).to(one.dtype) if key in sums else one for key, one in first.items()}
    check_tensors(name, averaged, Path(checkpoints[0].checkpoint))
    return averaged


def _tensors(weights: Weights, own: Sequence[str]) -> Tensors:
    """The tensors of a checkpoint: a file's as they are, a tag's as open_clip loads them."""
    path = Path(weights.checkpoint)
    if not path.is_file():
        return dict(load(weights.model, weights.checkpoint).state_dict())
    found = state_dict.read(path, own)
    if found.model not in (None, weights.model):
        raise UserError(f"checkpoint {path} is of model={found.model}, as it says itself, and not of {weights.model}")
    if found.logarithms:
        raise UserError(f"checkpoint {path} is of a hyperbolic CLIP: only checkpoints of objective=clip are averaged")
    return found.tensors


def _floats(tensors: Mapping[str, torch.Tensor]) -> Iterable[tuple[str, torch.Tensor]]:
    return ((key, tensor) for key, tensor in tensors.items() if tensor.is_floating_point())


def _check_finite(tensors: Mapping[str, torch.Tensor], name: str) -> None:
    wrong = [key for key, tensor in _floats(tensors) if not torch.isfinite(tensor).all()]
    if wrong:
        raise UserError(f"{name} holds numbers that are not finite, in {some(wrong)}: is it of a run that diverged?")


def _difference(one: Tensors, other: Tensors) -> str | None:
    """How the second tensors are not like the first ones, None where they are."""
    missing, surplus = ([key for key in a if key not in b] for a, b in ((one, other), (other, one)))
    if missing or surplus:
        parts = [f"it lacks {some(missing)}"] * bool(missing) + [f"it also holds {some(surplus)}"] * bool(surplus)
        return "; ".join(parts)
    for key, tensor in one.items():
        its = other[key]
        if (tensor.shape, tensor.dtype) != (its.shape, its.dtype):
            return f"{key} is {_kind(its)} in it and {_kind(tensor)} there"
        if not tensor.is_floating_point() and not torch.equal(tensor, its):
            return f"{key} holds other integers, which have no average"
    return None


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
