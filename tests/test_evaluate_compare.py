"""Which of two models is better: paired tests against plain code, what is refused, and the command as a whole."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import (
    classification_samples,
    retrieval_samples,
    scored,
    write_checkpoint,
    write_classification,
    write_retrieval,
)
from predictions import DRAWS, hits, keys, labelled
from runs import result

from poolbench.errors import UserError
from poolbench.files import append_line

from evaluate.compare import (
    COMMAND,
    NO_DIFFERENCE,
    Comparison,
    Difference,
    as_json,
    compare,
    holm,
    mcnemar,
    overall,
    report,
    two_sided,
    with_verdicts,
)
from evaluate.disagreements import disagreements
from evaluate.metrics import statistic_of
from evaluate.results import Conditions, save
from tasks.aggregates import members
from tasks.registry import load_tasks
from tasks.results import FILE, ResultLine, predictions_path

TASKS = load_tasks()
EUROSAT, PETS = "vtab/eurosat", "vtab/pets"
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"


def store(folder: Path, key: str, table: pa.Table, **changes: Any) -> Path:
    """Results and predictions of a task, as an evaluation leaves them; `changes` replace fields of the line."""
    statistic = statistic_of(TASKS[key].main_metric, table)
    line = {**result(folder.name, key, 0.5 if statistic is None else statistic.value()), "tag": None, **changes}
    conditions = Conditions(*(line[field] for field in Conditions._fields))
    folder.mkdir(parents=True, exist_ok=True)
    save(folder, ResultLine.model_validate(line), table, conditions)
    return folder


def every_metric(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Two folders with a task for each main metric; B is better."""
    rng = np.random.default_rng(seed)
    for key, draw in DRAWS.values():
        for name, table in zip("ab", draw(rng), strict=True):
            store(folder / name, key, table)
    return folder / "a", folder / "b"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return every_metric(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def comparison(folders: tuple[Path, Path]) -> Comparison:
    return compare(*folders)


# --- tests and corrections ---


@pytest.mark.parametrize("seed", range(15))
def test_mcnemar_is_the_exact_binomial_test(seed: int) -> None:
    only_a, only_b = np.random.default_rng(seed).integers(0, 14, 2).tolist()
    total = only_a + only_b
    tail = sum(math.comb(total, count) for count in range(min(only_a, only_b) + 1)) / 2**total
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a) == pytest.approx(min(1, 2 * tail))


def test_mcnemar_of_equal_models_and_of_many_samples() -> None:
    assert mcnemar(0, 0) == mcnemar(7, 7) == 1
    assert mcnemar(0, 5) == pytest.approx(2 / 2**5)
    assert 0 <= mcnemar(10_000, 40_000) < 1e-300


def test_the_normal_test() -> None:
    assert two_sided(1.959964, 1) == two_sided(-1.959964, 1) == pytest.approx(0.05, abs=1e-6)
    assert two_sided(0, 0.3) == 1 and two_sided(0, 0) == 1
    assert two_sided(0.5, 0) == two_sided(0.5, 1e-17) == 1  # nothing varies, so nothing is known


@pytest.mark.parametrize("seed", range(10))
def test_holm_rejects_step_by_step(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ps = (rng.integers(0, 12, int(rng.integers(1, 9))) / 200).tolist()  # with ties
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.2, 0.37):
        rejected, left = set(), sorted(range(len(ps)), key=lambda index: ps[index])
        while left and ps[left[0]] * len(left) < level:
            rejected.add(left.pop(0))
        assert {index for index, p in enumerate(adjusted) if p < level} == rejected


