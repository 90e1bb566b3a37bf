"""The report on a subset: its numbers against plain Python's, and its page in a real browser."""

import json
import pickle
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import Browser, needs_browser
from metadata import columns_of, write_file, write_metadata
from pools import picture, uid_of, write_pool, write_tar

from poolbench import uids
from poolbench.errors import UserError
from poolbench.uids import DTYPE, split_uid, write_subset

from curate import inspect
from curate.pool import files as pool
from curate.pool.files import File, list_pool
from curate.pool.hashes import hashed
from curate.pool.passes import Passes
from curate.report.gather import Findings, Question
from curate.report.gather import gather as gathered
from curate.report.members import Members, Overlap, Runs
from curate.report.page import percent
from curate.report.sections import _listing
from curate.report.statistics import DROPPED, KEPT, Histogram
from curate.report.words import contrasts, host_of, words_of

ROWS = 1000
HOSTILE = "</title><script>document.title='run'</script><img src=x onerror=\"document.title='run'\"> {{ 7*7 }}\u202e"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with metadata/ of 1000 rows, shards/ of the first 60, kept.npy (every third) and other.npy."""
    root = tmp_path_factory.mktemp("inspect")
    write_metadata(root / "metadata", files=4, rows=ROWS // 4, npz=False)
    write_pool(root / "shards", shards=3, per_shard=20)
    write_subset(root / "kept.npy", [uid_of(n) for n in range(0, ROWS, 3)])
    write_subset(root / "other.npy", [uid_of(n) for n in range(0, ROWS, 2)])
    return root


def gather(files: list[File], question: Question) -> Findings:
    with Passes(files, None, 1) as passes:
        return gathered(passes, question)


def run(subset: Path, **options: Any) -> int:
    """`python -m curate.inspect` in this process, with one worker unless the options say otherwise; mistakes raise."""
    options.setdefault("workers", 1)
    return inspect.COMMAND.answer([str(subset), *(f"{key}={value}" for key, value in options.items())])


def facts_of(page: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))


def test_lookups_are_those_of_a_counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over repeats, neighbours that differ in one half only, both ends, and chunks that cut runs."""
    monkeypatch.setattr(uids, "_ROWS", 5)
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 7, 64, 200):
        pairs = [tuple(map(int, pair)) for pair in rng.integers(0, 6, (size, 2)) + np.array([2**63, 0], np.uint64)]
        array = np.array(sorted(pairs), DTYPE)
        np.save(tmp_path / "s.npy", array)
        subset = Members(str(tmp_path / "s.npy"))
        counter = Counter(pairs)
        asked = [(2**63 + high, low) for high in range(7) for low in range(7)] + [(0, 0), (2**64 - 1, 2**64 - 1)]
        places, times = subset.find(np.array(asked, DTYPE))
        assert times.tolist() == [counter[pair] for pair in asked]
        assert subset.seen() == 0
        elsewhere = pickle.loads(pickle.dumps(subset)).find(np.array(asked, DTYPE))  # as in another process
        assert [one.tolist() for one in elsewhere] == [places.tolist(), times.tolist()]
        for some in (places[times > 0][:9], np.unique(places[times > 0])):
            subset.note(some)
        assert subset.runs() == Runs(len(counter), max(counter.values()))
        assert subset.seen() == len(counter)


def test_overlap_counts_different_uids(tmp_path: Path) -> None:
    write_subset(tmp_path / "a.npy", [uid_of(n) for n in (1, 1, 2, 3, 4)])
    write_subset(tmp_path / "b.npy", [uid_of(n) for n in (3, 4, 4, 4, 5)])
    first, second = Members(str(tmp_path / "a.npy")), Members(str(tmp_path / "b.npy"))
    assert first.overlap(second) == Overlap(2, 2, 1)
    assert first.overlap(second).jaccard == 2 / 5
    assert first.seen() == 0  # which is kept for what the pool asks


