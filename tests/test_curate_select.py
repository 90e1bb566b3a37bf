"""Selecting: every filter against a plain version of itself, any number of workers and parts, composition, resuming,
and what goes wrong."""

import json
import re
import resource
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from faulty_server import Faulty, serving
from metadata import columns_of, embeddings_of, rows_or_death, write_file, write_metadata
from pools import uid_of
from small_wordnet import DEBIAN, editions, needs_wordnet, write_wordnet

from poolbench.errors import UserError, status_of
from poolbench.files import read_json
from poolbench.subset import Subset
from poolbench.uids import DTYPE, split_uid, write_subset

from curate.command import run
from curate.inspect import InspectOptions, inspected
from curate.models import wordnet
from curate.models.captions import long_enough
from curate.models.languages import detector
from curate.pool.files import list_pool
from curate.pool.merge import Run, merge, sort_uids
from curate.pool.passes import Passes
from curate.pool.quantile import nth_largest
from curate.selectors.registry import names

ROOT = Path(__file__).parent.parent
SMALL = "filter.language=fasttext_small"  # the detector that a package carries


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four files of 250 rows, of which one uid stands in two files."""
    folder = write_metadata(tmp_path_factory.mktemp("pool"))
    columns = columns_of(250, first=750)
    columns["uid"][7] = uid_of(3)
    write_file(folder / "0003.parquet", columns, embeddings_of(250, 750))
    return folder


def curate(*words: str | Path) -> int:
    """`python -m curate` in this process, with one worker unless the words say otherwise."""
    given = [str(word) for word in words]
    return status_of(
        lambda: run(given if any(word.startswith("workers=") for word in given) else [*given, "workers=1"])
    )


def selected(out: Path, *words: str | Path) -> np.ndarray:
    assert curate(f"out={out}", *words) == 0
    found: np.ndarray = np.load(out)
    assert found.dtype == DTYPE
    return found


def frame(pool: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(pool.glob("*.parquet"))], ignore_index=True)


def uids_of(rows: pd.DataFrame) -> np.ndarray:
    return np.sort(np.array([split_uid(uid) for uid in rows.uid], DTYPE))


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


# Options with which every filter runs on a small pool. A new filter goes here.
EXAMPLES: dict[str, dict[str, Any]] = {
    "no_filter": {},
    "basic": {"language": "fasttext_small"},
    "clip_score": {"fraction": 0.3},
    "laion2b": {},
    "text_based": {"language": "fasttext_small", "wordnet": "wordnet"},
    "image_based": {"language": "fasttext_small", "centroids": "centroids.npy", "targets": "targets.npy"},
    "image_based_intersect_clip_score": {
        "language": "fasttext_small", "centroids": "centroids.npy", "targets": "targets.npy", "fraction": 0.5,
    },
    "subset": {"path": "some.npy"},
    "union": {"of": ["some.npy", {"filter": "clip_score", "fraction": 0.2}]},
    "intersection": {"of": ["some.npy", {"filter": "clip_score", "fraction": 0.7}]},
    "difference": {"of": [{"filter": "clip_score", "threshold": 0.2}, "some.npy"]},
    "sum": {"of": ["some.npy", "some.npy", {"filter": "clip_score", "fraction": 0.2}]},
    "repeat": {"of": {"filter": "clip_score", "fraction": 0.2}, "times": 3},
    "top": {"column": "clip_b32_similarity_score", "fraction": 0.4},
    "mix": {"weights": {"clip_b32_similarity_score": 0.5, "clip_l14_similarity_score": -2.0}, "fraction": 0.4},
    "soft_cap": {"column": "clip_l14_similarity_score", "alpha": 0.2, "size": 300, "batch": 50},
    "hard_cap": {
        "column": "clip_l14_similarity_score", "size": 300, "cap": 2, "of": {"filter": "subset", "path": "some.npy"},
    },
    "label_model": {
        "votes": {"clip_b32_similarity_score": [0.2, 0.25], "clip_l14_similarity_score": [0.2, 0.2],
                  "original_width": [300, 500]},
        "fraction": 0.3,
    },
    "published": {"name": "t_mars_medium", "path": "some.npy", "check": False},
    "sample": {"of": {"filter": "clip_score", "fraction": 0.5}, "size": 100, "seed": 1},
    "vas": {"targets": "targets.npy", "fraction": 0.2, "clip_fraction": 0.4},
    "vas_d": {"fraction": 0.2, "clip_fraction": 0.4, "rounds": 4},
    "norm_sim": {"targets": "targets.npy", "fraction": 0.2, "of": {"filter": "clip_score", "fraction": 0.5}},
    "neg_clip_loss": {"fraction": 0.3, "batch": 100, "partitions": 2},
    "dbp": {"fraction": 0.2, "clusters": 9, "of": {"filter": "clip_score", "fraction": 0.7}},
    "semdedup": {"fraction": 0.4, "clusters": 9, "of": {"filter": "clip_score", "fraction": 0.7}},
    "metaclip": {"metadata": "entries.json", "size": 300, "of": {"filter": "clip_score", "fraction": 0.7}},
}  # fmt: skip


def write_inputs(folder: Path) -> None:
    """The files that EXAMPLES name."""
    write_subset(folder / "some.npy", [uid_of(number) for number in range(0, 1000, 3)])
    rng = np.random.default_rng(0)
    np.save(folder / "centroids.npy", rng.normal(size=(20, 8)).astype(np.float32))
    np.save(folder / "targets.npy", rng.normal(size=(5, 8)).astype(np.float32))
    write_wordnet(folder / "wordnet")
    (folder / "entries.json").write_text(json.dumps(["dog", "red car", "Hund", "a", "two lines", "y z", "old bridge"]))


@pytest.mark.parametrize("name", names())
def test_neither_parts_nor_memory_change_a_subset(
    name: str, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    monkeypatch.setattr(wordnet, "_EDITIONS", wordnet._EDITIONS | editions(tmp_path / "wordnet"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump({"filter": name, **EXAMPLES[name]}))
    words = (f"filter={recipe}", f"pool={pool}")
    one = selected(tmp_path / "one.npy", *words)
    assert 0 < len(one) < 1000 or name == "no_filter"
    selected(tmp_path / "little.npy", *words, "memory=0.00001")
    for part in (3, 1, 2):
        assert curate(*words, f"out={tmp_path}/parts.npy", f"part={part}/3") == 0
        assert not (tmp_path / "parts.npy").exists()
    selected(tmp_path / "parts.npy", *words)
    for other in ("little", "parts"):
        assert (tmp_path / f"{other}.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()
        assert read_json(tmp_path / f"{other}.npy.json") == read_json(tmp_path / "one.npy.json")
    assert not list(tmp_path.glob("*.work"))


def test_workers_do_not_change_what_any_filter_keeps(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs(tmp_path)
    assert_workers_change_nothing(tmp_path, pool, {name: EXAMPLES[name] for name in names() if name != "text_based"})


@needs_wordnet
def test_workers_do_not_change_what_the_text_filter_keeps(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers are processes of their own, which take no other WordNet than the real one."""
    monkeypatch.chdir(tmp_path)
    assert_workers_change_nothing(tmp_path, pool, {"text_based": EXAMPLES["text_based"] | {"wordnet": str(DEBIAN)}})


