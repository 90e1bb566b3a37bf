"""The group `fast`: what it is, how it was chosen, and what an evaluation of it says."""

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path

import forked
import numpy as np
import pytest
import scipy.stats
import yaml
from predictions import labelled
from public_models import SCORED, made_up, write_table
from runs import result
from test_evaluate_compare import store

from poolbench.errors import UserError

from evaluate.merge import MergeOptions, merge
from evaluate.summary import summary
from tasks.aggregates import members
from tasks.fast import Fast, fast, foretold
from tasks.listing import table
from tasks.published import KNOWN, read
from tasks.registry import load_tasks, select
from tasks.results import ResultLine

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench"))

from fast_tasks import choice, family, grown, models_of, parted, recipe  # noqa: E402
from fast_tasks_judged import Judged, judged, mean  # noqa: E402

# Families of unlike sizes, and pairs of one recipe.
NAMES = [
    *(f"ViT-B-32/commonpool_{word}_s128m_b4k" for word in ("m", "clip", "text")),
    *(f"ViT-B-16/datacomp_{n}_s1b_b8k" for n in "lx"),
    *(f"RN{n}/openai" for n in (50, 101, 64)),
    *(f"ViT-L-{n}/laion2b_s32b_b82k" for n in range(7)),
    *(f"ViT-H-{n}/webli" for n in range(5)),
    "xlm/frozen_laion5b_s13b",
    "coca/mscoco_finetuned_laion2b_s13b",
]


# --- what it is ---


def test_the_group_is_of_tasks_that_are_averaged_and_can_be_named() -> None:
    keys = [task.key for task in load_tasks().values() if task.key in fast().tasks]
    assert keys == fast().tasks and set(keys) < set(members()["average"])
    assert [task.key for task in select(["fast"])] == keys
    assert [task.key for task in select(["fast", "imagenet"])] == ["imagenet1k", *keys]
    with pytest.raises(UserError, match="did you mean 'fast'"):
        select(["fsat"])
    rows = table(select(["all"])).splitlines()[1:]
    assert [row.split()[0] for row in rows if ",fast " in row] == keys


def test_it_is_no_aggregate_of_submissions() -> None:
    assert "fast" not in members() and not any("fast" in task.groups for task in load_tasks().values())


def test_the_files_say_what_the_measurement_said() -> None:
    page = (ROOT / "bench/results/fast_tasks.md").read_text(encoding="utf-8")
    group = fast()
    assert KNOWN["openclip"].asset.digest == f"sha256:{group.published}" and group.published in page
    assert f"**{', '.join(f'`{key}`' for key in group.tasks)}**: {len(group.tasks)} tasks, " in page
    assert f"Spearman {group.spearman:.3f}, Kendall {group.kendall:.3f};" in page
    assert f"off by {group.error:.4f}" in page and f"the scores of {group.models} models" in page
    assert f"average ≈ {group.intercept:.4f} + {group.slope:.4f} × mean" in page


# --- how it is chosen ---


def test_names_tell_families_and_recipes() -> None:
    expected = {
        "ViT-L-14/commonpool_xl_clip_s13b_b90k": ("commonpool", ("ViT-L-14", "13b")),
        "ViT-L-14/datacomp_xl_s13b_b90k": ("commonpool", ("ViT-L-14", "13b")),
        "ViT-bigG-14-CLIPA/datacomp1b": ("commonpool", None),
        "coca_ViT-L-14/mscoco_finetuned_laion2b_s13b_b90k": ("laion", ("coca_ViT-L-14", "13b")),
        "ViT-B-32/laion400m_e31": ("laion", None),
        "ViT-B-32/openai": ("openai", None),
        "RN50": ("", None),
    }
    assert {name: (family(name), recipe(name)) for name in expected} == expected


def test_no_family_is_on_both_sides() -> None:
    families = [family(name) for name in NAMES]
    halves = list(parted(families, 30))
    assert len(halves) == 60 and len({half.tobytes() for half in halves}) > 6
    for half, other in zip(halves[::2], halves[1::2], strict=True):
        assert (half != other).all() and 0.2 < half.mean() < 0.8
        inside = {name for name, here in zip(families, half, strict=True) if here}
        assert not inside & {name for name, here in zip(families, half, strict=True) if not here}


