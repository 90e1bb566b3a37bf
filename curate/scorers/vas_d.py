"""VAS-D: the variance alignment score without targets, which are in each round the rows that are left.

S of the first round is of the whole pool. A round ranks the rows that are left by f' S f, drops the lowest, as many in
each as bring the last one to the number that is asked for, and S is then of those that are left. As NormSim_2 is the
root of N times that score, NormSim_2-D keeps the same rows. Wang et al., 2024, "Variance Alignment Score",
https://arxiv.org/abs/2402.02055.

A round is two passes over the embeddings, of which none is kept in memory, and one over what was found of them: the
scores of the rows that are left, which of them stay, and the products of those that do not, which are taken off the sum
that S is. What a round leaves is a bit for each row; the rounds before it are removed from the work folder.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import atomic, claimed, digest_json, read_json, write_json
from poolbench.uids import DTYPE, uid_text

from curate.models.devices import opened
from curate.models.forms import gram, quadratic
from curate.pool.chosen import Chooser, Everything, bits_of, kept_bits
from curate.pool.files import PLACE, File, read
from curate.pool.passes import Pass, Passes, result
from curate.pool.quantile import Best
from curate.scorers.embeddings import pieces
from curate.scorers.rows import RowScorer, is_made

_WAIT = 7 * 24 * 3600.0  # seconds for another part, which does the rounds
_RANKED = np.dtype([("uid", DTYPE), ("place", np.int64)])


class VasD(RowScorer):
    """Gives 1 to the rows that are left after all rounds and 0 to the others.

    Attributes:
        left: once the rounds are done, the pass whose results are the rows that are left, a bit each.
    """

    makes = ("vas_d",)

    def __init__(self, name: str, embedding: str, device: str, fraction: float, rounds: int) -> None:
        """
        Args:
            name: of the folder.
            fraction: of all rows of the pool, those to be left.
        """
        self.name, self.embedding, self.device, self.fraction, self.rounds = name, embedding, device, fraction, rounds
        self.left: Pass | None = None
        self._pool: Any = None

    def identity(self) -> Any:
        """It tells the pool and where the rounds begin, too: each row's number depends on all others."""
        return {"embedding": self.embedding, "fraction": self.fraction, "rounds": self.rounds, "pool": self._pool}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        assert self.left is not None
        finite = np.concatenate([np.empty(0, bool), *(finite for _, finite in pieces(file, self.embedding))])
        kept = bits_of(result(self.left, file), 0, len(finite))
        return {"vas_d": np.where(finite, kept.astype(np.float32), np.float32(np.nan))}

    def find(self, passes: Passes, among: Chooser | None) -> tuple[int, int]:
        """Do the rounds, unless their columns are there; how many rows are asked for, and with how many it begins.

        One part does the rounds, the others wait for it. One that is killed is continued from its last whole round.

        Args:
            passes: whose results are kept.
            among: the rows with which the first round begins, each once; None: all.
        """
        good, begun = (passes.made(kept_bits, one) for one in (Everything(), among or Everything()))
        totals = _Totals.of(passes, passes.made(sums, self.embedding, self.device, good, begun))
        wanted = int(totals.rows * self.fraction)
        self._pool = digest_json([begun.identity(), [[file.name, file.stamp] for file in passes.usable()]])
        if all(is_made(file, self) for file in passes.usable()):
            return wanted, totals.left
        with claimed(folder := passes.folder(f"vas_d-{digest_json(self.identity())[:16]}"), wait=_WAIT):
            self.left = _Rounds(self, passes, folder, totals).run(begun, wanted)
        return wanted, totals.left


class _Totals(NamedTuple):
    """Sums over the pool; `left` are the rows with which the first round begins, and `all` all with a good uid.

    Attributes:
        rows: all rows of the pool's files.
        all, left: how many of them are finite.
        of_all, of_left: the sums of their products with themselves, float64 [width, width].
    """

    rows: int
    all: int
    left: int
    of_all: np.ndarray
    of_left: np.ndarray

    @classmethod
    def of(cls, passes: Passes, step: Pass) -> "_Totals":
        """The sum of what `sums` found of each file.

        Raises:
            UserError: two files have embeddings of different widths.
        """
        total, first = np.zeros(0), ""
        for file in passes.usable():
            found = result(step, file)
            if len(found) > 3:  # a file without rows tells no width
                if len(total) not in (0, len(found)):
                    raise UserError(f"{file.arrays} has embeddings of another width than {first}")
                total, first = (found if not first else total + found), first or file.arrays
        width = int(((len(total) - 3) / 2) ** 0.5) if len(total) else 0
        rows, every, left = (int(number) for number in total[:3]) if len(total) else (0, 0, 0)
        squares = total[3:].reshape(2, width, width)
        return cls(rows, every, left, squares[0], squares[1])


