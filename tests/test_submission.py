"""From a run to submission.json; what `submit` and `validate` refuse."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import CONTACT, ROOT, drop_line, edit, edit_line, forge, leaderboard, make_run, options, refusals, result

from poolbench import recipes
from poolbench.command import compose, parse
from poolbench.errors import UserError
from poolbench.files import append_line, digest_bytes, digest_json, leftovers, read_json, read_lines, write_json

from leaderboard.build import collect
from leaderboard.submissions import read_submission
from leaderboard.submit import SubmitOptions, submit
from leaderboard.validate import validate_files
from tasks.registry import load_tasks
from train.config import TrainConfig

pytestmark = pytest.mark.usefixtures("pinned_data")


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    return submit(options(make_run(tmp_path / "run")))


def test_submission_holds_the_run_and_its_results(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", seed=7)
    value = read_json(submit(options(run, writeup="https://example.org/paper")))
    raw = read_json(run / "run.json")
    for key in ("scale", "recipe", "recipe_digest", "seed", "precision", "samples_seen", "code", "packages", "bad"):
        assert value[key] == raw[key]
    assert value["official"] is True
    assert value["deviations"] == []
    assert value["dataset_size"] == 3_800_000
    assert value["data"] == {"sources": 2, "shards": 15, "bytes": 1500, "digest": digest_bytes(b"data")}
    assert value["checkpoint_sha256"] == raw["checkpoint"]["sha256"]
    assert [task["key"] for task in value["tasks"]] == [k for k, t in load_tasks().items() if t.suite == "main"]
    scores = [task["metrics"]["main_metric"] for task in value["tasks"]]
    present = [score for score in scores if score is not None]
    assert len(present) == 38
    assert value["aggregates"]["values"]["average"] == pytest.approx(sum(present) / 38, abs=1e-12)
    assert value["private"] == {"contact": CONTACT}
    assert "secret" not in json.dumps(value)
    assert all(task["pinned"] is True and task["predictions_sha256"] is None for task in value["tasks"])
    assert value["grade"] == "official" and {task["grade"] for task in value["tasks"]} == {"official"}
    assert value["digest"] == digest_json({k: v for k, v in value.items() if k not in ("digest", "private")})


def test_a_submission_names_the_predictions_that_are_there(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "predictions").mkdir()
    (run / "predictions" / "vtab-pets.parquet").write_bytes(b"rows")
    results = {task["key"]: task for task in read_json(submit(options(run)))["tasks"]}
    named = {key: task["predictions_sha256"] for key, task in results.items() if task["predictions_sha256"]}
    assert named == {"vtab/pets": digest_bytes(b"rows")}


def test_reasons_that_quote_a_file_are_one_line(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    edit_line(run, "mnist", deviations=["1 unreadable, first: a\nb\u202e\x07.tar " + "x" * 900])
    (line,) = deviations_of(run)
    assert line.startswith("task mnist: 1 unreadable, first: a?b??.tar xxx")
    assert len(line) < 500


def test_submits_at_once_leave_a_whole_file(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    path = submit(options(run))
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from pathlib import Path
from runs import options
from leaderboard.submit import submit
for number in range(15):
    submit(options(Path({str(run)!r}), method=sys.argv[1] * (number + 1)))
"""
    processes = [subprocess.Popen([sys.executable, "-c", program, name], cwd=ROOT) for name in ("a", "b")]
    reads = 0
    while any(process.poll() is None for process in processes):
        assert not read_submission(path).refusals
        reads += 1
    assert reads and [process.returncode for process in processes] == [0, 0]
    assert not leftovers(path)


@pytest.mark.parametrize("scale", recipes.scales())
def test_a_run_of_the_pinned_recipe_has_the_pinned_digest(scale: str) -> None:
    config = compose("train", [f"scale={scale}", "data=x", "name=x"], TrainConfig)
    assert recipes.digest(config.recipe_values) == recipes.digest(recipes.pinned(scale))


