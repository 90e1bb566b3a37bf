"""A filter as a user of polars would write it, the peer of bench/filter.py.

python bench/polars_filter.py <folder of the pool> <subset.npy> <filter>
"""

import sys

import numpy as np
import polars as pl  # type: ignore[import-not-found]

L14, B32 = (pl.col(f"clip_{arch}_similarity_score") for arch in ("l14", "b32"))
SCORES = {"clip_score": L14, "top": B32, "mix": (0.5 * B32.cast(float) + 0.5 * L14.cast(float)).cast(pl.Float32)}
FRACTION = 0.3

pool, out, name = sys.argv[1:]
rows = pl.scan_parquet(f"{pool}/*.parquet")
if name != "no_filter":
    scores = rows.select(SCORES[name].alias("score")).collect()["score"]
    rows = rows.filter(SCORES[name] >= scores.sort(descending=True)[int(len(scores) * FRACTION)])
high, low = (pl.col("uid").str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64) for at in (0, 16))
kept = rows.select(f0=high, f1=low).sort("f0", "f1").collect()
np.save(out, kept.to_numpy(structured=True).astype("u8,u8"))
