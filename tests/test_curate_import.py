"""Columns of others: taken in by uid or key, in any order, from any number of files; and the list of what there is."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata import write_metadata
from pools import uid_of
from test_columns import Length, scored, values, write_random

from poolbench.errors import status_of
from poolbench.uids import DTYPE

from curate.columns import main
from curate.pool import joined


def columns(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    status = status_of(lambda: main([*map(str, words), "workers=1"]))
    said = capsys.readouterr()
    return status, said.out, said.err.strip()


def judged(seed: int, rows: int = 500) -> pd.DataFrame:
    """Scores of somebody else: other uids among them, repeated ones, and one that is none."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(4000)[:rows]
    found = pd.DataFrame({"uid": [uid_of(number) for number in numbers.tolist()], "judge": rng.normal(size=rows)})
    found.loc[5, "judge"] = np.nan
    found.loc[7, "uid"], found.loc[7, "judge"] = found.uid[6], found.judge[6]
    found.loc[8, "uid"] = found.uid[6]
    found.loc[9, "uid"] = "0123"
    found = found.assign(whole=rng.integers(0, 9, rows))
    found.loc[7, "whole"] = found.whole[6]
    return found


@pytest.mark.parametrize("form", ["parquet", "csv", "folder"])
@pytest.mark.parametrize("parts", [1, 7])
def test_values_are_found_by_uid(
    tmp_path: Path, form: str, parts: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts > 1:
        monkeypatch.setattr(joined, "_PART", 40)
    pool, given = write_random(tmp_path / "pool", 21), judged(3)
    source = tmp_path / "given" if form == "folder" else tmp_path / f"given.{form}"
    if form == "folder":
        source.mkdir()
        given[:200].to_parquet(source / "a.parquet")
        given[200:].to_csv(source / "b.csv", index=False)
    else:
        given.to_csv(source, index=False) if form == "csv" else given.to_parquet(source)
    status, said, wrong = columns(capsys, f"pool={pool}", f"import={source}", "name=vlm")
    rows = pd.concat([pd.read_parquet(path) for path in sorted(pool.glob("*.parquet"))], ignore_index=True)
    first = given[given.uid.str.len() == 32].drop_duplicates("uid").set_index("uid")
    expected = first.reindex(rows.uid)
    np.testing.assert_array_equal(values(pool, "judge"), expected.judge.to_numpy(np.float32))
    np.testing.assert_array_equal(values(pool, "vlm/whole"), expected.whole.to_numpy(np.float32))
    found = int(rows.uid.isin(first.index).sum())
    assert status == 0
    assert f"{found:,} of the pool's {len(rows):,} rows have a value, {len(rows) - found:,} have none" in said
    assert f"of 500 imported rows, {(~first.index.isin(rows.uid)).sum():,} are not in the pool" in said
    assert "2 rows repeat an earlier one's uid, 1 of them with another value" in said
    assert "1 rows whose uid is none, the first is row 9: '0123'" in wrong
    assert not list((pool / "columns").glob(".*"))
    before = {path: path.stat().st_mtime_ns for path in (pool / "columns" / "vlm").iterdir()}
    assert columns(capsys, f"pool={pool}", f"import={source}", "name=vlm")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}, "a second run has nothing to do"


