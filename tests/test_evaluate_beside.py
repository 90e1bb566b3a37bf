"""One's own results beside published ones: against plain means, what is refused, and the command as a whole."""

import json
from pathlib import Path

import forked
import numpy as np
import pytest
from predictions import labelled
from public_models import SCORED, made_up, write_table
from runs import result
from test_evaluate_compare import every_metric, store

from poolbench.errors import UserError
from poolbench.files import append_line, digest_file

from evaluate.beside import beside, report
from evaluate.compare import COMMAND
from tasks.published import read
from tasks.results import FILE, ResultLine

EUROSAT, PETS = "vtab/eurosat", "vtab/pets"
MODELS = ["ViT-L-14/openai", "ViT-B-16/openai", "ViT-B-16/laion2b", "ViT-B-32/openai", "RN50/openai", "RN50/cc12m"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "scores.csv", made_up(MODELS))


def lines(values: dict[str, float]) -> dict[str, ResultLine]:
    return {key: ResultLine.model_validate(result("a", key, value)) for key, value in values.items()}


def run(*words: str | Path) -> int:
    return COMMAND.answer(list(map(str, words)))


def test_columns_are_those_of_the_table_and_means_are_over_the_same_tasks(table: Path) -> None:
    rows = made_up(MODELS)
    own = lines({EUROSAT: 0.3, PETS: 0.5, "fairness/utkface": 0.1, "demo/openmoji": 0.9})
    found = beside({"A": own}, read(str(table)), ["ViT-B-16/*", "RN50/cc12m"])
    assert (found.tasks, found.published) == ([EUROSAT, PETS], [MODELS[1], MODELS[2], MODELS[5]])
    for name in found.published:
        assert found.scores[name] == {key: rows[name][key] for key in (EUROSAT, PETS)}
        assert found.means[name] == pytest.approx(np.mean([rows[name][key] for key in (EUROSAT, PETS)]))
    assert found.means["A"] == pytest.approx(0.4) and found.mean_of == "mean of these 2 tasks"
    assert found.sha256 == digest_file(table)


def test_the_average_is_of_all_tasks_alone(table: Path) -> None:
    rows = made_up(MODELS)
    own = {task.key: 0.5 for task in SCORED}
    found = beside({"A": lines(own), "B": lines({**own, "mnist": 0.9})}, read(str(table)), [MODELS[0]])
    assert found.mean_of == "average" and len(found.tasks) == 38
    assert found.means[MODELS[0]] == pytest.approx(np.mean(list(rows[MODELS[0]].values())))
    assert found.means["B"] == pytest.approx(0.5 + 0.4 / 38)


def test_without_names_the_nearest_are_shown(table: Path) -> None:
    rows = made_up(MODELS)
    means = {name: np.mean([scores[EUROSAT], scores[PETS]]) for name, scores in rows.items()}
    own = means[MODELS[3]] + 1e-6
    found = beside({"A": lines({EUROSAT: own, PETS: own})}, read(str(table)))
    nearest = sorted(MODELS, key=lambda name: abs(means[name] - own))[:4]
    assert found.published == [name for name in MODELS if name in nearest] and MODELS[3] in found.published


def test_what_was_not_published_is_left_open(table: Path) -> None:
    text = table.read_text()
    value = f"{made_up(MODELS)[MODELS[0]]['wilds/iwildcam']:.4f}"
    table.write_text(text.replace(f",{value}\n", ",\n", 1))
    own = lines({"wilds/iwildcam": 0.1, PETS: 0.5})
    found = beside({"A": own}, read(str(table)), ["*"])
    assert found.scores[MODELS[0]]["wilds/iwildcam"] is None and found.means[MODELS[0]] is None
    assert MODELS[0] not in beside({"A": own}, read(str(table))).published
    row = next(line.split() for line in report(found).splitlines() if line.startswith("wilds/iwildcam"))
    assert row[:3] == ["wilds/iwildcam", "F1-macro_all", "0.1000"] and row[4] == "-"


def test_tasks_that_nobody_published_are_nothing_to_stand_beside(table: Path) -> None:
    with pytest.raises(UserError, match=r"^A: no result of the 38 tasks that published= has scores of$"):
        beside({"A": lines({"demo/openmoji": 0.5})}, read(str(table)))


# --- the command ---


def test_one_folder_beside_published_models(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key in (EUROSAT, PETS):
        store(tmp_path / "a", key, labelled(np.random.default_rng(0))[0], deviations=["limit=400"], limit=400)
    words = [f"published={table}", "models=[ViT-B-32/openai, RN50/*]", f"json={tmp_path / 'c.json'}"]
    assert run(tmp_path / "a", *words) == 0
    out = capsys.readouterr().out.splitlines()
    rows = made_up(MODELS)
    assert out[0] == f"A: {tmp_path / 'a'}" and out[2].startswith("beside published results: scores.csv, SHA-256 ")
    assert out[4].split("  ")[-1] == "RN50/cc12m *" and "ViT-B-32/openai *" in out[4]
    row = next(line.split() for line in out if line.startswith(PETS))
    assert row[-3:] == [f"{rows[name][PETS]:.4f}" for name in ("ViT-B-32/openai", "RN50/openai", "RN50/cc12m")]
    assert out[-1].startswith("* published: ") and out[-1].endswith("never official; A is unofficial")
    written = json.loads((tmp_path / "c.json").read_text())["published"]
    assert written["published"] == ["ViT-B-32/openai", "RN50/openai", "RN50/cc12m"] and written["own"] == ["A"]
    assert written["scores"]["RN50/cc12m"][EUROSAT] == rows["RN50/cc12m"][EUROSAT]


def test_two_folders_are_compared_first(table: Path, tmp_path: Path) -> None:
    a, b = every_metric(tmp_path)
    done = forked.run("-m", "evaluate.compare", a, b, f"published={table}", "models=*/openai")
    assert (done.returncode, done.stderr) == (0, "")
    tested, _, shown = done.stdout.partition("beside published results: ")
    assert "B is better on" in tested and "openai" not in tested
    assert "mean of these 8 tasks" in shown and "A is unverified, B is unverified" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a"], "two folders are compared: .*; or one with published=<table>"),
        (["published=scores.csv"], "two folders are compared"),
        (["a", "a", "a", "published=scores.csv"], "two folders are compared"),
        (["a", "a", "models=x"], "models= are those of a table of published results; name it by published="),
        (["a", "published=scores.csv", "models=RN5/openai"], "'RN5/openai' is no published model; near it are RN50/op"),
        (["a", "published=nowhere.csv"], "published=nowhere.csv cannot be read: No such file or directory"),
        (["nowhere", "published=scores.csv"], "nowhere is not a folder"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    append_line(Path("a", FILE), result("a", PETS, 0.5))
    with pytest.raises(UserError, match=message) as caught:
        run(*words)
    assert "\n" not in str(caught.value)
