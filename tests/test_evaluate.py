"""Evaluation as a whole: what is written, what must not change a number, and what a second run does."""

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from evalsets import (
    MODEL,
    Outcome,
    classification_samples,
    retrieval_samples,
    same_predictions,
    scored,
    write_checkpoint,
    write_classification,
    write_retrieval,
)
from runs import run_json

from poolbench.errors import UserError
from poolbench.files import append_line, digest_file
from poolbench.models.clip import load

from evaluate.config import EvaluateConfig, deal, patterns
from evaluate.embedder import OpenClip
from evaluate.encoder import Encoder
from evaluate.evaluators import EVALUATORS
from evaluate.results import Conditions, digests_of
from evaluate.run import run
from evaluate.stream import Batch, EvaluationStream, units_of
from tasks.grade import OTHER_DATA
from tasks.lock import Locked
from tasks.names import speaks_of_names
from tasks.readers import open_data
from tasks.registry import Task, load_tasks
from tasks.results import CONDITIONS, FILE, ResultLine, predictions_path

EUROSAT, PETS = "vtab/eurosat", "vtab/pets"
FLICKR = "retrieval/flickr_1k_test_image_text_retrieval"
TASKS = load_tasks()
# But for those whose names come from a package and fit one data set alone: tests/test_languages.py has them.
CLASSIFICATION = [task for task in TASKS.values() if task.kind == "classification" and task.prompts is None]


