"""What `validate` does with more than the file: predictions, subset, pool, accepted submissions, the checkpoint."""

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import forked
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import (
    MODEL,
    ONE_OF_EACH_KIND,
    classification_samples,
    write_checkpoint,
    write_classification,
    write_every_kind,
)
from runs import ROOT, edit, evaluated_run, forge, make_run, options

from poolbench import uids
from poolbench.command import parse
from poolbench.errors import UserError
from poolbench.files import digest_file, read_json, read_lines, write_json
from poolbench.models.clip import create
from poolbench.uids import DTYPE, write_subset

from evaluate.metrics import metrics, standard_error
from leaderboard import evidence
from leaderboard.evidence import check_pool, check_subset
from leaderboard.models import Submission
from leaderboard.submissions import read_submission
from leaderboard.submit import submit
from leaderboard.validate import ValidateOptions, dashed, validate_files
from tasks.registry import load_tasks
from tasks.results import FILE, predictions_path, read_results

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


def told(capsys: pytest.CaptureFixture[str], *paths: Path, **given: Any) -> tuple[int, str]:
    """Exit status and output of validate, without the paths of its files."""
    capsys.readouterr()
    status = validate_files(paths, ValidateOptions(**{name: str(value) for name, value in given.items()}))
    text = capsys.readouterr().out
    for path in paths:
        text = text.replace(f"{path}: ", "")
    return status, text


def of_task(value: Any, key: str) -> Any:
    (result,) = [result for result in value["tasks"] if result["key"] == key]
    return result


# --- predictions ---


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
    assert told(capsys, path) == (0, "ok\n  predictions: 8 of 8 tasks computed again\n")


def test_predictions_elsewhere_and_not_all(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = (run / "predictions").rename(run / "other")
    path = run / "submission.json"
    assert told(capsys, path) == (0, "ok\n")
    (run / "predictions").mkdir()
    assert told(capsys, path) == (0, "ok\n")
    (elsewhere / "wilds-fmow.parquet").unlink()
    expected = "ok\n  predictions: 7 of 8 tasks computed again; no file for wilds/fmow\n"
    assert told(capsys, path, predictions=elsewhere) == (0, expected)
    (run / "empty").mkdir()
    with pytest.raises(UserError, match="holds no predictions of the submission's tasks"):
        told(capsys, path, predictions=run / "empty")


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
    status, text = told(capsys, path)
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


# --- subset and pool ---


def hexes(*numbers: int) -> list[str]:
    return [f"{number:032x}" for number in numbers]


def subset_of(folder: Path, uids: list[str], **changes: Any) -> tuple[Submission, Path]:
    """A submission whose subset these uids are, and the file."""
    path = folder / "subset.npy"
    write_subset(path, uids)
    return naming(folder, path, **{"size": len(uids), **changes}), path


def naming(folder: Path, path: Path, **subset: Any) -> Submission:
    told = {"path": str(path), "digest": digest_file(path), **subset}
    submission, refusals = read_submission(submit(options(make_run(folder / "run", subset=told))))
    assert submission is not None and not refusals
    return submission


def test_a_subset_may_repeat(tmp_path: Path) -> None:
    submission, path = subset_of(tmp_path, hexes(3, 2**100, 3, 3, 2**64))
    expected = "subset: 5 uids, 2 of them repeats, digest and order as they should be"
    assert check_subset(submission, path) == ([expected], [])


def test_a_subset_that_is_not_the_one(tmp_path: Path) -> None:
    submission, path = subset_of(tmp_path, hexes(1, 2, 3), size=4)
    assert check_subset(submission, path).refusals == [f"subset.size: 4, but {path} holds 3 uids"]
    other = tmp_path / "other.npy"
    write_subset(other, hexes(1, 2, 4))
    assert check_subset(submission, other).refusals == [f"subset.digest: not the digest of {other}"]
    without = submission.model_copy(update={"subset": None})
    assert check_subset(without, path).refusals == ["subset: null, but a subset file is supplied"]
    with pytest.raises(UserError, match="does not exist"):
        check_subset(submission, tmp_path / "none.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([(0, 2), (0, 1)], DTYPE), "is not sorted at row 1"),
        (np.array([(1, 0), (0, 5)], DTYPE), "is not sorted at row 1"),
        (np.zeros(3), "holds float64 [3], not a list of u8,u8 uids"),
        (np.zeros((2, 2), DTYPE), "not a list of u8,u8 uids"),
        (np.zeros(0, DTYPE), "is empty"),
        (np.array([{}]), "holds Python objects, not a list of u8,u8 uids"),
    ],
)
def test_a_file_that_is_no_subset(tmp_path: Path, array: Any, message: str) -> None:
    path = tmp_path / "subset.npy"
    np.save(path, array)
    (refusal,) = check_subset(naming(tmp_path, path, size=max(1, len(array))), path).refusals
    assert refusal.startswith("subset: ")
    assert message in refusal