def test_last_line_of_a_task_counts_and_other_checkpoints_do_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    results = run / "eval_results.jsonl"
    append_line(results, result("run", "mnist", 0.25))
    append_line(results, result("run", "mnist", 0.75))
    append_line(results, result("another", "mnist", 0.99))
    append_line(results, {**result("run", "cifar10", 0.5), "key": "my/own_task"})
    with results.open("a", encoding="utf-8") as file:
        file.write('{"key": "mnist", "metr')  # what a crash leaves behind
    value = read_json(submit(options(run)))
    (mnist,) = [task for task in value["tasks"] if task["key"] == "mnist"]
    assert mnist["metrics"]["main_metric"] == 0.75
    notes = capsys.readouterr().err
    assert "1 lines of another checkpoint are left out" in notes
    assert "my/own_task is no task of the scale small and is left out" in notes


def test_submission_without_subset(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", subset=None)
    assert read_json(submit(options(run)))["dataset_size"] is None
    assert read_json(submit(options(run, dataset_size=12)))["dataset_size"] == 12
    edit(run / "submission.json", lambda value: value.update(dataset_size=0))
    assert refusals(run / "submission.json").startswith("dataset_size: ")


def deviations_of(run: Path) -> list[str]:
    value = read_json(submit(options(run)))
    assert value["official"] == (value["grade"] == "official") == (not value["deviations"])
    assert not refusals(run / "submission.json")
    lines: list[str] = value["deviations"]
    return lines


def test_every_reason_is_carried_over(tmp_path: Path) -> None:
    changed = {**recipes.pinned("small"), "batch_size": 8}
    told = recipes.deviations("small", changed)
    run = make_run(
        tmp_path / "run",
        official=False,
        deviations=told,
        recipe=changed,
        recipe_digest=recipes.digest(changed),
        status="running",
        finished=None,
    )
    edit_line(run, "mnist", official=False, deviations=["limit is 10"], limit=10, samples=10)
    drop_line(run, "vtab/dtd")
    expected = ["recipe.batch_size is 8, pinned at 4096", "run not complete", "task vtab/dtd missing"]
    assert deviations_of(run) == [*expected, "task mnist: limit is 10"]


def test_a_missing_task_leaves_no_average(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    drop_line(run, "vtab/dtd")
    assert deviations_of(run) == ["task vtab/dtd missing"]
    values = read_json(run / "submission.json")["aggregates"]["values"]
    assert {name for name, value in values.items() if value is None} == {"vtab", "average"}


def test_a_missing_task_without_main_metric_counts_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    drop_line(run, "fairness/utkface")
    assert deviations_of(run) == ["task fairness/utkface missing"]
    assert read_json(run / "submission.json")["aggregates"]["values"]["average"] is not None


def test_unofficial_without_a_reason_gets_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", official=False)
    edit_line(run, "mnist", official=False)
    edit_line(run, "stl10", metrics={"acc1": None, "main_metric": None}, stderr=None)
    assert deviations_of(run) == [
        "run marked unofficial without a reason",
        "task mnist: marked unofficial without a reason",
        "task stl10: has no main metric",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"track": "filter"}, "track=filter is no known track; did you mean 'filtering'?"),
        ({"author": " "}, "author: must be one line of text, 1 to 200 characters"),
        ({"author": "x" * 201}, "author: must be one line of text, 1 to 200 characters"),
        ({"method": "two\nlines"}, "method: must be one line of text, 1 to 200 characters"),
        ({"contact": "two\nlines"}, "private.contact: must be one line of text, 1 to 200 characters"),
        ({"writeup": "javascript:alert(1)"}, "writeup: must be a http:// or https:// address"),
        ({"writeup": "https://x.org/ onclick=x"}, "writeup: must be a http:// or https:// address"),
        ({"dataset_size": 5}, "dataset_size=5: the run's subset has 3800000; leave it out"),
    ],
)
def test_wrong_option(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(UserError) as error:
        submit(options(run, **changes))
    assert str(error.value).endswith(message)
    assert not (run / "submission.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "run.json has format 2, this version reads 1"),
        ({"checkpoint": None}, "run.json names no checkpoint"),
        ({"seed": "one"}, "run.json: seed: "),
        ({"started": "yesterday"}, "run.json: started: must be a time in ISO 8601"),
        ({"recipe_digest": "0" * 64}, "recipe_digest: not the digest of recipe"),
        ({"samples_seen": 5}, "samples_seen: grade is official, but 5 is not the recipe's 12800000"),
        ({"recipe": {"model": "x"}}, "recipe_digest: not the digest of recipe"),
    ],
)
def test_wrong_run(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    run = make_run(tmp_path / "run", **changes)
    with pytest.raises(UserError) as error:
        submit(options(run))
    assert message in str(error.value)
    assert str(run) in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_folder_and_results(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run= names the folder of a training run"):
        submit(options(tmp_path))
    run = make_run(tmp_path / "run")
    results = run / "eval_results.jsonl"
    results.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"eval_results.jsonl holds no results; first run python -m evaluate"):
        submit(options(run))
    append_line(results, result("another", "mnist", 0.5))
    with pytest.raises(UserError, match="holds results of other checkpoints only"):
        submit(options(run))
    append_line(results, {**result("run", "mnist", 0.5), "key": "my/own"})
    with pytest.raises(UserError, match="holds no result of a task of the scale small"):
        submit(options(run))
    append_line(results, result("run", "mnist", 0.5, samples="many"))
    with pytest.raises(
        UserError,
        match=r"eval_results.jsonl, line 3, is not a line of results: samples: Input should be a",
    ):
        submit(options(run))
    edit(run / "run.json", lambda value: value.update(scale="smal"))
    with pytest.raises(UserError, match=r"run.json: unknown scale 'smal'; did you mean 'small'\?"):
        submit(options(run))
    (run / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"run.json is not JSON"):
        submit(options(run))


def test_an_official_result_of_fewer_samples_is_not_submitted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    edit_line(run, "mnist", samples=10)
    with pytest.raises(UserError, match=r"tasks\.mnist\.grade: official, but 10 samples instead of 10000"):
        submit(options(run))


def test_options_are_parsed_from_words() -> None:
    words, parsed = parse(["run=x", "method=a=b", "author=2024", "track=byod", "dataset_size=12"], SubmitOptions)
    assert words == []
    assert (parsed.method, parsed.author, parsed.dataset_size, parsed.writeup) == ("a=b", "2024", 12, None)


def first_metrics(value: Any) -> Any:
    return value["tasks"][0]["metrics"]


UNOFFICIAL = {"official": False, "grade": "unofficial"}
UNVERIFIED = {"official": False, "grade": "unverified"}

TAMPERED: list[tuple[str, Callable[[Any], Any], str]] = [
    ("average", lambda v: v["aggregates"]["values"].update(average=0.9), "aggregates.values.average: 0.9 does not"),
    ("average null", lambda v: v["aggregates"]["values"].update(average=None), "aggregates.values.average: None"),
    ("aggregate gone", lambda v: v["aggregates"]["values"].pop("vtab"), "aggregates.values.vtab: missing"),
    ("aggregate new", lambda v: v["aggregates"]["values"].update(mean=1), "aggregates.values.mean: unknown"),
    ("version", lambda v: v["aggregates"].update(version=9), "aggregates.version: 9 is not known"),
    ("metric", lambda v: first_metrics(v).update(acc1=1.0), "tasks.imagenet1k.metrics.main_metric: "),
    ("both metrics", lambda v: first_metrics(v).update(acc1=1.0, main_metric=1.0), "aggregates.values.average: "),
    ("over 1", lambda v: first_metrics(v).update(acc5=1.5), "tasks.imagenet1k.metrics.acc5: 1.5 is not between"),
    ("below 0", lambda v: first_metrics(v).update(acc5=-0.1), "tasks.imagenet1k.metrics.acc5: -0.1 is not"),
    ("count", lambda v: first_metrics(v).update({"count_x": -1}), "metrics.count_x: -1.0 is a negative count"),
    ("no main", lambda v: first_metrics(v).pop("main_metric"), "tasks.imagenet1k.metrics.main_metric: missing"),
    ("no metric", lambda v: first_metrics(v).pop("acc1"), "tasks.imagenet1k.metrics.acc1: missing"),
    ("NaN", lambda v: first_metrics(v).update(acc5=float("nan")), "tasks.0.metrics.acc5: nan is not a JSON number"),
    ("inf", lambda v: v["recipe"].update(x=[float("inf")]), "recipe.x.0: inf is not a JSON number"),
    ("surrogate", lambda v: v["recipe"].update(x="\ud800"), "recipe.x: text that is not valid Unicode"),
    ("surrogate key", lambda v: v.update({"\ud800": 1}), "the file: text that is not valid Unicode"),
    ("digest", lambda v: v.update(recipe_digest="0" * 64), "recipe_digest: not the digest of recipe"),
    ("short digest", lambda v: v.update(checkpoint_sha256="abc"), "checkpoint_sha256: "),
    ("recipe", lambda v: v["recipe"].update(learning_rate=1.0), "recipe: grade is official, but recipe.learning_rate"),
    ("samples", lambda v: v.update(samples_seen=1), "samples_seen: grade is official, but 1 is not"),
    ("unknown task", lambda v: v["tasks"][0].update(key="imagenet2k"), "no task of the scale small; did you mean"),
    ("task twice", lambda v: v["tasks"].append(copy.deepcopy(v["tasks"][0])), "imagenet1k: the task is there twice"),
    ("task gone", lambda v: v["tasks"].pop(), "deviations: 'task fairness/utkface missing' is not listed"),
    ("limit", lambda v: v["tasks"][0].update(limit=10), "tasks.imagenet1k.grade: official, but limit is 10"),
    ("reasons", lambda v: v["tasks"][0].update(deviations=["x"]), "k.grade: official, but deviations are listed"),
    ("half a grade", lambda v: v["tasks"][0].update(official=False), "1k.official: false, but grade is official"),
    ("unofficial task", lambda v: v["tasks"][0].update(UNOFFICIAL), "'task imagenet1k: marked unofficial"),
    ("unofficial", lambda v: v.update(UNOFFICIAL), "grade: unofficial, but no deviation says why"),
    ("half of it", lambda v: v.update(official=False), "official: false, but grade is official"),
    ("deviations", lambda v: v.update(deviations=["x"]), "grade: official, but deviations are listed"),
    ("unknown grade", lambda v: v.update(grade="best"), "grade: Input should be 'official', 'unverified' or"),
    ("unverified task", lambda v: v["tasks"][0].update(UNVERIFIED), "grade: unverified, but pinned is true"),
    (
        "worst task",
        lambda v: v["tasks"][0].update(UNVERIFIED, pinned=None),
        "grade: official, but the tasks make it unver",
    ),
    ("too low", lambda v: v.update(UNVERIFIED), "grade: unverified, but the tasks make it official"),
    ("steps", lambda v: v.update(steps=3124), "steps: grade is official, but 3124 is not the recipe's 3125"),
    ("dataset", lambda v: v["tasks"][0].update(dataset="X"), "tasks.imagenet1k.dataset: 'X' is not 'ImageNet 1k'"),
    ("unpinned", lambda v: v["tasks"][0].update(pinned=False), "1k.pinned: false, but the lock file says otherwise"),
    ("null", lambda v: v["tasks"][0].update(pinned=None), "tasks.imagenet1k.grade: official, but pinned is null"),
    ("data", lambda v: v["tasks"][0].update(data_digest="0" * 64), "1k.pinned: true, but the lock file says otherwise"),
    ("stderr", lambda v: v["tasks"][0].update(stderr=1.5), "tasks.imagenet1k.stderr: 1.5 is no standard error of"),
    ("stderr of none", lambda v: v["tasks"][-1].update(stderr=0.1), "stderr: 0.1 is no standard error of None"),
    ("before", lambda v: v.update(finished="2024-12-31T23:00:00+00:00"), "finished: 2024-12-31T23:00:00+00:00 is"),
    ("zones", lambda v: v.update(finished="2025-01-01T01:00:00+02:00"), "is before started, 2025-01-01T00:00:00+00:00"),
    ("unfinished", lambda v: v.update(finished=None), "finished: null, but grade is official"),
    ("long text", lambda v: v.update(device="x" * 501), "device: must be one line of text, at most 500 characters"),
    ("control", lambda v: v["code"].update(version="\x1b[2J"), "code.version: must be one line of text"),
    ("packages", lambda v: v["packages"].update({"a\u202eb": "1"}), "packages.'a\\u202eb': must be one line of text"),
    (
        "reason",
        lambda v: v["tasks"][0].update(UNOFFICIAL, deviations=["a\nb"]),
        "'a\\nb': must be one line of text",
    ),
    ("metric name", lambda v: first_metrics(v).update({"x" * 501: 0.5}), "must be one line of text, at most 500"),
    ("large recipe", lambda v: v["recipe"].update(x="y" * 5000), "recipe: must be one line of text, at most 5000"),
    ("many tasks", lambda v: v["tasks"].extend([v["tasks"][0]] * 41), "tasks.40: 81 results, but the scale has 40"),
    ("size", lambda v: v.update(dataset_size=1), "dataset_size: 1 is not the subset's size, 3800000"),
    ("format", lambda v: v.update(format=1), "format: 1, but this version reads 2; run submit again"),
    ("scale", lambda v: v.update(scale="huge"), "scale: unknown scale 'huge'"),
    ("other scale", lambda v: v.update(scale="medium"), "recipe: grade is official, but recipe.samples"),
    ("track", lambda v: v.update(track="other"), "track: "),
    ("extra field", lambda v: v.update(extra=1), "extra: Extra inputs are not permitted"),
    ("missing field", lambda v: v.pop("seed"), "seed: Field required"),
    ("text for number", lambda v: v.update(seed="1"), "seed: Input should be a valid integer"),
    ("writeup", lambda v: v.update(writeup="data:text/html,x"), "writeup: must be a http:// or https:// address"),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in TAMPERED], ids=[case[0] for case in TAMPERED])
