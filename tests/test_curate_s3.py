"""Selecting from metadata in an object store: a real S3 server on this machine."""

from pathlib import Path

import fsspec
import numpy as np
import pytest
from metadata import write_metadata
from test_curate_select import SMALL, selected, write_inputs


@pytest.mark.slow
def test_a_pool_in_a_bucket(bucket: str, tmp_path: Path) -> None:
    store = fsspec.filesystem("s3")
    for path in write_metadata(tmp_path / "pool", 3, 100).iterdir():
        store.put(str(path), f"{bucket}/metadata/{path.name}")
    store.put(str(tmp_path / "pool" / "0000.parquet"), f"{bucket}/metadata/below/0000.parquet")  # is none of its files
    write_inputs(tmp_path)
    options = [f"filter.{name}={tmp_path}/{name}.npy" for name in ("centroids", "targets")]
    words = ("filter=image_based", SMALL, *options)
    far = selected(tmp_path / "far.npy", *words, f"pool={bucket}/metadata", "workers=2")
    np.testing.assert_array_equal(far, selected(tmp_path / "near.npy", *words, f"pool={tmp_path}/pool"))
    assert 0 < len(far) < 300
