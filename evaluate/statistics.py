"""Standard errors of the metrics: how far a score would move on other samples of the same kind."""

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
_RESAMPLES_AT_ONCE = 50  # bounds the memory of a bootstrap: this many weights for every image


def mean_stderr(hits: npt.NDArray[np.bool_]) -> float | None:
    """Standard error of the mean of independent hits and misses [n]: sqrt(p (1 - p) / (n - 1)); None for n < 2."""
    n = len(hits)
    if n < 2:
        return None
    p = float(np.mean(hits))
    return float(np.sqrt(p * (1 - p) / (n - 1)))


def stratified_stderr(hits: npt.NDArray[np.bool_], strata: npt.NDArray[np.int64]) -> float | None:
    """Standard error of the unweighted mean over strata of their mean hits, with strata of fixed sizes.

    sqrt(sum over strata of p_s (1 - p_s) / (n_s - 1)) / S (Cochran, Sampling Techniques, 1977, section 5.6, with equal
    weights). A stratum of one sample adds 0, as nothing is known of its spread. None for fewer than two samples.

    Args:
        hits: [n].
        strata: int64 [n], the stratum of each.
    """
    if len(hits) < 2:
        return None
    counts = np.bincount(strata)
    sums = np.bincount(strata, weights=hits.astype(np.float64))
    counts, sums = counts[counts > 0], sums[counts > 0]
    p = sums / counts
    variances = p * (1 - p) / np.maximum(counts - 1, 1)
    return float(np.sqrt(variances.sum()) / len(counts))


def clustered_bootstrap_stderr(ratios: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]) -> float | None:
    """Standard error of a mean of ratios sum(a) / sum(b) when whole clusters (images) are drawn with replacement.

    All captions of a drawn image come along, since their hits depend on each other. 1000 draws, fixed seed (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 6). None for fewer than two clusters.

    Args:
        ratios: pairs (a, b), each [clusters]; b > 0.
    """
    n = len(ratios[0][0])
    if n < 2:
        return None
    generator = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES // _RESAMPLES_AT_ONCE):
        weights = generator.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES_AT_ONCE).astype(np.float64)
        values.append(np.mean([weights @ a / (weights @ b) for a, b in ratios], axis=0))
    return float(np.std(np.concatenate(values), ddof=1))
