"""MetaCLIP's matching, counting and drawing against a plain version of each."""

import gzip
import itertools
import json
import random
import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from metadata import write_file
from pools import uid_of
from selecting import curate, selected, uids_of
from small_wordnet import DEBIAN, needs_wordnet

from poolbench.errors import UserError
from poolbench.files import read_json

from curate.metaclip_metadata import main
from curate.models import entries as entries_module
from curate.models.assets import METACLIP_METADATA
from curate.models.entries import Matcher, described, load_entries, wordnet_entries
from curate.models.wordnet import synset_names
from curate.pool.files import list_pool
from curate.pool.passes import Passes
from curate.selectors.metaclip import of_tail, tail_of
from curate.selectors.registry import build

WORDS = [
    "dog",
    "Dog",
    "a",
    "the",
    "New",
    "York",
    "D.C.",
    "犬",
    "é",
    "e\u0301",
    "\U0001f600",
    "don't",
    "``",
    "x,y",
    "_",
    "-",
]
BETWEEN = [" ", " ", " ", "  ", ", ", ",", ". ", "\t", "\n", "\r\n", ";", ":", "?", "!", "`", "\u00a0", "-", "\x0b", ""]
OFFSETS = ["dog", "a dog", "dog a", "a dog a", "dog dog", "New York", "York", ".", ", a", "D . C .", "D.C.", "犬", "é"]


def random_text(rng: random.Random) -> str:
    """Words that entries name, with anything between them."""
    return "".join(rng.choice(WORDS) + rng.choice(BETWEEN) for _ in range(rng.randrange(9)))


def random_entries(rng: random.Random) -> list[str]:
    """Different ones that overlap and lie within each other, some of which no caption names."""
    made = [" ".join(rng.choices(WORDS, k=rng.choice([1, 1, 2, 3]))) for _ in range(60)]
    return list(dict.fromkeys([*OFFSETS, *made, *(random_text(rng) or "none" for _ in range(20))]))


def plain_matches(text: str | None, entries: list[str]) -> list[int]:
    """The definition: docs/methods.md."""
    spaced = f" {text or ''} "
    for mark in ",.;:?!`":
        spaced = spaced.replace(mark, f" {mark} ")
    for blank in "\t\n\r":
        spaced = spaced.replace(blank, " ")
    return [number for number, entry in enumerate(entries) if f" {entry} " in spaced]


def mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) % 2**64
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def draw(uid: str, entry: str, seed: int) -> float:
    key = mixed(int(uid[:16], 16) ^ mixed(int(uid[16:], 16) ^ mixed(seed)))
    digest = int.from_bytes(blake2b(entry.encode(), digest_size=8).digest(), "little")
    return (mixed(key ^ digest) >> 11) / 2**53


def plain_needed(rows: pd.DataFrame, entries: list[str], seed: int) -> list[float]:
    """The t above which each row is kept."""
    found = [plain_matches(text, entries) for text in rows.text]
    counts = np.bincount([entry for one in found for entry in one], minlength=len(entries))
    return [
        min((draw(uid, entries[entry], seed) * counts[entry] for entry in one), default=np.inf)
        for uid, one in zip(rows.uid, found, strict=True)
    ]


def write_captions(
    folder: Path, texts: list[str | None], files: int = 3, nameless: tuple[int, ...] = ()
) -> pd.DataFrame:
    """A pool of these captions, a score beside each; the rows `nameless` have no uid, and are not among what is given
    back."""
    rng = np.random.default_rng(len(texts))
    columns = {
        "uid": ["none" if number in nameless else uid_of(number) for number in range(len(texts))],
        "text": texts,
        "clip_l14_similarity_score": np.round(rng.normal(0.2, 0.1, len(texts)), 2).astype(np.float32),
    }
    edges = np.linspace(0, len(texts), files + 1).astype(int)
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        write_file(folder / f"{number}.parquet", {name: values[start:stop] for name, values in columns.items()})
    return pd.DataFrame(columns).query("uid != 'none'")


