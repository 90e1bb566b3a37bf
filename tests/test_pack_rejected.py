"""Pictures and captions that cannot be packed: each is listed with its reason, and the others are packed."""

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packing import (
    SUFFIXES,
    Pair,
    as_coco,
    as_csv,
    as_jsonl,
    as_pairs,
    drawn,
    encoded,
    options,
    reasons,
    samples,
    stored,
)
from PIL import Image

from poolbench.errors import UserError, status_of
from poolbench.files import read_json
from poolbench.shards.pictures import decoding, opened, rgb

from curate.pack.run import pack


def test_everything_that_cannot_be_used_is_listed(tmp_path: Path, rng: np.random.Generator) -> None:
    good = drawn(rng, 5)
    folder, whole = stored(tmp_path / "in", good), encoded(rng, "JPEG", 64, 64)  # half of it is more than its head
    gif, buffer = io.BytesIO(), io.BytesIO()
    Image.new("P", (4, 4)).save(gif, "GIF")
    Image.new("I", (4, 4)).save(buffer, "TIFF")
    wrong = {
        "cut.jpg": (whole[: len(whole) // 2], "image cannot be decoded: image file is truncated"),
        "moving.gif": (gif.getvalue(), "unsupported format GIF: save it as JPEG, PNG or WebP"),
        "print.tif": (buffer.getvalue(), "unsupported format TIFF: save it as JPEG, PNG or WebP"),
        "empty.png": (b"", "empty picture"),
        "page.jpg": (b"<html>", "image cannot be decoded: it is none of JPEG, PNG, WEBP, GIF, BMP, TIFF"),
    }
    for name, (data, _) in wrong.items():
        (folder / name).write_bytes(data)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    with (folder / "huge.png").open("wb") as file:
        file.truncate(257 * 2**20)
    huge = "larger than 256 MiB: 269,484,032 bytes"
    others = {"pipe.jpg": "no file, but a pipe or a device", "folder.jpg": "cannot be read: Is a directory"}
    others |= {"gone.jpg": "there is no such file", "huge.png": huge, "x" * 300: "cannot be read: File name too long"}
    others |= {"https://x.test/a.jpg": "a url instead of a file: python -m curate.download brings pictures"}
    expected = {name: reason for name, (_, reason) in wrong.items()} | others
    rows = [*((name, "a caption") for name in expected), *((one.name, one.captions[0]) for one in good)]
    texts = {" \t": "empty caption", "\0\0": "empty caption", "\ud800": "caption is not UTF-8", 3: "caption is no text"}
    lines = [json.dumps({"file": name, "text": text}) for name, text in rows]
    lines += [json.dumps({"file": good[0].name, "text": text}) for text in texts]
    lines += [json.dumps({"file": name, "text": "x"}) for name in ("", None, "a\0b.jpg", "\ud8ff.jpg")]
    lines += ["no JSON", "[1]", '"text"', '{"file": "a", "text": "one", "text": "another"}']
    lines += [json.dumps({"file": good[1].name, "text": good[1].captions[0]})]
    (folder / "all.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert pack(options(tmp_path / "out", from_=folder, shard_size=4)) == 1
    assert sorted(one["txt"].decode() for one in samples(tmp_path / "out")) == sorted(one.captions[0] for one in good)
    found = {int(source.split()[-1]): reason for source, reason in reasons(tmp_path / "out")}
    named = "its name is none that a file can have"
    told = [*expected.values(), *[""] * len(good), *texts.values(), *["no name of a picture"] * 2, named, named]
    told += [*["no JSON object"] * 3, "no JSON object: text: the key is there twice"]
    first = f"all.jsonl line {len(expected) + 2}"
    told += [f"a duplicate: the same picture and caption as {first}"]
    assert found.keys() == {number for number, reason in enumerate(told, start=1) if reason}
    assert all(reason.startswith(told[number - 1]) for number, reason in found.items())
    counts = read_json(tmp_path / "out" / "packed.json")["counts"]
    assert counts["samples"] == 5 and counts["left_out"] == len(found) == sum(counts["reasons"].values())


def test_bad_rows_of_a_table_of_text(tmp_path: Path, rng: np.random.Generator) -> None:
    one = drawn(rng, 1)[0]._replace(name="é.png")
    stored(tmp_path, [one])
    latin = "é.png;caption of é".encode("latin-1")
    lines = [
        b"file;caption",
        "é.png;good".encode(),
        b"only",
        latin,
        b"",
        'é.png;"a"b'.encode(),
        b'x;"open\nto the',
        b"end",
    ]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines))
    assert pack(options(tmp_path / "out", from_=tmp_path / "a.csv")) == 1
    assert [sample["txt"] for sample in samples(tmp_path / "out")] == [b"good"]
    found = dict(reasons(tmp_path / "out"))
    assert found["a.csv line 3"] == "other columns than the first line: 1 instead of 2"
    assert found["a.csv line 4"] == "caption is not UTF-8"
    assert found["a.csv line 6"].startswith("no row of a table:")
    assert found["a.csv line 7"].endswith("(lines 7 to 9)") and len(found) == 4


def test_pairs_that_are_none(tmp_path: Path, rng: np.random.Generator) -> None:
    pairs = drawn(rng, 4)
    folder = as_pairs(tmp_path / "in", pairs)["from_"]
    (folder / "alone.png").write_bytes(pairs[0].data)
    (folder / "alone too.txt").write_text("nothing to see")
    (folder / pairs[0].name).with_suffix(".txt").write_bytes(b"\xff")
    (folder / pairs[1].name).with_suffix(".txt").write_bytes(b"\n")
    (folder / ".hidden.jpg").write_bytes(b"")
    assert pack(options(tmp_path / "out", from_=folder)) == 1
    assert dict(reasons(tmp_path / "out")) == {
        "alone.png": "no caption: no .txt of its name beside it",
        "alone too.txt": "no picture: none of its name beside it",
        pairs[0].name: "caption is not UTF-8",
        pairs[1].name: "empty caption",
    }
    assert len(samples(tmp_path / "out")) == 2
    assert read_json(tmp_path / "out" / "packed.json")["passed"] == ["1 files are neither pictures nor .txt: .md 1"]


def test_a_name_that_is_not_utf8(tmp_path: Path, rng: np.random.Generator) -> None:
    name = os.fsdecode(b"\xff\xfe.png")
    as_pairs(tmp_path / "in", [Pair(name, encoded(rng, "PNG"), ["a"], None), Pair("b.png", b"", ["b"], None)])
    (tmp_path / "in" / os.fsdecode(b"\xfe.jpg")).write_bytes(b"")
    assert pack(options(tmp_path / "out", from_=tmp_path / "in")) == 1
    assert [one["txt"] for one in samples(tmp_path / "out")] == [b"a"]
    assert dict(reasons(tmp_path / "out")) == {
        "b.png": "empty picture",
        "\\xfe.jpg": "no caption: no .txt of its name beside it",
    }


def test_a_name_with_line_breaks_is_told_in_one_line(
    tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_pairs(tmp_path / "in", drawn(rng, 2))["from_"]
    (folder / "a\nleft out: b\u2028.png").write_bytes(b"")
    (folder / os.fsdecode(b"a.\n\xff")).write_bytes(b"")
    assert pack(options(tmp_path / "out", from_=folder)) == 1
    said = capsys.readouterr()
    kind = "no caption: no .txt of its name beside it"
    assert f"left out: 1 x {kind} (a\\nleft out: b\\u2028.png)" in said.err.splitlines()
    assert "2 files are neither pictures nor .txt: .md 1, .\\n\\udcff 1" in said.out.splitlines()
    assert dict(reasons(tmp_path / "out")) == {"a\nleft out: b\u2028.png": kind}
    shutil.rmtree(tmp_path / "out")
    for name in folder.rglob("*.[tT]*"):
        name.unlink()
    (folder / "b.txt").write_text("whose picture is not there")
    assert status_of(lambda: pack(options(tmp_path / "out", from_=folder))) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "the first is a\\nleft out: b\\u2028.png: no caption" in lines[0]


def test_coco_with_gaps(tmp_path: Path, rng: np.random.Generator) -> None:
    given = as_coco(tmp_path / "in", pairs := drawn(rng, 3))
    path = tmp_path / "in" / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["image_id"] = 5
    path.write_text(json.dumps(content))
    assert pack(options(tmp_path / "out", **given)) == 1
    assert dict(reasons(tmp_path / "out")) == {
        "captions_val2017.json annotation 0": "no image of its id: 5",
        "captions_val2017.json image 0": "no caption",
    }
    assert len(samples(tmp_path / "out")) == len(pairs) - 1


def test_pictures_that_are_not_in_the_parquet(tmp_path: Path, rng: np.random.Generator) -> None:
    rows: list[dict[str, Any]] = [
        {"image": {"bytes": encoded(rng, "PNG"), "path": "a.png"}, "text": "a"},
        {"image": {"bytes": None, "path": "b.png"}, "text": "b"},
        {"image": None, "text": "c"},
        {"image": {"bytes": encoded(rng, "PNG"), "path": None}, "text": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert pack(options(tmp_path / "out", from_=tmp_path / "a.parquet")) == 1
    assert dict(reasons(tmp_path / "out")) == {
        "a.parquet row 1": "its bytes are not in the parquet: only its name b.png",
        "a.parquet row 2": "no picture",
        "a.parquet row 3": "empty caption",
    }


def test_a_picture_is_cut_off_where_training_would_say_so(tmp_path: Path, rng: np.random.Generator) -> None:
    """The look at an eighth of a JPEG's size tells what decoding all of it tells."""
    pairs, wanted = [], set()
    for number in range(60):
        form = str(rng.choice(list(SUFFIXES)))
        whole = encoded(rng, form, most=80)
        data = whole[: int(rng.integers(1, len(whole) + 1))] if rng.random() < 0.8 else whole
        pairs.append(Pair(f"{number}{SUFFIXES[form]}", data, [str(number)], None))
        try:
            with decoding():
                rgb(opened(data))
            wanted.add(str(number))
        except ValueError:
            pass
    assert pack(options(tmp_path / "out", **as_jsonl(tmp_path / "in", pairs))) == 1
    assert {one["txt"].decode() for one in samples(tmp_path / "out")} == wanted
    header = replace(options(tmp_path / "headers", from_=tmp_path / "in" / "data.jsonl"), decode=False)
    pack(header)
    assert len(samples(tmp_path / "headers")) > len(wanted)


def test_the_first_of_what_is_there_twice_stays(tmp_path: Path, rng: np.random.Generator) -> None:
    one, two, three = drawn(rng, 3)
    many = [one, two, two._replace(name="same"), three, one._replace(name="also")]
    assert pack(options(tmp_path / "out", shard_size=2, **as_jsonl(tmp_path / "in", many))) == 0
    assert [sample["txt"].decode() for sample in samples(tmp_path / "out")] == [
        pair.captions[0].strip() for pair in (one, two, three)
    ]
    assert dict(reasons(tmp_path / "out")) == {
        "data.jsonl line 5": "a duplicate: the same picture and caption as data.jsonl line 3",
        "data.jsonl line 9": "a duplicate: the same picture and caption as data.jsonl line 1",
    }


def test_nothing_that_can_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_csv(tmp_path / "in", [Pair("a.jpg", b"none", ["a"], None), Pair("b.jpg", b"none", ["b"], None)])
    assert pack(options(tmp_path / "out", from_=tmp_path / "in")) == 1
    assert "0 samples in 0 shards" in capsys.readouterr().out and not samples(tmp_path / "out")
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\na.jpg,\n")
    with pytest.raises(UserError, match=r"none of its 1 rows can be used; the first is metadata\.csv line 2: empty"):
        pack(options(tmp_path / "other", from_=tmp_path / "in"))