def test_tampered(submission: Path, change: Callable[[Any], Any], message: str, capsys: Any) -> None:
    edit(submission, change)
    capsys.readouterr()
    assert validate_files([submission]) == 1
    printed = capsys.readouterr().out
    assert message in printed
    assert all(line.startswith(f"{submission}: ") for line in printed.splitlines())
    accepted, reasons = collect([submission])
    assert not accepted
    assert message in "\n".join(reasons)


def test_an_edited_file_is_refused(submission: Path) -> None:
    edit(submission, lambda value: value.update(method="Mine"), sealed=False)
    assert refusals(submission) == "digest: not that of the content; the file was edited, run submit again"


def test_the_contact_may_be_taken_out(submission: Path) -> None:
    edit(submission, lambda value: value["private"].update(contact=None), sealed=False)
    assert refusals(submission) == ""


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ('"method":', '"method": "Mine", "method":', "method"),
        ('"main_metric":', '"main_metric": 1.0, "main_metric":', "main_metric"),
        ('"recipe":', '"\\ud800": 1, "\\ud800": 2, "recipe":', "\\ud800"),
    ],
)
def test_a_key_that_is_there_twice(submission: Path, old: str, new: str, key: str) -> None:
    text = submission.read_text(encoding="utf-8")
    submission.write_text(text.replace(old, new, 1), encoding="utf-8")
    assert refusals(submission) == f"{key}: the key is there twice"