def write_entries(path: Path, entries: Any) -> str:
    path.write_text(json.dumps(entries), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("seed", range(8))
def test_entries_match_as_substrings_between_blanks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries_module, "_TOGETHER", 7)
    rng = random.Random(seed)
    entries = random_entries(rng)
    texts = [*(random_text(rng) for _ in range(100)), "", None, "\n", " ".join(entries), "dog" * 3, "a dog a dog a"]
    rng.shuffle(texts)
    found = Matcher({"": entries}).find(pa.chunked_array([texts[:30], texts[30:]], pa.string()))
    expected = [(row, entry) for row, text in enumerate(texts) for entry in plain_matches(text, entries)]
    assert list(zip(found.rows.tolist(), found.entries.tolist(), strict=True)) == expected
    assert len(expected) > 100


def test_nothing_stands_in_no_captions() -> None:
    for texts in ([], [None], ["", "zebra"]):
        found = Matcher({"": ["dog"]}).find(pa.chunked_array([texts], pa.string()))
        assert len(found.rows) == len(found.entries) == 0


@pytest.mark.parametrize("seed", range(4))
def test_the_rows_are_those_of_the_definition(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    entries = random_entries(rng)
    rows = write_captions(tmp_path / "pool", [random_text(rng) for _ in range(500)] + [None])
    needed = np.array(plain_needed(rows, entries, seed))
    words = ("filter=metaclip", f"filter.metadata={write_entries(tmp_path / 'entries.json', entries)}")
    words += (f"pool={tmp_path}/pool", f"filter.seed={seed}")
    found = selected(tmp_path / "t.npy", *words, "filter.t=9.5")
    np.testing.assert_array_equal(found, uids_of(rows[needed < 9.5]))
    assert 100 < len(found) < np.isfinite(needed).sum()
    found = selected(tmp_path / "size.npy", *words, "filter.size=123")
    np.testing.assert_array_equal(found, uids_of(rows[needed <= np.sort(needed)[122]]))
    assert len(found) == 123
    state = read_json(tmp_path / "size.npy.json")["state"]
    assert state["rows_counted"] == len(rows) and state["rows_without_match"] == np.isinf(needed).sum()
    counts = np.bincount(
        [entry for text in rows.text for entry in plain_matches(text, entries)], minlength=len(entries)
    )
    assert (state["entries"], state["entries_matched"]) == (len(entries), (counts > 0).sum())
    assert state["matches"] == counts.sum()
    t = state_t(selected, tmp_path / "tail.npy", words)
    assert t == of_tail(counts, 0.06)


def state_t(run: Any, out: Path, words: tuple[str, ...]) -> float:
    """The t that is solved where none of t, tail and size is given."""
    run(out, *words)
    return float(read_json(out.with_name(f"{out.name}.json"))["state"]["t"])


def test_nothing_but_uid_seed_and_entry_decides(tmp_path: Path) -> None:
    """Neither the order of entries nor files, nor what else stands in the list."""
    rng = random.Random(1)
    entries, texts = random_entries(rng), [random_text(rng) for _ in range(400)]
    write_captions(tmp_path / "one", texts, 1)
    write_captions(tmp_path / "many", texts, 11)
    shuffled = [*rng.sample(entries, len(entries)), "of no caption"]
    found = [
        selected(
            tmp_path / f"{number}.npy",
            "filter=metaclip",
            f"filter.metadata={write_entries(tmp_path / f'{number}.json', some)}",
            f"pool={tmp_path / pool}",
            "filter.t=5",
            f"filter.seed={seed}",
            f"workers={workers}",
        ).tolist()
        for number, (some, pool, seed, workers) in enumerate(
            [(entries, "one", 0, 1), (shuffled, "many", 0, 2), (entries, "one", 1, 1)]
        )
    ]
    assert found[0] == found[1] != found[2]


def test_all_of_what_is_rare_and_a_share_of_the_rest(tmp_path: Path) -> None:
    """The published probability, 1 - Π (1 - min(1, t / n)), is what shares of many rows come to."""
    rng = random.Random(3)
    kinds = ["dog", "dog cat", "cat", "dog cat bird", "owl", "nothing"]
    texts = [kinds[number] for number in rng.choices(range(6), [8, 4, 4, 2, 0.01, 1], k=40_000)]
    rows = write_captions(tmp_path / "pool", list(texts), 2)
    entries = write_entries(tmp_path / "entries.json", ["dog", "cat", "bird", "owl"])
    words = ("filter=metaclip", f"filter.metadata={entries}", f"pool={tmp_path}/pool")
    t = 3000
    kept = {tuple(uid) for uid in selected(tmp_path / "out.npy", *words, f"filter.t={t}").tolist()}
    is_kept = np.array([(int(uid[:16], 16), int(uid[16:], 16)) in kept for uid in rows.uid])
    for kind in kinds:
        fail = 1.0
        for word in set(kind.split()) - {"nothing"}:
            fail *= 1 - min(1, t / sum(word in text.split() for text in texts))
        mine = (rows.text == kind).to_numpy()
        error = np.sqrt(fail * (1 - fail) / mine.sum())
        assert abs(is_kept[mine].mean() - (1 - fail)) <= 4 * error, kind
    assert is_kept[(rows.text == "owl").to_numpy()].all()
    every = selected(tmp_path / "all.npy", *words, "filter.t=40000")
    np.testing.assert_array_equal(every, uids_of(rows[rows.text != "nothing"]))
    fewer = selected(tmp_path / "fewer.npy", *words, "filter.t=1000")
    assert np.isin(fewer, np.array(sorted(kept), fewer.dtype)).all()  # a larger t keeps those of a smaller one


def test_of_counts_only_what_the_other_filter_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.pool.files.ROWS", 21)
    rng = random.Random(4)
    entries = random_entries(rng)
    rows = write_captions(tmp_path / "pool", [random_text(rng) for _ in range(400)], nameless=(3, 4, 50, 200, 399))
    given = f"filter.metadata={write_entries(tmp_path / 'entries.json', entries)}"
    of = "filter.of={filter: clip_score, threshold: 0.2}"
    among = rows[rows.clip_l14_similarity_score >= np.float32(0.2)]
    needed = np.array(plain_needed(among, entries, 0))
    for option, kept in {"t=6": needed < 6, "size=50": needed <= np.sort(needed)[49]}.items():
        words = (
            "filter=metaclip",
            given,
            of,
            f"filter.{option}",
            f"pool={tmp_path}/pool",
            f"out={tmp_path}/{option}.npy",
        )
        assert curate(*words, "workers=1") == 1  # as some rows have no uid
        found = np.load(tmp_path / f"{option}.npy")
        np.testing.assert_array_equal(found, uids_of(among[kept]))


def test_t_of_a_share_of_the_matches() -> None:
    """As MetaCLIP 2 solves it: the count at which the cumulative share is nearest to what is asked."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        counts = (rng.pareto(1, 300) * 5).astype(np.int64)
        ascending = sorted(counts[counts > 0].tolist())
        for tail in (0.01, 0.06, 0.3, 0.9):
            shares = [sum(ascending[: place + 1]) / sum(ascending) for place in range(len(ascending))]
            nearest = min(range(len(ascending)), key=lambda place: (abs(shares[place] - tail), place))
            assert of_tail(counts, tail) == ascending[nearest]
        assert tail_of(counts, 7) == sum(count for count in ascending if count < 7) / sum(ascending)
    assert of_tail(np.zeros(5, np.int64), 0.06) == 1.0


def test_lists_by_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caption is compared with its language's entries, each list has its own t from one share, and ideographs need no
    blanks around them."""
    languages = {"o": "en", "d": "de", "犬": "ja", "z": "xx"}
    monkeypatch.setattr(
        entries_module, "detector", lambda _: lambda texts: [languages.get(one[:1], "") for one in texts]
    )
    monkeypatch.setattr(entries_module, "check_detector", lambda _: None)
    lists = {"en": ["hat", "cat", "in"], "de": ["hat", "der"], "ja": ["犬", "走", "x犬", "犬x"], "other": ["zoo"]}
    texts = ["one hat", "der hat", "犬xが走る", "zoo hat", "one der", "", "der zoo", "犬xy犬x", "ein hat", "one in hat"]
    named = [[0], [3, 4], [5, 6], [9], [], [], [4], [5, 8], [], [0, 2]]
    found = Matcher(lists, "any").find(pa.chunked_array([texts]))
    pairs = list(zip(found.rows.tolist(), found.entries.tolist(), strict=True))
    assert sorted(pairs) == [(row, entry) for row, entries in enumerate(named) for entry in entries]
    assert [row for row, _ in pairs] == sorted(row for row, _ in pairs)
    rows = write_captions(tmp_path / "pool", texts * 30)
    path = write_entries(tmp_path / "lists.json", lists)
    words = ("filter=metaclip", f"filter.metadata={path}", "filter.t=40", f"pool={tmp_path}/pool", "workers=1")
    kept = selected(tmp_path / "out.npy", *words)
    # English: hat 60, in 30; a third of the matches is of entries below 40. German: der 60, hat 30, also a third. Both
    # other lists have nothing nearer than their least frequent entry.
    t = {"en": 40.0, "de": 30.0, "ja": 30.0, "other": 30.0}
    assert read_json(tmp_path / "out.npy.json")["state"]["t"] == t
    limits = [t[language] for language, entries in lists.items() for _ in entries]
    entries = [entry for some in lists.values() for entry in some]
    counts = np.bincount([entry for some in named for entry in some]) * 30
    expected = [
        any(draw(uid, entries[entry], 0) * counts[entry] < limits[entry] for entry in named[row % len(texts)])
        for row, uid in enumerate(rows.uid)
    ]
    np.testing.assert_array_equal(kept, uids_of(rows[expected]))


@pytest.mark.parametrize(
    "options, why",
    [
        ({"t": 5, "size": 3}, "takes one of t, tail and size, not t and size"),
        ({"t": 0}, "filter.t=0.0 must be a positive number"),
        ({"t": float("nan")}, "filter.t=nan must be"),
        ({"tail": 1.0}, "filter.tail=1.0 must lie between 0 and 1"),
        ({"size": 0}, "filter.size=0 must be positive"),
        ({"size": 3, "metadata": "few.json"}, "filter.size=3 is more than the 2 rows whose caption names an entry"),
        ({"metadata": "absent.json"}, "filter.metadata=absent.json cannot be read: No such file"),
        ({"metadata": "broken.json"}, "filter.metadata=broken.json is not JSON: "),
        ({"metadata": "twice.json"}, "filter.metadata=twice.json: de: the key is there twice"),
        ({"metadata": "number.json"}, "filter.metadata=number.json is no list of texts"),
        ({"metadata": "mixed.json"}, "filter.metadata=mixed.json: entry 1 is 7, not a text"),
        ({"metadata": "lists.json", "size": 1}, "filter.size= is for one list of entries"),
        ({"metadata": "lists.json", "t": 1, "language": "fasttext_small"}, "filter.t= is that of English's entries"),
        ({"metadata": "blank.json"}, "filter.metadata=blank.json has no entry"),
        ({"metadata": "wordnet", "wordnet": "nowhere"}, "nowhere/data.noun cannot be read"),
    ],
)
def test_what_cannot_be_is_told(
    options: dict[str, Any], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_captions(tmp_path / "pool", ["a dog", "dog", "cat"], 1)
    contents: dict[str, Any] = {"few": ["dog"], "number": 7, "mixed": ["a", 7], "lists": {"de": ["x"], "fr": ["y"]}}
    for name, content in {**contents, "blank": ["", " "]}.items():
        write_entries(tmp_path / f"{name}.json", content)
    (tmp_path / "broken.json").write_text("[")
    (tmp_path / "twice.json").write_text('{"de": ["x"], "de": ["y"]}')
    with Passes(list_pool("pool"), tmp_path / "work", 1) as passes, pytest.raises(UserError) as error:
        build({"filter": "metaclip", "metadata": "few.json", **options}).prepare(passes)
    assert why in str(error.value) and "\n" not in str(error.value)


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(entries_module.importlib.util, "find_spec", lambda _: None)
    write_captions(tmp_path / "pool", ["a dog"], 1)
    entries = write_entries(tmp_path / "entries.json", ["dog"])
    assert (
        curate("filter=metaclip", f"filter.metadata={entries}", f"pool={tmp_path}/pool", f"out={tmp_path}/o.npy") == 2
    )
    assert "this filter needs the package ahocorasick-rs: pip install -e '.[curate]'" in capsys.readouterr().err


def test_duplicates_and_blanks_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_entries(tmp_path / "entries.json", ["dog", "", "cat", "dog", " ", "", "dog"])
    assert load_entries(path) == ({"": ["dog", "cat"]}, 2, 3)
    write_captions(tmp_path / "pool", ["a dog", "cat", "owl"], 1)
    selected(tmp_path / "out.npy", "filter=metaclip", f"filter.metadata={path}", "filter.t=1", f"pool={tmp_path}/pool")
    state = read_json(tmp_path / "out.npy.json")["state"]
    assert (state["entries"], state["entries_given_twice"], state["entries_blank"]) == (2, 2, 3)


def test_the_published_list_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(write_entries(tmp_path / "list.json", ["dog", "cat"]))
    monkeypatch.setattr(entries_module, "fetched", {METACLIP_METADATA: path}.get)
    assert load_entries("published").lists == {"": ["dog", "cat"]}

    def offline(_: Any) -> Path:
        raise UserError("no network")

    monkeypatch.setattr(entries_module, "fetched", offline)
    with pytest.raises(UserError, match=r"^no network$"):
        load_entries("published")


def test_a_list_that_changes_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write_entries(tmp_path / "list.json", ["dog"])
    metadata = described(load_entries(path), path, "", "fasttext")
    write_entries(tmp_path / "list.json", ["cat"])
    with pytest.raises(UserError, match="was changed meanwhile; start the same command again"):
        metadata.matcher()


def test_a_caption_that_is_no_text_leaves_its_file_out(tmp_path: Path, capsys: Any) -> None:
    write_captions(tmp_path / "pool", ["a dog"], 1)
    broken = pa.array([b"a dog", b"\xff dog"]).view(pa.string())
    write_file(tmp_path / "pool" / "1.parquet", {"uid": [uid_of(7), uid_of(8)], "text": broken})
    entries = write_entries(tmp_path / "entries.json", ["dog"])
    words = (f"filter.metadata={entries}", f"pool={tmp_path}/pool", f"out={tmp_path}/out.npy")
    assert curate("filter=metaclip", *words) == 1
    assert len(np.load(tmp_path / "out.npy")) == 1
    assert read_json(tmp_path / "out.npy.json")["left_out"] == 1
    assert "1.parquet: In chunk 0: Invalid: Invalid UTF8" in capsys.readouterr().err


def test_names_of_synsets(tmp_path: Path) -> None:
    data = {
        "noun": "  1 the licence\n00001740 03 n 01 Entity 0 000 | .\n00000001 03 n 01 St._Francis 0 000 | .\n",
        "verb": "00001740 29 v 04 take_a_breath 0 breathe 0 000 | .\n00000002 03 n 01 .22 0 000 | a calibre\n",
        "adj": "00001740 00 a 01 galore(ip) 0 000 | .\n",
        "adv": "00001740 02 r 01 Entity 0 000 | .\n",
    }
    for part, text in data.items():
        (tmp_path / f"data.{part}").write_text(text)
    assert list(synset_names(tmp_path)) == ["entity", "st", "take a breath", "", "galore", "entity"]
    assert wordnet_entries(tmp_path)[98:] == ["98", "99", "entity", "st", "take a breath", "galore"]
    (tmp_path / "data.adj").write_text("nothing\n")
    with pytest.raises(UserError, match=r"data\.adj is not one of WordNet's files of synsets"):
        list(synset_names(tmp_path))


@needs_wordnet
def test_wordnets_share_of_the_published_entries() -> None:
    """The published list has 500,000 entries, of which 251,465 + 100,646 + 61,235 are of Wikipedia."""
    assert len(wordnet_entries(DEBIAN)) == 500_000 - 251_465 - 100_646 - 61_235


def test_metadata_are_made_of_what_is_given(tmp_path: Path, capsys: Any) -> None:
    for part in ("noun", "verb", "adj", "adv"):
        (tmp_path / f"data.{part}").write_text("00001740 03 n 01 ice_cream 0 000 | .\n")
    words = {"the": 5000, "ice": 100, "hong": 30, "kong": 20, ",": 900, "99": 400, "Ünder": 99}
    (tmp_path / "words.txt").write_text("".join(f"{word} {count}\n" for word, count in words.items()))
    pairs = {("hong", "kong"): 20, ("the", "ice"): 10, ("ice", "absent"): 50}
    with gzip.open(tmp_path / "pairs.txt.gz", "wt") as file:
        file.writelines(f"{one}\t{other}\t{count}\n" for (one, other), count in pairs.items())
    (tmp_path / "views").mkdir()
    for hour, counts in enumerate(([50, 69, 49, 400], [20, 10, 49, 400], [50, 0, 49, 400])):
        with gzip.open(tmp_path / "views" / f"{hour}.gz", "wt") as file:
            titles = ("Red_panda", "Once", "Often_but_little", "Talk:Main")
            lines = [f"en {title} {count} 0\n" for title, count in zip(titles, counts, strict=True)]
            file.writelines([*lines, "en.m Phone 900 0\n", "de Hund 900 0\n"])
    given = [f"{name}={tmp_path}/{at}" for name, at in (("unigrams", "words.txt"), ("bigrams", "pairs.txt.gz"))]
    given += [f"titles={tmp_path}/views", f"wordnet={tmp_path}", f"out={tmp_path}/out.json"]
    total = sum(words.values())
    least = np.log2(20 * total / (30 * 20))
    assert main([*given, f"pmi={least - 0.01}"]) == 0
    numbers = [str(number) for number in range(100)]
    assert read_json(tmp_path / "out.json") == [*numbers, "ice cream", "the", "ice", "hong kong", "Red panda"]
    assert "unigrams: 2 entries" in capsys.readouterr().err  # of which 99 is one already
    assert main([*given, f"pmi={least + 0.01}"]) == 0
    assert "hong kong" not in read_json(tmp_path / "out.json")
    (tmp_path / "words.txt").write_text("the 7\nof the 3\n")
    for wrong, why in {
        "bigrams=x": "bigrams= needs unigrams=",
        f"unigrams={tmp_path}/words.txt": "line 2 is 'of the 3', not 'word count'",
        f"unigrams={tmp_path}/none.gz": "none.gz cannot be read: No such file",
    }.items():
        with pytest.raises(UserError, match=re.escape(why)):
            main([wrong, f"wordnet={tmp_path}", f"out={tmp_path}/other.json"])
    assert not (tmp_path / "other.json").exists()
