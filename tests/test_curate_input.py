"""What pools' metadata can be like: types that writers choose, rows and files that are left out; and wrong commands."""

import re
import shlex
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from metadata import columns_of, embeddings_of, write_file, write_metadata
from pools import uid_of
from selecting import SMALL, curate

from poolbench.errors import UserError
from poolbench.files import read_json
from poolbench.uids import split_uid, write_subset

from curate import centroids
from curate.inspect import InspectOptions, inspected
from curate.models import entries, languages, targets, wordnet
from curate.selectors import image_based


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


@pytest.mark.parametrize(("name", "words"), [
    ("uid", "filter=no_filter"),
    ("clip_l14_similarity_score", "filter=top filter.column=clip_l14_similarity_score filter.fraction=0.5"),
    ("text", "filter=basic filter.language=fasttext_small"),
])  # fmt: skip
def test_a_column_that_a_file_has_twice_is_left_out_and_told(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_metadata(tmp_path / "pool", files=2, rows=60, npz=False)
    twice = pq.read_table(tmp_path / "pool" / "0001.parquet")
    pq.write_table(twice.append_column(name, twice[name]), tmp_path / "pool" / "0001.parquet")
    assert curate(*words.split(), f"pool={tmp_path}/pool", f"out={tmp_path}/out.npy") == 1
    assert f"left out: {tmp_path}/pool/0001.parquet has several columns {name!r}" in capsys.readouterr().err
    assert 0 < len(np.load(tmp_path / "out.npy")) <= 60


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
    "filter=top filter.column=text filter.fraction=0.5 pool={pool}": "a score is string, not a number: 'text'",
    "filter=neg_clip_loss filter.fraction=0.5 filter.batch=1 pool={pool}": "filter.batch=1 leaves nothing to compare",
    "filter=missing.npy pool={pool}": "subset missing.npy cannot be read",
    "filter=missing.yaml pool={pool}": "filter=missing.yaml cannot be read",
    "filter={folder}/latin.yaml pool={pool}": "latin.yaml cannot be read: 'utf-8' codec can't decode byte 0xe9",
    "filter=basic filter.language=fastext pool={pool}": "did you mean 'fasttext'?",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_mistake_is_one_line(words: str, pool: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "latin.yaml").write_bytes("filter: {subset: café}".encode("latin-1"))
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


@pytest.mark.parametrize(("words", "lacking"), [
    ("basic", "{pool} has no column 'text'"),
    ("text_based", "{pool} has no column 'text'"),
    ("laion2b filter.language=fasttext", "{pool} has no column 'text'"),
    ("metaclip filter.metadata=published", "{pool} has no column 'text'"),
    ("image_based filter.centroids=small", "{pool} has no column 'text'"),
    ("hype scale=small", "{pool} has no column 'clip_l14_similarity_score'"),
    ("union filter.of='[no_filter,{filter: vas, fraction: 0.3}]'", "{pool} has no .npz beside it, in which l14_img"),
    ("norm_sim filter.fraction=0.3", "{pool} has no .npz beside it, in which l14_img"),
    ("centroids", "{pool} has no column 'text'"),
])  # fmt: skip
def test_nothing_is_fetched_for_a_pool_that_lacks_columns(
    words: str, lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))
    for module in (entries, image_based, languages, targets, wordnet):
        monkeypatch.setattr(module, "fetched", lambda asset: pytest.fail(f"{asset.name} is fetched"))
    path = write_file(tmp_path / "pool" / "0.parquet", {"uid": columns_of(20)["uid"]})
    given = [f"pool={tmp_path}/pool", f"out={tmp_path}/out.npy"]
    if words == "centroids":
        with pytest.raises(UserError) as caught:
            centroids.COMMAND.answer(given)
        said = str(caught.value)
    else:
        assert curate(*shlex.split(f"filter={words}"), *given) == 2
        said = capsys.readouterr().err.rstrip()
    assert "\n" not in said and "no file of the pool can be used; " + lacking.format(pool=path) in said


def test_a_column_that_is_made_on_the_way_need_not_be_there(tmp_path: Path) -> None:
    """Whoever asks for a made column by its bare name may ask for one that another filter is about to make."""
    pool, out = write_metadata(tmp_path / "pool", files=2, rows=20, npz=False), tmp_path / "out.npy"
    mix = "{filter: mix, weights: {clip_l14_similarity_score: 1}, fraction: 1}"
    words = ("filter=top", "filter.column=mix", "filter.fraction=0.5", f"filter.of={mix}")
    assert curate(*words, f"pool={pool}", f"out={out}") == 0
    assert 20 <= len(np.load(out)) < 40
