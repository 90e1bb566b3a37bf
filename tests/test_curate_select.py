"""Selecting: every filter against a plain version of itself, and the command."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from forked import ROOT
from metadata import columns_of, write_file, write_metadata
from pools import uid_of
from selecting import SMALL, frame, selected, uids_of

from poolbench.files import read_json
from poolbench.subset import Subset

from curate.models.captions import long_enough
from curate.models.languages import detector
from curate.pool.files import list_pool
from curate.pool.passes import Passes
from curate.pool.quantile import nth_largest
from curate.selectors.registry import names


def plain_basic(row: Any, english: Callable[[str], bool]) -> bool:
    short, long_ = sorted((row.original_width, row.original_height))
    words = row.text.split()
    return len(words) > 2 and len(row.text) > 5 and short >= 200 and long_ / short <= 3 and english(row.text)


def says_english(name: str) -> Callable[[str], bool]:
    return lambda text: detector(name)([text])[0] == "en"


def test_no_filter_keeps_all_with_their_repeats(pool: Path, tmp_path: Path) -> None:
    found = selected(tmp_path / "all.npy", "filter=no_filter", f"pool={pool}")
    np.testing.assert_array_equal(found, uids_of(frame(pool)))
    Subset(str(tmp_path / "all.npy")).check_sorted()
    assert Subset(str(tmp_path / "all.npy")).count(uid_of(3)) == 2


def test_basic_is_its_definition(pool: Path, tmp_path: Path) -> None:
    rows = frame(pool)
    english = says_english("fasttext_small")
    expected = uids_of(rows[[plain_basic(row, english) for row in rows.itertuples()]])
    found = selected(tmp_path / "basic.npy", "filter=basic", SMALL, f"pool={pool}")
    assert 0 < len(expected) < 400
    np.testing.assert_array_equal(found, expected)


def test_laion2b_is_its_definition(pool: Path, tmp_path: Path) -> None:
    rows = frame(pool)
    english = says_english("cld3")
    kept = (rows.clip_b32_similarity_score >= 0.28) & rows.text.map(english)
    assert kept.any()
    found = selected(tmp_path / "laion.npy", "filter=laion2b", f"pool={pool}")
    np.testing.assert_array_equal(found, uids_of(rows[kept]))


@pytest.mark.parametrize("arch", ["b32", "l14"])
@pytest.mark.parametrize("threshold", [0.28, 0.3, 0.23, 0.0, -0.0])
def test_a_score_at_the_threshold_is_kept(pool: Path, tmp_path: Path, arch: str, threshold: float) -> None:
    rows = frame(pool)
    expected = rows[rows[f"clip_{arch}_similarity_score"] >= threshold]
    words = ("filter=clip_score", f"filter.arch={arch}", f"filter.threshold={threshold}", f"pool={pool}")
    np.testing.assert_array_equal(selected(tmp_path / "kept.npy", *words), uids_of(expected))
    counts = read_json(tmp_path / "kept.npy.json")["counts"]
    assert counts == {f"clip_{arch}_similarity_score is NaN": int(rows[f"clip_{arch}_similarity_score"].isna().sum())}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_fraction_is_that_of_a_whole_sort(tmp_path: Path, dtype: Any) -> None:
    """N counts NaN; the score at place int(N * fraction) of the descending ones is kept, with all its ties."""
    pool = tmp_path / "pool"
    for number, scores in enumerate(odd_scores(dtype)):
        rows = len(scores)
        uids = [uid_of(1000 * number + row) for row in range(rows)]
        write_file(pool / f"{number}.parquet", {"uid": uids, "clip_l14_similarity_score": scores})
    values = np.concatenate(odd_scores(dtype))
    with Passes(list_pool(str(pool)), tmp_path / "work", 1) as passes:
        for fraction in (0, 0.001, 0.1, 0.3, 0.5, 0.62, 0.8, 0.9, 0.99):
            expected = -np.sort(-values)[int(len(values) * fraction)]
            found = nth_largest(passes, "clip_l14_similarity_score", fraction)
            assert found == (-np.inf if np.isnan(expected) else expected), fraction
        assert nth_largest(passes, "clip_l14_similarity_score", 1.0) == -np.inf


def odd_scores(dtype: Any) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    tiny = np.finfo(dtype).smallest_subnormal
    near = np.nextafter(np.full(300, 0.25, dtype), dtype(1)) if dtype is np.float32 else 0.25 + rng.random(300) * 1e-12
    odd = [np.nan, np.inf, -np.inf, 0.0, -0.0, tiny, -tiny, 1.0, -1.0] * 20
    return [
        rng.normal(0.2, 0.1, 800).astype(dtype),
        np.array(odd, dtype),
        np.concatenate([near.astype(dtype), np.full(200, 0.25, dtype)]),
        -np.abs(rng.normal(0.2, 0.1, 400)).astype(dtype),
    ]


def test_all_of_a_pool_is_a_fraction(pool: Path, tmp_path: Path) -> None:
    found = selected(tmp_path / "all.npy", "filter=clip_score", "filter.fraction=1", f"pool={pool}")
    rows = frame(pool)
    np.testing.assert_array_equal(found, uids_of(rows[rows.clip_l14_similarity_score.notna()]))


def test_words_are_parted_as_python_parts_them() -> None:
    blanks = [chr(code) for code in range(sys.maxunicode) if chr(code).isspace()]
    alike = ["\u200b", "\u180e", "\ufeff", "\u2060", "\0", "_"]  # what looks like a blank to others
    texts = [f"first{one}second{two}third" for one in blanks + alike for two in (" ", *alike)]
    texts += [f"{one}ab{one}cde{one}{one}" for one in blanks] + [
        "a b c",
        "a b cd",
        "\U0001f600 b cd",
        "ä ö ü",
        "",
        "   ",
    ]
    expected = [len(text.split()) > 2 and len(text) > 5 for text in texts]
    assert long_enough(pa.chunked_array([texts])).tolist() == expected
    assert 0 < sum(expected) < len(texts)


def test_a_sample_has_its_size_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    coarse, fine = write_metadata(tmp_path / "coarse", 1, 1000, npz=False), tmp_path / "fine"
    columns = columns_of(1000)
    for start in range(0, 1000, 100):
        write_file(fine / f"{start}.parquet", {name: values[start : start + 100] for name, values in columns.items()})
    words = ("filter=sample", "filter.of=no_filter")
    hundred = selected(tmp_path / "a.npy", *words, "filter.size=100", f"pool={coarse}")
    assert len(np.unique(hundred)) == 100
    np.testing.assert_array_equal(selected(tmp_path / "b.npy", *words, "filter.size=100", f"pool={fine}"), hundred)
    more = selected(tmp_path / "c.npy", *words, "filter.size=300", f"pool={coarse}")
    assert len(np.intersect1d(more, hundred)) == 100
    other = selected(tmp_path / "d.npy", *words, "filter.size=300", "filter.seed=1", f"pool={coarse}")
    assert 60 < len(np.intersect1d(other, more)) < 120  # 90 by chance
    assert 60 < np.isin(more, uids_of(pd.DataFrame(columns)[:333])).sum() < 140  # whatever the numbering: 100 by chance


def test_the_command(pool: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "curate", "filter=no_filter", f"pool={pool}", f"out={tmp_path}/out.npy"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "1,000 of 1,000 rows" in done.stderr, done.stderr
    shown = subprocess.run([*words[:3], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=300).stdout
    assert "filter=<name>" in shown and "overwrite=" in shown
    assert all(f"\nfilter={name}" in shown for name in names())
    code = "import curate.select, sys; print([name for name in ('torch', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "[]", "selecting needs neither"