@pytest.mark.parametrize("seed", range(6))
def test_the_search_finds_what_trying_all_groups_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.uniform(size=(20, 1)) * rng.uniform(0.2, 1, 9) + rng.normal(0, 0.2, (20, 9))
    costs = rng.uniform(0.2, 1, 9)
    costs /= costs.sum()
    averages = scores.mean(axis=1)
    for most, size in ((0.25, 4), (0.4, 3), (1.0, 3)):
        groups = [group for count in range(1, size + 1) for group in itertools.combinations(range(9), count)]
        allowed = [group for group in groups if costs[list(group)].sum() <= most]
        fits = {group: scipy.stats.linregress(scores[:, group].mean(axis=1), averages) for group in allowed}
        errors = {group: 1 - fit.rvalue * abs(fit.rvalue) for group, fit in fits.items()}  # a falling line is none
        assert grown(scores, averages, costs, most, size) == min(errors, key=lambda group: errors[group])


def test_a_task_that_all_models_have_alike_is_no_help() -> None:
    scores = np.array([[0.5, value, 0.5] for value in (0.1, 0.2, 0.4, 0.9)])
    costs = np.full(3, 1 / 3)
    assert grown(scores, scores.mean(axis=1), costs, 1.0, 3) == (1,)
    assert grown(scores, scores.mean(axis=1), costs, 0.1, 3) == ()


def test_groups_are_judged_on_others_than_they_are_fitted_on(tmp_path: Path) -> None:
    models, _ = models_of(read(str(write_table(tmp_path / "t.csv", made_up(NAMES)))))
    group, (half, other) = (3, 11, 20), next(zip(*[iter(parted(models.families, 1))] * 2, strict=True))
    found = judged(models, group, half, other)
    x, y = models.scores[:, group].mean(axis=1), models.averages
    fit = scipy.stats.linregress(x[half], y[half])
    errors = [y[n] - fit.intercept - fit.slope * x[n] for n in range(len(x)) if other[n]]
    assert found.error == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert found.rho == pytest.approx(scipy.stats.spearmanr(x[other], y[other]).statistic)
    assert found.tau == pytest.approx(scipy.stats.kendalltau(x[other], y[other]).statistic)
    pairs = [(a, b) for a, b in itertools.combinations(np.flatnonzero(other), 2) if abs(y[a] - y[b]) > 0.006]
    right = [(x[a] > x[b]) == (y[a] > y[b]) for a, b in pairs]
    like = [
        good
        for good, (a, b) in zip(right, pairs, strict=True)
        if recipe(models.names[a]) == recipe(models.names[b]) is not None
    ]
    assert (found.right, found.pairs, found.like_right, found.like_pairs) == (
        sum(right),
        len(pairs),
        sum(like),
        len(like),
    )


def test_means_over_halves() -> None:
    found = mean([Judged(0.9, 0.7, 0.03, 3, 4, 0, 0), Judged(0.7, 0.5, 0.01, 5, 6, 1, 2)])
    assert found[:2] == pytest.approx((0.8, 0.6)) and found.error == pytest.approx(np.sqrt(0.0005))
    assert found[3:] == (8, 10, 1, 2)


def test_rows_that_stand_twice_or_have_gaps_are_left_out(tmp_path: Path) -> None:
    rows = made_up(NAMES)
    path = write_table(tmp_path / "t.csv", {**rows, "ViT-B-32-quickgelu/openai": rows["RN50/openai"]})
    lines = path.read_text().splitlines()
    lines[2] = lines[2].rpartition(",")[0] + ","
    path.write_text("\n".join(lines) + "\n")
    models, left_out = models_of(read(str(path)))
    assert left_out == [NAMES[1], "ViT-B-32-quickgelu/openai"] and models.names == [NAMES[0], *NAMES[2:]]
    assert models.costs.sum() == pytest.approx(1) and models.scores.shape == (len(NAMES) - 1, 38)