def locking(path: Path, monkeypatch: pytest.MonkeyPatch, **digests: str) -> None:
    """A lock file that pins these tasks, and no others."""
    common = {"repo": "a/b", "revision": "c", "licence": None, "files": []}
    locked = {key: {**common, "data_digest": digest} for key, digest in digests.items()}
    write_json(path, {"version": 1, "tasks": locked})
    monkeypatch.setenv("POOLBENCH_LOCK", str(path))


def test_without_a_lock_file_a_submission_is_unverified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("POOLBENCH_LOCK")
    monkeypatch.setattr("tasks.lock.PATH", tmp_path / "lock.json")
    run = make_run(tmp_path / "run")
    edit_line(run, "mnist", official=True, grade=None)  # a line of an earlier version, to which no lock was official
    value = read_json(submit(options(run)))
    assert (value["official"], value["grade"], value["deviations"]) == (False, "unverified", [])
    assert {(task["official"], task["grade"], task["pinned"]) for task in value["tasks"]} == {
        (False, "unverified", None)
    }
    assert capsys.readouterr().out == (
        f"{run}/submission.json: unverified\n"
        "  the data of 40 tasks are not pinned: there is no lock file; python -m tasks lock pins them\n"
    )
    assert refusals(run / "submission.json") == ""
    edit(run / "submission.json", lambda value: value.update(samples_seen=1))
    assert refusals(run / "submission.json") == "samples_seen: grade is unverified, but 1 is not the recipe's 12800000"
    edit_line(run, "mnist", deviations=["limit=10"])
    assert read_json(submit(options(run)))["grade"] == "unofficial"


