"""Probes: the classifiers against independent ones, on made-up embeddings."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from evaluate.probes import lp_plus
from evaluate.probes.linear import Linear, Regression
from evaluate.probes.search import GRID, search

WITHIN = 0.003  # of an accuracy: what may lie between a probe and an independent one


def cloud(
    count: int, noise: float, seed: int = 0, classes: int = 10, dims: int = 48
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors in a narrow cone, as a CLIP's embeddings are, of classes that overlap the more, the more noise."""
    rng = np.random.default_rng(seed)
    decay = 1 / np.sqrt(1 + np.arange(dims) / 10)
    centres, axis = rng.normal(size=(classes, dims)), 3 * rng.normal(size=dims)
    labels = rng.integers(0, classes, count)
    vectors = axis + (0.5 * centres[labels] + noise * rng.normal(size=(count, dims))) * decay
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return torch.from_numpy(vectors).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("noise", [0.6, 3.0], ids=["separable", "not separable"])
@pytest.mark.parametrize("weight_decay", [1e-4, 1e-2, 0.3, 3.0])
def test_a_fit_is_that_of_scikit_learn(noise: float, weight_decay: float) -> None:
    features, labels = cloud(3000, noise)
    train, test = (features[:1000], labels[:1000]), (features[1000:], labels[1000:])
    ours = Regression(*train, 10).fit(weight_decay).logits(test[0])
    plain = LogisticRegression(C=1 / weight_decay, tol=1e-8, max_iter=20_000).fit(
        *(part.double().numpy() for part in train)
    )
    theirs = plain.decision_function(test[0].double().numpy())
    accuracies = [float(np.mean(one.argmax(axis=1) == test[1].numpy())) for one in (ours.numpy(), theirs)]
    assert abs(accuracies[0] - accuracies[1]) <= WITHIN
    assert np.mean(ours.numpy().argmax(axis=1) == theirs.argmax(axis=1)) >= 1 - WITHIN
    if noise > 1:  # where classes part, the least loss is hardly less than many others
        centred = ours.double().numpy() - ours.double().numpy().mean(axis=1, keepdims=True)
        assert np.abs(centred - theirs).max() < 0.02 * np.abs(theirs).max()


def test_where_a_fit_starts_makes_no_difference() -> None:
    features, labels = cloud(800, 2.0)
    regression = Regression(features, labels, 10)
    start = regression.fit(10.0)
    assert torch.equal(regression.fit(10.0, start).logits(features).argmax(dim=1), start.logits(features).argmax(dim=1))
    cold, warm = regression.fit(0.1), regression.fit(0.1, start)
    assert torch.allclose(cold.logits(features), warm.logits(features), atol=0.02)


def test_rows_at_a_time_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = cloud(500, 2.0)
    whole = Regression(features, labels, 10).fit(0.1)
    monkeypatch.setattr("evaluate.probes.linear._NUMBERS", 170)
    assert torch.allclose(Regression(features, labels, 10).fit(0.1).logits(features), whole.logits(features), atol=0.02)


def test_equal_features_and_missing_classes_are_fitted() -> None:
    """Nothing to tell the classes by: the most frequent one; and one without a picture is never chosen."""
    features, labels = torch.ones(30, 4) / 2, torch.tensor([2] * 20 + [0] * 10)
    logits = Regression(features, labels, 5).fit(1e-3).logits(features)
    assert logits.argmax(dim=1).unique().tolist() == [2]
    assert torch.allclose(torch.softmax(logits[0], 0)[[0, 2]], torch.tensor([1 / 3, 2 / 3]), atol=1e-2)


def test_the_search_finds_what_all_97_would() -> None:
    """Its best is as good as the grid's, within what the validation part can tell."""
    features, labels = cloud(1400, 2.0, seed=1)
    regression = Regression(features[:120], labels[:120], 10)
    validation = features[200:600], labels[200:600]
    found = search(regression, *validation)

    def accuracy(linear: Linear) -> float:
        return float((linear.logits(validation[0]).argmax(dim=1) == validation[1]).double().mean())

    everywhere = [accuracy(regression.fit(decay)) for decay in GRID]
    assert found.weight_decay in GRID
    assert accuracy(found.linear) >= max(everywhere) - 2 / 400
    assert min(everywhere) < max(everywhere) - 0.05, "else any choice would do"


def test_the_search_tries_what_clip_benchmark_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an accuracy that has one peak: seven at first, two neighbours at each of 8, 4, 2 and 1 steps."""
    tried: list[float] = []

    def fit(self: Regression, weight_decay: float, start: Linear | None = None) -> Linear:
        tried.append(weight_decay)
        return Linear(torch.full((1, 1), weight_decay), torch.zeros(1))

    peak = 1.02 * GRID[37]
    monkeypatch.setattr(Regression, "fit", fit)
    monkeypatch.setattr(Linear, "logits", lambda self, features: self.weights)
    monkeypatch.setattr(
        "evaluate.probes.search.quality", lambda logits, labels: (-abs(np.log(float(logits) / peak)), 0.0)
    )
    found = search(Regression(torch.rand(4, 1), torch.zeros(4, dtype=torch.int64), 1), torch.empty(0), torch.empty(0))
    assert found.weight_decay == GRID[37]
    places = [GRID.index(one) for one in tried]
    # The best are 32, then 40, 36, 38 and 37.
    assert places == [96, 80, 64, 48, 32, 16, 0, 40, 24, 44, 36, 38, 34, 39, 37]
    assert np.allclose(np.diff(np.log10(GRID)), 8 / 96) and (GRID[0], GRID[-1]) == (1e-6, 1e2)


def test_lp_plus_is_what_autograd_makes_of_the_published_steps() -> None:
    """The head written anew: the loss as it stands, its gradients by autograd, torch's own momentum."""
    features, labels = cloud(40, 1.0, classes=5, dims=16)
    validation = cloud(30, 1.0, seed=0, classes=5, dims=16)
    text = torch.nn.functional.normalize(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)), dim=0)
    ours = lp_plus.fit(features, labels, text, validation)

    weights = torch.stack([features[labels == label].sum(dim=0) for label in range(5)]).requires_grad_()
    biases = torch.zeros(5, requires_grad=True)
    start = 250 * np.mean([float((features[labels == label] @ text[:, label]).mean()) for label in range(5)])
    alphas = torch.full((5,), start, dtype=torch.float32, requires_grad=True)
    rate = 4 * 40 / float(np.linalg.eigvalsh((features.T @ features).numpy()).max())
    slow = 40 / (4 * float(((features @ text) ** 2).sum(dim=0).max()))
    optimizer = torch.optim.SGD([weights, biases], rate, momentum=0.9)
    best, expected = -1.0, torch.empty(0)
    for step in range(300):
        optimizer.zero_grad()
        alphas.grad = None
        loss = torch.nn.functional.cross_entropy(features @ weights.T + biases + alphas * (features @ text), labels)
        loss.backward()
        optimizer.step()
        if (step + 1) % 10 == 0:
            assert alphas.grad is not None
            alphas.data -= slow * alphas.grad
        with torch.no_grad():
            logits = validation[0] @ weights.T + biases + alphas * (validation[0] @ text)
        right = float((logits.argmax(dim=1) == validation[1]).double().mean())
        if right >= best:
            best, expected = right, logits
    assert torch.allclose(ours.logits(validation[0]), expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))