def assert_workers_change_nothing(folder: Path, pool: Path, filters: dict[str, dict[str, Any]]) -> None:
    every = {"filter": "sum", "of": [{"filter": name, **options} for name, options in filters.items()]}
    (folder / "every.yaml").write_text(yaml.safe_dump(every))
    for workers in (1, 2):
        words = ("filter=every.yaml", f"pool={pool}", f"workers={workers}")
        assert len(selected(folder / f"{workers}.npy", *words)) > (1000 if len(filters) > 1 else 0)
    assert (folder / "1.npy").read_bytes() == (folder / "2.npy").read_bytes()
    assert read_json(folder / "1.npy.json") == read_json(folder / "2.npy.json")


def test_parts_share_their_work(pool: Path, tmp_path: Path) -> None:
    """The merge makes nothing anew that the parts have made."""
    words = (
        "filter=clip_score",
        "filter.fraction=0.3",
        f"pool={pool}",
        f"out={tmp_path}/out.npy",
        f"work={tmp_path}/work",
    )
    for part in (1, 2):
        assert curate(*words, f"part={part}/2") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/*")}
    assert len(list((tmp_path / "work").glob("judge-*/*.uids"))) == 4
    assert curate(*words) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "work").glob("*/*")} == before


def test_filters_compose_with_repeats(pool: Path, tmp_path: Path) -> None:
    rows = frame(pool)
    high, low = rows.clip_l14_similarity_score >= 0.25, rows.clip_b32_similarity_score >= 0.2
    of = "[{filter: clip_score, threshold: 0.25}, {filter: clip_score, arch: b32, threshold: 0.2}]"
    for name, expected in {
        "union": rows[high | low],
        "intersection": rows[high & low],
        "difference": rows[high & ~low],
        "sum": pd.concat([rows[high], rows[low]]),
    }.items():
        found = selected(tmp_path / f"{name}.npy", f"filter={name}", f"filter.of={of}", f"pool={pool}")
        np.testing.assert_array_equal(found, uids_of(expected))
    found = selected(tmp_path / "r.npy", "filter=repeat", "filter.of=no_filter", "filter.times=2", f"pool={pool}")
    np.testing.assert_array_equal(found, uids_of(pd.concat([rows, rows])))