def test_a_claim_to_pinned_data_needs_the_lock_file(
    submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POOLBENCH_LOCK")
    monkeypatch.setattr("tasks.lock.PATH", tmp_path / "lock.json")
    lines = refusals(submission).splitlines()
    message = "pinned: true, but the lock file of this checkout does not name the task; run submit again"
    assert lines[0] == f"tasks.imagenet1k.{message}" and len(lines) == 21


def test_data_that_are_not_the_locked_ones(submission: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The validator's lock file pins STL-10 to something else than what the result was measured on."""
    right = {task["key"]: task["data_digest"] for task in read_json(submission)["tasks"]}
    assert refusals(submission) == ""
    locking(tmp_path / "lock.json", monkeypatch, **{**right, "stl10": "0" * 64})
    assert refusals(submission) == "tasks.stl10.pinned: true, but the lock file says otherwise"

    def say(**changes: Any) -> None:
        def change(value: Any) -> None:
            value["tasks"] = [task | (changes if task["key"] == "stl10" else {}) for task in value["tasks"]]

        edit(submission, change)

    say(pinned=None, **UNVERIFIED)
    assert refusals(submission) == "tasks.stl10.data_digest: not the one of the lock file, but grade is unverified"
    say(deviations=["other data"], **UNOFFICIAL)
    submission.write_text(json.dumps(forge(read_json(submission))), encoding="utf-8")
    assert refusals(submission) == ""
    assert read_json(submission)["grade"] == "unofficial"


def test_submit_grades_by_the_lock_file_of_the_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are there before somebody pins the tasks: those over the pinned data become official, others do not."""
    run = make_run(tmp_path / "run")
    right = {line["key"]: line["data_digest"] for line in read_lines(run / "eval_results.jsonl")}
    for key in right:
        edit_line(run, key, pinned=None, **UNVERIFIED)
    assert read_json(submit(options(run)))["grade"] == "official"
    locking(tmp_path / "lock.json", monkeypatch, **{**right, "mnist": "0" * 64})
    other = "the data are not those of the lock file; python -m tasks verify names the files"
    assert deviations_of(run) == [f"task mnist: {other}"]
    edit_line(run, "mnist", pinned=False, deviations=[other], **UNOFFICIAL)
    assert deviations_of(run) == [f"task mnist: {other}"]
    locking(tmp_path / "other.json", monkeypatch, **right)
    assert deviations_of(run) == []


def test_refusals_are_lines_and_not_too_many(submission: Path) -> None:
    keys = [f"\x1b[2J\n{number}" for number in range(60)]
    edit(submission, lambda value: value.update(dict.fromkeys(keys, 1)))
    lines = read_submission(submission).refusals
    assert lines[0] == "\\x1b[2J\\n0: Extra inputs are not permitted"
    assert (len(lines), lines[-1]) == (21, "and 40 more")


def test_a_file_too_large_for_a_submission(submission: Path) -> None:
    submission.write_text(" " * 2**22 + submission.read_text(encoding="utf-8"), encoding="utf-8")
    assert refusals(submission) == "larger than 4194304 bytes, which no submission is"


def test_fairness_tasks_have_no_main_metric(submission: Path) -> None:
    edit(submission, lambda value: value["tasks"][-1]["metrics"].update(main_metric=0.5))
    assert "metrics.main_metric: must be null, the task has none" in refusals(submission)


def test_files_that_are_no_submissions(tmp_path: Path) -> None:
    cases = {"missing.json": None, "text.json": "{", "list.json": "[]", "deep.json": "[" * 100_000, "empty.json": ""}
    for name, text in cases.items():
        if text is not None:
            (tmp_path / name).write_text(text, encoding="utf-8")
    assert refusals(tmp_path / "missing.json") == "does not exist"
    assert refusals(tmp_path / "text.json").startswith("is not JSON: ")
    assert refusals(tmp_path / "empty.json").startswith("is not JSON: ")
    assert refusals(tmp_path / "list.json").startswith("the file: ")
    assert refusals(tmp_path / "deep.json") == "cannot be read: nested too deeply"
    assert refusals(tmp_path) == "cannot be read: Is a directory"
    (tmp_path / "latin.json").write_bytes(b'{"method": "\xe9"}')
    assert refusals(tmp_path / "latin.json").startswith("is not JSON: ")


def test_validate_goes_on_after_a_refusal(tmp_path: Path, submission: Path) -> None:
    done = leaderboard("validate", tmp_path / "no.json", submission)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{tmp_path / 'no.json'}: does not exist", f"{submission}: ok"]