def write_pool(place: Path, uids: list[str], *, folder: bool) -> Path:
    """A pool as a sorted list, or as parquets in any order."""
    if not folder:
        write_subset(place.with_suffix(".npy"), uids)
        return place.with_suffix(".npy")
    place.mkdir()
    shuffled = random.Random(0).sample(uids, len(uids))
    for number, part in enumerate(np.array_split(np.array(shuffled), 3)):
        pq.write_table(pa.table({"uid": part.tolist(), "text": ["t"] * len(part)}), place / f"{number}.parquet")
    return place


@pytest.mark.parametrize("folder", [False, True], ids=["list", "folder"])
def test_missing_uids_are_named_and_counted_once(tmp_path: Path, folder: bool) -> None:
    pool = write_pool(tmp_path / "pool", hexes(*range(0, 1000, 2)), folder=folder)
    submission, path = subset_of(tmp_path, hexes(0, 4, 4, 5, 5, 5, 998, 999, 1001, 2**127, 2**127))
    named = ", ".join(hexes(5, 999, 1001))
    assert check_pool(submission, path, pool).refusals == [
        f"subset: 4 uids are not in the pool {pool}: {named} and 1 more"
    ]
    submission, path = subset_of(tmp_path, hexes(0, 4, 4, 998))
    assert check_pool(submission, path, pool) == ([f"pool: every uid of the subset is in {pool}"], [])
    byod = submission.model_copy(update={"track": "byod"})
    assert check_pool(byod, path, pool) == (["pool: not compared, the track byod may hold any data"], [])