def test_subset_files_combine_without_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.pool.files.SPAN", 7)
    first = Counter({uid_of(number): 1 + number % 3 for number in range(40)})
    second = Counter({uid_of(number): 2 for number in range(30, 60)})
    write_subset(tmp_path / "a.npy", list(first.elements()))
    write_subset(tmp_path / "b.npy", list(second.elements()))
    of = f"filter.of=[{tmp_path}/a.npy,{tmp_path}/b.npy]"
    for name, expected in {
        "union": first | second,
        "intersection": first & second,
        "sum": first + second,
        "difference": Counter({uid: count for uid, count in first.items() if uid not in second}),
    }.items():
        found = selected(tmp_path / f"{name}.npy", f"filter={name}", of)
        assert found.tolist() == sorted(split_uid(uid) for uid in expected.elements())


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


def test_a_recipe_and_options_that_change_it(pool: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("filter: intersection\nof:\n  - no_filter\n  - {filter: clip_score, fraction: 0.9}\n")
    found = selected(tmp_path / "a.npy", f"filter={recipe}", "filter.of.1.fraction=0.2", f"pool={pool}")
    plain = selected(tmp_path / "b.npy", "filter=clip_score", "filter.fraction=0.2", f"pool={pool}")
    np.testing.assert_array_equal(found, plain)
    summary = read_json(tmp_path / "a.npy.json")
    assert summary["filter"]["of"][1] == {"filter": "clip_score", "arch": "l14", "fraction": 0.2, "threshold": None}
    assert summary["state"]["of"][1] == {"threshold": read_json(tmp_path / "b.npy.json")["state"]["threshold"]}


def test_uids_that_the_pool_lacks_are_told(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("poolbench.uids._ROWS", 3)
    some = tmp_path / "some.npy"
    write_subset(some, [uid_of(number) for number in [*range(990, 1010), 1000, 1001, 5, 5]])
    of = f"filter.of=[{some},{{filter: clip_score, fraction: 0.5}}]"
    for words in (f"filter={some}",), ("filter=union", of), ("filter=difference", of):
        out = tmp_path / "out.npy"
        selected(out, *words, f"pool={pool}", "overwrite=true")
        assert f"not in the pool: 10 uids of {some}\n" in capsys.readouterr().err
        assert read_json(tmp_path / "out.npy.json")["not_in_pool"] == {str(some): 10}
    write_subset(some, [uid_of(5), uid_of(5)])
    selected(tmp_path / "five.npy", f"filter={some}", f"pool={pool}")
    selected(tmp_path / "alone.npy", f"filter={some}")
    assert "not in the pool" not in capsys.readouterr().err
    assert read_json(tmp_path / "alone.npy.json")["not_in_pool"] == {}


@pytest.mark.parametrize("memory", [100, 4000, 10**9])
def test_merging_in_little_memory_is_sorting(tmp_path: Path, memory: int) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 2**63, (rows, 2)).astype("u8").view(DTYPE).ravel() for rows in (0, 1, 500, 1300)]
    parts.append(np.repeat(parts[2][:30], 9))  # repeats
    parts.append(np.array([(7, number) for number in range(200, 0, -1)], DTYPE))  # that begin alike
    runs, first = [], 0
    with (tmp_path / "runs").open("wb") as file:
        for part in parts:
            file.write(sort_uids(part).tobytes())
            runs.append(Run(tmp_path / "runs", first, len(part)))
            first += len(part)
    assert merge(runs, tmp_path / "out.npy", memory) == first
    np.save(tmp_path / "expected.npy", np.sort(np.concatenate(parts)))
    assert (tmp_path / "out.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_what_is_left_out_is_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 6, 20)
    columns = columns_of(20, 100)
    columns["uid"][3:6] = ["xyz", None, "0" * 31 + "g"]
    columns["uid"][6] = columns["uid"][6].upper()  # which is a good one
    write_file(pool / "0005.parquet", columns, embeddings_of(20, 100))
    (pool / "0001.parquet").write_bytes(b"PAR1 and no more")
    write_file(pool / "0002.parquet", {"uid": columns_of(20, 40)["uid"], "text": ["a"] * 20})
    (pool / "0003.parquet").write_bytes((pool / "0003.parquet").read_bytes()[:-200])
    out = tmp_path / "out.npy"
    words = ("filter=clip_score", "filter.fraction=1", f"pool={pool}", f"out={out}")
    assert curate(*words) == 1
    said = capsys.readouterr().err
    assert "0001.parquet cannot be read" in said and "0003.parquet cannot be read" in said
    assert "0002.parquet has no column 'clip_l14_similarity_score'" in said
    assert "left out: 3 uids are not 32 hex digits, the first is 0005, row 3: 'xyz'" in said
    summary = read_json(out.with_name("out.npy.json"))
    assert sorted(summary["bad_files"]) == ["0001", "0002", "0003"] and summary["left_out"] == 6
    assert summary["malformed_examples"] == [
        "0005, row 3: 'xyz'", "0005, row 4: None", f"0005, row 5: '{'0' * 31}g'"
    ]  # fmt: skip
    assert summary["rows"] == 60
    nan = summary["counts"]["clip_l14_similarity_score is NaN"]
    assert len(np.load(out)) == 57 - nan
    assert split_uid(columns["uid"][6]) in np.load(out).tolist()
    assert curate(*words, f"out={out}") == 2  # given twice


TYPED = ("filter=clip_score filter.threshold=0.2", f"filter=basic {SMALL}", f"filter=laion2b {SMALL}")


@pytest.mark.parametrize("words", TYPED)
@pytest.mark.parametrize("typed", ["dictionary", "large_string", "string_view", "binary"])
def test_the_types_that_a_writer_chose_change_nothing(tmp_path: Path, words: str, typed: str) -> None:
    columns = columns_of(200)
    plain = write_file(tmp_path / "plain" / "0.parquet", columns)
    table = pq.read_table(plain)
    for name in ("uid", "text", "url"):
        column = table[name].combine_chunks()
        if typed == "dictionary":
            column = column.dictionary_encode()
        elif typed != "binary" or name != "uid":
            column = column.cast({"large_string": pa.large_string(), "binary": pa.binary()}.get(typed, pa.string()))
            column = column.cast(pa.string_view()) if typed == "string_view" else column
        table = table.set_column(table.column_names.index(name), name, column)
    for name in ("original_width", "original_height"):
        kind = {"dictionary": pa.float64(), "large_string": pa.int32(), "binary": pa.string()}.get(typed, pa.uint16())
        table = table.set_column(table.column_names.index(name), name, table[name].cast(kind))
    (tmp_path / "typed").mkdir()
    pq.write_table(table, tmp_path / "typed" / "0.parquet")
    for pool in ("plain", "typed"):
        assert curate(*words.split(), f"pool={tmp_path / pool}", f"out={tmp_path / pool}.npy") == 0
    assert (tmp_path / "plain.npy").read_bytes() == (tmp_path / "typed.npy").read_bytes()


@pytest.mark.parametrize("kind", [pa.float64(), pa.float16(), pa.decimal128(6, 4), pa.float32()])
def test_scores_of_any_kind_of_number_are_compared_as_they_are(tmp_path: Path, kind: pa.DataType) -> None:
    stored = pa.array([0.1, 0.2998, 0.3, 0.3002, None], pa.float64()).cast(kind, safe=False)
    columns = {"uid": [uid_of(n) for n in range(5)], "clip_l14_similarity_score": stored}
    (tmp_path / "pool").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "pool" / "0.parquet")
    words = ("filter=clip_score", "filter.threshold=0.2999", f"pool={tmp_path}/pool", f"out={tmp_path}/out.npy")
    assert curate(*words) == 0
    values = stored.cast(pa.float64()).to_pylist()
    chosen = sorted(split_uid(uid_of(n)) for n, value in enumerate(values) if value is not None and value >= 0.2999)
    assert np.load(tmp_path / "out.npy").tolist() == chosen and len(chosen) >= 2


