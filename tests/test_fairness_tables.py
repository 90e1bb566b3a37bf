"""The tables of FairFace and UTKFace: which number stands where, and what is said where there is none."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evalsets import classification_samples, metadata_of, scored, with_metadata, write_checkpoint, write_faces

from poolbench.errors import UserError
from poolbench.files import append_line

from evaluate.fairness import COMMAND, tables
from tasks.registry import load_tasks
from tasks.results import FILE

FAIRFACE, UTKFACE = (load_tasks()[f"fairness/{name}"] for name in ("fairface", "utkface"))

# Made up; every number another one, so that none can stand in another's place unseen.
METRICS: dict[str, float | None] = {
    "acc_race_race_binary:0": 0.811,
    "acc_race_race_binary:1": 0.722,
    "acc_race_avg": 0.7449,
    "acc_gender_race_binary:0": 0.95,
    "acc_gender_race_binary:1": 1.0,
    "acc_gender_avg": 0.96,
    "acc_age_race_binary:0": 0.05,
    "acc_age_race_binary:1": 0.0004,
    "acc_age_avg": 0.04,
    "acc_gender_x_avg": 0.97,
    **{f"acc_gender_x_race:{race}_gender:0": 0.5 + race / 100 for race in range(4)},
    **{f"acc_gender_x_race:{race}_gender:1": 0.6 + race / 100 for race in range(4)},
    **{f"toxicity_crime_race:{race}": 0.1 + race / 100 for race in range(4)},
    **{f"toxicity_nonhuman_race:{race}": 0.2 + race / 100 for race in range(4)},
    "toxicity_crime_avg": 0.11,
    "toxicity_nonhuman_avg": 0.21,
    "acc_gender_x_race:2_gender:1": None,  # no pictures
    "toxicity_crime_race:1": math.nan,  # as the original harness writes it
    "main_metric": None,
}
TABLES = """\
UTKFace: accuracy in % for white and non-white faces
           race  gender  age
white      81.1    95.0  5.0
non-white  72.2   100.0  0.0
overall    74.5    96.0  4.0

UTKFace: accuracy of gender in % by gender and race
        black  white  indian  asian  other
male     50.0   51.0    52.0   53.0      -
female   60.0   61.0       -   63.0      -

UTKFace: rate of misclassification in % by race, lower is better
               black  white  indian  asian  other
crime-related   10.0      -    12.0   13.0      -
non-human       20.0   21.0    22.0   23.0      -"""


def call(*arguments: str) -> int:
    return COMMAND.answer(arguments)


def results(folder: Path, *lines: tuple[str, dict[str, Any]]) -> Path:
    for key, metrics in lines:
        with (folder / FILE).open("a") as file:  # with NaN, which our own writer refuses
            file.write(json.dumps({"key": key, "dataset": "name", "metrics": metrics}) + "\n")
    return folder


def test_every_number_has_its_place() -> None:
    assert tables(UTKFACE, METRICS) == TABLES


def test_both_tasks_are_printed_with_their_last_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = {**METRICS, "acc_race_avg": 0.0}
    results(
        tmp_path, (UTKFACE.key, old), ("imagenet1k", {"acc1": 0.5}), (FAIRFACE.key, METRICS), (UTKFACE.key, METRICS)
    )
    assert call(f"run={tmp_path}") == 0
    assert capsys.readouterr().out == f"{tables(FAIRFACE, METRICS)}\n\n{TABLES}\n"
    assert "southeast asian  east asian" in tables(FAIRFACE, METRICS)
    assert call(f"run={tmp_path}", f"task={UTKFACE.key}") == 0
    assert capsys.readouterr().out == f"{TABLES}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run={run}", "task=fairness/utkfac"], "task=fairness/utkfac has no fairness tables; did you mean"),
        (["run={run}", "task=fairness/geode"], "task=fairness/geode has no fairness tables"),
        (
            ["run={run}", "task=fairness/utkface"],
            "{run}/eval_results.jsonl has no results of fairness/utkface; evaluate",
        ),
        (["run={run}/nowhere"], "run={run}/nowhere is not a folder"),
        (["run={run}/eval_results.jsonl"], "run={run}/eval_results.jsonl is not a folder"),
        (["run={run}"], "the results of fairness/fairface lack the metric acc_age_avg; evaluate it again"),
        (["run={run}", "{run}"], "unknown word '{run}'"),
        ([], "run= is needed"),
    ],
)
def test_what_cannot_be_printed(arguments: Sequence[str], message: str, tmp_path: Path) -> None:
    metrics = {name: value for name, value in METRICS.items() if name != "acc_age_avg"}
    results(tmp_path, (FAIRFACE.key, metrics))
    with pytest.raises(UserError) as caught:
        call(*(argument.format(run=tmp_path) for argument in arguments))
    assert str(caught.value).startswith(message.format(run=tmp_path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("line", [3, {"metrics": 5}, {"key": "imagenet1k"}], ids=str)
def test_a_file_of_something_else(line: Any, tmp_path: Path) -> None:
    results(tmp_path, (FAIRFACE.key, METRICS))
    append_line(tmp_path / FILE, line)
    with pytest.raises(UserError, match=r"eval_results.jsonl, line 2, is not a line of results"):
        call(f"run={tmp_path}")


def test_an_evaluation_ends_with_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metadata = metadata_of(FAIRFACE, np.zeros(60, np.int64))
    write_faces(tmp_path, FAIRFACE, with_metadata(classification_samples(60, 2), metadata))
    outcome = scored(write_checkpoint(tmp_path / "model.pt"), tmp_path, tmp_path / "out", [FAIRFACE.key])
    printed = capsys.readouterr().out
    assert call(f"run={tmp_path / 'out'}") == 0
    expected = capsys.readouterr().out
    assert f"\n\n{expected}\n" in printed
    rows = {name: np.array(values) for name, values in outcome.predictions[FAIRFACE.key].items()}
    white = rows["race"] == 1
    right = {
        "race": (rows["race_prediction"] == 1) == white,
        **{name: rows[name] == rows[f"{name}_prediction"] for name in ("gender", "age")},
    }
    lines = [line.split() for line in expected.splitlines()]
    for place, inside in (("white", white), ("non-white", ~white), ("overall", white | True)):
        numbers = [f"{100 * hits[inside].mean():.1f}" for hits in right.values()]
        assert [place, *numbers] in lines
    toxic = rows["toxic_prediction"]
    for name, chosen in {"crime-related": toxic >= 18, "non-human": (toxic >= 14) & (toxic < 18)}.items():
        by_race = [chosen[rows["race"] == race] for race in range(7)]
        cells = [f"{100 * hits.mean():.1f}" if len(hits) else "-" for hits in by_race]
        assert [name, *cells] in lines and "-" in cells
