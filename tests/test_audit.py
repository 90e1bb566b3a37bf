"""The audit of a selection: its statistics against other packages, its counts against plain Python's, its page."""

import csv
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pools import uid_of
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from poolbench.errors import UserError
from poolbench.uids import write_subset

from curate import audit
from curate.audits import statistics
from curate.audits.frequent import Buckets
from curate.audits.groups import captions, domains_of

PEOPLE = ("a woman", "two men", "A Muslim man", "a christian lady", "a gay couple", "an asian girl", "a black boy")
THINGS = ("a dog", "mankind", "womanizer", "she-wolf", "Frau und Mann", "", "le fils")
PLACES = ("in the garden", "in the office", "on a street", "with her car")
HOSTS = ("https://img.news.co.uk/a.jpg", "http://www.shop.com/b", "not a url", "https://cdn.shop.com/c", None)


def write_pool(folder: Path, rows: int, files: int = 3, seed: int = 0) -> list[dict[str, Any]]:
    """A pool of captions about people and things; its rows, in order."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    made = []
    for number in range(rows):
        subject = str(rng.choice(PEOPLE + THINGS))
        made.append(
            {
                "uid": uid_of(number),
                "url": HOSTS[int(rng.integers(len(HOSTS)))],
                "text": None if number % 97 == 96 else f"{subject} {rng.choice(PLACES)}",
                "original_width": int(rng.integers(20, 1200)) if number % 50 else None,
                "original_height": int(rng.integers(20, 1200)),
            }
        )
    kinds = pa.schema(
        [
            ("uid", "string"),
            ("url", "string"),
            ("text", "string"),
            ("original_width", "int64"),
            ("original_height", "int64"),
        ]
    )
    for file in range(files):
        pq.write_table(pa.Table.from_pylist(made[file::files], kinds), folder / f"{file}.parquet")
    return made


def run(root: Path, *words: str, workers: int = 1, pool: str = "pool") -> tuple[int, dict[str, Any]]:
    """`python -m curate.audit` in this process; its exit status and groups.json."""
    status = audit.COMMAND.answer([f"pool={root / pool}", f"out={root / 'audit'}", f"workers={workers}", *words])
    return status, json.loads((root / "audit" / "groups.json").read_text())


def group(found: dict[str, Any], attribute: str, name: str, subset: str | None = None) -> dict[str, Any]:
    (one,) = (
        row
        for row in found["groups"]
        if (row["attribute"], row["group"]) == (attribute, name) and subset in (None, row["subset"])
    )
    return dict(one)


def test_intervals_are_wilsons() -> None:
    rng = np.random.default_rng(0)
    for raw in (1, 2, 7, 50, 10**6):
        for kept in {0, raw, int(rng.integers(raw + 1))}:
            found = statistics.share(kept, raw)
            low, high = proportion_confint(kept, raw, method="wilson")
            assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
            assert found.stderr == pytest.approx(math.sqrt(kept / raw * (1 - kept / raw) / raw))


def test_groups_are_tested_against_the_rest() -> None:
    rng = np.random.default_rng(1)
    for raw, other in ((3, 900), (40, 60), (5000, 10**7)):
        kept, other_kept = int(rng.integers(raw + 1)), int(rng.integers(other + 1))
        table = [[kept, raw - kept], [other_kept, other - other_kept]]
        expected = stats.contingency.expected_freq(table)
        wanted = (
            stats.fisher_exact(table).pvalue
            if expected.min() < 5
            else stats.chi2_contingency(table, correction=False).pvalue
        )
        assert statistics.differ(kept, raw, other_kept, other) == pytest.approx(wanted)
    assert statistics.differ(0, 10, 0, 50) == 1.0  # nothing is kept at all
    assert statistics.differ(3, 10, 0, 0) == 1.0  # there is no rest


def test_probabilities_are_corrected_for_their_number() -> None:
    given = np.random.default_rng(2).random(40) ** 3
    assert statistics.corrected(given.tolist()) == pytest.approx(multipletests(given, method="fdr_bh")[1])
    assert statistics.corrected([]) == []


def test_amplification_is_a_line_of_least_squares() -> None:
    rng = np.random.default_rng(3)
    sizes = rng.integers(10, 10**6, 12)
    shares = 0.2 + 1e-7 * sizes + rng.normal(0, 0.02, 12)
    found = statistics.amplification(shares.tolist(), sizes.tolist())
    assert found is not None
    slope, intercept = np.polyfit(sizes.astype(float), shares, 1)
    assert (found.slope, found.intercept) == pytest.approx((slope, intercept))
    assert found.r == pytest.approx(np.corrcoef(sizes, shares)[0, 1])
    t = found.r * math.sqrt(10 / (1 - found.r**2))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 10))
    assert statistics.amplification([0.1, 0.2], [1, 2]) is None
    assert statistics.amplification([0.1, 0.2, 0.3], [5, 5, 5]) is None


def test_counts_are_those_of_plain_python(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 2000)
    kept = [row["uid"] for row in rows[::3]] * 2  # twice: rows are counted, not repeats
    write_subset(tmp_path / "kept.npy", kept)
    status, found = run(tmp_path, f"subset={tmp_path / 'kept.npy'}", "words=1", "domains=true", "domain_rows=1")
    assert status == 0
    chosen = set(kept)
    patterns = {
        (
            "gender",
            "woman",
        ): r"\b(wom[ae]n|females?|girls?|lad(y|ies)|mothers?|daughters?|sisters?|she|hers?|herself)\b",
        ("religion", "muslim"): r"\b(muslims?|islam\w*)\b",
        ("race and ethnicity", "black"): r"\bblack boy\b",
    }
    for (attribute, name), pattern in patterns.items():
        of = [row for row in rows if re.search(pattern, row["text"] or "", re.IGNORECASE)]
        one = group(found, attribute, name)
        assert (one["raw"], one["kept"]) == (len(of), sum(row["uid"] in chosen for row in of))
        assert one["base"] == pytest.approx(len(chosen) / 2000)
        assert one["ratio"] == pytest.approx(one["kept"] / one["raw"])
    pair = group(found, "gender and religion", "man and muslim")
    assert pair["raw"] == sum("Muslim man" in (row["text"] or "") for row in rows)
    sides = [min(row["original_width"], row["original_height"]) for row in rows if row["original_width"]]
    assert group(found, "shorter side", "100 to below 200")["raw"] == sum(100 <= side < 200 for side in sides)
    domains = Counter(domains_of(row["url"] for row in rows))
    assert set(domains) == {"news.co.uk", "shop.com", None}
    assert group(found, "domain", "shop.com")["raw"] == domains["shop.com"]
    women = [row for row in rows if re.search(patterns["gender", "woman"], row["text"] or "", re.IGNORECASE)]
    word = next(one for one in found["words"] if one["word"] == "office")
    assert word["first_raw"] == sum("office" in row["text"] for row in women)
    assert word["first_kept"] == sum("office" in row["text"] and row["uid"] in chosen for row in women)
    with (tmp_path / "audit" / "groups.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(found["groups"])


def test_workers_and_files_change_nothing(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 600)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::4]])
    words = (f"subset={tmp_path / 'kept.npy'}", "words=5", "domains=true", "domain_rows=5")
    one = run(tmp_path, *words)[1]
    page = (tmp_path / "audit" / "index.html").read_bytes()
    assert run(tmp_path, *words, workers=2)[1] == one
    assert (tmp_path / "audit" / "index.html").read_bytes() == page
    pq.write_table(pq.read_table(tmp_path / "pool"), tmp_path / "one.parquet")
    assert run(tmp_path, *words, pool="one.parquet")[1] == one


def test_planted_biases_are_found_and_no_others(tmp_path: Path) -> None:
    """Whoever is kept half as often is told so; of the groups that are kept as all are, none is, but by the level."""
    rng = np.random.default_rng(5)
    rows = write_pool(tmp_path / "pool", 6000)
    planted = {"muslim", "asian"}
    hit = [any(word in (row["text"] or "").lower() for word in planted) for row in rows]
    chances = np.where(hit, 0.15, 0.4)
    write_subset(
        tmp_path / "biased.npy", [row["uid"] for row, p in zip(rows, chances, strict=True) if rng.random() < p]
    )
    write_subset(tmp_path / "fair.npy", [row["uid"] for row in rows if rng.random() < 0.3])
    subsets = f"subset=[{tmp_path / 'biased.npy'},{tmp_path / 'fair.npy'}]"
    _, found = run(tmp_path, subsets, "words=null")
    assert [one for one in found["groups"] if one["subset"] == "fair" and one["different"]] == []
    less = {
        one["group"] for one in found["groups"] if one["subset"] == "biased" and one["different"] and one["ratio"] < 0.3
    }
    assert {"muslim", "asian", "man and muslim", "woman and asian"} <= less
    part = {"man", "woman"}  # whom some of these are
    assert all(name in part or {*name.split()} & planted for name in less)
    assert found["words"] == []


def test_tables_of_attributes(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 500)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[:100]])
    uids = [row["uid"] for row in rows][::-1]
    skin = ["light" if number % 3 else "dark" for number in range(500)]
    table = {
        "uid": [*uids, uids[0]],
        "skin": pa.array([*skin, "light"]).dictionary_encode(),
        "nsfw": [*(number % 5 == 0 for number in range(500)), True],
        "faces": [*(number % 4 for number in range(500)), 0],
        "age": pa.array([*(float(number % 90) if number % 2 else None for number in range(500)), 3.0]),
        "nothing": pa.nulls(501),
    }
    pq.write_table(pa.table({name: table[name] for name in table if name != "nothing"}), tmp_path / "a.parquet")
    with (tmp_path / "b.csv").open("w") as file:
        file.write("uid,tone\n" + "".join(f"{uid},{'x' if number % 2 else ''}\n" for number, uid in enumerate(uids)))
    given = f"attributes=[{tmp_path / 'a.parquet'},{tmp_path / 'b.csv'}]"
    status, found = run(tmp_path, f"subset={tmp_path / 'kept.npy'}", given, "bands={age: [18, 65]}")
    assert status == 0
    of = dict(zip(uids, range(500), strict=True))
    kept = [of[row["uid"]] for row in rows[:100]]
    dark = group(found, "skin", "dark")
    assert (dark["raw"], dark["kept"]) == (167, sum(number % 3 == 0 for number in kept))
    assert group(found, "nsfw", "True")["raw"] == 100
    assert group(found, "faces", "2")["raw"] == 125
    assert group(found, "age", "18 to below 65")["raw"] == sum(18 <= n % 90 < 65 for n in range(500) if n % 2)
    assert group(found, "tone", "x")["raw"] == 250
    assert any("1 rows repeat an earlier one's uid" in note for note in found["notes"])


def test_tables_of_domains(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 2500)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    (tmp_path / "sites.csv").write_text(
        "domain,kind,year\nnews.co.uk,news,1999\nwww.SHOP.com,shop,2004\nother.org,x,1\n"
    )
    _, found = run(tmp_path, f"subset={tmp_path / 'kept.npy'}", f"domain_tables={tmp_path / 'sites.csv'}")
    counts = Counter(domains_of(row["url"] for row in rows))
    assert group(found, "kind", "news")["raw"] == counts["news.co.uk"]
    assert group(found, "year", "2004")["raw"] == counts["shop.com"]
    assert found["below_minimum"]["year"] == 1 if counts["news.co.uk"] < 500 else True


def test_users_extend_the_groups(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 300)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    (tmp_path / "more.yaml").write_text(
        "gender:\n  compare: [Frau, fils]\n  groups: {Frau: 'frau', fils: 'fils'}\n"
        "anything:\n  boundary: false\n  groups: {kind: 'kind'}\n"
    )
    _, found = run(tmp_path, f"subset={tmp_path / 'kept.npy'}", f"captions={tmp_path / 'more.yaml'}", "words=1")
    names = {one["group"] for one in found["groups"] if one["attribute"] == "gender"}
    assert names == {"Frau", "fils"}
    assert group(found, "anything", "kind")["raw"] == sum("mankind" in (row["text"] or "") for row in rows)
    assert found["compared"] == ["Frau", "fils"]


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("MAN", {"man"}),
        ("a he-man", {"man"}),
        ("human", set()),
        ("the woman's hat", {"woman"}),
        ("élle_man", set()),
        ("man\u0301", set()),  # a mark belongs to its letter
        ("(Girls!)", {"woman"}),
        ("non-binary", {"non-binary"}),
        ("transparent", set()),
    ],
)
def test_words_end_at_boundaries(text: str, groups: set[str]) -> None:
    gender = next(one for one in captions() if one.name == "gender")
    masks = gender.masks(pa.table({"text": [text]}), np.zeros(1, "u8,u8"))
    assert {name for name, mask in masks.items() if mask[0]} == groups


def test_buckets_miss_nothing_that_is_frequent() -> None:
    rng = np.random.default_rng(0)
    items = [f"word{number}" for number in rng.zipf(1.3, 20_000) if number < 10**6]
    buckets = Buckets(1)
    buckets.add(0, items)
    full = buckets.full(20)
    from curate.audits.frequent import bucket

    assert all(full[bucket(item)] for item, times in Counter(items).items() if times >= 20)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attributes={root}/others.parquet"], "for no row of the pool; is it of another pool"),
        (["attributes={root}/floats.parquet"], "not categories; part it by bands="),
        (["attributes={root}/many.parquet"], "more than 1,000 different values"),
        (["attributes={root}/none.parquet"], "none.parquet cannot be read"),
        (["attributes={root}/keys.csv"], "no column 'uid'"),
        (["attributes={root}/floats.parquet", "bands={{age: [3, 1]}}"], "the edges of age must rise"),
        (["attributes={root}/floats.parquet", "bands=7"], "is not of the form"),
        (["bands={{age: [3]}}"], "names 'age', which is no column of attributes="),
        (["captions={root}/bad.yaml"], "gender: woman is no pattern"),
        (["captions={root}/empty.yaml"], "names no attribute"),
        (["words=0"], "words=0: at least 1"),
        (["subset={root}/gone.npy"], "gone.npy"),
        (["subset=[]"], "subset=[] is empty"),
        (["subset=[{root}/kept.npy,{root}/kept.npy]"], "kept.npy twice"),
        (["language=fastext"], "language=fastext is not known; did you mean 'fasttext'?"),
        (["attributes={root}/latin.csv"], "latin.csv names its columns in other letters than UTF-8's"),
        (["attributes={root}/latin_values.csv"], "column 'kind' holds other letters than UTF-8's"),
        (["attributes={root}/twice.csv"], "twice.csv has several columns 'kind'"),
        (["domain_tables={root}/twice_domain.csv"], "twice_domain.csv has several columns 'kind'"),
        (["attributes={root}/lists.parquet"], "list<element: int64>, not categories; leave it out"),
        (["out={root}/keys.csv"], "is a file, not a folder"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: list[str], said: str) -> None:
    rows = write_pool(tmp_path / "pool", 60)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    uids = [row["uid"] for row in rows]
    pq.write_table(
        pa.table({"uid": [uid_of(n) for n in range(900, 910)], "a": ["x"] * 10}), tmp_path / "others.parquet"
    )
    pq.write_table(pa.table({"uid": uids, "age": [0.5] * 60}), tmp_path / "floats.parquet")
    many = [uid_of(n) for n in range(1500)]
    pq.write_table(pa.table({"uid": many, "name": [str(n) for n in range(1500)]}), tmp_path / "many.parquet")
    (tmp_path / "keys.csv").write_text("key,a\n1,2\n")
    (tmp_path / "latin.csv").write_bytes("uid,größe\n".encode("latin-1"))
    (tmp_path / "latin_values.csv").write_bytes(f"uid,kind\n{uids[0]},groß\n".encode("latin-1"))
    (tmp_path / "twice.csv").write_text(f"uid,kind,kind\n{uids[0]},a,b\n")
    (tmp_path / "twice_domain.csv").write_text("domain,kind,kind\na.org,a,b\n")
    pq.write_table(pa.table({"uid": uids, "list": [[1]] * 60}), tmp_path / "lists.parquet")
    (tmp_path / "bad.yaml").write_text("gender: {groups: {woman: '('}}\n")
    (tmp_path / "empty.yaml").write_text("\n")
    given = [word.format(root=tmp_path) for word in words]
    keys = {word.split("=")[0] for word in given}
    usual = [f"subset={tmp_path / 'kept.npy'}", f"pool={tmp_path / 'pool'}", f"out={tmp_path / 'audit'}", "workers=1"]
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        audit.COMMAND.answer([*given, *(word for word in usual if word.split("=")[0] not in keys)])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "audit.work").exists()


def test_groups_of_one_share_stand_by_name(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 240)
    names = [f"kind {letter}" for letter in "qwertyuiop"]
    kinds = {"uid": [row["uid"] for row in rows], "kind": [names[n % 10] for n in range(240)]}
    pq.write_table(pa.table(kinds), tmp_path / "kinds.parquet")
    write_subset(tmp_path / "all.npy", kinds["uid"])
    run(tmp_path, f"subset={tmp_path}/all.npy", f"attributes={tmp_path}/kinds.parquet", "words=null")
    svg = re.search(r"<svg.*?kind q.*?</svg>", (tmp_path / "audit" / "index.html").read_text(), re.DOTALL)
    assert svg is not None
    assert re.findall(r">(kind \w) \(n = 24\)</text>", svg[0]) == sorted(names)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 90)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    (tmp_path / "pool" / "-broken.parquet").write_bytes(b"PAR1 no parquet")
    bad = {"uid": ["xyz"], "text": ["a man"]}
    pq.write_table(pa.table(bad), tmp_path / "pool" / "few.parquet")
    status, found = run(tmp_path, f"subset={tmp_path / 'kept.npy'}")
    assert status == 1
    assert any("broken.parquet" in note for note in found["notes"])
    assert found["pool"] == 90


def test_files_without_rows_or_groups_count_nothing(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 90)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    _, before = run(tmp_path, f"subset={tmp_path / 'kept.npy'}")
    every = pq.read_table(tmp_path / "pool")
    pq.write_table(every.slice(0, 0), tmp_path / "pool" / "none.parquet")
    status, found = run(tmp_path, f"subset={tmp_path / 'kept.npy'}")
    assert status == 0 and found == before
    (tmp_path / "empty").mkdir()
    pq.write_table(every.slice(0, 0), tmp_path / "empty" / "none.parquet")
    with pytest.raises(UserError, match="the pool has no rows with a uid"):
        run(tmp_path, f"subset={tmp_path / 'kept.npy'}", pool="empty")


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.int64()])
def test_an_edge_is_in_the_band_above_it_in_every_precision(tmp_path: Path, kind: pa.DataType) -> None:
    rows = write_pool(tmp_path / "pool", 120)
    numbers = [2**40 - 1, 2**40, 2**40 + 1] if kind == pa.int64() else [0.2, 0.7, 0.71]
    edges = [2**40, 2**40 + 1] if kind == pa.int64() else [0.2, 0.7]
    values = pa.array(numbers, kind)
    table = {"uid": [row["uid"] for row in rows], "score": values.take(pa.array(np.arange(120) % 3))}
    pq.write_table(pa.table(table), tmp_path / "scores.parquet")
    write_subset(tmp_path / "all.npy", table["uid"])
    words = [f"attributes={tmp_path}/scores.parquet", f"bands={{score: {edges}}}", "words=null"]
    _, found = run(tmp_path, f"subset={tmp_path}/all.npy", *words)
    bands = {one["group"]: one["raw"] for one in found["groups"] if one["attribute"] == "score"}
    low, high = (f"{edge}" for edge in edges)
    if kind == pa.int64():
        assert bands == {f"below {low}": 40, f"{low} to below {high}": 40, f"{high} or more": 40}
    else:
        assert bands == {f"{low} to below {high}": 40, f"{high} or more": 80}


def test_rows_of_a_table_that_have_no_uid_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write_pool(tmp_path / "pool", 90)
    uids = [row["uid"] for row in rows]
    write_subset(tmp_path / "kept.npy", uids[::2])
    given = pa.table({"uid": ["xyz", *uids, None], "kind": ["a"] * 92})
    pq.write_table(given, tmp_path / "kinds.parquet")
    _, found = run(tmp_path, f"subset={tmp_path}/kept.npy", f"attributes={tmp_path}/kinds.parquet", "words=null")
    assert [one["raw"] for one in found["groups"] if one["attribute"] == "kind"] == [90]
    (note,) = found["notes"]
    assert "kinds.parquet: 2 uids are not 32 hex digits, the first is row 0: 'xyz'" in note
    assert note in capsys.readouterr().err


def test_files_of_a_pool_may_differ_in_their_columns(tmp_path: Path) -> None:
    """Where the first one has no captions, those of the others count all the same."""
    rows = write_pool(tmp_path / "pool", 90)
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    _, before = run(tmp_path, f"subset={tmp_path}/kept.npy")
    pq.write_table(pa.table({"uid": [uid_of(n) for n in range(900, 920)]}), tmp_path / "pool" / "-first.parquet")
    status, found = run(tmp_path, f"subset={tmp_path}/kept.npy")
    (note,) = found["notes"]
    assert status == 1 and "-first.parquet has no column" in note and found["groups"] == before["groups"]


def test_a_subset_of_none_of_the_rows_keeps_nothing_of_any_group(tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", 90)
    write_subset(tmp_path / "others.npy", [uid_of(n) for n in range(900, 910)])
    status, found = run(tmp_path, f"subset={tmp_path / 'others.npy'}")
    (subset,) = found["subsets"]
    assert status == 0 and (subset["size"], subset["kept"], subset["base"]) == (10, 0, 0)
    assert found["notes"] == ["others: 10 of its 10 uids are not in the pool; is it of another pool?"]
    tests = {(one["ratio"], one["p"], one["p_corrected"], one["different"]) for one in found["groups"]}
    assert tests == {(0, 1, 1, False)} and all(0 <= one["low"] < 1e-12 < one["high"] for one in found["groups"])


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 200)
    hostile = "<script>alert(1)</script>&\"'"
    write_subset(tmp_path / "kept.npy", [row["uid"] for row in rows[::2]])
    table = pa.table({"uid": [row["uid"] for row in rows], hostile: [hostile] * 200})
    pq.write_table(table, tmp_path / "a.parquet")
    run(tmp_path, f"subset={tmp_path / 'kept.npy'}", f"attributes={tmp_path / 'a.parquet'}")
    page = (tmp_path / "audit" / "index.html").read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;" in page