def test_numbers_are_those_of_the_rows(data: Path) -> None:
    question = Question(Members(str(data / "kept.npy")), None, 50, 0)
    found = gather(list_pool(str(data / "metadata")), question)
    rows = [row for n in range(4) for row in pa.table(columns_of(ROWS // 4, n * ROWS // 4)).to_pylist()]
    kept = [row for number, row in enumerate(rows) if number % 3 == 0]
    assert found.rows == {KEPT: 334, DROPPED: 666} and found.pool == ROWS
    words = found.histograms["words"][KEPT]
    counts = [len(row["text"].split()) for row in kept]
    assert words.counts.tolist() == np.bincount(counts, minlength=60).tolist()
    assert words.mean == pytest.approx(np.mean(counts))
    assert words.quantile(0.5) == np.sort(counts)[(len(counts) - 1) // 2]
    side = found.histograms["side"][KEPT]
    assert side.missing == sum(row["original_width"] == 0 for row in kept) > 0
    assert side.total == sum(min(row["original_width"], row["original_height"]) for row in kept)
    scores = np.array([row["clip_l14_similarity_score"] for row in kept])
    histogram = found.histograms["clip_l14_similarity_score"][KEPT]
    assert histogram.missing == (~np.isfinite(scores)).sum() > 0
    assert histogram.total == pytest.approx(scores[np.isfinite(scores)].sum(), rel=1e-6)
    assert found.score_columns == ["clip_b32_similarity_score", "clip_l14_similarity_score"]


def test_numbers_beyond_the_edges_are_counted_in_the_outermost_bins() -> None:
    histogram = Histogram.of(np.array([0.0, 1.0, 2.0]))
    histogram.add(np.array([-5, 0, 0.99, 1, 2, 7, np.nan, np.inf]))
    assert histogram.counts.tolist() == [3, 3] and histogram.missing == 2 and histogram.size == 6
    assert Histogram.of(np.array([0.0, 1.0])).mean is None


def test_the_samples_are_the_least_hashes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uids = np.array([split_uid(uid_of(n)) for n in range(ROWS)], DTYPE)
    rows = [row for n in range(4) for row in pa.table(columns_of(ROWS // 4, n * ROWS // 4)).to_pylist()]

    def drawn(seed: int) -> list[str | None]:
        question = Question(Members(str(data / "kept.npy")), None, 50, seed)
        return gather(list_pool(str(data / "metadata")), question).samples[KEPT].column("url")

    order = np.argsort(hashed(uids, 5), kind="stable").tolist()
    expected = [rows[number]["url"] for number in order if number % 3 == 0][:50]
    assert drawn(5) == expected
    monkeypatch.setattr(pool, "ROWS", 17)
    assert drawn(5) == expected != drawn(6)


def test_over_representation_is_the_papers_formula() -> None:
    first, second = Counter({"dog": 30, "the": 90, "rare": 1}), Counter({"dog": 10, "the": 180, "cat": 40})
    found = {row.item: row for row in contrasts(first, second, (100, 200))}
    assert [*found][:1] == ["dog"] and [*found][-1:] == ["cat"]
    share = 40 / 300  # of the texts of both samples with a dog; a thousand texts of these are each one's prior
    ones, others = 1000 * share, 1000 * (1 - share)
    ratio = np.log((30 + ones) / (70 + others)) - np.log((10 + ones) / (190 + others))
    variance = 1 / (30 + ones) + 1 / (70 + others) + 1 / (10 + ones) + 1 / (190 + others)
    assert found["dog"].z == pytest.approx(ratio / np.sqrt(variance))
    assert (found["the"].first, found["the"].second) == (0.9, 0.9) and abs(found["the"].z) < 1e-9
    assert 0 < found["rare"].z < found["dog"].z  # seen in one of a hundred, which may be chance


def test_what_all_have_is_in_neither_over_represented() -> None:
    (only,) = contrasts(Counter({"a": 1800}), Counter({"a": 4200}), (1800, 4200))
    assert abs(only.z) < 1


def test_words_and_hosts() -> None:
    assert words_of("Don't RUN, run: café_42 — 犬 " + "x" * 41) == {"don't", "run", "café", "42", "犬"}
    assert host_of("https://www.Example.org:80/a?b") == "example.org"
    assert host_of("no address") == host_of("http://[broken") == host_of("") == "(none)"


def test_what_stands_in_all_texts_differs_by_nothing() -> None:
    (row,) = contrasts(Counter(host=2962), Counter(host=2966), (2962, 2966))
    assert -0.05 < row.z < 0
    assert _listing("Hosts", [row], ("kept", "dropped"), ("kept", "dropped")).rows[0].z == "+0.0"


def test_shares_in_words() -> None:
    assert [percent(x) for x in (0, 1e-6, 0.0004, 0.012, 0.3, 1)] == [
        "0 %",
        "< 0.01 %",
        "0.04 %",
        "1.2 %",
        "30 %",
        "100 %",
    ]


def test_a_report_says_what_is_kept(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_subset(tmp_path / "s.npy", [uid_of(n) for n in (0, 0, 0, 3, 6, ROWS + 7)])
    assert run(tmp_path / "s.npy", pool=data / "metadata", out=tmp_path / "r.html") == 0
    text = (tmp_path / "r.html").read_text()
    assert "r.html: 3 of 1,000 rows kept (0.30 %)" in capsys.readouterr().out
    facts = facts_of(text)
    assert facts["Kept"] == "3 rows" and facts["Subset, with repeats"] == "6 uids"
    assert facts["Different uids"] == "4" and facts["Not in the pool"] == "1 uids"
    assert "some up to\n3 times" in text and "1 uids of the subset are not in this pool" in text


def test_the_same_inputs_give_the_same_page(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"pool": data / "metadata", "against": data / "other.npy", "samples": data / "shards", "texts": 100}
    assert run(data / "kept.npy", **options, out=tmp_path / "a.html") == 0
    monkeypatch.setattr(pool, "ROWS", 64)
    assert run(data / "kept.npy", **options, out=tmp_path / "b.html") == 0
    assert run(data / "kept.npy", **options, out=tmp_path / "c.html", seed=1) == 0
    first, second, third = ((tmp_path / f"{name}.html").read_bytes() for name in "abc")
    assert first == second != third
    monkeypatch.undo()
    assert run(data / "kept.npy", **options, out=tmp_path / "a.html", workers=2) == 0
    assert (tmp_path / "a.html").read_bytes() == first


def test_two_subsets_side_by_side(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(data / "kept.npy", pool=data / "metadata", against=data / "other.npy", out=tmp_path / "r.html")
    assert "334 of 1,000 rows kept (33 %), 50 % of its uids in other.npy" in capsys.readouterr().out
    text = (tmp_path / "r.html").read_text()
    facts = facts_of(text)
    both = len(range(0, ROWS, 6))
    assert facts["In both"] == f"{both} uids" and facts["Only in this one"] == f"{334 - both} uids"
    assert facts["Only in the other"] == f"{500 - both} uids" and facts["Kept share of the other"] == "50 %"
    assert facts["Of this one, in both"] == "50 %"
    assert "Words only in kept.npy and only in other.npy" in text


def test_the_contact_sheet_shows_each_sample_on_its_side(data: Path, tmp_path: Path) -> None:
    run(data / "kept.npy", pool=data / "metadata", samples=data / "shards", out=tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    kept, dropped = re.findall(r'<ul class="sheet">(.*?)</ul>', text, re.DOTALL)
    numbers = [[int(n) for n in re.findall(r"picture number (\d+)</bdi>", part)] for part in (kept, dropped)]
    assert sorted(numbers[0]) == list(range(0, 60, 3))  # there are only twenty
    assert len(set(numbers[1])) == 24 and all(n % 3 for n in numbers[1])
    assert text.count("data:image/jpeg;base64,") == 44
    row = pa.table(columns_of(ROWS // 4)).to_pylist()[numbers[0][0]]
    shown = re.findall(r'<p class="score">(.*?)</p>', kept)[0]
    if np.isfinite(row["clip_b32_similarity_score"]):
        assert f"b32 {row['clip_b32_similarity_score']:.3f}" in shown


def test_what_cannot_be_read_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "metadata"
    shutil.copytree(data / "metadata", folder)
    (folder / "0001.parquet").write_bytes(b"no parquet")
    columns = {"uid": ["xyz", uid_of(5000)], "text": ["a", None], "original_width": [None, 3]}
    write_file(folder / "0009.parquet", columns)
    assert run(data / "kept.npy", pool=folder, out=tmp_path / "r.html") == 1
    said = capsys.readouterr()
    assert (
        "0001.parquet cannot be read" in said.err
        and "1 uids are not 32 hex digits, the first is row 0: 'xyz'" in said.err
    )
    assert "of 751 rows kept" in said.out


def test_a_file_that_breaks_off_half_way_counts_for_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pool, "ROWS", 50)
    shutil.copytree(data / "metadata", tmp_path / "metadata")
    path = tmp_path / "metadata" / "0001.parquet"
    second = pq.read_metadata(path).row_group(1).column(0)  # of three; the first has been read by then
    with path.open("r+b") as file:
        file.seek(second.dictionary_page_offset or second.data_page_offset)
        file.write(b"\xff" * second.total_compressed_size)
    assert sum(1 for _ in pool.read_columns(list_pool(str(data / "metadata"))[1], ["uid"])) == 5
    assert run(data / "kept.npy", pool=tmp_path / "metadata", out=tmp_path / "r.html") == 1
    said = capsys.readouterr()
    assert "0001.parquet cannot be read" in said.err and "of 750 rows kept" in said.out


def test_a_pool_of_uids_alone_will_do(data: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": [uid_of(n) for n in range(10)]}), tmp_path / "u.parquet")
    assert run(data / "kept.npy", pool=tmp_path, out=tmp_path / "r.html") == 0
    text = (tmp_path / "r.html").read_text()
    assert facts_of(text)["Kept"] == "4 rows" and "has no column url, text, original_width, original_height" in text
    assert "<h2>Words" not in text and "<h2>Scores" not in text


@pytest.mark.parametrize(
    ("subset", "options", "message"),
    [
        (None, {}, "name one subset file"),
        ("gone.npy", {}, "subset .*gone.npy cannot be read"),
        ("kept.npy", {"pool": "/nowhere"}, "pool=/nowhere does not exist"),
        ("kept.npy", {"texts": 0}, "texts=0: at least 1"),
        ("kept.npy", {"seed": -1}, "seed=-1: 0 or more"),
        ("kept.npy", {"workers": 0}, "workers=0 must be positive"),
        ("kept.npy", {"out": "report.pdf"}, "out=report.pdf: the report is a page"),
        ("kept.npy", {"samples": "/nowhere"}, "samples=/nowhere does not exist"),
        ("kept.npy", {"againts": "x"}, r"unknown key 'againts': did you mean 'against'\?"),
    ],
)
def test_wrong_commands_get_one_line(
    data: Path,
    tmp_path: Path,
    subset: str | None,
    options: dict[str, Any],
    message: str,
) -> None:
    words = [] if subset is None else [str(data / subset)]
    known = {"pool": data / "metadata", "out": tmp_path / "r.html", **options}
    with pytest.raises(UserError, match=message) as caught:
        inspect.COMMAND.answer([*words, *(f"{key}={value}" for key, value in known.items())])
    assert "\n" not in str(caught.value) and not (tmp_path / "r.html").exists()


def hostile_page(folder: Path) -> Path:
    """A report in which every text that comes from outside tries to be markup."""
    columns = columns_of(40)
    columns["text"] = [f"{HOSTILE} <b>{n % 3}</b>" for n in range(40)]
    columns["url"] = [f"http://<script>evil{n % 2}</script>.example/" for n in range(40)]
    columns["clip_<b>_similarity_score"] = [0.1] * 40
    write_file(folder / "metadata" / "a.parquet", columns)
    samples = [
        (
            str(n),
            {
                "txt": HOSTILE.encode(),
                "png": picture(n) if n else b"?",
                "json": json.dumps({"uid": uid_of(n)}).encode(),
            },
        )
        for n in range(6)
    ]
    write_tar(folder / "shards" / "0.tar", samples)
    subset = folder / "<i>kept<script>.npy"
    write_subset(subset, [uid_of(n) for n in range(0, 40, 2)])
    write_subset(folder / "<b>.npy", [uid_of(n) for n in range(9)])
    assert run(
        subset, pool=folder / "metadata", samples=folder / "shards", against=folder / "<b>.npy", out=folder / "r.html"
    ) == 0  # fmt: skip
    return folder / "r.html"


@needs_browser
def test_the_page_runs_nothing_and_fits_every_screen(tmp_path: Path, browser: Browser) -> None:
    path = hostile_page(tmp_path)
    browser.driver.get_log("performance")  # type: ignore[no-untyped-call]
    for width in (360, 1280):
        browser.resize(width)
        browser.open(path)
        assert browser.js("return document.documentElement.scrollWidth") <= width
    assert browser.driver.title == "<i>kept<script>.npy · subset report"
    assert browser.js("return [...document.querySelectorAll('script, b, i, [onerror]')].length") == 0
    captions = browser.js("return [...document.querySelectorAll('.sheet bdi')].map((x) => x.textContent)")
    assert captions == [HOSTILE] * 6
    drawn = browser.js("return [...document.querySelectorAll('.sheet img')].filter((x) => x.naturalWidth).length")
    assert drawn == 5 and browser.js("return document.querySelectorAll('.sheet .none').length") == 1
    assert browser.driver.get_log("browser") == []  # type: ignore[no-untyped-call]
    sent = [json.loads(line["message"])["message"] for line in browser.driver.get_log("performance")]  # type: ignore[no-untyped-call]
    asked = {one["params"]["request"]["url"][:5] for one in sent if one["method"] == "Network.requestWillBeSent"}
    assert asked <= {"file:", "data:"}


@needs_browser
def test_text_is_read_on_either_ground(data: Path, tmp_path: Path, browser: Browser) -> None:
    run(data / "kept.npy", pool=data / "metadata", out=tmp_path / "r.html")
    grounds = []
    for theme in ("light", "dark"):
        browser.theme(theme)
        browser.open(tmp_path / "r.html")
        colours = browser.js(
            "const of = (x, key) => getComputedStyle(document.querySelector(x))[key];"
            "return [of('body', 'backgroundColor'), of('body', 'color'), of('svg text', 'fill')]"
        )
        ground, ink, label = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert abs(ground - ink) > 450 and label == ink  # of 765
        grounds.append(ground)
    assert grounds[0] > 700 > 100 > grounds[1]