class _Turn:
    """What the passes of one round are told apart by, and what they need. The key is of all that the round depends on.

    Attributes:
        matrix: S of the round.
        best: the rows that it leaves.
    """

    def __init__(self, key: str, number: int, matrix: np.ndarray | None = None, best: Best | None = None) -> None:
        self.key, self.number, self.matrix, self.best = key, number, matrix, best

    def identity(self) -> Any:
        return [self.key, self.number]


class _Steps(NamedTuple):
    """Passes that are told apart by the round that made them."""

    before: Pass
    scores: Pass
    after: Pass | None = None

    def identity(self) -> Any:
        return ""


class _Rounds:
    """The rounds, each continued from the one before it or from what a killed run has left."""

    def __init__(self, scorer: VasD, passes: Passes, folder: Path, totals: _Totals) -> None:
        self._scorer, self._passes, self._folder, self._totals = scorer, passes, folder, totals
        self._said = folder / "round.json"  # written last of a round

    def run(self, left: Pass, wanted: int) -> Pass:
        """Do what is missing; the pass that has the rows that are left."""
        scorer, totals = self._scorer, self._totals
        first, count, of_left, matrix = 1, totals.left, totals.of_left, totals.of_all / max(totals.all, 1)
        if self._said.exists():
            done = read_json(self._said)
            first, count = done["round"] + 1, done["rows"]
            of_left = np.load(self._folder / done["matrix"])
            matrix = of_left / max(count, 1)
            left = self._passes.prepared(round_left, _Turn(self._folder.name, first - 1), "")
        step = -(-(totals.left - wanted) // scorer.rounds)
        for number in tqdm(range(first, scorer.rounds + 1), desc="rounds", unit="round", disable=None, leave=False):
            keep = wanted if number == scorer.rounds else max(wanted, count - step)
            if keep >= count:
                break
            before, left, of_dropped = left, *self._round(number, left, matrix, keep)
            # Their order makes a difference of some 1e-16 of the sum, as often as there are rounds.
            count, of_left = keep, of_left - of_dropped
            matrix = of_left / max(count, 1)
            self._keep(number, count, of_left)
            if number > 1:
                shutil.rmtree(before.folder, ignore_errors=True)
        return left

    def _round(self, number: int, before: Pass, matrix: np.ndarray, keep: int) -> tuple[Pass, np.ndarray]:
        """The rows that a round leaves, and the sum of the products of those that it drops."""
        key, scorer, passes = self._folder.name, self._scorer, self._passes
        turn, named = _Turn(key, number, matrix), (scorer.embedding, scorer.device)
        scores = passes.made(round_scores, turn, *named, _Steps(before, before))
        best = best_of(passes, scores, keep)
        after = passes.made(round_left, _Turn(key, number, None, best), _Steps(before, scores))
        dropped = passes.made(round_dropped, turn, *named, _Steps(before, scores, after))
        total = np.zeros_like(matrix)
        for file in passes.usable():
            found = result(dropped, file)
            total += found if found.size else 0
        for step in (scores, dropped):
            shutil.rmtree(step.folder, ignore_errors=True)
        return after._replace(arguments=()), total  # which would hold the passes of all rounds before

    def _keep(self, number: int, count: int, of_left: np.ndarray) -> None:
        """Note that a round is done."""
        path = self._folder / f"left-{number}.npy"
        with atomic(path, "wb") as file:
            np.save(file, of_left)
        write_json(self._said, {"round": number, "rows": count, "matrix": path.name})
        (self._folder / f"left-{number - 1}.npy").unlink(missing_ok=True)


def sums(file: File, embedding: str, device: str, good: Pass, begun: Pass) -> np.ndarray:
    """Of a file: its rows, how many of the good ones and of those with which the rounds begin are finite, and the sums
    of both's products with themselves, float64 [3 + 2 width width]; only the first three of no rows."""
    bits, start = [result(step, file) for step in (good, begun)], 0
    counts, squares = np.zeros(3), np.zeros(0)
    for (vectors,), finite in pieces(file, embedding):
        stop = start + len(finite)
        counts[0] += len(finite)
        if not len(squares):
            squares = np.zeros((2, vectors.shape[1], vectors.shape[1]))
        for place, one in enumerate(bits):
            used = bits_of(one, start, stop) & finite
            counts[1 + place] += used.sum()
            squares[place] += gram(vectors[used], opened(device))
        start = stop
    return np.concatenate([counts, squares.ravel()])


def round_scores(file: File, turn: _Turn, embedding: str, device: str, steps: _Steps) -> np.ndarray:
    """The scores of a file's rows that are left, float32 [rows], NaN for the others."""
    assert turn.matrix is not None
    bits, start, parts = result(steps.before, file), 0, [np.empty(0, np.float32)]
    for (vectors,), finite in pieces(file, embedding):
        part = np.full(len(finite), np.nan, np.float32)
        left = bits_of(bits, start, start + len(finite)) & finite
        part[left] = quadratic(vectors[left], turn.matrix, lambda values: values, opened(device))
        parts.append(part)
        start += len(finite)
    return np.concatenate(parts)


def round_left(file: File, turn: _Turn, steps: _Steps) -> np.ndarray:
    """Which of a file's rows a round leaves, a bit each; uids are only read where they decide."""
    assert turn.best is not None
    values = np.asarray(result(steps.scores, file))
    if not turn.best.uid or not (values == turn.best.threshold).any():
        return np.packbits(turn.best._replace(uid="").keep(values, {}))
    kept, start = np.zeros(len(values), bool), 0
    for rows in read(file, (), (PLACE,)):
        at = start + np.flatnonzero(rows.good)
        kept[at] = turn.best.keep(values[at], rows.arrays)
        start += len(rows.good)
    return np.packbits(kept)


def round_dropped(file: File, turn: _Turn, embedding: str, device: str, steps: _Steps) -> np.ndarray:
    """The sum of the products with themselves of a file's rows that a round drops, float64 [width, width]; empty of no
    rows."""
    assert steps.after is not None
    scores, after, start, total = result(steps.scores, file), result(steps.after, file), 0, np.zeros((0, 0))
    for (vectors,), finite in pieces(file, embedding):
        stop = start + len(finite)
        dropped = ~np.isnan(scores[start:stop]) & ~bits_of(after, start, stop)
        found = gram(vectors[dropped], opened(device))
        total = total + found if total.size else found
        start = stop
    return total


def best_of(passes: Passes, step: Pass, count: int) -> Best:
    """The rows with the `count` largest of the scores that a pass has found, ties by uid; there are more than that."""
    used = passes.usable()
    prefix, above = 0, 0
    for level in (0, 1):
        counts = np.zeros(2**16, np.int64)
        for file in used:
            keys = _keys(result(step, file))
            keys = keys >> 16 if level == 0 else keys[keys >> 16 == prefix] & 0xFFFF
            counts += np.bincount(keys, minlength=2**16)
        passed = above + np.cumsum(counts[::-1])
        place = int(np.searchsorted(passed, count))  # of the first digit from above at which there are enough
        digit = 2**16 - 1 - place
        above, ties = int(passed[place] - counts[digit]), int(counts[digit])
        prefix = prefix << 16 | digit
    threshold = _float(prefix)
    if above + ties == count:
        return Best(threshold, "", 0, count, count)
    first = _first_tied(used, step, threshold, count - above)
    last = first[-1]
    return Best(threshold, uid_text((int(last["uid"]["f0"]), int(last["uid"]["f1"]))), int(last["place"]), count, count)


def _first_tied(files: list[File], step: Pass, threshold: float, count: int) -> np.ndarray:
    """The first `count` by uid of the rows with a score, sorted."""
    first = np.empty(0, _RANKED)
    for file in files:
        values, start = np.asarray(result(step, file)), 0
        if not (values == threshold).any():
            continue
        for rows in read(file, (), (PLACE,)):
            tied = (values[start : start + len(rows.good)] == threshold)[rows.good]
            start += len(rows.good)
            more = np.empty(int(tied.sum()), _RANKED)
            more["uid"], more["place"] = rows.arrays["uid"][tied], rows.arrays[PLACE][tied]
            every = np.concatenate([first, more])
            order = np.lexsort((every["place"], every["uid"]["f1"], every["uid"]["f0"]))
            first = every[order[:count]]
    return first


def _keys(values: np.ndarray) -> np.ndarray:
    """Scores, none of them negative, as integers of the same order; without those that are NaN."""
    found = np.asarray(values[~np.isnan(values)], np.float32) + np.float32(0)
    return found.view(np.uint32).astype(np.int64)


def _float(key: int) -> float:
    return float(np.array([key], np.uint32).view(np.float32)[0])
