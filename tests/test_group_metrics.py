"""Metrics of groups for themselves: against scikit-learn, and where a group has no sample."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import f1_score, recall_score
from test_evaluate_groups import Metrics, plain_macro

from evaluate.metrics.groups import worst_of_large
from evaluate.metrics.wilds import grouped_accuracy, macro_scores


@pytest.mark.parametrize("seed", range(10))
def test_macro_scores_are_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 200))
    labels, predictions = rng.choice([0, 2, 3, 7, 8], count), rng.choice([0, 1, 2, 7, 9], count)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = macro_scores(predictions, labels)
    options = {"labels": np.unique(labels), "average": "macro"}
    assert ours["recall-macro_all"] == pytest.approx(recall_score(labels, predictions, **options), abs=1e-6)
    assert ours["F1-macro_all"] == pytest.approx(f1_score(labels, predictions, **options), abs=1e-6)
    assert ours == pytest.approx(plain_macro(labels, predictions), abs=1e-6)


def test_groups_without_samples_have_no_accuracy_and_are_not_the_worst() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = grouped_accuracy("acc", np.array([True, False, True]), {"region": np.array([3, 3, 1])})
    assert metrics == {
        "acc_avg": pytest.approx(2 / 3),
        **{"acc_region:0": None, "acc_region:1": 1, "acc_region:2": None, "acc_region:3": 0.5},
        **{"count_region:0": 0, "count_region:1": 1, "count_region:2": 0, "count_region:3": 2},
        "acc_wg": 0.5,
    }


def test_fields_of_a_group_are_named_the_last_of_them_first() -> None:
    both = {"gender": np.array([1, 0, 1]), "race": np.array([0, 2, 2])}
    metrics = grouped_accuracy("acc", np.ones(3, np.bool_), both)
    assert {name for name, value in metrics.items() if name.startswith("count_") and value} == {
        "count_race:0_gender:1",
        "count_race:2_gender:0",
        "count_race:2_gender:1",
    }


def test_a_region_counts_from_one_in_a_hundred_pictures_on() -> None:
    sizes = {0: 4, 1: 100, 2: 0, 3: 99, 4: 9797}
    regions: Metrics = {f"count_region:{region}": float(size) for region, size in sizes.items()}
    regions |= {f"acc_region:{region}": 0.1 * region for region in sizes}
    regions["acc_region:2"] = None
    assert worst_of_large(regions, 10000) == pytest.approx(0.1)
    assert worst_of_large(regions, 10001) == pytest.approx(0.4)
    assert worst_of_large({"count_region:0": 1.0, "acc_region:0": 0.0}, 101) is None
