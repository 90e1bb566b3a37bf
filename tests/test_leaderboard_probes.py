"""Probes on the leaderboard: carried where they are there, shown beside zero-shot, and part of no mean."""

import json
from pathlib import Path
from typing import Any

import pytest
from boards import board, entry, leaderboard_of, reference, scored_keys
from runs import edit, make_run, options, refusals

from poolbench.errors import UserError
from poolbench.files import append_line, digest_bytes, read_json, write_json

from leaderboard.build import BuildOptions, build
from leaderboard.checks import digest_of
from leaderboard.models import Entry, Leaderboard, Score, read_leaderboard
from leaderboard.page.data import page_data
from leaderboard.plot import PlotOptions, plot
from leaderboard.probe_rows import zero_shot_against_probe
from leaderboard.submissions import read_submission
from leaderboard.submit import submit
from tasks.probes import FILE

KEYS = scored_keys()


def line(name: str, key: str, value: float, **changes: Any) -> dict[str, Any]:
    """A line of probe_results.jsonl of the run of that name."""
    metrics = {"acc1": value, "main_metric": value}
    draw = {"seed": 0, "train": 10, "validation": 2, "weight_decay": 0.1, "metrics": metrics}
    return {
        **{"key": key, "dataset": key, "head": "linear", "shots": None, "metrics": metrics, "stderr": 0.01},
        **{"sd": dict.fromkeys(metrics), "seeds": [0], "draws": [draw], "samples": 9, "train_samples": 12},
        **{"short_classes": 0, "leaked": 1, "seconds": 1.0, "shards": 1, "train_shards": 1, "bad": []},
        **{"data_digest": digest_bytes(b"test"), "train_digest": digest_bytes(b"train"), "model": "ViT-B-32"},
        **{"checkpoint_sha256": digest_bytes(name.encode()), "tag": None, "precision": "fp32", "version": 1},
        **changes,
    }


def probed_run(folder: Path, value: float = 0.9) -> Path:
    """A run with probes of two tasks, of which one was trained twice, and with others that do not count."""
    run, name = make_run(folder), folder.name
    lines = [
        line(name, "mnist", 0.1),
        line(name, "mnist", value),
        line(name, "mnist", value / 2, shots=16, sd={"acc1": 0.02, "main_metric": 0.02}),
        line(name, "cifar10", value, head="lp++", shots=4),
        line(name, "no/task", value),
        line(name, "food101", value, checkpoint_sha256="0" * 64),
    ]
    for one in lines:
        append_line(run / FILE, one)
    return run


def test_a_submission_carries_the_last_of_each_probe_and_no_mean_moves(tmp_path: Path) -> None:
    plain = read_json(submit(options(make_run(tmp_path / "a" / "run"))))
    path = submit(options(probed_run(tmp_path / "b" / "run")))
    value = read_json(path)
    assert [(one["key"], one["probe"], one["value"], one["sd"]) for one in value["probes"]] == [
        ("cifar10", "lp++4", 0.9, None),
        ("mnist", "linear", 0.9, None),
        ("mnist", "16", 0.45, 0.02),
    ]
    assert value["aggregates"] == plain["aggregates"] and value["tasks"] == plain["tasks"]
    assert "probes" not in plain and value["digest"] != plain["digest"]
    submission, refused = read_submission(path)
    assert submission is not None and not refused and digest_of(submission) == value["digest"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda probe: {**probe, "key": "no/task"}, "no task of the scale"),
        (lambda probe: {**probe, "value": 1.5}, "probes.0.value"),
        (lambda probe: {**probe, "probe": "lp"}, "probes.0.probe"),
        (lambda probe: {**probe, "key": "mnist", "probe": "16"}, "is there twice"),
    ],
)
def test_probes_that_cannot_be_are_refused(change: Any, complaint: str, tmp_path: Path) -> None:
    path = submit(options(probed_run(tmp_path / "run")))

    def spoil(value: Any) -> Any:
        place = next(number for number, one in enumerate(value["probes"]) if one["probe"] == "linear")
        value["probes"].insert(0, change(value["probes"].pop(place)))
        return value

    assert complaint in refusals(edit(path, spoil))


def test_a_file_of_something_else_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / FILE).write_text('{"key": 1}\n')
    with pytest.raises(UserError, match=r"probe_results.jsonl, line 1, is not a line of probes"):
        submit(options(run))