@pytest.mark.parametrize("keys", [False, True])
def test_values_are_found_by_key(tmp_path: Path, keys: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The pool's own keys, or those of lists beside."""
    pool = write_metadata(tmp_path / "pool", 2, 40, npz=False)
    uids = [uid_of(number) for number in range(80)]
    listed = pd.DataFrame({"key": [f"{number:08d}" for number in range(80)], "uid": uids})
    if keys:
        (tmp_path / "lists").mkdir()
        listed.sample(frac=1, random_state=0).to_parquet(tmp_path / "lists" / "0.parquet")
    else:
        for number, path in enumerate(sorted(pool.glob("*.parquet"))):
            pd.read_parquet(path).assign(key=listed.key[40 * number : 40 * number + 40].to_list()).to_parquet(path)
    given = pd.DataFrame({"key": [f"{number:08d}" for number in range(79, 20, -1)], "score": np.arange(59.0)})
    given.loc[59] = ["nobody", 1.0]
    given.to_parquet(tmp_path / "given.parquet")
    words = [f"pool={pool}", f"import={tmp_path}/given.parquet", "name=flyt", "by=key"]
    status, said, wrong = columns(capsys, *words, *([f"keys={tmp_path}/lists"] if keys else []))
    assert status == 0 and "59 of the pool's 80 rows have a value, 21 have none" in said
    assert ("1 rows whose key is not in keys=" in wrong) == keys
    assert f"of 60 imported rows, {0 if keys else 1} are not in the pool" in said
    np.testing.assert_array_equal(values(pool, "score"), [*[np.nan] * 21, *np.arange(58.0, -1, -1)])


@pytest.mark.parametrize(("keys", "kind"), [(pa.nulls(20, pa.string()), "empty"), (pa.array(range(20)), "int64")])
def test_keys_that_are_none_are_told(
    keys: pa.Array, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_metadata(tmp_path / "pool", 1, 20, npz=False) / "0000.parquet"
    pq.write_table(pq.read_table(path).append_column("key", keys), path)
    (tmp_path / "given.csv").write_text("key,score\n00000001,2\n")
    status, _, wrong = columns(capsys, f"pool={path.parent}", f"import={tmp_path}/given.csv", "name=a", "by=key")
    assert status == 2 and f"its column 'key' is {kind}, not text; name tables that have key and uid by keys=" in wrong


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["import=text.parquet", "name=a"],
            "string, not numbers; choose others by take=[...]",
        ),
        (["import=text.parquet", "name=a", "take=[score,scr]"], "has no column 'scr'; did you mean 'score'?"),
        (["import=text.csv", "name=a"], "text.csv cannot be read: "),
        (["import=text.parquet", "name=a", "by=key"], "has no column 'key'"),
        (["import=keyed.csv", "name=a", "by=key"], "0000.parquet has no column 'key'; name tables that have key and"),
        (["import=text.parquet"], "name=: name the folder"),
        (["import=text.parquet", "name=../a"], "name=../a: name the folder"),
        (["import=nowhere", "name=a"], "import=nowhere: no parquet or CSV file there"),
        (["import=text.parquet", "name=a", "take=[score]", "by=url"], "by=url is not known"),
        (["import=others.parquet", "name=a"], "no row of the pool has a value"),
        (["inport=text.parquet"], "unknown key 'inport'"),
        (["import=latin.csv", "name=a"], "latin.csv names its columns in other letters than UTF-8's"),
        (["import=latin.csv", "name=a", "captions=a"], "latin.csv names its columns in other letters than UTF-8's"),
        (["import=twice.csv", "name=a"], "twice.csv has several columns 'score'"),
        (["import=twice.csv", "name=a", "captions=score"], "twice.csv has several columns 'score'"),
        (["import=keyed.csv", "name=a", "by=key", "keys=latin.csv"], "latin.csv names its columns in other letters"),
        (["import=keyed.csv", "name=a", "by=key", "keys=twice.csv"], "twice.csv has several columns 'score'"),
        (["import=keyed.csv", "name=a", "by=key", "keys=keyed.csv"], "keyed.csv has no column 'uid'"),
        (["name=a"], "name= is for import="),
        (["take=[a]"], "take= is for import="),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path,
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    table = pd.DataFrame({"uid": [uid_of(1), uid_of(2)], "score": [1.0, 2.0], "what": ["a", "b"]})
    table.to_parquet("text.parquet")
    table.to_csv("text.csv")
    table.assign(uid=[uid_of(1001), uid_of(1002)]).drop(columns="what").to_parquet("others.parquet")
    Path("latin.csv").write_bytes(f"uid,größe\n{uid_of(1)},1\n".encode("latin-1"))
    Path("twice.csv").write_text(f"uid,score,score\n{uid_of(1)},1,2\n")
    Path("keyed.csv").write_text("key,score\n0,1\n")
    status, _, wrong = columns(capsys, f"pool={pool}", *words)
    assert status == 2 and says in wrong and "\n" not in wrong


def test_keys_may_lie_in_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    (tmp_path / "keys.csv").write_text("".join(["key,uid\n", *(f"{n:03d},{uid_of(n)}\n" for n in range(20))]))
    (tmp_path / "given.csv").write_text("key,score\n004,4.5\n")
    words = [f"import={tmp_path}/given.csv", "name=a", "by=key", f"keys={tmp_path}/keys.csv"]
    assert columns(capsys, f"pool={pool}", *words)[0] == 0
    np.testing.assert_array_equal(values(pool, "score"), [*[np.nan] * 4, 4.5, *[np.nan] * 15])


def test_a_row_without_a_number_has_no_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also one that float32 cannot hold, which is told: it would be infinite, and the best of all."""
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    lines = [f"{uid_of(n)},{said}\n" for n, said in enumerate(["", "nan", "1e300", "-1e300", "inf", "2"])]
    (tmp_path / "given.csv").write_text("".join(["uid,score\n", *lines]))
    status, said, wrong = columns(capsys, f"pool={pool}", f"import={tmp_path}/given.csv", "name=a")
    assert status == 0 and "score: 2 of the pool's 20 rows have a value, 18 have none" in said
    assert wrong == "left out: 2 numbers that are too large for float32"
    np.testing.assert_array_equal(values(pool, "score"), [*[np.nan] * 4, np.inf, 2, *[np.nan] * 14])


def test_the_list_of_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 3, 40)
    scored(pool, Length())
    (pool / "columns" / "length" / "0001.parquet").unlink()
    status, said, _ = columns(capsys, f"pool={pool}")
    lines = {line.split()[0]: line for line in said.splitlines()}
    own = pd.concat([pd.read_parquet(path) for path in pool.glob("*.parquet")]).clip_l14_similarity_score
    assert status == 0
    assert lines["clip_l14_similarity_score"].split()[1:6] == ["3", "of", "3", "120", str(int(own.isna().sum()))]
    assert lines["length/pixels"].split()[1:5] == ["2", "of", "3", "80"] and "length v1" in lines["length/pixels"]
    (pool / "0000.parquet").touch()
    _, said, _ = columns(capsys, f"pool={pool}")
    assert "of another file than the pool's now; make it anew" in said


def test_names_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    names = np.array([(5, 9), (5, 3), (5, 7), (2, 1), (9, 0)], DTYPE)
    kind = joined.kind_of(1)
    rows = joined.rows_of(names, np.arange(5, dtype=np.float32)[:, None])
    assert joined.write_table([rows], kind, tmp_path / "table", 5) == (5, 0, 0)
    table = joined.open_table(tmp_path / "table", kind)
    wanted = np.array([(9, 0), (5, 7), (5, 8), (1, 1), (5, 3), (9, 1), (10, 0), (5, 9), (2, 1)], DTYPE)
    found = joined.look_up(table, wanted)
    assert (found >= 0).tolist() == [True, True, False, False, True, False, False, True, True]
    assert table.rows["values"][found[found >= 0], 0].tolist() == [4, 2, 1, 0, 3]
    assert joined.write_table([], kind, tmp_path / "empty", 0) == (0, 0, 0)
    assert joined.look_up(joined.open_table(tmp_path / "empty", kind), wanted).tolist() == [-1] * 9


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_numbers_of_rows_that_pandas_writes_are_no_column(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    table = pd.DataFrame({"uid": [uid_of(n) for n in range(6)], "score": np.arange(6.0)}).iloc[[4, 1, 3]]
    path = tmp_path / f"given.{suffix}"
    if suffix == "csv":
        table.to_csv(path)
    else:
        table.to_parquet(path)
        assert "__index_level_0__" in pq.read_schema(path).names
    status, said, _ = columns(capsys, f"pool={pool}", f"import={path}", "name=a")
    assert status == 0 and said.startswith("score: 3 of the pool's 20 rows have a value")
