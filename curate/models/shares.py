"""How many rows each cluster may keep, the more the more varied it is.

Abbas et al., 2024, "Effective pruning of web-scale datasets based on complexity of concept clusters",
https://arxiv.org/abs/2401.04578.
"""

import numpy as np

from poolbench.errors import UserError

NEIGHBOURS = 20  # centroids to which a cluster's distance counts
_ACCURACY = 1e-12  # of the solver, of a cluster's mean share
_NOISE = 1e-2  # rows by which a whole number may come out wrong with very many clusters
_AT_ONCE = 2**10  # centroids whose neighbours are looked for at a time


def complexities(centroids: np.ndarray, sizes: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """d_inter d_intra of each cluster, float64 [clusters]: the mean of 1 - cos to the 20 nearest centroids, times the
    mean distance of the members to their own. One without members has the mean of the others.

    Args:
        centroids: float32 [clusters, width], of length 1.
        sizes: members, int64 [clusters].
        distances: the sum of the members' distances.
    """
    double, near = centroids.astype(np.float64), min(NEIGHBOURS, len(centroids) - 1)
    inter = np.zeros(len(double))  # with a single cluster nothing is to be told apart
    for start in range(0, len(double) if near else 0, _AT_ONCE):
        apart = 1 - double[start : start + _AT_ONCE] @ double.T
        rows = np.arange(len(apart))
        apart[rows, start + rows] = np.inf
        inter[start : start + _AT_ONCE] = np.partition(apart, near - 1, axis=1)[:, :near].mean(axis=1)
    some = sizes > 0
    found = np.zeros(len(double))
    found[some] = inter[some] * distances[some] / sizes[some]
    found[~some] = found[some].mean() if some.any() else 0.0
    return found


def softmax(values: np.ndarray, temperature: float) -> np.ndarray:
    """exp(values / temperature) in shares of their sum, float64."""
    powers = np.exp((values - values.max()) / temperature)
    found: np.ndarray = powers / powers.sum()
    return found


def divided(shares: np.ndarray, sizes: np.ndarray, rows: int, balance: float) -> np.ndarray:
    """How many rows each cluster keeps, int64 [clusters], `rows` in all.

    They are nearest, by the sum of squares, to `shares` of the rows among all x with that sum and
    min(int(balance rows / clusters), size - 1) <= x <= size. Parts of a row go to the clusters with the largest ones,
    the first of equals: so all x are rounded, but for those that the sum leaves no room.

    Args:
        shares: float64 [clusters], of sum 1.
        rows: no more than the sizes' sum.

    Raises:
        UserError: the solver is missing, or finds nothing.
    """
    low = np.clip(int(rows * balance / len(shares)), 0, np.maximum(sizes - 1, 0))
    if rows in (0, sizes.sum()):
        return np.where(rows, sizes, 0)
    x = np.clip(_nearest(shares * rows, low, sizes, rows), low, sizes)
    whole = np.rint(x)
    x = np.where(np.abs(x - whole) < _NOISE, whole, x)
    found: np.ndarray = np.floor(x).astype(np.int64)
    order = np.argsort(-(x - found), kind="stable")
    while (missing := rows - int(found.sum())) != 0:
        able = order[(found < sizes)[order]] if missing > 0 else order[::-1][(found > low)[order[::-1]]]
        found[able[: abs(missing)]] += np.sign(missing)
    return found


def _nearest(wanted: np.ndarray, low: np.ndarray, high: np.ndarray, total: int) -> np.ndarray:
    """The point of a sum between bounds that is nearest to the one that is wanted, float64 [clusters]."""
    try:
        import clarabel
    except ModuleNotFoundError:
        raise UserError("pruning by clusters needs the package clarabel: pip install -e '.[curate]'") from None
    from scipy import sparse

    count, mean = len(wanted), total / len(wanted)
    each = sparse.identity(count, format="csc")
    bounds = sparse.vstack([sparse.csc_matrix(np.ones((1, count))), each, -each], format="csc")
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = _ACCURACY
    cones = [clarabel.ZeroConeT(1), clarabel.NonnegativeConeT(2 * count)]
    limits = np.concatenate([[total], high, -low]) / mean
    found = clarabel.DefaultSolver(each, -wanted / mean, bounds, limits, cones, settings).solve()
    if str(found.status) not in ("Solved", "AlmostSolved"):
        raise UserError(f"the shares of {count:,} clusters cannot be found: clarabel says {found.status}")
    nearest: np.ndarray = np.asarray(found.x) * mean
    return nearest
