"""Mistakes in a command to pack: one line that says what to do, and no packing mixed into another one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packing import as_csv, drawn, options

from poolbench.errors import UserError

from curate.pack.run import pack


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"from_": "nowhere"}, "from=nowhere does not exist"),
        ({"from_": "*.tsv"}, "from=*.tsv does not exist"),
        ({"layout": "tabel"}, "layout=tabel is not known; did you mean 'table'?"),
        ({"captions": "some"}, "captions=some is not known; known: all, first"),
        ({"shard_size": 0}, "shard_size=0: at least 1"),
        ({"workers": 0}, "workers=0 must be positive"),
        ({"part": "3/2"}, "part=3/2 is not i/n"),
        ({"pictures": "nowhere"}, "pictures=nowhere is no folder"),
        ({"out": "in/out"}, "out=in/out lies in from=in"),
        ({"out": "in/metadata.csv"}, "out=in/metadata.csv is not a folder"),
        ({"image_column": "fil_name"}, "has no column 'fil_name'; did you mean 'file_name'?"),
        ({"caption_column": "txet"}, "has no column 'txet'; did you mean 'text'?"),
        ({"layout": "parquet"}, "from=in holds nothing that layout=parquet is made of"),
        ({"layout": "pairs"}, "from=in holds no .txt beside a picture"),
        ({"from_": "notes.txt"}, "from=notes.txt: no folder, no captions_*.json, and no table"),
        ({"from_": "empty"}, "from=empty holds no pictures"),
        (
            {"from_": "empty", "caption_column": "text"},
            "caption_column= goes with a table, of which from=empty holds none",
        ),
        ({"from_": "away.csv"}, "none of its first 1 pictures, such as 'x.jpg', is in . or beside it; say pictures="),
        ({"from_": "blank.csv"}, "its first line must name its columns"),
        ({"from_": "twice.csv"}, "its first line must name its columns, 'a' once"),
        ({"from_": "other.csv"}, "which column is that of the names of pictures? say image_column=; it has who, what"),
        ({"from_": "instances.json"}, "instances.json holds no captions, but other annotations"),
        ({"from_": "list.json"}, "list.json is no file of COCO's captions"),
        ({"from_": "cut.json"}, "cut.json is not JSON, or was cut off: "),
        ({"from_": "twice.json"}, "twice.json: images: the key is there twice"),
        ({"from_": "wide.csv"}, "wide.csv is UTF-16; save it as UTF-8"),
        ({"from_": "no.parquet"}, "no.parquet is not a parquet file"),
        (
            {"from_": "splits"},
            "from=splits holds the splits test, train: name one by from='splits/data/test*.parquet'",
        ),
        ({"from_": "splits/data/*.parquet"}, "train-00000-of-00001.parquet has no column 'text', as test-00000"),
        ({"from_": "two"}, "from=two holds a.csv, b.jsonl: name one by from="),
        ({"out": "full"}, "out=full holds mine.txt, and no packing was begun there"),
    ],
    ids=lambda one: str(one)[:40],
)
def test_mistakes(
    words: dict[str, Any], said: str, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    as_csv(tmp_path / "in", drawn(rng, 2))
    for folder in ("empty", "two", "full"):
        (tmp_path / folder).mkdir()
    texts = {
        "notes.txt": "",
        "away.csv": "file,text\nx.jpg,y\n",
        "blank.csv": "",
        "twice.csv": "a,a\n",
        "no.parquet": "x",
    }
    texts |= {"other.csv": "who,what\n", "two/a.csv": "", "two/b.jsonl": "", "full/mine.txt": "", "list.json": "[]"}
    texts["instances.json"] = json.dumps({"images": [], "annotations": [{"bbox": []}]})
    texts["twice.json"] = '{"images": [], "annotations": [], "images": []}'
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "cut.json").write_text('{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id"')
    (tmp_path / "wide.csv").write_text("file,text\nx.jpg,y\n", encoding="utf-16")
    (tmp_path / "splits" / "data").mkdir(parents=True)
    for split, column in (("test", "text"), ("train", "label")):
        path = tmp_path / "splits" / "data" / f"{split}-00000-of-00001.parquet"
        pq.write_table(pa.table({"image": [b"x"], column: ["y"]}), path)
    with pytest.raises(UserError) as caught:
        pack(options(**{"out": tmp_path / "out", "from_": "in", **words}))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_another_packing_is_not_mixed_in(tmp_path: Path, rng: np.random.Generator) -> None:
    first = options(tmp_path / "out", **as_csv(tmp_path / "in", drawn(rng, 3)))
    assert pack(first) == 0
    with pytest.raises(UserError, match="was begun with shard_size=10000, not 7; choose another folder"):
        pack(replace(first, shard_size=7))
    (tmp_path / "in" / "metadata.csv").write_text("file_name,text\n")
    with pytest.raises(UserError, match=r"metadata\.csv has changed since out="):
        pack(first)