def test_acc1_against_plain_code(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    tables = labelled(rng, 150)
    for name, table in zip("ab", tables, strict=True):
        store(tmp_path / name, EUROSAT, table)
    (found,) = compare(tmp_path / "a", tmp_path / "b").tasks
    a, b = (np.equal(table["label"].to_numpy(), table["prediction"].to_numpy()) for table in tables)
    differences = b.astype(float) - a
    assert (found.key, found.metric) == (EUROSAT, "acc1")
    assert (found.a, found.b, found.difference) == pytest.approx((a.mean(), b.mean(), differences.mean()))
    assert found.stderr == pytest.approx(differences.std(ddof=1) / np.sqrt(150))
    assert found.p == mcnemar(int(np.sum(a & ~b)), int(np.sum(b & ~a)))


def test_equal_models_are_called_different_as_rarely_as_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    labels, rates = np.tile(np.arange(4), 40), np.full((2, 160), 0.5)
    found = []
    for _ in range(120):
        for name, right in zip("ab", hits(rng, rates), strict=True):
            table = pa.table({"key": keys(160), "label": labels, "prediction": np.where(right, labels, 4)})
            store(tmp_path / name, PETS, table)
        found += [one.p for one in compare(tmp_path / "a", tmp_path / "b").tasks]
    assert 0 < np.mean(np.array(found) < 0.05) < 0.12 and 0.35 < np.mean(found) < 0.65


# --- two folders ---


def test_the_better_model_is_found_on_every_metric(comparison: Comparison) -> None:
    order = [key for key in TASKS if key in {key for key, _ in DRAWS.values()}]
    assert [one.key for one in comparison.tasks] == order
    assert comparison.not_comparable == {} and comparison.warnings == []
    assert all(one.difference == one.b - one.a > 0 and 0 < one.stderr < 0.1 for one in comparison.tasks)
    adjusted = holm([one.p for one in comparison.tasks])
    verdicts = ["B" if p < 0.05 else NO_DIFFERENCE for p in adjusted]
    assert [one.verdict for one in comparison.tasks] == verdicts and verdicts.count("B") >= 5


def test_the_mean_over_tasks(comparison: Comparison) -> None:
    (mean,) = comparison.overall  # the three of the extra suite have three metrics
    main = [one for one in comparison.tasks if TASKS[one.key].suite == "main"]
    differences, errors = (np.array([getattr(one, name) for one in main]) for name in ("difference", "stderr"))
    extra = [one.metric for one in comparison.tasks if one not in main]
    assert len(extra) == len(set(extra)) == 3
    assert mean.name == "mean over the 8 comparable tasks that both have" and mean.tasks == 8
    assert mean.difference == pytest.approx(differences.mean()) == pytest.approx(mean.b - mean.a)
    assert mean.stderr == pytest.approx(np.sqrt(np.sum(errors**2)) / 8)
    assert mean.p == two_sided(mean.difference, mean.stderr) < 0.05 and mean.verdict == "B"
    assert mean.a_better == 0 and mean.b_better == sum(one.verdict == "B" for one in main)


def test_a_mean_over_one_task_is_tested_as_the_task() -> None:
    """Not by a normal test, which finds of three samples of four what McNemar's exact one does not."""
    one = Difference("vtab/cifar100", "acc1", 0.25, 0.5, 0.25, 0.25, mcnemar(1, 3))
    two = one._replace(key="vtab/pets")
    (mean,), (means,) = overall(with_verdicts([one])), overall(with_verdicts([one, two]))
    assert (mean.tasks, mean.p, mean.verdict) == (1, 0.625, NO_DIFFERENCE)
    assert means.p == pytest.approx(two_sided(0.25, 0.25 / math.sqrt(2)))


def test_a_model_is_no_better_than_itself(folders: tuple[Path, Path]) -> None:
    same = compare(folders[0], folders[0])
    assert len(same.tasks) == 11
    for one in (*same.tasks, *same.overall):
        assert (one.difference, one.p, one.verdict) == (0, 1, NO_DIFFERENCE)


def test_swapped_folders_give_the_opposite(folders: tuple[Path, Path], comparison: Comparison) -> None:
    swapped = compare(folders[1], folders[0])
    opposite = {"A": "B", "B": "A", NO_DIFFERENCE: NO_DIFFERENCE}
    for one, other in zip((*comparison.tasks, *comparison.overall), (*swapped.tasks, *swapped.overall), strict=True):
        assert (other.a, other.b, other.difference) == (one.b, one.a, -one.difference)
        assert other.stderr == pytest.approx(one.stderr, rel=0.15)  # other random draws in the worst group
        assert other.verdict == opposite[one.verdict]


def test_samples_are_matched_by_key(folders: tuple[Path, Path], comparison: Comparison, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for key, _ in DRAWS.values():
        table = pq.read_table(predictions_path(folders[1], key))
        store(tmp_path / "b", key, table.take(rng.permutation(len(table))))
    assert compare(folders[0], tmp_path / "b").tasks == comparison.tasks


def test_all_tasks_of_a_suite_make_its_average(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    by_metric = {metric: draw for metric, (_, draw) in DRAWS.items()}
    for task in TASKS.values():
        if task.main_metric is not None:
            for name, table in zip("ab", by_metric[task.main_metric](rng), strict=True):
                store(tmp_path / name, task.key, table)
    found = compare(tmp_path / "a", tmp_path / "b")
    metrics = Counter(task.main_metric for task in TASKS.values() if task.suite == "extra")
    assert metrics.pop("group_score") == metrics.pop("mean_average_precision") == 1 and metrics["acc"] == 11
    several = [(f"mean over the {n} comparable extra {name} tasks that both have", n) for name, n in metrics.items()]
    names = [(mean.name, mean.tasks) for mean in found.overall]
    assert names[0] == ("average", 38) and names[-1] == ("demo average", 3)
    assert sorted(names[1:-1]) == sorted(several)
    mean = next(mean for mean in found.overall if "extra acc tasks" in mean.name)
    assert mean.a == pytest.approx(np.mean([one.a for one in found.tasks if one.metric == "acc"]))
    values = {one.key: one.b for one in found.tasks}
    assert found.overall[0].b == pytest.approx(np.mean([values[key] for key in members()["average"]]))


def test_what_was_evaluated_under_other_conditions_is_told(tmp_path: Path) -> None:
    tables = labelled(np.random.default_rng(0))
    for key in (EUROSAT, PETS):
        store(tmp_path / "a", key, tables[0])
        store(tmp_path / "b", key, tables[1], precision="amp_bf16", deviations=["x"])
    store(tmp_path / "b", PETS, tables[1], deviations=["x"], limit=400, checkpoint_sha256="0" * 64)
    store(tmp_path / "b", "cars", tables[1], deviations=["x"])
    assert compare(tmp_path / "a", tmp_path / "b").warnings == [
        "B holds results of 2 checkpoints; the last of each task is compared",
        f"precision is fp32 in A and amp_bf16 in B for {EUROSAT}",
        f"limit is None in A and 400 in B for {PETS}",
        f"grade is unverified in A and unofficial in B for {EUROSAT} (and 1 more)",
    ]


# --- what is refused ---


def drop_row(table: pa.Table) -> pa.Table:
    return table.slice(1)


def another_sample(table: pa.Table) -> pa.Table:
    return table.set_column(0, "key", pa.array(["other", *table["key"].to_pylist()[1:]]))


def repeated(table: pa.Table) -> pa.Table:
    return table.set_column(0, "key", pa.array([key[:-1] for key in table["key"].to_pylist()]))


def other_labels(table: pa.Table) -> pa.Table:
    return table.set_column(1, "label", pa.array((table["label"].to_numpy() + 1) % 5))


@pytest.mark.parametrize(
    ("change", "fields", "reason"),
    [
        (None, {"limit": 20, "data_digest": "0" * 64}, "A was scored with all samples and B with limit=20"),
        (None, {"data_digest": "0" * 64}, "A and B were scored on different data (data_digest)"),
        (drop_row, {}, "A has 400 samples, B 399"),
        (another_sample, {}, "B lacks sample s0000000"),
        (other_labels, {}, "the predictions of A and B disagree about the samples themselves (label)"),
        (lambda table: table.drop_columns(["prediction"]), {}, "the predictions of B lack a column that acc1 needs"),
    ],
)
def test_other_samples_are_not_compared(
    change: Callable[[pa.Table], pa.Table] | None, fields: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    a, b = labelled(np.random.default_rng(3))
    for name, table in (("a", a), ("b", b)):
        store(tmp_path / name, PETS, table)
    store(tmp_path / "a", EUROSAT, a)
    store(tmp_path / "b", EUROSAT, b)
    changed = b if change is None else change(b)
    path = predictions_path(tmp_path / "b", EUROSAT)
    metadata = pq.read_schema(path).metadata
    if fields:
        store(tmp_path / "b", EUROSAT, b, **fields)
    else:
        pq.write_table(changed.replace_schema_metadata(metadata), path)
    found = compare(tmp_path / "a", tmp_path / "b")
    assert [one.key for one in found.tasks] == [PETS] and found.not_comparable == {EUROSAT: reason}
    assert f"not comparable: {EUROSAT}: {reason}" in report(found).splitlines()


def test_repeated_keys_are_matched_by_their_order_or_not_at_all(tmp_path: Path) -> None:
    a, b = map(repeated, labelled(np.random.default_rng(3)))
    store(tmp_path / "a", EUROSAT, a)
    store(tmp_path / "b", EUROSAT, b)
    assert len(compare(tmp_path / "a", tmp_path / "b").tasks) == 1
    store(tmp_path / "b", EUROSAT, b.take(np.arange(len(b))[::-1]))
    with pytest.raises(UserError, match="keys of samples repeat, and come in another order in B"):
        compare(tmp_path / "a", tmp_path / "b")


def test_a_single_sample_shows_nothing(tmp_path: Path) -> None:
    for name, table in zip("ab", labelled(np.random.default_rng(3)), strict=True):
        store(tmp_path / name, EUROSAT, table.slice(0, 1))
    with pytest.raises(UserError, match=r"vtab/eurosat: fewer than two independent samples$"):
        compare(tmp_path / "a", tmp_path / "b")


def test_predictions_that_no_evaluator_writes(tmp_path: Path) -> None:
    table, other = labelled(np.random.default_rng(3))
    store(tmp_path / "a", EUROSAT, table)
    place = other.column_names.index("prediction")
    store(tmp_path / "b", EUROSAT, other)
    path = predictions_path(tmp_path / "b", EUROSAT)
    spoilt = pq.read_table(path).set_column(place, "prediction", [[-1] * len(other)])
    pq.write_table(spoilt, path)
    with pytest.raises(UserError, match="the predictions of B cannot be right: prediction holds numbers from -1 to -1"):
        compare(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.unlink(), r"B has no stored predictions \(.*/vtab-eurosat.parquet\)"),
        (lambda path: path.write_bytes(b"cut"), "vtab-eurosat.parquet is not a file of predictions"),
        (lambda path: pq.write_table(pa.table({"key": ["a"]}), path), "is not of the last result of B"),
        (
            lambda path: append_line(path.parent.parent / FILE, result("other", EUROSAT, 0.3)),
            "vtab-eurosat.parquet is not of the last result of B; evaluate the task again",
        ),
    ],
)
def test_only_the_predictions_of_the_last_line_count(
    damage: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    for name, table in zip("ab", labelled(np.random.default_rng(3)), strict=True):
        store(tmp_path / name, EUROSAT, table)
    damage(predictions_path(tmp_path / "b", EUROSAT))
    with pytest.raises(UserError, match=f"no task that can be compared: {EUROSAT}: .*{reason}"):
        compare(tmp_path / "a", tmp_path / "b")


def test_tasks_without_a_counterpart_or_metric_are_named(tmp_path: Path) -> None:
    a, b = labelled(np.random.default_rng(3))
    for name, table, extra in (("a", a, "cars"), ("b", b, PETS)):
        for key in (EUROSAT, "fairness/utkface", extra):
            store(tmp_path / name, key, table)
        append_line(tmp_path / name / FILE, {**result(name, EUROSAT, 0.5), "key": "mine"})
    found = compare(tmp_path / "a", tmp_path / "b")
    assert found.not_comparable == {
        "fairness/utkface": "the task has no main metric",
        "mine": "not a task that is known here",
    }
    assert (found.only_in_a, found.only_in_b) == (["cars"], [PETS])
    assert {"only in A: cars", f"only in B: {PETS}"} <= set(report(found).splitlines())


def run_main(*arguments: str | Path) -> int:
    return COMMAND.answer(list(map(str, arguments)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], r"two folders are compared: python -m evaluate.compare A B \[json=<file>\]"),
        (["a", "b", "c"], "two folders are compared"),
        (["a", "b", "out=x"], "unknown key 'out'"),
        (["a", "nowhere"], "nowhere is not a folder"),
        (["empty", "a"], r"empty has no results \(eval_results.jsonl\); evaluate the model first"),
        (["a", "broken"], "eval_results.jsonl, line 1, is not a line of results"),
        (["a", "other"], "a and other have no task in common"),
        (["a", "a", "json=empty"], "json=empty cannot be written: Is a directory"),
        (["a", "a", "json=broken/eval_results.jsonl/x"], "cannot be written: "),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table, _ = labelled(np.random.default_rng(0))
    store(Path("a"), EUROSAT, table)
    store(Path("other"), PETS, table)
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken", FILE).write_text('["no line"]\n')
    with pytest.raises(UserError, match=message) as caught:
        run_main(*arguments)
    assert "\n" not in str(caught.value)


# --- the command ---


def test_the_table(tmp_path: Path) -> None:
    labels, right = np.zeros(40, np.int64), np.arange(40)
    for name, count, sure in (("a", 10, 20), ("b", 30, 20)):
        table = pa.table({"key": keys(40), "label": labels, "prediction": (right >= count).astype(np.int64)})
        store(tmp_path / name, EUROSAT, table)
        store(tmp_path / name, "cars", table.set_column(2, "prediction", [(right >= sure).astype(np.int64)]))
    found = compare(tmp_path / "a", tmp_path / "b")
    lines = report(found).splitlines()
    error = np.std([1.0] * 20 + [0.0] * 20, ddof=1) / np.sqrt(40)
    mean = "mean over the 2 comparable tasks that both have"
    cells = [line.split("  ") for line in lines[3:7]]
    assert [[cell.strip() for cell in row if cell.strip()] for row in cells] == [
        ["task", "metric", "A", "B", "B - A", "± stderr", "p", "better"],
        [EUROSAT, "acc1", "0.2500", "0.7500", "+0.5000", f"{error:.4f}", "<0.0001", "B"],
        ["cars", "acc1", "0.5000", "0.5000", "+0.0000", "0.0000", "1.0000", NO_DIFFERENCE],
        [mean, "0.3750", "0.6250", "+0.2500", f"{error / 2:.4f}", "<0.0001", "B"],
    ]
    assert lines[:2] == [f"A: {tmp_path / 'a'}", f"B: {tmp_path / 'b'}"]
    assert f"{mean}: B is better on 1, A on 0, {NO_DIFFERENCE} on 1 of 2" in lines
    holms = [task["p_holm"] for task in as_json(found)["tasks"]]
    assert holms == [2 * found.tasks[0].p, 1]


@pytest.mark.slow
def test_two_evaluated_checkpoints(tmp_path: Path) -> None:
    for seed, key in enumerate((EUROSAT, PETS)):
        write_classification(tmp_path, TASKS[key], classification_samples(60, 10, seed))
    write_retrieval(tmp_path, TASKS[FLICKR], retrieval_samples(17))
    outcomes = [
        scored(write_checkpoint(tmp_path / f"{name}.pt", seed), tmp_path, tmp_path / name, [EUROSAT, PETS, FLICKR])
        for seed, name in enumerate("ab")
    ]
    words = (tmp_path / "b", f"json={tmp_path / 'c.json'}")
    done = forked.run("-m", "evaluate.compare", tmp_path / "a", *words)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "c.json").read_text())
    assert [one["key"] for one in found["tasks"]] == [EUROSAT, PETS, FLICKR]
    for one in found["tasks"]:
        for outcome, value in zip(outcomes, (one["a"], one["b"]), strict=True):
            assert outcome.line(one["key"])["metrics"]["main_metric"] == pytest.approx(value, abs=1e-6)
        assert one["key"] in done.stdout and 0 < one["p"] <= 1 and one["stderr"] > 0
    assert found["not_comparable"] == {} and found["overall"][0]["tasks"] == 3
    done = forked.run("-m", "evaluate.compare", tmp_path / "a", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: {tmp_path / 'nowhere'} is not a folder\n"


def test_samples_on_which_two_models_differ_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.array([0, 1, 2, 3, 4, 0, 1])
    chosen = np.array([[0, 1, 2, 3, 4, 1, 2], [0, 2, 3, 4, 4, 0, 3]])  # A has 1, 2, 3 right that B has not, B has 5
    sure = np.float32([[0.9, 0.5, 0.8, 0.8, 0.9, 0.6, 1.0], [0.9, 0.9, 0.8, 0.8, 0.9, 0.7, 1.0]])
    expected = ["s0000002", "s0000003", "s0000005", "s0000001"]  # by .8, .8, .6, .5
    names = {"key": keys(7), "label": labels}
    for name, said, confidence in zip("ab", chosen, sure, strict=True):
        table = pa.table({**names, "prediction": said, "top5": [True] * 7, "confidence": confidence})
        store(tmp_path / name, EUROSAT, table)
    words = [f"{tmp_path}/a", f"{tmp_path}/b", f"samples={EUROSAT}"]
    assert COMMAND.answer([*words, f"json={tmp_path}/found.json"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())["disagreements"]
    assert [one["key"] for one in found["samples"]] == expected
    assert (found["only_a"], found["only_b"]) == (3, 1)
    assert found["samples"][2]["right"] == "B" and found["samples"][2]["b"]["confidence"] == pytest.approx(0.7)
    assert f"{EUROSAT}: 3 samples that only A has right, 1 that only B has right" in capsys.readouterr().out
    COMMAND.answer([*words, "count=1", f"json={tmp_path}/found.json"])
    assert len(json.loads((tmp_path / "found.json").read_text())["disagreements"]["samples"]) == 1


def test_predictions_of_before_there_was_confidence_are_listed_in_their_order(tmp_path: Path) -> None:
    a, b = DRAWS["acc1"][1](np.random.default_rng(0))
    found = disagreements(a, b.append_column("confidence", [np.linspace(0, 1, len(b))]), 9)
    rows = [row for row in range(len(a)) if (right(a)[row] != right(b)[row])]
    assert [one.key for one in found.samples] == [a["key"][row].as_py() for row in rows[:9]]
    assert found.only_a + found.only_b == len(rows) and found.samples[0].a.confidence is None
    assert found.samples[0].b.confidence == pytest.approx(rows[0] / (len(b) - 1))


def right(table: pa.Table) -> list[bool]:
    return np.equal(table["label"], table["prediction"]).tolist()


def test_samples_that_cannot_be_listed(folders: tuple[Path, Path], tmp_path: Path) -> None:
    a, b = (str(folder) for folder in folders)
    for words, message in (
        ([a, b, f"samples={FLICKR}"], "is not a task with a class for each sample"),
        ([a, b, "samples=nothing"], "has no result of nothing"),
        ([a, b, f"samples={EUROSAT}", "count=0"], "count= at least 1"),
        ([a, f"samples={EUROSAT}", "published=openclip"], "samples= are those of two folders"),
    ):
        with pytest.raises(UserError, match=message):
            COMMAND.answer(words)
