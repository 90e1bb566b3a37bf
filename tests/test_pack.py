"""Pictures with captions that people have, packed: every layout, and what other commands make of the outcome."""

import hashlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evalsets import MODEL, write_checkpoint
from packing import (
    LAYOUTS,
    SUFFIXES,
    as_csv,
    as_pairs,
    as_structs,
    check_metadata,
    contents,
    drawn,
    options,
    samples,
    uid,
)
from PIL import Image

from poolbench.command import compose
from poolbench.errors import status_of
from poolbench.files import read_json
from poolbench.shards.samples import Sample, read_shard

from curate import columns, inspect, score
from curate.command import run as select
from curate.pack.run import pack
from train.config import TrainConfig
from train.loop import train


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("captions", ["all", "first"])
def test_every_layout(layout: Callable[..., Any], captions: str, tmp_path: Path, rng: np.random.Generator) -> None:
    pairs = drawn(rng, 40, 3 if LAYOUTS[layout] else 1)
    given = layout(tmp_path / "in", pairs)
    assert pack(options(tmp_path / "out", shard_size=7, captions=captions, **given)) == 0
    found = samples(tmp_path / "out")
    wanted = {
        uid(one.data, text.strip()): (one, text.strip())
        for one in pairs
        for text in one.captions[: None if captions == "all" else 1]
    }
    assert {json.loads(one["json"])["uid"] for one in found} == wanted.keys() and len(found) == len(wanted)
    for one in found:
        extension, *others = one
        told = json.loads(one["json"])
        pair, text = wanted[told["uid"]]
        assert others == ["json", "txt"] and extension == SUFFIXES[Image.open(io.BytesIO(pair.data)).format or ""][1:]
        assert (one[extension], one["txt"].decode()) == (pair.data, text)
        width, height = Image.open(io.BytesIO(pair.data)).size
        sizes = {"original_width": width, "original_height": height}
        url = None if layout is as_pairs else pair.url
        assert told == {"uid": told["uid"], "sha256": hashlib.sha256(pair.data).hexdigest(), "url": url, **sizes}
    check_metadata(tmp_path / "out", found)
    made = [shard["samples"] for shard in read_json(tmp_path / "out" / "packed.json")["shards"]]
    assert layout in (as_structs,) or max(made) - min(made) <= 1


def test_what_is_guessed_is_told(tmp_path: Path, rng: np.random.Generator, capsys: pytest.CaptureFixture[str]) -> None:
    pack(options(tmp_path / "out", **as_csv(tmp_path / "in", drawn(rng, 3))))
    told = f"metadata.csv: names of the pictures in {tmp_path / 'in'} from the column 'file_name', captions from 'text'"
    assert capsys.readouterr().out.startswith(f"{told}, urls from 'url'\n")


def test_columns_of_captions_with_numbers_are_all_used(tmp_path: Path, rng: np.random.Generator) -> None:
    pair = drawn(rng, 1)[0]
    row = {"image": pair.data, "caption_0": "one", "caption_1": None, "caption_2": " two "}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert pack(options(tmp_path / "out", from_=tmp_path / "a.parquet")) == 0
    assert [one["txt"] for one in samples(tmp_path / "out")] == [b"one", b"two"]


def test_a_long_row_group_is_read_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"image": one.data, "text": one.captions[0]} for one in drawn(rng, 60)]
    pq.write_table(pa.Table.from_pylist(rows[:50]), tmp_path / "a.parquet")
    pq.write_table(pa.Table.from_pylist(rows[50:]), tmp_path / "b.parquet", row_group_size=2)
    opened_files: list[str] = []
    real = pq.ParquetFile

    def counted(path: Any, **words: Any) -> pq.ParquetFile:
        if "buffer_size" in words:
            opened_files.append(Path(path).name)
        return real(path, **words)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    assert pack(options(tmp_path / "out", from_=tmp_path / "*.parquet", shard_size=5)) == 0
    assert opened_files == ["a.parquet", "b.parquet", "b.parquet"]
    assert [one["txt"].decode() for one in samples(tmp_path / "out")] == [str(row["text"]).strip() for row in rows]


def test_what_it_writes_is_taken_by_the_other_commands(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    again = options(out, shard_size=10, **as_structs(tmp_path / "in", drawn(rng, 40, 2)))
    assert pack(again) == 0
    found = [one for path in sorted((out / "shards").iterdir()) for one in read_shard(str(path))]
    assert all(isinstance(one, Sample) for one in found) and len(found) == len(np.load(out / "uids.npy"))
    pool = f"pool={out / 'metadata'}"
    assert status_of(lambda: select(["filter=no_filter", pool, f"out={tmp_path / 'all.npy'}", "workers=1"])) == 0
    assert (tmp_path / "all.npy").read_bytes() == (out / "uids.npy").read_bytes()
    words = [str(out / "uids.npy"), pool, f"out={tmp_path / 'page.html'}", "workers=1", f"samples={out / 'shards'}"]
    assert status_of(lambda: inspect.COMMAND.answer(words)) == 0
    checkpoint = write_checkpoint(tmp_path / "model.pt")
    scoring = [f"checkpoint={checkpoint}", f"model={MODEL}", "arch=b32", "workers=0", f"out={out / 'metadata'}"]
    monkeypatch.setattr(sys, "argv", ["score", *scoring, f"shards={out / 'shards'}"])
    assert status_of(score.main) == 0
    top = ["filter=clip_score", "filter.arch=b32", "filter.fraction=0.5", pool, "workers=1"]
    assert status_of(lambda: select([*top, f"out={tmp_path / 'half.npy'}"])) == 0
    table = pq.read_table(out / "metadata" / "00000000.parquet")
    judged = [{"key": key, "judge": 0.5} for key in table["key"].to_pylist()]
    pq.write_table(pa.Table.from_pylist(judged), tmp_path / "judged.parquet")
    importing = [pool, f"import={tmp_path / 'judged.parquet'}", "by=key", "name=judge", "workers=1"]
    assert status_of(lambda: columns.main(importing)) == 0
    before = contents(out)
    assert pack(again) == 0 and contents(out) == before
    training = ["scale=tiny", f"data={out / 'shards'}", f"subset={tmp_path / 'half.npy'}", f"recipe.model={MODEL}"]
    training += ["recipe.batch_size=4", "recipe.samples=16", "recipe.warmup=1", "precision=fp32", "name=a"]
    assert train(compose("train", [*training, f"out={tmp_path / 'runs'}", "efficiency.workers=0"], TrainConfig)) == 0
    record = read_json(tmp_path / "runs" / "a" / "run.json")
    assert record["bad"]["samples"] == 0 and record["samples_seen"] == 16
