"""Methods over their seeds: which entries are one, and what they gain over no filtering."""

import random
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from boards import entry
from hypothesis import given
from hypothesis import strategies as st
from runs import ROOT, make_run, options, result, without_lock_file
from scipy import stats

from poolbench.files import append_line, digest_bytes, read_json

from leaderboard.boards import compose
from leaderboard.build import BuildOptions, build, collect
from leaderboard.methods import gain, methods, sentence, spread
from leaderboard.models import SCHEMAS, Entry, Gain, Method, Score
from leaderboard.rank import constants
from leaderboard.submissions import find
from leaderboard.submit import submit
from tasks.registry import load_tasks

pytestmark = pytest.mark.usefixtures("pinned_data")

POOL = 12_800_000
SUBSET = digest_bytes(b"subset")
PRECISION = pytest.mark.filterwarnings("ignore:Precision loss:RuntimeWarning")  # scipy's, where nothing varies
VALUES = st.lists(st.floats(0, 1), min_size=2, max_size=8)


def seed_of(method: str, seed: int, average: float, **changes: Any) -> Entry:
    """An entry of a filter, by its average alone."""
    values = {
        "seed": seed,
        "subset_digest": SUBSET,
        "digest": digest_bytes(f"{method} {seed} {average}".encode()),
        "aggregates": {"average": Score(value=average, stderr=None)},
    }
    return entry(method, {}, **{**values, **changes})


def whole(method: str, seed: int, average: float, **changes: Any) -> Entry:
    """An entry that was trained on the whole pool."""
    return seed_of(method, seed, average, **{"subset_digest": None, "dataset_size": POOL, **changes})


def methods_of(*entries: Entry, pool_size: int | None = POOL) -> list[Method]:
    ranked = sorted(entries, key=lambda entry: -(entry.aggregates["average"].value or 0))
    return methods(ranked, ["average"], pool_size)


def assert_welch(one: Sequence[float], other: Sequence[float]) -> None:
    found = gain(one, other)
    expected = stats.ttest_ind(one, other, equal_var=False).confidence_interval(0.95)
    assert found.value == pytest.approx(statistics.fmean(one) - statistics.fmean(other), abs=1e-12)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@PRECISION
@given(VALUES, VALUES)
def test_gain_is_welchs(one: list[float], other: list[float]) -> None:
    assert_welch(one, other)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_gain_is_welchs_on_scores_as_seeds_make_them(size: int) -> None:
    draw = random.Random(size)
    for _ in range(50):
        assert_welch(
            [draw.gauss(0.35, draw.choice([1e-5, 0.01])) for _ in range(size)],
            [draw.gauss(0.27, 0.01) for _ in range(draw.randint(2, 6))],
        )


@PRECISION
@pytest.mark.parametrize("one, other", [([0.5, 0.5], [0.25, 0.5]), ([0.5] * 3, [0.25] * 2), ([0.25] * 2, [0.25] * 2)])
def test_gain_where_seeds_do_not_differ(one: list[float], other: list[float]) -> None:
    assert_welch(one, other)


@pytest.mark.parametrize("one, other", [([0.5], [0.25]), ([0.5, 0.5], [0.25]), ([0.5], [0.125, 0.375])])
def test_one_seed_has_a_gain_and_no_interval(one: list[float], other: list[float]) -> None:
    assert gain(one, other) == Gain(value=0.25, low=None, high=None)


def test_spread_is_the_standard_deviation_of_a_sample() -> None:
    values = [random.random() for _ in range(7)]
    assert dict(spread(values)) == pytest.approx({"mean": statistics.fmean(values), "sd": statistics.stdev(values)})
    assert dict(spread([0.5])) == {"mean": 0.5, "sd": None}
    assert dict(spread([])) == {"mean": None, "sd": None}


def test_entries_that_differ_in_the_seed_alone_are_one_method() -> None:
    best, last, middle = (seed_of("clip", seed, average) for seed, average in [(3, 0.5), (1, 0.25), (2, 0.375)])
    (one,) = methods_of(last, best, middle)
    assert one.entries == [best.digest, middle.digest, last.digest]
    assert one.seeds == [1, 2, 3]
    assert dict(one.aggregates["average"]) == {"mean": 0.375, "sd": 0.125}
    assert (one.method, one.author, one.dataset_size, one.gain) == ("clip", "A. Author", 3_800_000, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"author": "Another"},
        {"subset_digest": digest_bytes(b"other")},
        {"subset_digest": None},
        {"data_digest": digest_bytes(b"other")},
        {"recipe_digest": digest_bytes(b"other")},
        {"dataset_size": 3_800_001},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_keeps_methods_of_one_name_apart(changes: dict[str, Any]) -> None:
    found = methods_of(seed_of("clip", 1, 0.25), seed_of("clip", 2, 0.5, **changes))
    assert [(method.seeds, method.aggregates["average"].mean) for method in found] == [([2], 0.5), ([1], 0.25)]


def test_a_seed_counts_once_however_often_it_was_trained() -> None:
    twice = [seed_of("clip", 1, 0.5), seed_of("clip", 1, 0.25), seed_of("clip", 2, 0.5)]
    clip, none = methods_of(*twice, whole("none", 1, 0.125), whole("none", 2, 0.25))
    assert (clip.seeds, len(clip.entries)) == ([1, 2], 3)
    assert dict(clip.aggregates["average"]) == dict(spread([0.375, 0.5]))
    assert clip.gain == gain([0.375, 0.5], [0.125, 0.25])
    (one,) = methods_of(*twice[:2])
    assert (one.seeds, dict(one.aggregates["average"])) == ([1], {"mean": 0.375, "sd": None})
    assert none.baseline


