"""Selecting in this process for the tests, what a pool's rows would give, and options with which every filter runs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pools import uid_of
from small_wordnet import write_wordnet

from poolbench.errors import status_of
from poolbench.uids import DTYPE, split_uid, write_subset

from curate.command import run

SMALL = "filter.language=fasttext_small"  # the detector that a package carries


def curate(*words: str | Path) -> int:
    """`python -m curate` in this process, with one worker unless the words say otherwise."""
    given = [str(word) for word in words]
    return status_of(
        lambda: run(given if any(word.startswith("workers=") for word in given) else [*given, "workers=1"])
    )


def selected(out: Path, *words: str | Path) -> np.ndarray:
    assert curate(f"out={out}", *words) == 0
    found: np.ndarray = np.load(out)
    assert found.dtype == DTYPE
    return found


def frame(pool: Path) -> pd.DataFrame:
    return pd.concat([pd.read_parquet(path) for path in sorted(pool.glob("*.parquet"))], ignore_index=True)


def uids_of(rows: pd.DataFrame) -> np.ndarray:
    return np.sort(np.array([split_uid(uid) for uid in rows.uid], DTYPE))


# Options with which every filter runs on a small pool. A new filter goes here.
EXAMPLES: dict[str, dict[str, Any]] = {
    "no_filter": {},
    "basic": {"language": "fasttext_small"},
    "clip_score": {"fraction": 0.3},
    "laion2b": {},
    "text_based": {"language": "fasttext_small", "wordnet": "wordnet"},
    "image_based": {"language": "fasttext_small", "centroids": "centroids.npy", "targets": "targets.npy"},
    "image_based_intersect_clip_score": {
        "language": "fasttext_small", "centroids": "centroids.npy", "targets": "targets.npy", "fraction": 0.5,
    },
    "subset": {"path": "some.npy"},
    "union": {"of": ["some.npy", {"filter": "clip_score", "fraction": 0.2}]},
    "intersection": {"of": ["some.npy", {"filter": "clip_score", "fraction": 0.7}]},
    "difference": {"of": [{"filter": "clip_score", "threshold": 0.2}, "some.npy"]},
    "sum": {"of": ["some.npy", "some.npy", {"filter": "clip_score", "fraction": 0.2}]},
    "repeat": {"of": {"filter": "clip_score", "fraction": 0.2}, "times": 3},
    "top": {"column": "clip_b32_similarity_score", "fraction": 0.4},
    "mix": {"weights": {"clip_b32_similarity_score": 0.5, "clip_l14_similarity_score": -2.0}, "fraction": 0.4},
    "soft_cap": {"column": "clip_l14_similarity_score", "alpha": 0.2, "size": 300, "batch": 50},
    "hard_cap": {
        "column": "clip_l14_similarity_score", "size": 300, "cap": 2, "of": {"filter": "subset", "path": "some.npy"},
    },
    "label_model": {
        "votes": {"clip_b32_similarity_score": [0.2, 0.25], "clip_l14_similarity_score": [0.2, 0.2],
                  "original_width": [300, 500]},
        "fraction": 0.3,
    },
    "published": {"name": "t_mars_medium", "path": "some.npy", "check": False},
    "sample": {"of": {"filter": "clip_score", "fraction": 0.5}, "size": 100, "seed": 1},
    "vas": {"targets": "targets.npy", "fraction": 0.2, "clip_fraction": 0.4},
    "vas_d": {"fraction": 0.2, "clip_fraction": 0.4, "rounds": 4},
    "norm_sim": {"targets": "targets.npy", "fraction": 0.2, "of": {"filter": "clip_score", "fraction": 0.5}},
    "neg_clip_loss": {"fraction": 0.3, "batch": 100, "partitions": 2},
    "dbp": {"fraction": 0.2, "clusters": 9, "of": {"filter": "clip_score", "fraction": 0.7}},
    "semdedup": {"fraction": 0.4, "clusters": 9, "of": {"filter": "clip_score", "fraction": 0.7}},
    "metaclip": {"metadata": "entries.json", "size": 300, "of": {"filter": "clip_score", "fraction": 0.7}},
}  # fmt: skip


def write_inputs(folder: Path) -> None:
    """The files that EXAMPLES name."""
    write_subset(folder / "some.npy", [uid_of(number) for number in range(0, 1000, 3)])
    rng = np.random.default_rng(0)
    np.save(folder / "centroids.npy", rng.normal(size=(20, 8)).astype(np.float32))
    np.save(folder / "targets.npy", rng.normal(size=(5, 8)).astype(np.float32))
    write_wordnet(folder / "wordnet")
    (folder / "entries.json").write_text(json.dumps(["dog", "red car", "Hund", "a", "two lines", "y z", "old bridge"]))
