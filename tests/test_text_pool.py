"""The demo pool with writing in its pictures: its kinds, their shares, what is held out, the same bytes."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_demo import read_samples, tree

from poolbench.errors import UserError
from poolbench.subset import Subset

from demodata import emoji, text_pool, writing
from demodata.samples import SHARD_SIZE, captions
from demodata.text_pool import KINDS, RIGHT, SIDE, VERSION, TextPool, build
from demodata.writing import STRIP, Writing, below, fitted, over

EVERY = 12  # of the pictures one is drawn: the whole pool takes a minute


@pytest.fixture(scope="module")
def every() -> list[emoji.Picture]:
    """A sample of the pictures, held-out ones among them."""
    read = emoji._read_emoji
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(emoji, "_read_emoji", lambda: read()[::EVERY])
        return emoji.pictures()


@pytest.fixture(scope="module")
def made(every: list[emoji.Picture], tmp_path_factory: pytest.TempPathFactory) -> TextPool:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_pool, "pictures", lambda progress: every)
        return build(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def samples(made: TextPool) -> dict[str, dict[str, bytes]]:
    """The samples by uid, with the kind that a file says they are."""
    kinds = {kind: Subset(str(made.kinds / f"{kind}.npy")) for kind in KINDS}
    found = {}
    for tar in sorted(made.pool.glob("*.tar")):
        for sample in read_samples(tar):
            uid = json.loads(sample["json"])["uid"]
            (kind,) = [kind for kind, subset in kinds.items() if subset.count(uid) == 1]
            found[uid] = {**sample, "kind": kind.encode()}
    assert len(found) == sum(subset.size for subset in kinds.values())
    return found


def opened(sample: dict[str, bytes]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(sample["png"])))


def test_kinds_part_the_pool_into_quarters(made: TextPool, samples: dict[str, dict[str, bytes]]) -> None:
    assert sorted(path.stem for path in made.kinds.iterdir()) == sorted(KINDS)
    shares = Counter(sample["kind"].decode() for sample in samples.values())
    assert all(share / len(samples) == pytest.approx(0.25, abs=0.002) for share in shares.values())
    right = Subset(str(made.right))
    assert right.size == sum(shares[kind] for kind in RIGHT)
    assert all(right.count(uid) == (sample["kind"].decode() in RIGHT) for uid, sample in samples.items())


def test_formats_are_those_of_any_pool(made: TextPool, samples: dict[str, dict[str, bytes]]) -> None:
    assert len(list(made.pool.glob("*.tar"))) == -(-len(samples) // SHARD_SIZE)
    (path,) = made.metadata.iterdir()
    rows = {row["uid"]: row for row in pq.read_table(path).to_pylist()}
    assert rows.keys() == samples.keys()
    for uid, sample in samples.items():
        image = Image.open(io.BytesIO(sample["png"]))
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (SIDE, SIDE))
        assert rows[uid]["text"] == sample["txt"].decode() and rows[uid]["original_width"] == SIDE
        assert rows[uid]["url"] == json.loads(sample["json"])["url"]
    credits = made.credits.read_text(encoding="utf-8")
    assert all(word in credits for word in ("CC BY-SA 4.0", "Aileron", "CC0", "Unicode"))


def test_a_caption_is_right_where_the_kind_says_so(
    every: list[emoji.Picture], samples: dict[str, dict[str, bytes]]
) -> None:
    known = {picture.code: {one.lower() for one in captions(picture)} for picture in every}
    for sample in samples.values():
        code = json.loads(sample["json"])["url"].rsplit("/", 1)[1].removesuffix(".svg")
        assert (sample["txt"].decode().lower() in known[code]) == (sample["kind"].decode() in RIGHT)


def test_the_writing_is_where_the_kind_says_so(samples: dict[str, dict[str, bytes]]) -> None:
    """A plain sample shows the drawing of its wrong twin; over it the letters stand in the lower part alone."""
    by = {kind: [one for one in samples.values() if one["kind"].decode() == kind] for kind in KINDS}
    assert {one["png"] for one in by["plain"]} == {one["png"] for one in by["swapped"]}
    said = {(one["txt"], json.loads(one["json"])["url"]) for one in by["swapped"]}
    assert said == {(one["txt"], json.loads(one["json"])["url"]) for one in by["overwritten"]}
    upper = {opened(one)[: SIDE - STRIP].tobytes() for one in by["plain"]}
    for sample in by["overwritten"]:
        assert opened(sample)[: SIDE - STRIP].tobytes() in upper
    dark = {
        kind: np.mean([(opened(one)[SIDE - STRIP :] < 64).all(axis=2).mean() for one in by[kind]]) for kind in KINDS
    }
    assert min(dark["written"], dark["overwritten"]) > 3 * max(dark["plain"], dark["swapped"]) > 0


def test_nothing_held_out_is_in_it(every: list[emoji.Picture], samples: dict[str, dict[str, bytes]]) -> None:
    held_out = [picture for picture in every if picture.held_out]
    names = {name.lower() for picture in held_out for name in picture.names}
    codes = {json.loads(sample["json"])["url"].rsplit("/", 1)[1].removesuffix(".svg") for sample in samples.values()}
    assert len(held_out) > 10 and codes.isdisjoint(picture.code for picture in held_out)
    assert names.isdisjoint(sample["txt"].decode().lower() for sample in samples.values())
    pairs = text_pool._pairs(every)
    assert names.isdisjoint(" ".join(pair.writing.lines).lower() for pair in pairs)
    assert all(pair.caption.startswith(" ".join(pair.writing.lines)) for pair in pairs)


def test_words_of_a_held_out_name_are_not_written() -> None:
    assert fitted("pedestrian crossing at night", SIDE) is None
    assert text_pool._writing("pedestrian crossing at night", set()) == Writing(("pedestrian", "crossing at"), 20)
    assert text_pool._writing("pedestrian crossing at night", {"pedestrian crossing at"}) is None
    assert text_pool._writing("São Tomé", set()) is None


@pytest.mark.parametrize("text", ["dog", "woman firefighter", "yellow square", "a b c d e f", "gyjpq gyjpq"])
def test_letters_stay_within_the_strip(text: str) -> None:
    made = fitted(text, SIDE)
    assert made is not None and " ".join(made.lines) == text and made.size in writing.SIZES
    ground = Image.new("RGB", (SIDE, SIDE), "#e0e0e0")
    for image in (below(ground, made), over(ground, made)):
        rows, columns = np.nonzero((np.asarray(image) != 0xE0).any(axis=2))
        assert rows.min() >= SIDE - STRIP and rows.max() < SIDE - 2 and 2 <= columns.min() <= columns.max() < SIDE - 2


def test_the_same_bytes_each_time(
    made: TextPool, every: list[emoji.Picture], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_pool, "pictures", lambda progress: list(every))
    assert tree(build(tmp_path).pool.parent) == tree(made.pool.parent)


def test_the_command_tells_where_it_lies(made: TextPool, capsys: pytest.CaptureFixture[str]) -> None:
    root = made.pool.parent.parent
    assert text_pool.COMMAND.answer([f"root={root}"]) == 0
    told = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert told["pool"] == str(root / VERSION / "pool") and set(told) == set(TextPool._fields)
    with pytest.raises(UserError):
        text_pool.COMMAND.answer(["rot=x"])