@pytest.mark.parametrize("folder", [False, True], ids=["list", "folder"])
@pytest.mark.parametrize("seed", range(8))
def test_membership_is_that_of_sets(tmp_path: Path, seed: int, folder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a few rows in memory at a time, and uids that share a half, or all but a bit."""
    monkeypatch.setattr(evidence, "_ROWS", 3)
    monkeypatch.setattr(uids, "_ROWS", 3)
    draw = random.Random(seed)
    halves = [0, 1, 2**63, 2**64 - 1, draw.getrandbits(64)]
    every = hexes(*{high << 64 | low for high in halves for low in halves})
    pool = draw.sample(every, draw.randint(1, 20))
    chosen = draw.choices(pool if seed % 2 else every, k=draw.randint(1, 20))
    place = write_pool(tmp_path / "pool", pool, folder=folder)
    submission, path = subset_of(tmp_path, chosen)
    assert not check_subset(submission, path).refusals
    missing = sorted(set(chosen) - set(pool))
    refusals = check_pool(submission, path, place).refusals
    assert bool(refusals) == bool(missing)
    for refusal in refusals:
        assert f"{len(missing)} uids are not" in refusal
        assert ", ".join(missing[:3]) in refusal


def test_pools_that_cannot_be_read(tmp_path: Path) -> None:
    submission, path = subset_of(tmp_path, hexes(1, 2))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no \.parquet file"):
        check_pool(submission, path, tmp_path / "empty")
    for number, table in enumerate(
        [pa.table({"id": ["0"]}), pa.table({"uid": ["0" * 31]}), pa.table({"uid": [1]}), pa.table({"uid": [None]})]
    ):
        folder = tmp_path / f"pool{number}"
        folder.mkdir()
        pq.write_table(table, folder / "part.parquet")
        with pytest.raises(UserError, match=r"part.parquet is not pool metadata with a column uid of 32 hex digits"):
            check_pool(submission, path, folder)
    np.save(tmp_path / "unsorted.npy", np.array([(2, 0), (1, 0)], DTYPE))
    with pytest.raises(UserError, match=r"is not sorted at row 1; np\.sort it"):
        check_pool(submission, path, tmp_path / "unsorted.npy")


def test_subset_and_pool_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, subset = subset_of(tmp_path, hexes(1, 2))
    path = tmp_path / "run" / "submission.json"
    pool = write_pool(tmp_path / "pool", hexes(1, 2, 3), folder=True)
    status, text = told(capsys, path, subset=subset, pool=pool)
    assert status == 0
    assert text.splitlines()[0] == "ok"
    assert [line.split(":")[0] for line in text.splitlines()[1:]] == ["  subset", "  pool"]
    (pool / "0.parquet").unlink()
    status, text = told(capsys, path, subset=subset, pool=pool)
    assert status == 1
    assert "uids are not in the pool" in text


# --- submissions that are there already ---


def test_a_checkpoint_comes_once_a_track(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    first = submit(options(run)).rename(tmp_path / "first.json")
    again = submit(options(run, method="Another name")).rename(tmp_path / "again.json")
    byod = submit(options(run, track="byod")).rename(tmp_path / "byod.json")
    status, text = told(capsys, first, again, byod, first)
    refusal = f"checkpoint_sha256: the one of {first}, which is on the track filtering already"
    assert (status, text.splitlines()) == (1, ["ok", refusal, "ok", "ok"])


def test_against_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "submissions"
    folder.mkdir()
    run = make_run(tmp_path / "run")
    accepted = submit(options(run)).rename(folder / "mine.submission.json")
    (folder / "broken.submission.json").write_text("[]", encoding="utf-8")
    new = submit(options(run, method="Another name"))
    assert told(capsys, accepted, against=folder) == (0, "ok\n")
    status, text = told(capsys, new, against=folder)
    assert status == 1
    assert f"the one of {accepted}, which" in text
    validate_files([accepted], ValidateOptions(against=str(folder)))
    assert "broken.submission.json is no submission and is left out" in capsys.readouterr().err
    other = submit(options(make_run(tmp_path / "other")))
    assert told(capsys, other, against=folder) == (0, "ok\n")


# --- the checkpoint ---


@pytest.mark.slow
def test_recheck_evaluates_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_forked(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert command[0] == sys.executable
        return forked.run(*command[1:])

    monkeypatch.setattr(evidence, "subprocess", SimpleNamespace(run=run_forked, PIPE=subprocess.PIPE))
    honest, forged = "demo/openmoji", "demo/twemoji"
    name = "ViT-Ti-32-64"
    torch.save({"state_dict": create(name, seed=0).state_dict()}, tmp_path / "weights.pt")
    data = tmp_path / "data"
    for key in (honest, forged):
        write_classification(data, TASKS[key], classification_samples(12, 5), shards=1, classes=5)
    run = evaluated_run(tmp_path / "run", "tiny", data, [honest, forged], name, tmp_path / "weights.pt")
    path = submit(options(run))
    shutil.rmtree(run / "predictions")

    def better(value: Any) -> None:
        of_task(value, forged)["metrics"].update(acc1=1.0, main_metric=1.0)

    edit(path, better)
    write_json(path, forge(read_json(path)))
    given = {"recheck": f"{honest},{forged}", "data": data, "checkpoint": tmp_path / "weights.pt"}
    status, text = told(capsys, path, **given)
    assert status == 1
    (line,) = text.splitlines()
    assert line.startswith(f"tasks.{forged}.metrics.main_metric: 1.0, but evaluated again it is 0.")
    with (run / "model.pt").open("ab") as file:
        file.write(b"x")
    status, text = told(capsys, path, recheck=honest, data=data)
    assert (status, text) == (1, f"checkpoint_sha256: not the digest of {run / 'model.pt'}\n")


@pytest.mark.parametrize(
    ("key", "column", "counts", "tolerance"),
    [
        ("mnist", "label", [5000, 4999], 0.001),  # a sample weighs less
        ("mnist", "label", [30, 20], 1 / 50),
        ("vtab/pets", "label", [100, 50, 20], 1 / 60),
        ("wilds/camelyon17", "group", [700, 4], 1 / 4),
    ],
)
def test_a_near_tie_may_fall_the_other_way(
    tmp_path: Path, key: str, column: str, counts: list[int], tolerance: float
) -> None:
    values = np.repeat(np.arange(len(counts)), counts)
    (tmp_path / "predictions").mkdir()
    pq.write_table(pa.table({"label": values, column: values}), predictions_path(tmp_path, key))
    submission, _ = read_submission(submit(options(make_run(tmp_path / "run"))))
    assert submission is not None
    (result,) = [result for result in submission.tasks if result.key == key]
    main = result.metrics["main_metric"]
    assert main is not None
    (again,) = [line for line in read_results(tmp_path / "run" / FILE) if line.key == key]

    def unlike(now: float | None, **changes: Any) -> list[str]:
        line = again.model_copy(update={"metrics": {"main_metric": now}, **changes})
        return list(evidence._unlike(result, line, tmp_path))

    assert not unlike(main + 0.99 * tolerance) and not unlike(main - 0.99 * tolerance)
    (line,) = unlike(main - 1.01 * tolerance)
    assert line.endswith(f"(tolerance {tolerance:.4f})")
    assert unlike(main, samples=5) == [f"samples: {result.samples}, but evaluated again it is 5"]
    assert unlike(main, data_digest="0" * 64)[0].startswith("data_digest: ")
    assert unlike(None)[0].startswith("metrics.main_metric: ")


def test_recheck_of_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = submit(options(make_run(tmp_path / "run")))
    with pytest.raises(UserError, match=r"tasks: 'mnits' names no task or group; did you mean 'mnist'\?"):
        told(capsys, path, recheck="mnits")
    with pytest.raises(UserError, match="recheck=demo names no task of the submission"):
        told(capsys, path, recheck="demo")
    with pytest.raises(UserError, match=r"last\.pt does not exist"):
        told(capsys, path, recheck="mnist")
    (tmp_path / "run" / "run.json").unlink()
    with pytest.raises(UserError, match=r"run.json does not exist; checkpoint= names the file"):
        told(capsys, path, recheck="mnist")


@pytest.mark.parametrize("model", ["hf-hub:someone/model", "${oc.env:HOME}", "a,b", "", 5])
def test_a_model_that_is_no_plain_name_is_never_started(tmp_path: Path, model: Any) -> None:
    run = make_run(tmp_path / "run")
    (tmp_path / "weights.pt").write_bytes(b"weights")
    submission, _ = read_submission(submit(options(run)))
    assert submission is not None
    changed = submission.model_copy(
        update={"recipe": {"model": model}, "checkpoint_sha256": digest_file(tmp_path / "weights.pt")}
    )
    with pytest.raises(UserError, match="is no name of a model"):
        evidence.check_again(changed, tmp_path / "weights.pt", ["mnist"], None)


# --- options ---


def test_options_with_dashes() -> None:
    arguments = ["a.json", "--recheck", "mnist,vtab/pets", "--data=/x=y", "pool=p", "--subset", "s.npy"]
    words, parsed = parse(dashed(arguments), ValidateOptions)
    assert words == ["a.json"]
    assert parsed == ValidateOptions(recheck="mnist,vtab/pets", data="/x=y", pool="p", subset="s.npy")
    for arguments in (["a.json", "--data"], ["--recheck", "--data", "x"]):
        with pytest.raises(UserError, match=r"--(data|recheck) needs a value"):
            dashed(arguments)
    with pytest.raises(UserError, match=r"unknown key 'rechek': did you mean 'recheck'\?"):
        parse(dashed(["--rechek", "mnist"]), ValidateOptions)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"subset": "x"}, "subset= holds for one submission; 2 files are named"),
        ({"predictions": "x"}, "predictions= holds for one submission; 2 files are named"),
        ({"recheck": "x"}, "recheck= holds for one submission; 2 files are named"),
        ({"against": "no/folder"}, "against=no/folder is not a folder"),
    ],
)
def test_options_for_several_files(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_files(["a.json", "b.json"], ValidateOptions(**given))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pool": "x"}, "pool= is of no use without subset="),
        ({"data": "x"}, "data= is of no use without recheck="),
        ({"checkpoint": "x"}, "checkpoint= is of no use without recheck="),
        ({"predictions": "no/folder"}, "predictions=no/folder is not a folder"),
        ({"subset": "x", "pool": "no/pool"}, "pool=no/pool does not exist"),
    ],
)
def test_options_that_need_others(given: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate_files(["a.json"], ValidateOptions(**given))


def test_what_needs_no_model_loads_no_torch() -> None:
    """Nor wilds, which is for the metrics of its own tasks alone."""
    ours = "leaderboard.validate, leaderboard.submit, leaderboard.build, evaluate.metrics, evaluate.merge"
    heavy = "('torch', 'open_clip', 'wilds', 'sklearn')"
    script = f"import sys, {ours}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
