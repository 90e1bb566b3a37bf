"""Public models on the leaderboard's page: their averages, their marks, and that no board knows them."""

import re
from pathlib import Path

import numpy as np
import pytest
from boards import board, entry, leaderboard_of, scored_keys
from public_models import SCORED, made_up, write_table
from runs import make_run, options

from poolbench.errors import UserError

from leaderboard.build import BuildOptions, build
from leaderboard.command import VERBS
from leaderboard.page import page
from leaderboard.public_models import public_models
from leaderboard.submit import submit
from tasks.registry import load_tasks

MODELS = ["ViT-B-32/openai", "ViT-B-16/openai", "ViT-B-16/laion2b", "RN50/<b>cc12m</b>"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write_table(tmp_path / "scores.csv", made_up(MODELS))


def rows_of(section: str) -> list[list[list[str]]]:
    """The cells of each table of a section, as text, headings first."""
    found = []
    for one in re.findall(r"<table[^>]*>(.*?)</table>", section, re.DOTALL):
        rows = re.findall(r"<tr>(.*?)</tr>", one, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        found.append([[re.sub(r"</?bdi[^>]*>", "", cell) for cell in row] for row in cells])
    return found


def section_of(text: str) -> str:
    found = re.search(r'<section id="public-models".*?</section>', text, re.DOTALL)
    assert found is not None
    return found[0]


def test_best_first_with_aggregates_of_the_same_tasks(table: Path) -> None:
    rows = made_up(MODELS)
    found = public_models(str(table))
    averages = {name: float(np.mean(list(scores.values()))) for name, scores in rows.items()}
    assert [one.name for one in found.models] == sorted(MODELS, key=lambda name: -averages[name])
    for one in found.models:
        assert one.scores == rows[one.name] and one.aggregates["average"] == pytest.approx(averages[one.name])
        vtab = [rows[one.name][task.key] for task in SCORED if "vtab" in task.groups]
        assert one.aggregates["vtab"] == pytest.approx(np.mean(vtab))
    assert {one.name for one in public_models(str(table), ["ViT-B-16/*"]).models} == set(MODELS[1:3])


def test_the_page_has_a_section_that_says_what_they_are(table: Path) -> None:
    scores = dict.fromkeys(scored_keys(), 0.5)
    boards = leaderboard_of(board([entry("Mine", scores)]))
    public = public_models(str(table))
    text = page(boards, public)
    section = section_of(text)
    assert "Published models, not ranked" in section and "scores.csv, SHA-256" in section
    assert "none has a rank or is official" in " ".join(section.split())
    aggregates, tasks = rows_of(section)
    assert aggregates[0] == ["Model", "Average", "ImageNet", "ImageNet shifts", "VTAB", "Retrieval"]
    assert tasks[0] == ["Model", *(task.name for task in load_tasks().values() if task in SCORED)]
    for one, short, long in zip(public.models, aggregates[1:], tasks[1:], strict=True):
        assert short[0] == long[0] == one.name.replace("<", "&lt;").replace(">", "&gt;")
        assert short[1] == f"{one.aggregates['average']:.3f}"
        assert long[1:] == [f"{one.scores[task.key]:.3f}" for task in load_tasks().values() if task in SCORED]
    without = page(boards)
    assert text.replace(section, "") == without and 'id="public-models"' not in without


def test_a_score_that_was_not_published_is_a_dash(table: Path) -> None:
    value = f"{made_up(MODELS)[MODELS[0]]['wilds/iwildcam']:.4f}"
    table.write_text(table.read_text().replace(f",{value}\n", ",\n", 1))
    public = public_models(str(table))
    assert public.models[-1].name == MODELS[0] and public.models[-1].aggregates["average"] is None
    assert rows_of(section_of(page(leaderboard_of(), public)))[0][-1][:2] == [MODELS[0], "–"]


def test_a_build_shows_them_and_no_board_knows_them(table: Path, tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "runs" / "a", "tiny")))
    runs = str(tmp_path / "runs")
    assert build([runs], BuildOptions(out=str(tmp_path / "one"))) == 0
    shown = BuildOptions(out=str(tmp_path / "two"), published=str(table), models="ViT-B-16/*, ViT-B-32/openai")
    assert build([runs], shown) == 0
    one, two = ((tmp_path / name / "leaderboard.json").read_bytes() for name in ("one", "two"))
    assert one == two and b"openai" not in one
    text = (tmp_path / "two" / "index.html").read_text()
    assert len(rows_of(section_of(text))[0]) == 1 + 3
    assert build([runs], shown) == 0 and (tmp_path / "two" / "index.html").read_text() == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["models=x"], "models= are those of a table of published results; name it by published="),
        (["published=scores.csv", "page=false"], "published= is for the page, which page=false does not write"),
        (["published=scores.csv", "models=[ViT-B-32/opnai]"], "'ViT-B-32/opnai' is no published model; near it are"),
        (["published=nowhere.csv"], "published=nowhere.csv cannot be read: No such file"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(
    words: list[str], message: str, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    with pytest.raises(UserError, match=re.escape(message)):
        VERBS.answer(["build", "runs", "out=site", *words])
    assert not (tmp_path / "site").exists()
