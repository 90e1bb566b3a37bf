"""The label model against automatic differentiation of its loss, on voters whose truth is known, and as a selection."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_columns import write_random
from test_curate_columns import refused, selected

from poolbench.files import read_json

from curate.models.label_model import Training, fitted, indicators, probabilities

TRAINING = Training(200, 0.01, 0.001, 123)


def voters(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Votes of four voters, right in 90, 80, 70 and 55 of 100 cases where they do not abstain, and the truth."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, rows)
    columns = []
    for right, abstains in ((0.9, 0.2), (0.8, 0.1), (0.7, 0.5), (0.55, 0.0)):
        votes = np.where(rng.random(rows) < right, truth, 1 - truth)
        columns.append(np.where(rng.random(rows) < abstains, -1, votes))
    return np.stack(columns, axis=1), truth


def differentiated(votes: np.ndarray) -> np.ndarray:
    """mu by PyTorch's own gradients and optimizer."""
    count = votes.shape[1]
    found = np.zeros((len(votes), 2 * count))
    for place in range(count):
        for label in (0, 1):
            found[:, 2 * place + label] = votes[:, place] == label
    overlaps = torch.from_numpy(found.T @ found / len(votes))
    shares, prior = torch.diag(overlaps), torch.full((2,), 0.5, dtype=torch.float64)
    start = torch.zeros(2 * count, 2, dtype=torch.float64)
    for row in range(2 * count):
        start[row, row % 2] = min(float(shares[row]) * 0.7 / 0.5, 1)
    np.random.seed(123)
    mu = torch.nn.Parameter(start.clone() * np.random.random())
    mask = torch.kron(torch.eye(count), torch.ones(2, 2)) == 0
    optimizer = torch.optim.SGD([mu], lr=0.01, momentum=0.9)
    for _ in range(200):
        optimizer.zero_grad()
        loss = ((overlaps - mu @ torch.diag(prior) @ mu.T)[mask] ** 2).sum()
        loss = loss + ((mu @ prior - shares) ** 2).sum() + ((0.001 * (mu - start)) ** 2).sum()
        loss.backward()
        optimizer.step()
    return mu.detach().numpy()


def test_mu_is_what_gradients_of_the_loss_give() -> None:
    votes, _ = voters(500)
    found = indicators(votes).astype(np.int64)
    np.testing.assert_allclose(fitted(found.T @ found, len(votes), TRAINING), differentiated(votes), rtol=1e-9)


def test_it_tells_voters_apart_and_beats_their_majority() -> None:
    votes, truth = voters(20_000)
    found = indicators(votes).astype(np.int64)
    mu = fitted(found.T @ found, len(votes), TRAINING._replace(epochs=5000))
    right = [mu[2 * place + 1, 1] / mu[2 * place + 1].sum() for place in range(4)]
    np.testing.assert_allclose(right, [0.9, 0.8, 0.7, 0.55], atol=0.05)
    chance = probabilities(votes, mu)
    majority = np.where(votes < 0, 0, 2 * votes - 1).sum(axis=1)
    assert ((chance > 0.5) == truth).mean() > ((majority > 0) == truth).mean() + 0.02
    assert probabilities(np.full((1, 4), -1), mu).tolist() == [0.5]


def test_exactly_so_many_of_the_most_likely_are_kept(tmp_path: Path) -> None:
    pool = write_random(tmp_path / "pool", 31)
    votes = "{clip_b32_similarity_score: [.2, .25], clip_l14_similarity_score: [.2, .25], original_width: [300, 300]}"
    words = ("filter=label_model", f"filter.votes={votes}", "filter.fraction=.2", f"pool={pool}")
    found = selected(tmp_path / "a.npy", *words)
    summary = read_json(tmp_path / "a.npy.json")
    assert len(found) == int(summary["rows"] * 0.2) == summary["state"]["best"]["rows"]
    assert np.shape(summary["state"]["fitted"]["mu"]) == (6, 2)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_random(tmp_path / "pool", 5)
    words = (f"pool={pool}", f"out={tmp_path / 'a.npy'}", "filter=label_model", "filter.fraction=.3")
    assert "votes= is needed" in refused(capsys, *words)
    assert "three columns or more" in refused(capsys, *words, "filter.votes={a: [1, 2]}")
    assert "a: [1] is not [no at, yes at]" in refused(capsys, *words, "filter.votes={a: [1], b: [1, 2], c: [1, 2]}")
