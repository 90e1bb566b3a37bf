"""What `validate` does with predictions: every number of a submission is computed again from them."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import MODEL, ONE_OF_EACH_KIND, write_checkpoint, write_every_kind
from runs import evaluated_run, forge, of_task, options, validated

from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, read_lines, write_json

from evaluate.metrics import metrics, standard_error
from leaderboard.submissions import read_submission
from leaderboard.submit import submit
from tasks.registry import load_tasks
from tasks.results import predictions_path

TASKS = load_tasks()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was evaluated on a task of each kind, and submitted."""
    folder = tmp_path_factory.mktemp("evaluated")
    checkpoint = write_checkpoint(folder / "model.pt")
    data = write_every_kind(folder / "data")
    run = evaluated_run(folder / "run", "small", data, ONE_OF_EACH_KIND, MODEL, checkpoint)
    submit(options(run))
    return run


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Path:
    """A copy to forge."""
    return Path(shutil.copytree(evaluated, tmp_path / "run"))


@pytest.mark.parametrize("key", ONE_OF_EACH_KIND)
def test_every_metric_follows_from_the_predictions(evaluated: Path, key: str) -> None:
    (line,) = [line for line in read_lines(evaluated / "eval_results.jsonl") if line["key"] == key]
    table = pq.read_table(predictions_path(evaluated, key))
    assert metrics(TASKS[key], table) == line["metrics"]
    assert standard_error(TASKS[key].main_metric, table) == line["stderr"]


