"""Training from an object store: a real S3 server on this machine."""

from pathlib import Path

import fsspec
import pytest
from pools import write_pool

from poolbench.command import compose
from poolbench.files import read_json, read_lines
from poolbench.shards.sources import resolve

from train.config import TrainConfig
from train.loop import train


@pytest.mark.slow
def test_a_bucket_trains_as_a_folder(bucket: str, tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", 3, 20)
    fsspec.filesystem("s3").put(str(pool), f"{bucket}/small/", recursive=True)
    url = f"{bucket}/small/pool" if fsspec.filesystem("s3").exists(f"{bucket}/small/pool") else f"{bucket}/small"
    assert resolve(url).digest == resolve(str(pool)).digest
    assert [s.name for s in resolve(f"{url}/{{00001..00007}}.tar").shards] == ["00001.tar", "00002.tar"]
    losses = []
    for name, data in (("folder", str(pool)), ("bucket", url)):
        options = [
            "scale=small",
            f"data={data}",
            f"name={name}",
            f"out={tmp_path}",
            "precision=fp32",
            "recipe.model=test-tiny",
            "recipe.batch_size=16",
            "recipe.samples=80",
            "recipe.warmup=1",
            "recipe.streams=4",
            "recipe.shuffle_buffer=20",
            "efficiency.workers=1",
        ]
        assert train(compose("train", options, TrainConfig)) == 0
        losses.append([line["loss"] for line in read_lines(tmp_path / name / "metrics.jsonl")])
    assert losses[0] == losses[1]
    assert read_json(tmp_path / "bucket" / "run.json")["data"]["sources"][0]["spec"] == url
