"""`make methods`: what is counted of a selection, what is trained next, and the whole of it with few samples."""

import json
import re
import string
import subprocess
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
from boards import entry, scored_keys
from test_demo import ROOT, demo  # noqa: F401 (a fixture)

from poolbench.errors import UserError
from poolbench.uids import DTYPE, Uids, mapped, write_subset

from curate.config import parsed
from curate.presets import presets
from curate.selectors.registry import build
from demodata.pool import Demo
from demodata.text_pool import KINDS
from leaderboard.methods import methods as over_seeds
from leaderboard.models import Method as Scored

sys.path.insert(0, str(ROOT / "bench"))
import demo_inputs
import demo_kinds
import demo_methods
import demo_page

FIRST, TEXT = (
    demo_methods.load_table(ROOT / "bench" / name) for name in ("demo_methods.yaml", "demo_text_methods.yaml")
)


def uids(numbers: list[int]) -> Uids:
    return np.array([(number // 7, number % 7) for number in numbers], DTYPE)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_counted_of_a_selection(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = rng.permutation(500)[: rng.integers(2, 400)].tolist()
    right = [one for one in every if rng.random() < 0.5] + [1000, 1001]  # the last two are of no row of the pool
    kept = sorted(rng.choice(every, rng.integers(1, 2 * len(every))).tolist())  # with repeats
    found = demo_page.figures(uids(every), uids(sorted(right)), uids(kept))
    wrong, dropped = set(every) - set(right), set(every) - set(kept)
    assert (found.samples, found.rows) == (len(kept), len(set(kept)))
    assert found.precision == (len(dropped & wrong) / len(dropped) if dropped else None)
    assert found.recall == pytest.approx(len(dropped & wrong) / len(wrong))
    assert found.right == pytest.approx(sum(one in right for one in kept) / len(kept))


def test_dropping_nothing_has_no_precision() -> None:
    found = demo_page.figures(uids([1, 2, 3, 4]), uids([1, 2]), uids([1, 2, 3, 4]))
    assert found == demo_page.Figures(4, 4, None, 0.0, 0.5)


def test_first_seeds_come_first() -> None:
    first = [("a", 4), ("b", 4), ("c", 4)]
    assert demo_methods.in_order(["a", "b", "c"], [4]) == first
    rest = [("a", 1), ("a", 9), ("b", 1), ("b", 9), ("c", 1), ("c", 9)]
    assert demo_methods.in_order(["a", "b", "c"], [4, 1, 9]) == first + rest


def test_every_published_selection_is_in_the_table_or_left_out_for_a_reason() -> None:
    selected = {
        word.partition("=")[2] for one in FIRST.methods for word in one.select or () if word.startswith("filter=")
    }
    published = {name.removesuffix("_b32") for name in presets()}
    assert not published - selected - FIRST.skipped.keys() - {demo_methods.WHOLE}
    assert all(FIRST.skipped.values()) and not selected & FIRST.skipped.keys()
    assert {name for name, why in FIRST.skipped.items() if "demo_text_methods.yaml" in why} <= {
        one.name for one in TEXT.methods
    }


@pytest.mark.parametrize("one", [*FIRST.methods, *TEXT.methods], ids=lambda one: one.name)
def test_the_words_of_the_table_are_understood(one: demo_methods.Method, tmp_path: Path) -> None:
    assert one.method and one.why
    if one.select is None:
        assert one.name == demo_methods.WHOLE
        return
    write_subset(tmp_path / "right.npy", ["0" * 32])
    given = {"targets": "targets.npy", "entries": "entries.json", "right": str(tmp_path / "right.npy"), "half": "50"}
    words = [demo_inputs._VOTE.sub(r"\1: [0.1, 0.2]", string.Template(word).substitute(given)) for word in one.select]
    build(parsed([*words, "out=subset.npy"])[1])


@pytest.mark.parametrize("table", [FIRST, TEXT], ids=lambda table: table.make)
def test_names_tell_methods_apart(table: demo_methods.Table) -> None:
    methods = table.methods
    assert methods[0].name == demo_methods.WHOLE
    assert re.search(rf"^{table.make}: \.venv/dev$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len({one.name for one in methods}) == len({one.method for one in methods}) == len(methods)


def trained(values: dict[str, list[float]]) -> dict[str, Scored]:
    """What a board makes of these averages: a list of seeds' for each method."""
    entries = [
        entry(
            method, dict.fromkeys(scored_keys("tiny"), value), "tiny", seed=seed,
            dataset_size=100 if method == "all" else 50, subset_digest=None if method == "all" else "0" * 64,
        )
        for method, averages in values.items()
        for seed, value in enumerate(averages)
    ]  # fmt: skip
    return {one.method: one for one in over_seeds(entries, ["average"], 100)}


def test_the_page_has_the_leaderboards_figures(tmp_path: Path) -> None:
    scores = {"all": [0.1, 0.12, 0.14], "half": [0.3, 0.3, 0.33], "once": [0.05]}
    scored = trained(scores)
    some = demo_page.Figures(50, 49, 0.75, 0.5, 0.8)
    rows = [demo_page.Row(name, some, 3.4, scored.get(name)) for name in ("none", *scores)]
    missing = demo_page.Missing(9, [("none", 0), ("once", 1), ("none", 2)])
    lines = demo_page.page("a pool", rows, {"x": "no reason"}, ["all: a reason"], missing).splitlines()
    assert lines[0] == "# What each selection does on a pool" and "- `x`: no reason." in lines
    assert any(line.endswith("Trainings: 6 of 9; missing, with seeds: `none` 0 2, `once` 1.") for line in lines)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    assert [row[0] for row in cells] == ["method", "half", "all", "once", "none"]
    table = {row[0]: dict(zip(cells[0], row, strict=True)) for row in cells}
    assert [table["half"][name] for name in cells[0][1:7]] == ["50", "49", "80.0%", "75.0%", "50.0%", "3"]
    assert table["all"] == {**table["all"], "seeds": "3", "average": ".120 ± .020", "gain": "–"}
    gain = scored["half"].gain
    assert gain is not None and gain.low is not None
    assert table["half"]["average"] == ".310 ± .017"
    assert [float(text) for text in re.findall(r"-?\.\d+", table["half"]["gain"])] == pytest.approx(
        [gain.value, gain.low, gain.high], abs=5e-4
    )
    assert (table["once"]["average"], table["once"]["gain"]) == (".050", "-.070")
    assert (table["none"]["seeds"], table["none"]["average"], table["none"]["gain"]) == ("0", "–", "–")


def test_the_short_table_stands_between_its_marks(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    rows = [demo_page.Row("half", demo_page.Figures(50, 50, 0.75, 0.5, 0.8), None, None)]
    begin, end = demo_page.marks("methods")
    text = f"{{}}\n{begin}\nold\n{end}\nafter\n"
    others = "\n".join(demo_page.marks("methods-text"))
    path.write_text(text.format(others))
    demo_page.put_between(path, rows, "a pool", "methods")
    first = path.read_text()
    assert first.startswith(f"{others}\n{begin}\n| on a pool | ") and first.endswith(f"\n{end}\nafter\n")
    assert "old" not in first and "| half | 80.0% | 0 | – | – |" in first
    demo_page.put_between(path, rows, "a pool", "methods")
    assert path.read_text() == first
    path.write_text("nothing\n")
    with pytest.raises(UserError, match=r"page\.md has no lines"):
        demo_page.put_between(path, rows, "a pool", "methods")


def test_kinds_are_told_between_recall_and_seconds() -> None:
    kinds = {"plain": 0.25, "swapped": 1.0}
    rows = [demo_page.Row("half", demo_page.Figures(50, 50, 0.75, 0.5, 0.8), None, None, kinds)]
    (head, line) = (
        line for line in demo_page.page("it", rows, {}, [], demo_page.Missing(0, [])).splitlines() if line[:2] == "| "
    )
    assert head.split(" | ")[5:8] == ["recall", "plain dropped", "swapped dropped"]
    assert line.split(" | ")[5:8] == ["50.0%", "25.0%", "100.0%"]
    assert demo_page.short(rows, "it")[-1] == "| half | 80.0% | 25.0% | 100.0% | 0 | – | – |"


@pytest.mark.parametrize("seed", range(3))
def test_what_is_dropped_of_each_kind(seed: int) -> None:
    rng = np.random.default_rng(seed)
    every = rng.permutation(300)[:200].tolist()
    kinds = {kind: sorted(rng.choice(300, 80, replace=False).tolist()) for kind in "abc"}  # some are not in the pool
    kept = sorted(rng.choice(every, 150).tolist())  # with repeats
    found = demo_kinds.dropped({kind: uids(some) for kind, some in kinds.items()}, uids(sorted(every)), uids(kept))
    for kind, some in kinds.items():
        there = set(some) & set(every)
        assert found[kind] == pytest.approx(len(there - set(kept)) / len(there))


def test_how_often_scores_are_above_others() -> None:
    rng = np.random.default_rng(0)
    some, others = rng.integers(0, 9, 40), rng.integers(0, 7, 30)
    wins = [(a > b) + (a == b) / 2 for a in some for b in others]
    assert demo_kinds.above(some, others) == pytest.approx(np.mean(wins))


def test_how_often_a_picture_prefers_its_own_caption() -> None:
    rng = np.random.default_rng(0)
    images, texts = (rng.integers(-2, 3, (30, 2)).astype(np.float16) for _ in range(2))  # so few values are often alike
    wins = []
    for row in range(30):
        own, other = (sum(map(float, images[row] * texts[one % 30])) for one in (row, row + 1))
        wins.append((own > other) + (own == other) / 2)
    assert demo_kinds.preferred(images, texts) == pytest.approx(np.mean(wins))
    turned = np.eye(8, dtype=np.float16)
    assert demo_kinds.preferred(turned, turned) == 1


def test_pairs_are_right_ones_and_the_same_again(tmp_path: Path) -> None:
    write_subset(tmp_path / "right.npy", [f"{number:032x}" for number in range(2000)])
    path = demo_inputs.pairs(tmp_path, tmp_path / "right.npy")
    first, chosen = path.read_bytes(), mapped(path)
    assert len(np.unique(chosen)) == len(chosen) == demo_inputs.PAIRS and (chosen == np.sort(chosen)).all()
    assert np.isin(chosen, mapped(tmp_path / "right.npy")).all()
    assert demo_inputs.pairs(tmp_path, tmp_path / "right.npy").read_bytes() == first


def benchmark(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    recipe = "precision=fp32 recipe.samples=256 recipe.warmup=1 recipe.shuffle_buffer=100 recipe.streams=2"
    places = ["--pool", "small", "--table", "table.yaml", "--page", "page.md", "--train", recipe]
    return forked.run(ROOT / "bench/demo_methods.py", *places, "--seeds", "3", *words, cwd=folder)


@pytest.mark.slow
def test_all_of_it_with_few_samples(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("POOLBENCH_CACHE", str(demo.pool.parent.parent))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "small" / "pool").mkdir(parents=True)
    for tar in sorted(demo.pool.glob("*.tar"))[:2]:
        (tmp_path / "small" / "pool" / tar.name).symlink_to(tar)
    (tmp_path / "small" / "right.npy").symlink_to(demo.right)
    (tmp_path / "small" / "kinds").mkdir()
    rights = np.load(demo.right)
    for number, kind in enumerate(KINDS):
        np.save(tmp_path / "small" / "kinds" / f"{kind}.npy", rights[number::4])
    votes = (
        "filter.votes={clip_b32_similarity_score: [40%, 60%], original_width: [10%, 90%], neg_clip_loss: [40%, 50%]}"
    )
    by_loss = ["filter=neg_clip_loss", "filter.arch=b32", "filter.batch=100", "filter.fraction=0.5"]
    by_vote = ["filter=label_model", votes, "filter.fraction=0.25"]
    table = {
        "methods": {
            "no_filter": {"method": "no filter", "select": None, "why": "all"},
            "loss": {"method": "by loss", "select": by_loss, "why": "half"},
            "votes": {"method": "by votes", "select": by_vote, "why": "a quarter"},
        },
        "pool": "a small pool",
        "make": "nothing",
        "before": [["curate.score", "checkpoint=$first", "shards=$pool", "out=$scored", "arch=b32", "flip=true"]],
        "scores": ["clip_b32_similarity_score", "clip_b32_flipped_similarity_score"],
    }
    (tmp_path / "table.yaml").write_text(json.dumps(table))
    done = benchmark(tmp_path, "--trainings", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line for line in done.stderr.splitlines() if "-m train " in line and "by votes" in line] == []
    page = (tmp_path / "page.md").read_text()
    assert "Trainings: 2 of 3; missing, with seeds: `votes` 3." in page
    right = set(np.load(demo.right).tolist())
    pool = {tuple(pair) for pair in uids_of(tmp_path / "demo" / "scored")}
    kept = {tuple(pair) for pair in np.load(tmp_path / "demo" / "loss.npy").tolist()}
    wrong, dropped = pool - right, pool - kept
    told = [f"{len(dropped & wrong) / len(dropped):.1%}", f"{len(dropped & wrong) / len(wrong):.1%}"]
    row = next(line for line in page.splitlines() if line.startswith("| by loss |"))
    assert [cell.strip() for cell in row.split("|")][5:7] == told
    some = {tuple(pair) for pair in rights[1::4].tolist()} & pool
    assert [cell.strip() for cell in row.split("|")][8] == f"{len(some - kept) / len(some):.1%}"
    for name, numbers in {"clip_b32_flipped_similarity_score": 6, "b32": 4}.items():
        found = re.findall(rf"^\| `{name}` \|( -?\d\.\d{{3}} \|){{{numbers}}}$", page, re.MULTILINE)
        assert len(found) == 1, name
    assert len(re.findall(r"^- \d+ s: `python -m curate.score .* flip=true`$", page, re.MULTILINE)) == 1
    done = benchmark(tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    again = [line for line in done.stderr.splitlines() if line.startswith("+ ")]
    assert [line for line in again if "-m curate filter" in line] == []
    assert ["name=votes-3" in line for line in again if "-m train " in line] == [True]
    assert "Trainings: 3 of 3.\n" in (tmp_path / "page.md").read_text()
    table["methods"]["loss"]["select"] = [*by_loss[:-1], "filter.fraction=0.3"]
    (tmp_path / "table.yaml").write_text(json.dumps(table))
    done = benchmark(tmp_path)
    assert done.returncode == 1 and "loss-3 was trained on another subset than demo/loss.npy" in done.stderr


def uids_of(scored: Path) -> list[tuple[int, int]]:
    texts = demo_inputs.column(scored, "uid")
    return [(int(text[:16], 16), int(text[16:], 16)) for text in texts]