def test_predictions_beside_the_file_are_used(evaluated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = evaluated / "submission.json"
    results = read_json(path)["tasks"]
    assert [r["predictions_sha256"] for r in results] == [
        digest_file(predictions_path(evaluated, r["key"])) for r in results
    ]
    assert validated(capsys, path) == (0, "ok\n  predictions: 8 of 8 tasks computed again\n")


def test_predictions_elsewhere_and_not_all(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = (run / "predictions").rename(run / "other")
    path = run / "submission.json"
    assert validated(capsys, path) == (0, "ok\n")
    (run / "predictions").mkdir()
    assert validated(capsys, path) == (0, "ok\n")
    (elsewhere / "wilds-fmow.parquet").unlink()
    expected = "ok\n  predictions: 7 of 8 tasks computed again; no file for wilds/fmow\n"
    assert validated(capsys, path, predictions=elsewhere) == (0, expected)
    (run / "empty").mkdir()
    with pytest.raises(UserError, match="holds no predictions of the submission's tasks"):
        validated(capsys, path, predictions=run / "empty")


@pytest.mark.parametrize("key", ONE_OF_EACH_KIND)
def test_no_metric_can_be_raised(run: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = read_json(run / "submission.json")
    metrics = of_task(value, key)["metrics"]
    main = TASKS[key].main_metric
    others = [name for name in metrics if name not in ("main_metric", main)]
    assert others
    for name in others:
        metrics[name] = 0.123 if metrics[name] is None else abs(metrics[name] - 1e-6)
    assert_refused(run, value, key, [f"metrics.{name}: " for name in others], capsys)


@pytest.mark.parametrize("key", [key for key in ONE_OF_EACH_KIND if TASKS[key].main_metric is not None])
def test_no_main_metric_can_be_raised(run: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    value = read_json(run / "submission.json")
    metrics, main = of_task(value, key)["metrics"], TASKS[key].main_metric
    better = min(1.0, metrics[main] + 1e-6)
    metrics.update({main: better, "main_metric": better})
    assert_refused(run, value, key, [f"metrics.{main}: {better} is not what the predictions give"], capsys)


def assert_refused(
    run: Path, forged: Any, key: str, messages: Sequence[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The forged submission fits together, and its predictions give it away."""
    path = run / "submission.json"
    write_json(path, forge(forged))
    assert not read_submission(path).refusals
    status, text = validated(capsys, path)
    assert status == 1
    for message in messages:
        assert f"tasks.{key}.{message}" in text


EUROSAT = "vtab/eurosat"
FORGED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "stderr": (lambda r: r.update(stderr=r["stderr"] / 2), "stderr: "),
    "no stderr": (lambda r: r.update(stderr=None), "stderr: None is not"),
    "a metric of its own": (lambda r: r["metrics"].update(acc99=1.0), "metrics.acc99: 1.0 is not"),
    "a metric fewer": (lambda r: r["metrics"].pop("acc5"), "metrics.acc5: None is not"),
    "samples": (lambda r: r.update(samples=40), "samples: 40, but "),
    "data": (lambda r: r.update(data_digest="0" * 64), "data_digest: "),
    "precision": (lambda r: r.update(precision="amp_bf16"), "precision: amp_bf16, but "),
    "limit": (lambda r: r.update(limit=41), "limit: 41, but "),
    "predictions": (lambda r: r.update(predictions_sha256="0" * 64), "predictions_sha256: not the digest of "),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_result_that_its_predictions_give_away(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, message = FORGED[name]
    value = read_json(run / "submission.json")
    change(of_task(value, EUROSAT))
    assert_refused(run, value, EUROSAT, [message], capsys)


def test_predictions_of_another_checkpoint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = read_json(run / "submission.json")
    value["checkpoint_sha256"] = "0" * 64
    assert_refused(run, value, EUROSAT, [f"checkpoint_sha256: {'0' * 64}, but "], capsys)


SPOILT: dict[str, tuple[str, Callable[[pa.Table], pa.Table], str]] = {
    "a column gone": (EUROSAT, lambda t: t.drop_columns(["label"]), "KeyError"),
    "labels beyond memory": (EUROSAT, lambda t: with_column(t, "label", [2**40] * len(t)), "ValueError"),
    "labels below 0": (EUROSAT, lambda t: with_column(t, "label", [-1] * len(t)), "ValueError"),
    "labels missing": (EUROSAT, lambda t: with_column(t, "label", [None] * len(t)), "ValueError"),
    "best but not among five": (EUROSAT, lambda t: with_column(t, "top5", [False] * len(t)), "ValueError"),
    "text": (EUROSAT, lambda t: with_column(t, "label", ["a"] * len(t)), "ValueError"),
    "groups beyond memory": ("wilds/fmow", lambda t: with_column(t, "group", [10**6] * len(t)), "ValueError"),
    "scores": ("misc/winogavil", lambda t: with_column(t, "score", [1.0] * len(t)), "ValueError"),
    "chosen": ("misc/winogavil", lambda t: with_column(t, "chosen", t["candidates"]), "TypeError"),
    "rank 0": (
        "retrieval/flickr_1k_test_image_text_retrieval",
        lambda t: with_column(t, "text_rank", [0] * len(t)),
        "ValueError",
    ),
}


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    column = values if isinstance(values, pa.ChunkedArray) else [values]
    return table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize("name", SPOILT)
def test_predictions_that_no_evaluator_writes(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    key, spoil, error = SPOILT[name]
    path = predictions_path(run, key)
    pq.write_table(spoil(pq.read_table(path)), path)
    value = read_json(run / "submission.json")
    of_task(value, key)["predictions_sha256"] = digest_file(path)
    assert_refused(run, value, key, [f"metrics: do not follow from {path}: {error}"], capsys)


@pytest.mark.parametrize("metadata", [None, {b"poolbench": b"{"}, {b"poolbench": b"[]"}, {}])
def test_a_file_that_holds_no_predictions(run: Path, metadata: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = predictions_path(run, EUROSAT)
    if metadata is None:
        path.write_bytes(b"PAR1 is how such files begin")
    else:
        pq.write_table(pq.read_table(path).replace_schema_metadata(metadata), path)
    value = read_json(run / "submission.json")
    of_task(value, EUROSAT)["predictions_sha256"] = None
    assert_refused(run, value, EUROSAT, [f"predictions_sha256: {path} is no file of predictions"], capsys)