def write_data(root: Path) -> Path:
    """Three tasks: two of classification, one of retrieval."""
    write_classification(root, TASKS[EUROSAT], classification_samples(23, 10))
    write_classification(root, TASKS[PETS], classification_samples(40, 37, seed=1), shards=1)
    write_retrieval(root, TASKS[FLICKR], retrieval_samples(17))
    return root


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def plain(data: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The evaluation that the others are compared with."""
    return scored(checkpoint, data, tmp_path_factory.mktemp("plain"), [EUROSAT, PETS, FLICKR])


def assert_same(outcome: Outcome, plain: Outcome) -> None:
    assert same_predictions(outcome.predictions, plain.predictions)
    for key in plain.predictions:
        line, expected = outcome.line(key), plain.line(key)
        assert line["metrics"] == pytest.approx(expected["metrics"], abs=1e-6)
        for name in ("stderr", "samples", "data_digest", "checkpoint_sha256", "deviations"):
            assert line[name] == expected[name]


def test_a_line_holds_all_that_a_reader_needs(plain: Outcome, data: Path, checkpoint: Path) -> None:
    assert plain.status == 0
    line = plain.line(PETS)
    folder = open_data(TASKS[PETS], data)
    expected = {
        "key": PETS,
        "dataset": "Oxford-IIIT Pet",
        "samples": 40,
        "data_digest": folder.digest(digests_of(folder, folder.shards, 1)),
        "shards": 1,
        "precision": "fp32",
        "pinned": None,
        "official": False,
        "grade": "unofficial",
        "deviations": [
            "40 samples, pinned at 3669",
            "classnames.txt, line 1, is 'thing 0', known is 'Abyssinian'",
            "zeroshot_classification_templates.txt, line 1, is 'a photo of a {c}.', "
            "known is 'a photo of a {c}, a type of pet.'",
        ],
        "bad": [],
        "checkpoint_sha256": digest_file(checkpoint),
        "model": MODEL,
        "tag": None,
        "limit": None,
        "version": 1,
    }
    assert {name: line[name] for name in expected} == expected
    assert line["seconds"] > 0 and 0 <= line["stderr"] < 1
    assert list(line["metrics"]) == ["acc1", "acc5", "mean_per_class_recall", "main_metric"]


@pytest.mark.parametrize("options", [{"batch_size": 1}, {"batch_size": 7}, {"workers": 1}, {"workers": 3}], ids=str)
def test_batch_size_and_workers_change_nothing(
    options: dict[str, Any], plain: Outcome, data: Path, checkpoint: Path, tmp_path: Path
) -> None:
    assert_same(scored(checkpoint, data, tmp_path, [EUROSAT, PETS, FLICKR], **options), plain)


def test_parts_together_are_the_whole(plain: Outcome, data: Path, checkpoint: Path, tmp_path: Path) -> None:
    sizes = []
    for part in ("1/3", "2/3", "3/3"):
        outcome = scored(checkpoint, data, tmp_path, [EUROSAT, PETS, FLICKR], part=part)
        sizes.append(len(outcome.lines))
    assert sizes == [1, 2, 3]
    assert_same(outcome, plain)


@pytest.mark.parametrize("key", [EUROSAT, FLICKR])
def test_the_order_in_which_shards_come_in_changes_nothing(key: str, data: Path, checkpoint: Path) -> None:
    encoder = Encoder(OpenClip(load(MODEL, str(checkpoint)), MODEL, torch.device("cpu"), "fp32", 64))
    task, folder = TASKS[key], open_data(TASKS[key], data)
    needs = EVALUATORS[task.kind].needs
    results = []
    for order in range(4):
        units = units_of(key, folder, needs, None)
        random.Random(order).shuffle(units)
        evaluator = EVALUATORS[task.kind](task, folder, encoder)
        for message in EvaluationStream(units, encoder.pixels, 5):
            if isinstance(message, Batch):
                evaluator.add(message, encoder.encode_images(message.pictures))
        results.append(evaluator.predictions())
    assert all(result.equals(results[0]) for result in results)


def test_limit_takes_the_first_samples(plain: Outcome, data: Path, checkpoint: Path, tmp_path: Path) -> None:
    outcome = scored(checkpoint, data, tmp_path, [EUROSAT, FLICKR], limit=10, workers=2)
    line = outcome.line(EUROSAT)
    assert line["samples"] == line["limit"] == 10 and not line["official"]
    assert "limit=10" in line["deviations"]
    assert line["shards"] == 2  # 8 samples in the first one; the third is not touched
    first = {name: values[:10] for name, values in plain.predictions[EUROSAT].items()}
    assert same_predictions({EUROSAT: outcome.predictions[EUROSAT]}, {EUROSAT: first})
    assert outcome.predictions[FLICKR]["key"] == plain.predictions[FLICKR]["key"][:10]
    again = scored(checkpoint, data, tmp_path, [EUROSAT, FLICKR], limit=10)
    assert again.lines == outcome.lines


@pytest.fixture(scope="module")
def every_task(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """All classification tasks of the registry in one go, each with a small folder and its own number of classes."""
    root = tmp_path_factory.mktemp("every")
    for seed, task in enumerate(CLASSIFICATION):
        assert task.classes is not None, f"{task.key}: how many classes it has is not known"
        samples = classification_samples(12, task.classes, seed)
        write_classification(root, task, samples, shards=1 + seed % 2, templates=["a {c}"])
    return scored(checkpoint, root, root / "out", [task.key for task in CLASSIFICATION], workers=1)


@pytest.mark.parametrize("task", CLASSIFICATION, ids=lambda task: task.key)
def test_every_classification_task_is_evaluated(task: Task, every_task: Outcome) -> None:
    assert every_task.status == 0 and len(every_task.lines) == len(CLASSIFICATION)
    line, rows = every_task.line(task.key), every_task.predictions[task.key]
    seed = CLASSIFICATION.index(task)
    assert task.classes is not None
    expected = [int(members["cls"]) for _, members in classification_samples(12, task.classes, seed)]
    assert rows["label"] == expected and rows["key"] == [f"s{number:07d}" for number in range(12)]
    hits = np.equal(rows["prediction"], expected)
    assert line["dataset"] == task.name and line["samples"] == 12
    assert line["metrics"]["acc1"] == pytest.approx(hits.mean())
    recall = np.mean([hits[np.equal(expected, label)].mean() for label in set(expected)])
    assert line["metrics"]["mean_per_class_recall"] == pytest.approx(recall)
    assert line["metrics"]["acc5"] == (pytest.approx(np.mean(rows["top5"])) if task.classes >= 5 else None)
    assert line["metrics"]["main_metric"] == line["metrics"][task.main_metric or ""]
    assert line["deviations"][0] == f"12 samples, pinned at {task.samples}"
    others = [line for line in line["deviations"][1:] if not speaks_of_names(line)]
    assert others == ([OTHER_DATA] if task.suite == "demo" else [])  # the demo's data are pinned, the others' not


def graded(line: dict[str, Any]) -> tuple[bool, str, bool | None, list[str]]:
    return line["official"], line["grade"], line["pinned"], line["deviations"]


def test_complete_data_in_float32_are_official_where_they_are_pinned(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASKS["vtab/kitti_closest_vehicle_distance"]
    write_classification(tmp_path, task, classification_samples(task.samples, 4), shards=2, known=True)
    line = scored(checkpoint, tmp_path, tmp_path / "out", [task.key]).line(task.key)
    assert graded(line) == (False, "unverified", None, [])
    assert line["metrics"]["acc5"] is None
    told = capsys.readouterr().out
    assert re.search(r"711 +unverified\n", told)
    assert "the data are not pinned: there is no lock file; python -m tasks lock pins them. Only counts and" in told
    outcome = scored(checkpoint, tmp_path, tmp_path / "bf16", [task.key], precision="amp_bf16")
    assert graded(outcome.line(task.key)) == (False, "unofficial", None, ["precision is amp_bf16, pinned at fp32"])

    locked = Locked("a/b", "c0ffee", None, (), line["data_digest"])
    monkeypatch.setattr("tasks.lock.pinned", lambda key: locked)
    capsys.readouterr()
    again = scored(checkpoint, tmp_path, tmp_path / "out", [task.key])
    told = capsys.readouterr().out
    assert again.line(task.key) == line, "it is not evaluated again"
    assert re.search(r"711 +official\n", told) and "not pinned" not in told, "but graded by the lock file of today"
    assert graded(scored(checkpoint, tmp_path, tmp_path / "new", [task.key]).line(task.key)) == (
        True,
        "official",
        True,
        [],
    )


def test_names_that_are_not_the_tasks_make_a_result_unofficial(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = TASKS["vtab/kitti_closest_vehicle_distance"]
    samples = classification_samples(task.samples, 4)
    folder = write_classification(tmp_path, task, samples, shards=1, known=True)
    names = (folder / "classnames.txt").read_text(encoding="utf-8").splitlines()
    (folder / "classnames.txt").write_text("\n".join([*names[:3], "a lorry"]), encoding="utf-8")
    line = scored(checkpoint, tmp_path, tmp_path / "out", [task.key]).line(task.key)
    reason = f"classnames.txt, line 4, is 'a lorry', known is {names[3]!r}"
    assert graded(line) == (False, "unofficial", None, [reason])
    # Whoever pins the data pins their names, too.
    monkeypatch.setattr("tasks.lock.pinned", lambda key: Locked("a/b", "c", None, (), line["data_digest"]))
    assert graded(ResultLine.model_validate(line).regraded().model_dump()) == (True, "official", True, [])


def test_what_differs_from_the_pinned_task_is_named(checkpoint: Path, tmp_path: Path) -> None:
    samples = classification_samples(12, 8)
    samples[2][1]["png"] = b"no picture"
    del samples[3][1]["png"]
    folder = write_classification(tmp_path, TASKS[EUROSAT], samples, shards=2, classes=8)
    shutil.copy(folder / "test" / "1.tar", folder / "test" / "2.tar")
    outcome = scored(checkpoint, tmp_path, tmp_path / "out", [EUROSAT])
    assert outcome.status == 1
    line = outcome.line(EUROSAT)
    assert not line["official"] and line["samples"] == len(outcome.predictions[EUROSAT]["key"]) == 10
    reason = "the picture cannot be decoded: UnidentifiedImageError: cannot identify image file"
    assert [(bad["shard"], bad["key"]) for bad in line["bad"]] == [("0.tar", "s0000002"), ("0.tar", "s0000003")]
    assert line["bad"][0]["reason"].startswith(reason)
    assert line["deviations"][:2] == ["10 samples, pinned at 5400", "8 class names, pinned at 10"]
    assert all(map(speaks_of_names, line["deviations"][2:4]))
    assert line["deviations"][4].startswith(f"2 unreadable, first: 0.tar s0000002 ({reason}")
    assert line["deviations"][5] == "test/2.tar lies there, but nshards.txt says 2 shards"


def test_the_lock_file_tells_whether_the_data_are_the_pinned_ones(
    data: Path, checkpoint: Path, plain: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plain.line(EUROSAT)["pinned"] is None
    for digest, expected in ((plain.line(EUROSAT)["data_digest"], True), ("0" * 64, False)):
        locked = Locked("a/b", "c0ffee", None, (), digest)
        monkeypatch.setattr("tasks.lock.pinned", lambda key, locked=locked: locked)
        line = scored(checkpoint, data, tmp_path / str(expected), [EUROSAT]).line(EUROSAT)
        assert line["pinned"] is expected
        assert ("the data are not those of the lock file" in line["deviations"][-1]) is not expected


# --- a second run ---


def lengthen(path: Path) -> None:
    """Another file of the same samples: a tar may end in more zeros than it needs."""
    path.write_bytes(path.read_bytes() + bytes(512))


@pytest.fixture
def first(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Checkpoint, data and results of a first run over one task."""
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    write_classification(tmp_path / "data", TASKS[EUROSAT], classification_samples(12, 10))
    outcome = scored(checkpoint, tmp_path / "data", tmp_path / "out", [EUROSAT])
    assert len(outcome.lines) == 1
    return checkpoint, tmp_path / "data", tmp_path / "out"


def test_what_is_finished_is_found_again(
    first: tuple[Path, Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, data, out = first
    moved = checkpoint.rename(checkpoint.with_name("other.pt"))  # content counts, not the path
    monkeypatch.setattr(Encoder, "of", lambda *_: pytest.fail("the model is loaded for nothing"))
    outcome = scored(moved, data, out, [EUROSAT])
    assert outcome.status == 0 and len(outcome.lines) == 1
    printed = capsys.readouterr().out
    assert f"{EUROSAT}: finished before" in printed and "1 of 1 tasks have results" in printed


@pytest.mark.parametrize(
    ("change", "options"),
    [
        (lambda checkpoint, data, out: write_checkpoint(checkpoint, seed=7), {}),
        (lambda checkpoint, data, out: lengthen(data / TASKS[EUROSAT].folder / "test" / "2.tar"), {}),
        (lambda checkpoint, data, out: (data / TASKS[EUROSAT].folder / "classnames.txt").write_text("a\n" * 10), {}),
        (lambda checkpoint, data, out: predictions_path(out, EUROSAT).unlink(), {}),
        (lambda checkpoint, data, out: predictions_path(out, EUROSAT).write_bytes(b"cut"), {}),
        (lambda checkpoint, data, out: None, {"limit": 5}),
        (lambda checkpoint, data, out: None, {"precision": "amp_bf16"}),
    ],
)
def test_what_changed_is_evaluated_afresh(
    first: tuple[Path, Path, Path], change: Callable[[Path, Path, Path], object], options: dict[str, Any]
) -> None:
    change(*first)
    checkpoint, data, out = first
    outcome = scored(checkpoint, data, out, [EUROSAT], **options)
    assert outcome.status == 0 and len(outcome.lines) == 2
    assert outcome.lines[1]["checkpoint_sha256"] == digest_file(checkpoint)
    assert Conditions._fields == CONDITIONS
    conditions = Conditions(
        digest_file(checkpoint), MODEL, None, options.get("precision", "fp32"), options.get("limit")
    )
    identity = conditions.identity(outcome.lines[1]["data_digest"])
    metadata = pq.read_schema(predictions_path(out, EUROSAT)).metadata
    assert json.loads(metadata[b"poolbench"]) == identity
    assert len(scored(checkpoint, data, out, [EUROSAT], **options).lines) == 2


def test_predictions_of_another_checkpoint_are_not_taken_for_this_ones(first: tuple[Path, Path, Path]) -> None:
    checkpoint, data, out = first
    content = checkpoint.read_bytes()
    write_checkpoint(checkpoint, seed=7)
    scored(checkpoint, data, out, [EUROSAT])
    checkpoint.write_bytes(content)
    lines = scored(checkpoint, data, out, [EUROSAT]).lines
    assert len(lines) == 3 and lines[0]["metrics"] == lines[2]["metrics"] != lines[1]["metrics"]


# The same weights in another architecture, or under a tag that changes the activation, score differently.
@pytest.mark.parametrize("other", [{"version": 0}, {"model": "another"}, {"tag": "openai"}], ids=str)
def test_results_of_other_code_or_architecture_are_not_taken_for_these(
    first: tuple[Path, Path, Path], other: dict[str, Any]
) -> None:
    checkpoint, data, out = first
    (line,) = [json.loads(text) for text in (out / FILE).read_text().splitlines()]
    (out / FILE).write_text(json.dumps({**line, **other}) + "\n")
    assert len(scored(checkpoint, data, out, [EUROSAT]).lines) == 2


def test_a_line_that_a_crash_cut_off_is_mended(first: tuple[Path, Path, Path]) -> None:
    checkpoint, data, out = first
    with (out / FILE).open("a") as file:
        file.write('{"key": "vtab/eur')
    append_line(out / FILE, {"key": "x"})
    assert [json.loads(text)["key"] for text in (out / FILE).read_text().splitlines()] == [EUROSAT, "x"]
    (out / FILE).write_text('{"key": "vtab')
    assert scored(checkpoint, data, out, [EUROSAT]).line(EUROSAT)["samples"] == 12


# --- a training run, and the choice of tasks ---


def write_run(folder: Path, scale: str = "tiny") -> Path:
    checkpoint = write_checkpoint(folder / "checkpoints" / "final.pt")
    record = {
        **run_json(folder.name, scale),
        "recipe": {"model": MODEL},
        "checkpoint": {"path": "checkpoints/final.pt", "sha256": digest_file(checkpoint)},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_a_run_is_evaluated_into_its_own_folder(data: Path, plain: Outcome, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    config = EvaluateConfig(run=str(folder), data=str(data), tasks=EUROSAT, workers=0, device="cpu")
    assert run(config) == 0
    (line,) = [json.loads(text) for text in (folder / FILE).read_text().splitlines()]
    assert line["metrics"] == plain.line(EUROSAT)["metrics"]
    write_checkpoint(folder / "checkpoints" / "final.pt", seed=3)
    assert run(config) == 0
    *_, line = [json.loads(text) for text in (folder / FILE).read_text().splitlines()]
    assert line["deviations"][0] == "the checkpoint is not the one that run.json names"


@pytest.mark.parametrize(("scale", "folder"), [("tiny", "wds_demo-"), ("small", "")])
def test_the_scale_chooses_the_suite(scale: str, folder: str, tmp_path: Path) -> None:
    if scale == "tiny" and not any(task.suite == "demo" for task in TASKS.values()):
        pytest.skip("the registry has no demo tasks")
    config = EvaluateConfig(run=str(write_run(tmp_path / "run", scale)), data=str(tmp_path), device="cpu")
    with pytest.raises(UserError, match=f"holds no folder of the chosen tasks; .*/{folder}"):
        run(config)


def test_parts_are_balanced_and_complete() -> None:
    tasks = list(TASKS.values())
    for count in (1, 2, 5, 60):
        parts = [deal(tasks, f"{index}/{count}") for index in range(1, count + 1)]
        assert sorted(task.key for part in parts for task in part) == sorted(TASKS)
        loads = [sum(task.cost for task in part) for part in parts]
        if count <= 5:
            assert max(loads) - min(loads) < max(task.cost for task in tasks)
    for part in ("0/3", "4/3", "1", "a/b", "1/0", "-1/3"):
        with pytest.raises(UserError, match=f"part={part} is not i/n"):
            deal(tasks, part)


def test_the_command_line(data: Path, checkpoint: Path, plain: Outcome, tmp_path: Path) -> None:
    models = Path(__file__).parent / "models"
    code = f"""
import open_clip, runpy
open_clip.add_model_config({str(models)!r})
runpy.run_module("evaluate", run_name="__main__", alter_sys=True)"""
    words = [f"model={MODEL}", f"checkpoint={checkpoint}", f"data={data}", f"out={tmp_path}", "device=cpu"]
    done = forked.run("-c", code, *words, f"tasks=[{EUROSAT},retrieval/flickr*,wilds]")
    assert done.returncode == 1 and done.stderr == ""
    assert "wilds/fmow: missing" in done.stdout and "2 of 5 tasks have results" in done.stdout
    lines = [json.loads(text) for text in (tmp_path / FILE).read_text().splitlines()]
    assert {line["key"]: line["metrics"] for line in lines} == {
        key: pytest.approx(plain.line(key)["metrics"], abs=1e-6) for key in (EUROSAT, FLICKR)
    }


def test_tasks_are_a_word_or_a_list() -> None:
    assert patterns(None) == [] and patterns("vtab") == ["vtab"] and patterns(["a", "b/*"]) == ["a", "b/*"]
    for value in (3, ["a", 3], {"a": 1}):
        with pytest.raises(UserError, match="is not a word or a list of words"):
            patterns(value)
