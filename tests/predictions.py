"""Random predictions of two models on the same samples, one pair of tables for each main metric."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Rng = np.random.Generator
Pair = tuple[pa.Table, pa.Table]
BASE, BETTER = 0.45, 0.6  # how often the two models are right


def keys(count: int) -> list[str]:
    return [f"s{number:07d}" for number in range(count)]


def hits(rng: Rng, rates: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Hits of two models, bool [2, n], each with the same `rates` [2, n] on average; hard samples are hard for both."""
    shared, own = rng.random(rates.shape[1]) < 0.5, rng.random(rates.shape)
    same = rng.random(rates.shape[1])
    return np.where(shared, same, own) < rates


def labelled(rng: Rng, n: int = 400, *, fixed: bool = False, pull: float = 0.0) -> Pair:
    """Labels of five classes, the last one rare, and of three groups, the last one hard; `fixed` sizes of classes."""
    chances = [0.4, 0.25, 0.2, 0.1, 0.05]
    labels = (
        np.repeat(np.arange(5), np.rint(np.multiply(chances, n)).astype(int)) if fixed else rng.choice(5, n, p=chances)
    )
    groups = rng.choice([1, 2, 5], len(labels), p=[0.5, 0.3, 0.2])
    rates = np.array([[BASE], [BETTER]]) + 0.06 * (labels - 2) - pull * (groups == 5)
    top5 = hits(rng, np.minimum(rates + 0.2, 1))
    tables = []
    for right, among in zip(hits(rng, rates), top5, strict=True):
        wrong = (labels + rng.integers(1, 6, len(labels))) % 6  # class 5 is no sample's label
        columns = {"key": keys(len(labels)), "label": labels, "prediction": np.where(right, labels, wrong)}
        tables.append(pa.table({**columns, "top5": among, "group": groups}))
    return tables[0], tables[1]


def retrieval(rng: Rng, n: int = 250) -> Pair:
    """Pictures with one to seven captions; a hard picture is so for all its captions."""
    counts = rng.integers(1, 8, n)
    difficulty = rng.beta(1.5, 1.5, n)
    tables = []
    for rate in (BASE, BETTER):
        easy = rng.random(counts.sum()) < np.repeat(np.clip(difficulty + rate - 0.5, 0, 1), counts)
        ranks = np.where(easy, 1, rng.integers(2, 15, counts.sum()))
        text = np.where(rng.random(n) < np.clip(difficulty + rate - 0.4, 0, 1), 1, rng.integers(2, 15, n))
        split = [part.tolist() for part in np.split(ranks, np.cumsum(counts)[:-1])]
        captions = [[f"caption {index}" for index in range(count)] for count in counts]
        tables.append(pa.table({"key": keys(n), "captions": captions, "text_rank": text, "image_ranks": split}))
    return tables[0], tables[1]


def puzzles(rng: Rng, boards: int = 60) -> Pair:
    """Boards of 5, 6, 10 or 12 pictures with one to eight cues each; a board is hard for all its cues."""
    sizes = rng.choice([5, 6, 10, 12], boards)
    owners = np.repeat(np.arange(boards), rng.integers(1, 9, boards))
    owners = owners[rng.permutation(len(owners))]
    ease = rng.random(boards)[owners]
    pictures = [[f"{owner}-{index}" for index in rng.permutation(sizes[owner])] for owner in owners]
    tables = []
    for rate in (BASE, BETTER):
        scores = rng.choice([0, 1 / 3, 1], len(owners)) * (rng.random(len(owners)) < np.clip(ease + rate - 0.4, 0, 1))
        tables.append(
            pa.table({"key": keys(len(owners)), "pictures": pictures, "size": sizes[owners], "score": scores})
        )
    return tables[0], tables[1]


def selections(rng: Rng, n: int = 400, pictures: int = 150) -> Pair:
    """Captions to choose among, several samples a picture; a hard picture is so for all its samples."""
    owners = np.arange(n) % pictures
    ease = rng.random(pictures)[owners]
    captions = [["right", "wrong"]] * n
    tables = []
    for rate in (BASE, BETTER):
        wrong = (rng.random(n) >= np.clip(ease + rate - 0.5, 0, 1)).astype(np.int64)
        columns = {"key": keys(n), "picture": [f"p{owner}" for owner in owners], "captions": captions}
        table = {**columns, "right": np.zeros(n, np.int64), "prediction": wrong, "tied": rng.random(n) < 0.03}
        tables.append(pa.table(table))
    return tables[0], tables[1]


def pairs(rng: Rng, n: int = 400) -> Pair:
    """Similarities of two captions and two pictures; a hard sample is so for both models."""
    ease = rng.normal(0, 1, (n, 1))
    own = np.array([1, -1, -1, 1])
    tables = []
    for rate in (BASE, BETTER):
        scores = rng.normal(0, 1, (n, 4)) + own * (ease + 2 * rate)
        columns = {name: scores[:, place] for place, name in enumerate(("c0_i0", "c1_i0", "c0_i1", "c1_i1"))}
        tables.append(pa.table({"key": keys(n), **columns}))
    return tables[0], tables[1]


def several(rng: Rng, n: int = 300, classes: int = 4) -> Pair:
    """Scores of a few classes, of which a picture shows some; a hard picture is so for both models."""
    truth = rng.random((n, classes)) < 0.4
    shared = rng.normal(0, 1, truth.shape)
    labels = [np.flatnonzero(row).tolist() for row in truth]
    tables = []
    for rate in (BASE, BETTER):
        scores = shared + rng.normal(0, 1, truth.shape) + 2 * rate * truth
        tables.append(pa.table({"key": keys(n), "labels": labels, "scores": scores.tolist()}))
    return tables[0], tables[1]


# Main metric -> a task that has it, and how to draw two models' predictions.
DRAWS: dict[str, tuple[str, Callable[[Rng], Pair]]] = {
    "acc1": ("vtab/eurosat", labelled),
    "mean_per_class_recall": ("vtab/pets", lambda rng: labelled(rng, fixed=True)),
    "F1-macro_all": ("wilds/iwildcam", labelled),
    "acc_wg": ("fairness/geode", lambda rng: labelled(rng, pull=0.2)),
    "acc_worst_region": ("wilds/fmow", lambda rng: labelled(rng, pull=0.2)),
    "acc_top5_wg": ("fairness/dollar_street", lambda rng: labelled(rng, pull=0.2)),
    "mean_recall@1": ("retrieval/flickr_1k_test_image_text_retrieval", retrieval),
    "jaccard_score_10-12": ("misc/winogavil", puzzles),
    "acc": ("sugarcrepe/add_att", selections),
    "group_score": ("winoground", pairs),
    "mean_average_precision": ("voc2007_multilabel", several),
}
