"""How many rows each cluster may keep: the solver's answer against bisection, scipy, and what the bounds say."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from curate.models.shares import complexities, divided, softmax


def projected(wanted: np.ndarray, low: np.ndarray, high: np.ndarray, total: int) -> np.ndarray:
    """The nearest point: wanted, moved by one number in all clusters and held between the bounds."""
    least, most = (low - wanted).min() - 1, (high - wanted).max() + 1
    for _ in range(200):
        middle = (least + most) / 2
        least, most = (middle, most) if np.clip(wanted + middle, low, high).sum() < total else (least, middle)
    found: np.ndarray = np.clip(wanted + most, low, high)
    return found


def problem(seed: int, clusters: int, rows: int, share: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Shares, sizes of which some are 0 or 1, and how many rows are kept."""
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(rows, rng.dirichlet(np.full(clusters, 0.3)))
    return softmax(rng.random(clusters), float(rng.choice([0.05, 0.5, 5]))), sizes, int(share * sizes.sum())


@pytest.mark.parametrize("share", [0.01, 0.2, 0.7, 0.99])
@pytest.mark.parametrize("clusters", [1, 2, 7, 100, 3000])
def test_rows_are_divided_as_the_nearest_point_says(clusters: int, share: float) -> None:
    for seed in range(3):
        shares, sizes, rows = problem(seed, clusters, 50_000, share)
        found = divided(shares, sizes, rows, 0.5)
        low = np.maximum(np.minimum(int(rows * 0.5 / clusters), sizes - 1), 0)
        assert found.sum() == rows and (found >= low).all() and (found <= sizes).all()
        nearest = projected(shares * rows, low, sizes, rows)
        assert np.abs(found - nearest).max() < 1 + 1e-6
        # No row would be better off elsewhere: the solver's own noise and parts of a row aside, all are rounded.
        rounded = np.rint(nearest)
        if rounded.sum() == rows and np.abs(np.abs(nearest - np.floor(nearest)) - 0.5).min() > 0.02:
            np.testing.assert_array_equal(found, rounded)


def test_the_nearest_point_is_scipys() -> None:
    shares, sizes, rows = problem(5, 12, 3000, 0.3)
    low = np.maximum(np.minimum(int(rows * 0.5 / 12), sizes - 1), 0)
    found: Any = minimize(
        lambda x: ((x - shares * rows) ** 2).sum(),
        projected(np.full(12, rows / 12), low, sizes, rows),
        jac=lambda x: 2 * (x - shares * rows),
        bounds=list(zip(low, sizes, strict=True)),
        constraints=[LinearConstraint(np.ones(12), rows, rows)],
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 1000},
    )
    assert np.abs(divided(shares, sizes, rows, 0.5) - found.x).max() < 1 + 1e-3


def test_parts_of_a_row_go_to_the_largest_and_of_equals_to_the_first() -> None:
    sizes = np.full(4, 100)
    assert divided(np.array([0.26, 0.25, 0.25, 0.24]), sizes, 10, 0).tolist() == [3, 3, 2, 2]
    assert divided(np.full(4, 0.25), sizes, 7, 0.5).tolist() == [2, 2, 2, 1]
    assert divided(np.full(4, 0.25), sizes, 0, 0.5).tolist() == [0, 0, 0, 0]
    assert divided(np.full(4, 0.25), sizes, 400, 0.5).tolist() == sizes.tolist()
    assert divided(np.array([0.97, 0.01, 0.01, 0.01]), np.array([3, 0, 50, 1]), 40, 1).tolist() == [3, 0, 36, 1]
    assert divided(np.array([1.0, 0, 0]), np.array([1000, 1000, 5]), 300, 0.5).tolist() == [246, 50, 4]


def test_a_cluster_counts_as_it_is_spread_and_apart() -> None:
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(40, 6)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    sizes, distances = rng.integers(1, 50, 40), rng.random(40) * 20
    sizes[7], distances[7] = 0, 0
    found = complexities(centroids, sizes, distances)
    for cluster in set(range(40)) - {7}:
        others = np.delete(centroids, cluster, 0).astype(np.float64) @ centroids[cluster].astype(np.float64)
        inter = np.mean(np.sort(1 - others)[:20])
        assert found[cluster] == pytest.approx(inter * distances[cluster] / sizes[cluster], rel=1e-12)
    assert found[7] == pytest.approx(np.delete(found, 7).mean())
    few = complexities(centroids[:3], sizes[:3], distances[:3])  # all others are among the 20 nearest
    assert few[0] == pytest.approx((1 - centroids[1:3] @ centroids[0]).mean() * distances[0] / sizes[0], rel=1e-5)
    assert complexities(centroids[:1], sizes[:1], distances[:1]).tolist() == [0]
