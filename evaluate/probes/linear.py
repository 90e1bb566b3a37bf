"""Multinomial logistic regression on embeddings by L-BFGS, in bounded memory beside them."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

Params = npt.NDArray[np.float64]

ITERATIONS = 1000  # as Radford et al. 2021, appendix A.3, have it
MEMORY = 10  # steps that the optimiser remembers
TOLERANCE = 1e-6  # of the gradient's largest part, for embeddings scaled to variance 1 in the mean
GAIN = 1e-9  # relative, below which an iteration is the last
_NUMBERS = 2**24  # logits at a time


class Linear(NamedTuple):
    """A classifier: weights, float64 [d, classes], and biases, float64 [classes]."""

    weights: torch.Tensor
    biases: torch.Tensor

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """float32 [n, d] -> float32 [n, classes], on the device of the features."""
        return torch.addmm(self.biases.to(features), features, self.weights.to(features))


class Regression:
    """The training pictures of a probe.

    What is minimised is the sum of cross entropies + weight_decay / 2 · |weights|²; the biases are free. With
    scikit-learn's LogisticRegression that is C = 1 / weight_decay. Embeddings of a CLIP lie in a narrow cone, far from
    0, so they are centred and scaled for the optimiser, which changes the steps and not the minimum.
    """

    def __init__(self, features: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
        """`features` float32 [n, d], `labels` int64 [n], on one device."""
        self._mean = features.mean(dim=0)
        centred = features - self._mean
        spread = float(centred.square().mean().sqrt())
        self._scale = 1 / spread if spread > 0 else 1.0
        self._features = centred.mul_(self._scale)
        self._labels = labels
        self._classes = classes

    def fit(self, weight_decay: float, start: Linear | None = None) -> Linear:
        """The minimum, from the classifier `start` or from 0."""
        from scipy.optimize import minimize  # half a second, which only probes need

        penalty = weight_decay * self._scale**2 / len(self._labels)

        def objective(params: Params) -> tuple[float, Params]:
            return self._value(params, penalty)

        options = {"maxiter": ITERATIONS, "maxcor": MEMORY, "gtol": TOLERANCE, "ftol": GAIN, "maxfun": 2 * ITERATIONS}
        found = minimize(objective, self._inward(start), jac=True, method="L-BFGS-B", options=options)
        return self._outward(found.x)

    def _value(self, params: Params, penalty: float) -> tuple[float, Params]:
        """The objective over n, and its gradient."""
        table = torch.from_numpy(params.reshape(-1, self._classes))
        weights, biases = table[:-1].to(self._features), table[-1].to(self._features)
        loss, gradient = 0.0, torch.zeros_like(table, device=weights.device)
        rows = max(1, _NUMBERS // self._classes)
        for features, labels in zip(torch.split(self._features, rows), torch.split(self._labels, rows), strict=True):
            logs = functional.log_softmax(torch.addmm(biases, features, weights), dim=1)
            loss -= float(logs.gather(1, labels[:, None]).sum(dtype=torch.float64))
            errors = logs.exp_()
            errors[torch.arange(len(labels), device=labels.device), labels] -= 1
            gradient[:-1] += features.T @ errors
            gradient[-1] += errors.sum(dim=0)
        result = (gradient / len(self._labels)).cpu()
        result[:-1] += penalty * table[:-1]
        value = loss / len(self._labels) + 0.5 * penalty * float(table[:-1].square().sum())
        return value, result.numpy().ravel()

    def _inward(self, outer: Linear | None) -> Params:
        if outer is None:
            return np.zeros((self._features.shape[1] + 1) * self._classes)
        weights = outer.weights / self._scale
        biases = outer.biases + self._mean.cpu().double() @ outer.weights
        return torch.cat([weights, biases[None]]).numpy().ravel()

    def _outward(self, params: Params) -> Linear:
        table = torch.from_numpy(params.reshape(-1, self._classes))
        weights = table[:-1] * self._scale
        return Linear(weights, table[-1] - self._mean.cpu().double() @ weights)