def test_the_baseline_is_the_method_of_the_whole_pool_that_is_known_best() -> None:
    found = methods_of(
        whole("once", 1, 0.75),
        whole("worse", 1, 0.125),
        whole("worse", 2, 0.25),
        whole("better", 1, 0.25),
        whole("better", 2, 0.375),
        whole("a part", 1, 0.5, dataset_size=POOL - 1),
        *(whole("as many samples", seed, 0.75, subset_digest=SUBSET) for seed in range(3)),
    )
    assert [method.method for method in found if method.baseline] == ["better"]
    gains = {method.method: method.gain for method in found}
    assert gains["better"] is None
    assert gains["worse"] == gain([0.125, 0.25], [0.25, 0.375])
    assert gains["once"] == Gain(value=0.75 - 0.3125, low=None, high=None)
    assert found == sorted(found, key=lambda method: -(method.aggregates["average"].mean or 0))


@pytest.mark.parametrize("pool_size, size", [(None, None), (None, POOL), (POOL, None)])
def test_without_a_baseline_there_is_no_gain(pool_size: int | None, size: int | None) -> None:
    found = methods_of(whole("one", 1, 0.5, dataset_size=size), seed_of("other", 1, 0.25), pool_size=pool_size)
    assert [(method.baseline, method.gain) for method in found] == [(False, None)] * 2


def test_an_aggregate_that_an_entry_lacks_has_no_mean() -> None:
    known = Score(value=0.5, stderr=None)
    without = {"average": known, "vtab": Score(value=None, stderr=None)}
    entries = [
        seed_of("a", 1, 0.5, aggregates={"average": known, "vtab": known}),
        seed_of("a", 2, 0, aggregates=without),
    ]
    (method,) = methods(entries, ["vtab", "average"], POOL)
    assert {name: value.mean for name, value in method.aggregates.items()} == {"vtab": None, "average": 0.5}


SEEDS = {"no filter": (0.25, 0.28, 0.28), "clip_score": (0.346, 0.36, 0.353), "once": (0.5,)}


@pytest.fixture
def submissions(tmp_path: Path) -> Path:
    """Seeds of three methods at scale tiny, whose tasks all have the same score."""
    folder = tmp_path / "runs"
    for method, scores in SEEDS.items():
        for seed, score in enumerate(scores):
            changes = {"subset": None} if method == "no filter" else {}
            run = make_run(folder / f"{method} {seed}", "tiny", seed=seed, **changes)
            (run / "eval_results.jsonl").unlink()
            for task in load_tasks().values():
                if task.suite == "demo":
                    append_line(run / "eval_results.jsonl", result(run.name, task.key, score))
            size = constants().pools["tiny"] if method == "no filter" else None
            submit(options(run, method=method, dataset_size=size))
    return folder


def test_from_submissions_to_the_gain(tmp_path: Path, submissions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "site"
    assert build([str(submissions)], BuildOptions(out=str(site), references=False)) == 0
    low, high = stats.ttest_ind(SEEDS["clip_score"], SEEDS["no filter"], equal_var=False).confidence_interval(0.95)
    gained = f"+.083 ({low:.3f} to {high:.3f})".replace("0.", ".")
    assert capsys.readouterr().out.splitlines() == [
        f"7 of 7 submissions: {site}/leaderboard.json, {site}/index.html",
        f"filtering, tiny: clip_score .353 ± .007 (3 seeds), {gained} over no filter",
    ]
    value = read_json(site / "leaderboard.json")
    jsonschema.Draft202012Validator(read_json(SCHEMAS / "leaderboard.schema.json")).validate(value)
    (board,) = value["boards"]
    assert [(row["method"], len(row["seeds"]), row["baseline"]) for row in board["methods"]] == [
        ("once", 1, False),
        ("clip_score", 3, False),
        ("no filter", 3, True),
    ]
    digests = [digest for row in board["methods"] for digest in row["entries"]]
    assert sorted(digests) == sorted(entry["digest"] for entry in board["ranked"])


def test_one_seed_is_told_without_an_interval(
    tmp_path: Path, submissions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in submissions.glob("* [12]"):
        shutil.rmtree(run)
    assert build([str(submissions)], BuildOptions(out=str(tmp_path / "site"), references=False, page=False)) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told == "filtering, tiny: once .500 (1 seed), +.250 over no filter"


def test_unverified_entries_enter_no_method_and_no_gain(tmp_path: Path) -> None:
    with without_lock_file():
        submit(options(make_run(tmp_path / "a", subset=None), method="no filter", dataset_size=12_800_000))
    submit(options(make_run(tmp_path / "b"), method="mine"))
    (board,) = compose(collect(find(tmp_path))[0]).boards
    assert [entry.method for entry in board.unverified] == ["no filter"]
    assert [(method.method, method.gain) for method in board.methods] == [("mine", None)]
    assert sentence(board) is None


def test_boards_that_need_no_interval_are_built_without_scipy(tmp_path: Path) -> None:
    submit(options(make_run(tmp_path / "runs" / "one")))
    words = f"[{str(tmp_path / 'runs')!r}], BuildOptions(out={str(tmp_path / 'site')!r}, page=False)"
    script = (
        f"import sys; from leaderboard.build import BuildOptions, build; build({words}); print('scipy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
