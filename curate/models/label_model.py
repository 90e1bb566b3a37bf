"""A label model of two classes, as Snorkel's: how far to trust voters of whom nobody knows when they are right.

From how often two voters give two votes together it finds mu, the probability of each vote given the class, so that
votes are independent once the class is known. A row's probability follows from that of its votes under both classes.
"""

from typing import NamedTuple

import numpy as np

CLASSES = 2  # 0: filtered, 1: selected; both are taken to be equally frequent
ABSTAIN = -1
_PRECISION = 0.7  # of a voter, to begin with
_MOMENTUM = 0.9
_SURE = 0.01  # no vote is taken to be less likely than this, or more than 1 less this


class Training(NamedTuple):
    """How mu is found: steps of gradient descent, their length, and how strongly mu is held to where it began."""

    epochs: int
    learning_rate: float
    l2: float
    seed: int


def indicators(votes: np.ndarray) -> np.ndarray:
    """One column for each voter and class, bool [rows, 2 voters], of votes int [rows, voters]."""
    found: np.ndarray = np.stack([votes == label for label in range(CLASSES)], axis=2).reshape(len(votes), -1)
    return found


def fitted(together: np.ndarray, rows: int, training: Training) -> np.ndarray:
    """mu, float64 [2 voters, 2]: the probability of each voter's votes given each class.

    Args:
        together: how many rows have two indicators at once, int64 [2 voters, 2 voters].
    """
    overlaps = together / max(rows, 1)
    shares, prior = np.diag(overlaps), np.full(CLASSES, 1 / CLASSES)
    label = np.arange(len(shares)) % CLASSES
    start = np.zeros((len(shares), CLASSES))
    start[np.arange(len(shares)), label] = np.clip(shares * _PRECISION / prior[label], 0, 1)
    mu = start * np.random.RandomState(training.seed).random_sample()  # as Snorkel begins
    voter = np.arange(len(shares)) // CLASSES
    others = voter[:, None] != voter[None, :]
    speed = np.zeros_like(mu)
    for _ in range(training.epochs):
        wrong = np.where(others, overlaps - (mu * prior) @ mu.T, 0)
        gradient = -4 * wrong @ (mu * prior)
        gradient += 2 * np.outer(mu @ prior - shares, prior)
        gradient += 2 * training.l2**2 * (mu - start)
        speed = _MOMENTUM * speed + gradient
        mu = mu - training.learning_rate * speed
    return mu


def probabilities(votes: np.ndarray, mu: np.ndarray) -> np.ndarray:
    """How likely each row is of the class 1, float64 [rows]; an abstention says nothing."""
    logs = indicators(votes) @ np.log(np.clip(mu, _SURE, 1 - _SURE))
    found: np.ndarray = 1 / (1 + np.exp(logs[:, 0] - logs[:, 1]))
    return found
