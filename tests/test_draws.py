"""Drawing by scores: the law of the published sampler, told by many draws; and that nothing else changes a draw."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from metadata import columns_of, write_file
from test_columns import write_random
from test_curate_columns import L14, refused, selected

from poolbench.files import read_json
from poolbench.uids import split_uid

from curate.pool import draws
from curate.pool.draws import CANDIDATE, Rule, drawn

LOGITS = np.array([2.0, 1.5, 1.0, 0.0, 0.0, -1.0, -2.0, 0.5])
RUNS = 3000


def plain_rounds(rule: Rule, rng: np.random.Generator) -> np.ndarray:
    """Soft-cap and hard-cap sampling as they are described: a softmax in each round."""
    logits, counts, left = LOGITS.copy(), np.zeros(len(LOGITS)), rule.size
    while left:
        alive = np.isfinite(logits)
        now = min(rule.batch, left, int(alive.sum()))
        weights = np.exp(logits)
        chosen = rng.choice(len(logits), now, replace=False, p=weights / weights.sum())
        counts[chosen] += 1
        logits[chosen] -= rule.alpha
        if rule.cap:
            logits[counts >= rule.cap] = -np.inf
        left -= now
    return counts


def ours(rule: Rule) -> np.ndarray:
    rows = np.zeros(len(LOGITS), CANDIDATE)
    rows["place"], rows["logit"] = np.arange(len(rows)), LOGITS
    rows["hash"] = np.random.default_rng(rule.seed).integers(0, 2**63, len(rows))
    found = drawn([rows[:3], rows[3:]], LOGITS.max(), rule)
    counts = np.zeros(len(rows))
    counts[found["place"]] = found["times"]
    return counts


@pytest.mark.parametrize(
    "rule", [Rule(12, 0.6, 0, 3, 0), Rule(10, 0.0, 2, 4, 0), Rule(3, 0.0, 1, 3, 0), Rule(7, 1.0, 0, 1, 0)]
)
@pytest.mark.parametrize("near", [1, 16])
def test_the_law_is_that_of_a_softmax_in_each_round(rule: Rule, near: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_NEAR", near)
    rng = np.random.default_rng(1)
    plain = np.array([plain_rounds(rule, rng) for _ in range(RUNS)])
    found = np.array([ours(rule._replace(seed=seed)) for seed in range(RUNS)])
    assert (found.sum(axis=1) == rule.size).all()
    for power in (1, 2):  # the mean of counts, and of their squares
        one, other = plain**power, found**power
        error = np.sqrt((one.var(axis=0) + other.var(axis=0)) / RUNS) + 1e-9
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) / error).max() < 4.5
    pair = [(counts[:, 0] * counts[:, 1]).mean() for counts in (plain, found)]
    assert abs(pair[0] - pair[1]) < 0.15 * pair[0] + 0.05


def test_logits_of_any_height() -> None:
    rows = np.zeros(50, CANDIDATE)
    rows["place"], rows["hash"] = np.arange(50), np.random.default_rng(0).integers(0, 2**63, 50)
    rows["logit"] = np.linspace(-300, 300, 50)
    found = drawn([rows.copy()], 300.0, Rule(10, 0.0, 1, 10, 0))
    assert found["place"].tolist() == list(range(40, 50))  # no other has a chance
    assert drawn([rows.copy()], 300.0, Rule(75, 0.0, 2, 50, 0))["times"].sum() == 75


def test_rows_that_cannot_be_drawn_any_more_are_forgotten() -> None:
    """Which makes no difference, but to memory."""
    rng = np.random.default_rng(2)
    rows = np.zeros(3000, CANDIDATE)
    rows["place"], rows["hash"], rows["logit"] = np.arange(3000), rng.integers(0, 2**63, 3000), rng.normal(size=3000)
    rule = Rule(60, 0.7, 0, 9, 0)
    seen: list[int] = []

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, 3000, 50):
            seen.append(len(inspect.currentframe().f_back.f_locals["rows"]))  # type: ignore[union-attr]
            yield rows[start : start + 50].copy()

    found = drawn(pieces(), 0.0, rule)
    counts = draws._rounds(rows, draws._clock(rows, 0, rows["logit"]), rule)
    assert found["place"].tolist() == np.flatnonzero(counts).tolist() and max(seen) <= 1.25 * rule.size
    assert found["times"].tolist() == counts[counts > 0].tolist()


def test_a_draw_does_not_depend_on_how_the_pool_is_cut(tmp_path: Path) -> None:
    columns = columns_of(400)
    write_file(tmp_path / "coarse" / "0.parquet", columns)
    for start in range(0, 400, 70):
        write_file(tmp_path / "fine" / f"{900 - start}.parquet", {k: v[start : start + 70] for k, v in columns.items()})
    words = ("filter=soft_cap", f"filter.column={L14}", "filter.alpha=.5", "filter.size=700", "filter.batch=90")
    found = [selected(tmp_path / f"{name}.npy", *words, f"pool={tmp_path / name}") for name in ("coarse", "fine")]
    assert len(found[0]) == 700
    np.testing.assert_array_equal(*found)
    other = selected(tmp_path / "o.npy", *words, "filter.seed=1", f"pool={tmp_path / 'fine'}")
    assert (other != found[0]).any()
    state = read_json(tmp_path / "coarse.npy.json")["state"]
    uids, times = np.unique(found[0], return_counts=True)
    assert (state["draws"], state["rows"], state["most_often"]) == (700, len(uids), times.max())


@pytest.mark.parametrize("words", [[f"filter.column={L14}"], [f"filter.weights={{{L14}: 3}}"]])
def test_only_rows_with_a_score_and_among_others_are_drawn(tmp_path: Path, words: list[Any]) -> None:
    pool = write_random(tmp_path / "pool", 4)
    rows = pd.concat([pd.read_parquet(path) for path in sorted(pool.glob("*.parquet"))])
    can = rows[(rows.uid != "none") & np.isfinite(rows[L14]) & (rows.clip_b32_similarity_score >= 0.2)]
    words = ["filter=hard_cap", *words, "filter.of={filter: clip_score, arch: b32, threshold: .2}", f"pool={pool}"]
    found = selected(tmp_path / "a.npy", *words, f"filter.size={len(can)}")
    assert found.tolist() == sorted(split_uid(uid) for uid in can.uid)


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_random(tmp_path / "pool", 5)
    words = (f"pool={pool}", f"out={tmp_path / 'a.npy'}", "filter=hard_cap")
    assert "either filter.column= or filter.weights=" in refused(capsys, *words, "filter.size=10")
    assert "is more than can be drawn" in refused(capsys, *words, "filter.size=100000", f"filter.column={L14}")
    assert "must be positive" in refused(capsys, *words, "filter.size=10", "filter.cap=0", f"filter.column={L14}")
