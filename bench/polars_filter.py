"""A filter as a user of polars would write it, the peer of bench/filter.py.

python bench/polars_filter.py <folder of the pool> <subset.npy> <filter>

Of `mix_kept` it writes the scores as a column first, beside the subset, as ours does for later selections.
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl  # type: ignore[import-not-found]

L14, B32 = (pl.col(f"clip_{arch}_similarity_score") for arch in ("l14", "b32"))
SCORES = {"clip_score": L14, "top": B32, "mix": (0.5 * B32.cast(float) + 0.5 * L14.cast(float)).cast(pl.Float32)}
SCORES["mix_kept"] = SCORES["mix"]
FRACTION = 0.3

pool, out, name = sys.argv[1:]
rows = pl.scan_parquet(f"{pool}/*.parquet")
if name == "mix_kept":
    kept_in = Path(f"{out}.columns")
    kept_in.mkdir(exist_ok=True)
    for path in sorted(Path(pool).glob("*.parquet")):
        column = pl.scan_parquet(path).select("uid", score=SCORES[name])
        column.sink_parquet(kept_in / path.name, compression="zstd", compression_level=1)
    rows, SCORES[name] = pl.scan_parquet(f"{kept_in}/*.parquet"), pl.col("score")
if name != "no_filter":
    scores = rows.select(SCORES[name].alias("score")).collect()["score"]
    rows = rows.filter(SCORES[name] >= scores.sort(descending=True)[int(len(scores) * FRACTION)])
high, low = (pl.col("uid").str.slice(at, 16).str.to_integer(base=16, dtype=pl.UInt64) for at in (0, 16))
kept = rows.select(f0=high, f1=low).sort("f0", "f1").collect()
np.save(out, kept.to_numpy(structured=True).astype("u8,u8"))
