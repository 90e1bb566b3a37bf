"""Main metrics from stored predictions against plain code; their errors against the spread over fresh samples."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import (
    EXTRA_KINDS,
    ONE_OF_EACH_KIND,
    Outcome,
    classification_samples,
    metadata_of,
    scored,
    with_metadata,
    write_checkpoint,
    write_classification,
    write_every_kind,
    write_extra_kinds,
)
from predictions import DRAWS, labelled, puzzles, retrieval
from sklearn.metrics import f1_score

from evaluate.metrics import standard_error, statistic_of
from evaluate.metrics.statistics import Mean, MeanOfRatios, Statistic, StratifiedMean, WorstGroup
from evaluate.metrics.winogavil import SIZES
from tasks.registry import load_tasks
from tasks.results import predictions_path

TASKS = load_tasks()
KEYS = [*(key for key in ONE_OF_EACH_KIND if TASKS[key].main_metric), *EXTRA_KINDS, "vtab/pets", "fairness/geode"]


def statistic(metric: str, table: pa.Table) -> Statistic:
    found = statistic_of(metric, table)
    assert found is not None
    return found


# --- values ---


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Path]:
    """A real evaluation of tasks that together have every main metric there is."""
    root = tmp_path_factory.mktemp("statistics")
    write_extra_kinds(write_every_kind(root))
    write_classification(root, TASKS["vtab/pets"], classification_samples(60, 37, seed=4))
    samples = classification_samples(41, 40, seed=5)
    labels = np.array([int(members["cls"]) for _, members in samples])
    geode = TASKS["fairness/geode"]
    write_classification(root, geode, with_metadata(samples, metadata_of(geode, labels)))
    return scored(write_checkpoint(root / "model.pt"), root, root / "out", KEYS), root / "out"


@pytest.mark.parametrize("key", KEYS)
def test_the_predictions_give_the_main_metric_again(key: str, evaluated: tuple[Outcome, Path]) -> None:
    outcome, out = evaluated
    line, table = outcome.line(key), pq.read_table(predictions_path(out, key))
    again = statistic(TASKS[key].main_metric or "", table)
    assert again.value() == pytest.approx(line["metrics"]["main_metric"], abs=1e-6)
    assert again.stderr() == line["stderr"] is not None
    names = [name for name in line["metrics"] if name != "main_metric"]
    if TASKS[key].kind == "winoground":  # whose `acc` and `text_acc` are not those of caption_selection
        names = ["group_score"]
    known = [name for name in names if statistic_of(name, table) is not None]
    for name in known if TASKS[key].kind in ("retrieval", "winogavil") else ():
        assert statistic(name, table).value() == pytest.approx(line["metrics"][name], abs=1e-6)
    assert TASKS[key].main_metric in known


def test_no_main_metric_is_left_out() -> None:
    metrics = {task.main_metric for task in TASKS.values()} - {None}
    assert {TASKS[key].main_metric for key in KEYS} == metrics == set(DRAWS)
    assert statistic_of(None, pa.table({})) is None and standard_error("made up", pa.table({})) is None


@pytest.mark.parametrize("seed", range(5))
def test_labelled_metrics_are_the_plain_ones(seed: int) -> None:
    table, _ = labelled(np.random.default_rng(seed), 60)
    labels, chosen, groups = (table.column(name).to_numpy() for name in ("label", "prediction", "group"))
    hits, top5 = labels == chosen, table.column("top5").to_numpy()
    f1 = f1_score(labels, chosen, labels=np.unique(labels), average="macro", zero_division=0)
    assert statistic("F1-macro_all", table).value() == pytest.approx(f1)
    recall = np.mean([hits[labels == label].mean() for label in np.unique(labels)])
    assert statistic("mean_per_class_recall", table).value() == pytest.approx(recall)
    for metric, right in (("acc_wg", hits), ("acc_worst_region", hits), ("acc_top5_wg", top5)):
        worst = min(right[groups == group].mean() for group in np.unique(groups))
        assert statistic(metric, table).value() == pytest.approx(worst)
    unknown = table.set_column(table.column_names.index("top5"), "top5", pa.nulls(len(table), pa.bool_()))
    assert statistic("acc_top5_wg", unknown).value() == 1  # fewer than five classes


@pytest.mark.parametrize("k", [1, 5, 10])
def test_recalls_are_the_plain_ones(k: int) -> None:
    table, _ = retrieval(np.random.default_rng(k), 70)
    ranks = [rank for group in table.column("image_ranks").to_pylist() for rank in group]
    image, text = np.mean(np.array(ranks) <= k), np.mean(table.column("text_rank").to_numpy() <= k)
    assert statistic(f"image_retrieval_recall@{k}", table).value() == pytest.approx(image)
    assert statistic(f"text_retrieval_recall@{k}", table).value() == pytest.approx(text)
    if k == 1:
        assert statistic("mean_recall@1", table).value() == pytest.approx((image + text) / 2)
    in_chunks = pa.concat_tables([table.slice(0, 11), table.slice(11)])
    assert standard_error(f"image_retrieval_recall@{k}", in_chunks) == standard_error(
        f"image_retrieval_recall@{k}", table
    )


@pytest.mark.parametrize("name", SIZES)
def test_jaccard_scores_are_clustered_by_their_pictures(name: str) -> None:
    table, _ = puzzles(np.random.default_rng(3))
    rows = [row for row in table.to_pylist() if SIZES[name](row["size"])]
    scores = np.array([row["score"] for row in rows])
    totals: dict[tuple[str, ...], float] = {}
    for row in rows:
        board = tuple(sorted(row["pictures"]))  # in another order for each cue
        totals[board] = totals.get(board, 0.0) + row["score"] - scores.mean()
    boards = len(totals)
    expected = np.sqrt(boards / (boards - 1) * sum(total**2 for total in totals.values())) / len(rows)
    found = statistic(name, table)
    assert 1 < boards < len(rows)
    assert (found.value(), found.stderr()) == (pytest.approx(scores.mean()), pytest.approx(expected))


# --- errors ---


@pytest.mark.parametrize("metric", DRAWS)
def test_errors_are_the_spread_over_fresh_samples(metric: str) -> None:
    _, draw = DRAWS[metric]
    rng = np.random.default_rng(11)
    pairs = [tuple(statistic(metric, table) for table in draw(rng)) for _ in range(400)]
    values = np.array([(a.value(), b.value()) for a, b in pairs])
    spreads = values[:, 0].std(), (values[:, 1] - values[:, 0]).std()
    errors = np.array([(a.stderr(), a.paired_stderr(b)) for a, b in pairs[:12]], dtype=np.float64)
    assert errors.mean(axis=0) == pytest.approx(spreads, rel=0.12)


@pytest.mark.parametrize("metric", DRAWS)
def test_the_paired_error_gains_from_what_the_models_share(metric: str) -> None:
    a, b = (statistic(metric, table) for table in DRAWS[metric][1](np.random.default_rng(5)))
    paired, alone = a.paired_stderr(b), (a.stderr(), b.stderr())
    assert paired is not None and paired < 0.95 * np.hypot(*np.array(alone, dtype=np.float64))
    assert b.paired_stderr(a) == pytest.approx(paired, rel=0.1 if isinstance(a, WorstGroup) else 1e-9)
    assert isinstance(a, WorstGroup) or a.paired_stderr(a) == 0


@pytest.mark.parametrize("metric", DRAWS)
def test_one_cluster_has_no_error_and_two_have_one(metric: str) -> None:
    table, _ = DRAWS[metric][1](np.random.default_rng(2))
    if metric == "jaccard_score_10-12":
        boards = {frozenset(row["pictures"]): row for row in table.to_pylist() if row["size"] >= 10}
        first, second, *_ = boards.values()
        one_cluster, two_clusters = pa.Table.from_pylist([first] * 3), pa.Table.from_pylist([first, second] * 3)
    else:
        one_cluster, two_clusters = table.slice(0, 1), table.slice(0, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one, two = statistic(metric, one_cluster), statistic(metric, two_clusters)
        assert one.stderr() is None and one.paired_stderr(one) is None
        error = two.stderr()
    assert error is not None and error >= 0


def test_the_error_of_a_mean_of_hits_is_the_binomial_one() -> None:
    hits = np.random.default_rng(1).random(300) < 0.3
    p = hits.mean()
    table = pa.table({"label": np.ones(300, np.int64), "prediction": hits.astype(np.int64)})
    assert standard_error("acc1", table) == pytest.approx(np.sqrt(p * (1 - p) / 299))


def test_samples_that_come_in_copies_add_nothing() -> None:
    values = np.random.default_rng(3).random(80)
    single = Mean(values, np.arange(80)).stderr()
    assert Mean(np.repeat(values, 5), np.repeat(np.arange(80), 5)).stderr() == pytest.approx(single)
    ranks = np.random.default_rng(4).integers(1, 3, 80)
    one = pa.table({"image_ranks": [[rank] for rank in ranks.tolist()]})
    five = pa.table({"image_ranks": [[rank] * 5 for rank in ranks.tolist()]})
    error = standard_error("image_retrieval_recall@1", one)
    assert standard_error("image_retrieval_recall@1", five) == pytest.approx(error)
    assert error == pytest.approx(np.std(ranks, ddof=1) / np.sqrt(80), rel=0.08)


def strata_error(values: list[float], strata: list[int]) -> float | None:
    return StratifiedMean(np.array(values), np.array(strata)).stderr()


def test_classes_of_one_sample() -> None:
    assert strata_error([1, 0, 1], [0, 0, 7]) == pytest.approx(np.sqrt(0.25) / 2)  # one such class adds nothing
    several = strata_error([1, 0, 1, 1, 0, 0.5], [0, 0, 3, 4, 5, 6])
    spread = np.var([1, 1, 0, 0.5], ddof=1)
    assert several == pytest.approx(np.sqrt(0.25 + 4 * spread) / 5)


def test_a_class_or_group_that_is_not_in_a_draw_is_left_out() -> None:
    labels = np.array([0] * 30 + [1, 2, 3])
    table = pa.table({"label": labels, "prediction": np.where(labels == 2, 9, labels), "group": labels})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in ("F1-macro_all", "acc_wg"):
            error = standard_error(metric, table)
            assert error is not None and 0 < error < 0.6


def plain_bootstrap_of_the_worst(hits: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> float:
    rng = np.random.default_rng(8)
    values = []
    for _ in range(1000):
        drawn = rng.integers(0, len(hits), len(hits))
        values.append(min(hits[drawn][groups[drawn] == group].mean() for group in np.unique(groups)))
    return float(np.std(values))


def test_the_error_of_the_worst_of_large_groups_is_the_plain_bootstrap() -> None:
    rng = np.random.default_rng(6)
    groups = rng.choice([0, 1, 4], 1500)
    hits = rng.random(1500) < 0.5
    error = WorstGroup(hits, groups).stderr()
    assert error == pytest.approx(plain_bootstrap_of_the_worst(hits, groups), rel=0.08)


def test_four_misses_are_not_taken_for_certain() -> None:
    """FMoW's region "Other" has four pictures; how many of them a model gets right is chance."""
    rng = np.random.default_rng(7)
    groups = np.repeat([0, 1, 2], [4, 3000, 3000])
    rest = rng.random(6000) < 0.3
    a, b = (WorstGroup(np.concatenate([other, rest]), groups) for other in ([False] * 4, [True, True, False, False]))
    error, difference = a.paired_stderr(b), b.value() - a.value()
    assert difference > 0.25 and error is not None and difference / error < 1.96
    alone = a.stderr()
    assert alone is not None and alone > 0.08


@pytest.mark.parametrize("classes", [2, 6])
def test_bootstraps_repeat_themselves(classes: int) -> None:
    table, other = labelled(np.random.default_rng(classes))
    for metric in ("F1-macro_all", "acc_wg"):
        first: Any = statistic(metric, table), statistic(metric, other)
        again: Any = statistic(metric, table), statistic(metric, other)
        assert first[0].stderr() == again[0].stderr()
        assert first[0].paired_stderr(first[1]) == again[0].paired_stderr(again[1])
    assert isinstance(statistic("F1-macro_all", table), MeanOfRatios)
