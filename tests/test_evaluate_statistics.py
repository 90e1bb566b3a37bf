"""Standard errors against the spread of the metric over many drawn data sets."""

import numpy as np
import pytest

from evaluate.statistics import clustered_bootstrap_stderr, mean_stderr, stratified_stderr


def test_the_error_of_a_mean() -> None:
    hits = np.array([True, False, True, True, False])
    assert mean_stderr(hits) == pytest.approx(hits.std(ddof=1) / np.sqrt(5), abs=1e-12)
    assert mean_stderr(np.array([True])) is None


def test_the_error_of_a_mean_over_classes_is_the_spread_over_drawn_data() -> None:
    rng = np.random.default_rng(1)
    sizes, rates = np.array([300, 40, 15]), np.array([0.9, 0.5, 0.2])
    strata = np.repeat(np.arange(3) * 2, sizes)  # labels without samples in between
    draws = [rng.random(sizes.sum()) < np.repeat(rates, sizes) for _ in range(4000)]
    values = [np.mean([hits[strata == s].mean() for s in (0, 2, 4)]) for hits in draws]
    errors = [stratified_stderr(hits, strata) for hits in draws[:400]]
    assert np.mean([error for error in errors if error is not None]) == pytest.approx(np.std(values), rel=0.03)


def test_a_class_of_one_sample_adds_nothing() -> None:
    hits, strata = np.array([True, False, True]), np.array([0, 0, 1])
    assert stratified_stderr(hits, strata) == pytest.approx(np.sqrt(0.25) / 2)
    assert stratified_stderr(hits[:1], strata[:1]) is None


def test_the_bootstrap_of_single_captions_is_the_closed_form() -> None:
    hits = np.random.default_rng(2).random(500) < 0.3
    ones = np.ones(500)
    assert clustered_bootstrap_stderr([(hits.astype(float), ones)]) == pytest.approx(mean_stderr(hits), rel=0.08)


def test_the_bootstrap_draws_images_with_all_their_captions() -> None:
    hits = np.random.default_rng(3).random(400) < 0.3
    single = clustered_bootstrap_stderr([(hits.astype(float), np.ones(400))])
    fivefold = clustered_bootstrap_stderr([(np.float64(5) * hits, np.full(400, 5.0))])
    assert single is not None and fivefold == pytest.approx(single)
    both = clustered_bootstrap_stderr([(hits.astype(float), np.ones(400)), (np.float64(1) - hits, np.ones(400))])
    assert both == pytest.approx(0, abs=1e-12)  # the two halves of the mean move against each other
    assert clustered_bootstrap_stderr([(np.ones(1), np.ones(1))]) is None