def test_a_column_of_nothing_but_nulls_is_one_without_values(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pool").mkdir()
    nulls = dict.fromkeys(
        ("text", "url", "original_width", "original_height", "clip_b32_similarity_score"), pa.nulls(9)
    )
    columns = {"uid": [uid_of(n) for n in range(9)], **nulls, "clip_l14_similarity_score": np.ones(9, np.float32)}
    pq.write_table(pa.table(columns), tmp_path / "pool" / "0.parquet")
    out = tmp_path / "out.npy"
    assert curate("filter=clip_score", "filter.threshold=0.5", f"pool={tmp_path}/pool", f"out={out}") == 0
    for name in ("basic", "laion2b"):
        assert curate(f"filter={name}", SMALL, f"pool={tmp_path}/pool", f"out={tmp_path}/none.npy") == 2
        said = capsys.readouterr().err
        assert f"filter={name} keeps none of 9 rows" in said and "rows without a caption: 9" in said


@pytest.mark.parametrize(
    ("uids", "first"),
    [
        (pa.array(range(1, 6)), "1"),
        (pa.array([uid_of(n).encode() for n in range(5)]), f"b'{uid_of(0)}'"),
        (pa.array([str(uuid.UUID(uid_of(n))) for n in range(5)]), f"'{uuid.UUID(uid_of(0))}'"),
        (pa.nulls(5), "None"),
    ],
)
def test_uids_of_another_form_are_told(
    tmp_path: Path, uids: Any, first: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pool").mkdir()
    scores = {"clip_l14_similarity_score": np.ones(5, np.float32)}
    pq.write_table(pa.table({"uid": uids, **scores}), tmp_path / "pool" / "0.parquet")
    told = f"5 uids are not 32 hex digits, the first is 0, row 0: {first}; "
    words = ("filter=clip_score", "filter.threshold=0.5", f"pool={tmp_path}/pool", f"out={tmp_path}/out.npy")
    assert curate(*words) == 2 and told in capsys.readouterr().err
    assert not (tmp_path / "out.npy").exists()
    write_subset(tmp_path / "s.npy", [uid_of(0)])
    with pytest.raises(UserError, match=re.escape(told.replace("0, row 0", "row 0"))):
        inspected(str(tmp_path / "s.npy"), InspectOptions(pool=str(tmp_path / "pool")))


def test_a_mended_file_is_all_that_is_done_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 4, 20)
    good = (pool / "0001.parquet").read_bytes()
    (pool / "0001.parquet").write_bytes(good[:-100])
    words = ("filter=basic", SMALL, f"pool={pool}", f"out={tmp_path}/out.npy")
    assert curate(*words) == 1
    assert curate(*words) == 2 and "overwrite=true" in capsys.readouterr().err
    results = list((tmp_path / "out.npy.work").glob("judge-*/*.uids"))
    before = {path: path.stat().st_mtime_ns for path in results}
    (pool / "0001.parquet").write_bytes(good)
    assert curate(*words, "overwrite=true", f"work={tmp_path}/out.npy.work") == 0
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out.npy.work").glob("judge-*/*.uids")}
    assert len(before) == 3 and len(after) == 4 and before.items() <= after.items()
    assert "3 of 4 files" in capsys.readouterr().err
    selected(tmp_path / "anew.npy", *words[:-1])
    assert (tmp_path / "anew.npy").read_bytes() == (tmp_path / "out.npy").read_bytes()
    assert curate(*words) == 0 and "is complete" in capsys.readouterr().err
    write_file(pool / "0002.parquet", columns_of(20, 900))  # other rows in a file that was good before
    assert curate(*words, "overwrite=true", f"work={tmp_path}/out.npy.work") == 0
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), selected(tmp_path / "other.npy", *words[:-1]))
    assert (tmp_path / "anew.npy").read_bytes() != (tmp_path / "out.npy").read_bytes()


def test_an_npz_of_other_rows_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 4, 20)
    np.savez(pool / "0001.npz", **embeddings_of(19))
    np.savez(pool / "0002.npz", l14_txt=np.zeros((20, 8)))
    (pool / "0003.npz").unlink()
    rng = np.random.default_rng(0)
    for name in ("centroids", "targets"):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(4, 8)).astype(np.float32))
    options = [f"filter.{name}={tmp_path}/{name}.npy" for name in ("centroids", "targets")]
    assert curate("filter=image_based", SMALL, *options, f"pool={pool}", f"out={tmp_path}/out.npy") == 1
    said = capsys.readouterr().err
    assert "0001.npz has 19 rows of l14_img" in said and "has 20" in said
    assert "0002.npz has no array 'l14_img'" in said
    assert "0003.parquet has no .npz beside it" in said


WRONG = {
    "filter=nofilter pool={pool}": "filter=nofilter is not known; did you mean 'no_filter'?",
    "filter=clip_score filter.fracton=0.3 pool={pool}": "unknown option 'fracton'; did you mean 'fraction'?",
    "filter=clip_score filter.fraction=many pool={pool}": "filter.fraction",
    "filter=clip_score filter.fraction=1.5 pool={pool}": "filter.fraction=1.5 must lie from 0 to 1",
    "filter=clip_score filter.threshold=nan pool={pool}": "filter.threshold=nan is no score",
    "filter=clip_score pool={pool}": "either filter.fraction= or",
    "filter=clip_score filter.fraction=1 filter.threshold=1 pool={pool}": "either filter.fraction= or",
    "filter=clip_score filter.arch=l41 filter.fraction=1 pool={pool}": "did you mean 'l14'?",
    "filter=clip_score filter.arch=dfn_score filter.fraction=1 pool={pool}": "no column 'dfn_score'",
    "filter=clip_score filter.threshold=9 filter.arch=url_score pool={pool}": "has no column",
    "filter=clip_score filter.threshold=5e9 pool={finite}": "keeps none of 20 rows",
    "filter=clip_score filter.arch=b32 filter.fraction=1 pool={finite}": "clip_b32_similarity_score is NaN: 20;",
    "filter=no_filter pol={pool}": "did you mean 'pool'?",
    "filter=no_filter pool={pool} extra": "'extra' is not key=value",
    "filter=no_filter pool={folder}/missing": "missing does not exist",
    "filter=no_filter pool={folder}/empty": "no .parquet in it",
    "filter=no_filter pool={folder}/bare": "has no rows",
    "filter=no_filter": "pool= is needed",
    "filter=no_filter pool={pool} part=3/2": "part=3/2 is not i/n",
    "filter=no_filter pool={pool} workers=0": "workers=0 must be positive",
    "filter=sample filter.of=no_filter filter.size=2000 pool={pool}": "filter.size=2,000 is more than the 1,000",
    "filter=sample filter.size=20 pool={pool}": "of= is needed",
    "filter=repeat filter.of=no_filter filter.times=0 pool={pool}": "filter.times=0 must lie from 1",
    "filter=union filter.of=[] pool={pool}": "filter.of=[] is empty",
    "filter=union filter.of=[no_filter,bsic] pool={pool}": "filter.of.1=bsic is not known; did you mean 'basic'?",
    "filter=missing.npy pool={pool}": "subset missing.npy cannot be read",
    "filter=missing.yaml pool={pool}": "filter=missing.yaml cannot be read",
    "filter=basic filter.language=fastext pool={pool}": "did you mean 'fasttext'?",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_one_line(words: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    write_file(tmp_path / "bare" / "0.parquet", columns_of(0))
    unknown = pa.array([None] * 20, pa.float32())
    scores = {"uid": columns_of(20)["uid"], "clip_l14_similarity_score": [0.5] * 20}
    scores["clip_b32_similarity_score"] = unknown
    finite = write_file(tmp_path / "finite" / "0.parquet", scores).parent
    given = [word.format(pool=pool, folder=tmp_path, finite=finite) for word in words.split()]
    assert curate(*given, f"out={tmp_path}/out.npy") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and WRONG[words] in said
    assert not (tmp_path / "out.npy").exists()


def test_a_pool_behind_a_server_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("poolbench.remote._PAUSES", (0.01, 0.02))
    write_metadata(tmp_path / "pool", 3, 40)
    with serving(Faulty(folder=tmp_path, busy_every=3)) as server:
        found = selected(tmp_path / "far.npy", "filter=clip_score", "filter.fraction=0.3", f"pool={server.url}/pool")
        assert server.failed > 1
    near = selected(tmp_path / "near.npy", "filter=clip_score", "filter.fraction=0.3", f"pool={tmp_path}/pool")
    np.testing.assert_array_equal(found, near)


def test_a_worker_that_dies_is_told_and_the_next_run_continues(tmp_path: Path) -> None:
    files = list_pool(str(write_metadata(tmp_path / "pool", 5, 20)))
    marker = str(tmp_path / "marker")
    with pytest.raises(UserError, match="a worker died"), Passes(files, tmp_path / "work", 2) as passes:
        list(passes.map(rows_or_death, marker))
    found = len(list((tmp_path / "work").glob("*/*.json")))
    with Passes(files, tmp_path / "work", 2) as passes:
        assert [(file.name, rows) for file, rows in passes.map(rows_or_death, marker)] == [
            (f"{n:04d}", 20) for n in range(5)
        ]
        assert passes.done == 5 - found > 0


def test_a_full_disk_is_one_line_and_loses_nothing(
    pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit on the size of a file stands for the disk's: the kernel refuses the write in the same way."""
    out, some = tmp_path / "out.npy", tmp_path / "some.npy"
    write_subset(some, [uid_of(5)])
    work = out.with_name("out.npy.work")
    for kept, room, named, found in (
        ("no_filter", 3000, work, 0),  # for no file's result
        ("no_filter", 10_000, out, 4),  # for these, but not for the subset
        (str(some), 700, out, 4),  # for the subset, but not for its summary
    ):
        words = (f"filter={kept}", f"pool={pool}")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
        try:
            assert curate(*words, f"out={out}") == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        said = capsys.readouterr().err
        assert said.startswith(f"error: {named} cannot be written: File too large; make room") and said.count("\n") == 1
        assert {path.name for path in tmp_path.iterdir()} == {"some.npy", work.name}
        assert len(list(work.glob("judge-*/*.uids"))) == found
        if found:
            assert len(selected(out, *words)) in (1, 1000)
            assert "4 of 4 files are done" in capsys.readouterr().err
            out.unlink()
            out.with_name("out.npy.json").unlink()


PEAK = """
import re, sys
from pathlib import Path
from curate.command import run
assert run(sys.argv[1:]) == 0 and "pandas" not in sys.modules
print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
import pandas, pyarrow
assert pyarrow.table({"a": [1]}).to_pandas().equals(pandas.DataFrame({"a": [1]}))
"""


def peak(pool: Path, out: Path) -> float:
    """MB that selecting takes at most, in a process that does all of it."""
    words = ["filter=clip_score", "filter.fraction=0.9", f"pool={pool}", f"out={out}", "workers=1"]
    done = subprocess.run([sys.executable, "-c", PEAK, *words], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) / 1000


def test_memory_is_flat_in_the_pools_size(tmp_path: Path) -> None:
    """Two files of a real size, and 16; sorting all uids of those at once would take 150 MB more."""
    rows, rng = 200_000, np.random.default_rng(0)
    digits = rng.bytes(16 * rows).hex()
    columns = {
        "uid": [digits[32 * row : 32 * row + 32] for row in range(rows)],
        "clip_l14_similarity_score": rng.normal(0.2, 0.1, rows).astype(np.float32),
    }
    (tmp_path / "few").mkdir()
    (tmp_path / "many").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "file")
    for number in range(16):
        (tmp_path / "many" / f"{number}.parquet").hardlink_to(tmp_path / "file")
    for number in range(2):
        (tmp_path / "few" / f"{number}.parquet").hardlink_to(tmp_path / "file")
    few, many = (peak(tmp_path / name, tmp_path / f"{name}.npy") for name in ("few", "many"))
    assert many < few + 8, (few, many)
    found = np.load(tmp_path / "many.npy")
    assert len(found) == 8 * len(np.load(tmp_path / "few.npy")) > 2_800_000
    assert found.nbytes > 45e6


MERGE = """
import re, sys
from pathlib import Path
from curate.pool.merge import Run, merge
for count in (4, 40):
    runs = [Run(Path(sys.argv[1]), 0, 2**17)] * count
    assert merge(runs, Path(sys.argv[2]), 10**9) == count * 2**17
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
"""


def test_merging_takes_no_more_memory_for_more_uids(tmp_path: Path) -> None:
    """84 MB of uids, of which neither the sorting nor the look for ranges holds a large part, not even mapped."""
    halves = np.random.default_rng(0).integers(0, 2**63, (2**17, 2)).astype("u8")
    (tmp_path / "run").write_bytes(sort_uids(halves.view(DTYPE).ravel()).tobytes())
    done = subprocess.run(
        [sys.executable, "-c", MERGE, tmp_path / "run", tmp_path / "out.npy"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    few, many = map(int, done.stdout.split())
    assert many < few + 20_000, (few, many)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy")[::40], np.sort(halves.view(DTYPE).ravel()))


def test_the_command(pool: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "curate", "filter=no_filter", f"pool={pool}", f"out={tmp_path}/out.npy"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "1,000 of 1,000 rows" in done.stderr, done.stderr
    shown = subprocess.run([*words[:3], "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120).stdout
    assert "filter=<name>" in shown and "overwrite=" in shown
    assert all(f"\nfilter={name}" in shown for name in names())
    code = "import curate.select, sys; print([name for name in ('torch', 'pandas') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", "selecting needs neither"