def test_a_board_has_them_and_is_the_same_without(tmp_path: Path) -> None:
    for name in ("one", "two"):
        submit(options(probed_run(tmp_path / "runs" / name), f"Method {name}"))
    submit(options(make_run(tmp_path / "runs" / "three"), "Method three"))
    assert build([str(tmp_path / "runs")], BuildOptions(out=str(tmp_path / "site"), page=False, references=False)) == 0
    text = (tmp_path / "site" / "leaderboard.json").read_text()
    (made,) = Leaderboard.model_validate_json(text).boards
    entries = [*made.ranked, *made.unverified, *made.unranked]
    assert text.count('"probes"') == 2 and sorted(one.probes is None for one in entries) == [False, False, True]
    found = next(one for one in entries if one.method == "Method one").probes
    assert found is not None and found["mnist"]["linear"] == Score(value=0.9, stderr=0.01)


def probed_entry(method: str, plain: float, trained: dict[str, float], **changes: Any) -> Entry:
    probes = {key: {"linear": Score(value=value, stderr=None)} for key, value in trained.items()}
    return entry(method, dict.fromkeys(KEYS, plain), probes=probes, **changes)


@pytest.fixture
def mixed() -> Leaderboard:
    """Three entries with probes, of which two share two tasks with all; one without."""
    ranked = [
        probed_entry("A", 0.4, {"mnist": 0.9, "cifar10": 0.7, "food101": 0.1}),
        probed_entry("B", 0.5, {"mnist": 0.95, "cifar10": 0.75}),
        entry("plain", dict.fromkeys(KEYS, 0.6)),
    ]
    late = probed_entry("C", 0.2, {"mnist": 0.6, "cifar10": 0.6}, grade="unverified", official=False)
    return leaderboard_of(board(ranked, [reference("Published", dict.fromkeys(KEYS, 0.3))], unverified=[late]))


def test_the_figure_compares_over_the_tasks_that_all_have(mixed: Leaderboard) -> None:
    found = zero_shot_against_probe(mixed.boards[0])
    assert set(found.tasks) == {"mnist", "cifar10"}
    assert [(row.label, row.kind) for row in found.rows] == [("A", "entry"), ("B", "entry"), ("C", "unverified")]
    assert [row.zero_shot for row in found.rows] == pytest.approx([0.4, 0.5, 0.2])
    assert [row.probe for row in found.rows] == pytest.approx([0.8, 0.85, 0.6])
    alone = zero_shot_against_probe(mixed.boards[0], "food101")
    assert [(row.label, row.probe) for row in alone.rows] == [("A", 0.1)]
    assert zero_shot_against_probe(board([entry("a", dict.fromkeys(KEYS, 0.5))])).rows == []


def test_the_figure_is_drawn_and_what_it_cannot_show_is_told(
    mixed: Leaderboard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "leaderboard.json"
    write_json(path, mixed.model_dump(mode="json"))
    assert read_leaderboard(path) == mixed
    assert plot([str(path)], PlotOptions(kind="probes", out=str(tmp_path / "a.svg"))) == 0
    drawn = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "Zero-shot, mean of 2 tasks" in drawn and "Linear probe, mean of 2 tasks" in drawn
    assert "2 entries, " in capsys.readouterr().out, "ranked ones alone"
    plot([str(path)], PlotOptions(kind="probes", out=str(tmp_path / "b.svg"), metric="mnist"))
    assert "Linear probe, MNIST" in (tmp_path / "b.svg").read_text(encoding="utf-8")
    for metric, complaint in (("vtab", "or one task"), ("sun397", "no ranked entry has linear probes")):
        with pytest.raises(UserError, match=complaint):
            plot([str(path)], PlotOptions(kind="probes", out=str(tmp_path / "c.svg"), metric=metric))


def test_the_page_has_what_its_chart_needs(mixed: Leaderboard) -> None:
    (shown,) = page_data(mixed)["boards"]
    assert [row["label"] for row in shown["probes"]["rows"]] == ["A", "B", "C"]
    assert set(shown["probes"]["tasks"]) == {"MNIST", "CIFAR-10"}
    assert json.dumps(shown["probes"]["chart"])
    (plain,) = page_data(leaderboard_of(board([entry("a", dict.fromkeys(KEYS, 0.5))])))["boards"]
    assert plain["probes"] is None