def test_the_script_writes_a_group_and_a_page_that_agree_with_scipy(tmp_path: Path) -> None:
    rows = made_up(NAMES, noise=0.005)
    path = write_table(tmp_path / "scores.csv", rows)
    words = [path, "--splits", "2", "--page", tmp_path / "page.md", "--group", tmp_path / "fast.yaml"]
    done = forked.run(ROOT / "bench/fast_tasks.py", *words)
    assert done.returncode == 0, done.stderr
    group = Fast.model_validate(yaml.safe_load((tmp_path / "fast.yaml").read_text()))
    page = (tmp_path / "page.md").read_text()
    assert page == done.stdout and "`python bench/fast_tasks.py scores.csv --splits 2`" in page
    x = [np.mean([scores[key] for key in group.tasks]) for scores in rows.values()]
    y = [np.mean(list(scores.values())) for scores in rows.values()]
    fit = scipy.stats.linregress(x, y)
    assert (group.slope, group.intercept) == pytest.approx((fit.slope, fit.intercept), abs=1e-4)
    rho, tau = scipy.stats.spearmanr(x, y).statistic, scipy.stats.kendalltau(x, y).statistic
    assert f"On those that it was chosen on: Spearman {rho:.3f}, Kendall {tau:.3f}, error " in page
    assert group.models == len(NAMES) and group.published in page
    cost = sum(load_tasks()[key].cost for key in group.tasks) / sum(task.cost for task in SCORED)
    assert f"{len(group.tasks)} tasks, {cost:.1%} of the cost of 38" in page
    for name in ("laion", "webli", "commonpool"):
        assert f"\n| {name} | " in page


def test_noise_reaches_no_aim(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {name: {task.key: round(rng.uniform(), 4) for task in SCORED} for name in NAMES}
    models, _ = models_of(read(str(write_table(tmp_path / "t.csv", rows))))
    with pytest.raises(SystemExit, match="reaches a held-out rank correlation"):
        choice(models, list(parted(models.families, 2)))


# --- what an evaluation says ---


def lines_of(values: Mapping[str, float | None]) -> dict[str, ResultLine]:
    lines = {key: result("a", key, 0.0 if value is None else value) for key, value in values.items()}
    for key, value in values.items():
        lines[key]["metrics"]["main_metric"] = value
    return {key: ResultLine.model_validate(line) for key, line in lines.items()}


def told(patterns: list[str], values: Mapping[str, float | None], tmp_path: Path) -> list[str]:
    lines = lines_of(values)
    tasks = select(patterns)
    chosen = {task.key: lines[task.key] for task in tasks if task.key in lines}
    return summary(tasks, chosen, {}, lines, tmp_path / "eval_results.jsonl").splitlines()


def test_the_mean_and_what_it_foretells_are_told(tmp_path: Path) -> None:
    values = {key: 0.1 * number for number, key in enumerate(fast().tasks, start=1)}
    mean_ = np.mean(list(values.values()))
    count, error = len(values), fast().error
    for patterns in (["fast"], ["fast", "mnist"]):
        lines = told(patterns, {**values, "mnist": 0.99}, tmp_path)
        (row,) = (line.split(maxsplit=2) for line in lines if line.startswith("fast  "))
        assert row == ["fast", f"{mean_:.4f}", f"{count} tasks, never official"]
        assert any(f"an average of {foretold(mean_):.3f}, give or take {error:.3f} (" in line for line in lines)
        assert any("is ever official" in line for line in lines)
        assert any(line.split()[:2] == ["average", "-"] for line in lines)


def test_without_all_of_it_nothing_is_foretold(tmp_path: Path) -> None:
    keys = fast().tasks
    values: dict[str, float | None] = dict.fromkeys(keys, 0.5)
    for missing in ({**values, keys[0]: None}, dict.fromkeys(keys[1:], 0.5)):
        lines = told(["fast"], missing, tmp_path)
        (row,) = (line.split(maxsplit=2) for line in lines if line.startswith("fast  "))
        assert row == ["fast", "-", f"1 of {len(keys)} tasks missing, never official"]
        assert not any("foretells" in line for line in lines)
    everything = {task.key: 0.5 for task in SCORED}
    for patterns in (["all"], [keys[0]], ["vtab"]):
        assert not any("fast" in line for line in told(patterns, everything, tmp_path))
    assert any(
        line.startswith("average  ") and "0.5000  38 tasks" in line for line in told(["all"], everything, tmp_path)
    )


def test_parts_of_it_are_merged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, key in enumerate(fast().tasks):
        store(tmp_path, key, labelled(np.random.default_rng(number))[0])
    assert merge(MergeOptions(out=str(tmp_path), tasks="fast")) == 0
    assert "fast foretells an average of " in capsys.readouterr().out
