"""VAS-D: the variance alignment score without targets, which are in each round the rows that are left.

S of the first round is of the whole pool. A round ranks the rows that are left by f' S f, drops the lowest, as many in
each as bring the last one to the number that is asked for, and S is then of those that are left. As NormSim_2 is the
root of N times that score, NormSim_2-D keeps the same rows. Wang et al., 2024, "Variance Alignment Score",
https://arxiv.org/abs/2402.02055.

A round is two passes over the embeddings, of which none is kept in memory: the scores of the rows that are left, and
the products of those that it drops, which are taken off the sum that S is; files of which it drops no row are not read
again. What a round leaves is a bit for each row. It is kept until the next one is done, in a file for the whole pool,
and nothing else is: there are hundreds of rounds, and a pool may have very many small files.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from poolbench.errors import UserError
from poolbench.files import atomic, claimed, digest_json, read_json, write_json, writing
from poolbench.uids import DTYPE, uid_text

from curate.models.devices import opened
from curate.models.forms import Quadratic, gram
from curate.pool.chosen import Chooser, Everything, bits_of, kept_bits
from curate.pool.files import PLACE, BadFile, File, read, read_array
from curate.pool.passes import Pass, Passes, result
from curate.pool.quantile import Best
from curate.scorers.embeddings import AT_ONCE, pieces
from curate.scorers.rows import RowScorer, is_made

_WAIT = 7 * 24 * 3600.0  # seconds for another part, which does the rounds
_RANKED = np.dtype([("uid", DTYPE), ("place", np.int64)])
_TOGETHER, _MOST = 2**25, 64  # bytes of npz of the files that a worker does at a time, and how many at most
_LOOKED_AT = 2**20  # scores that are in memory at a time


class VasD(RowScorer):
    """Gives 1 to the rows that are left after all rounds and 0 to the others.

    Attributes:
        left: once the rounds are done, where the rows that are left are.
    """

    makes = ("vas_d",)

    def __init__(self, name: str, embedding: str, device: str, fraction: float, rounds: int) -> None:
        """
        Args:
            name: of the folder.
            fraction: of all rows of the pool, those to be left.
        """
        self.name, self.embedding, self.device, self.fraction, self.rounds = name, embedding, device, fraction, rounds
        self.left: _Left | None = None
        self._pool: Any = None

    def identity(self) -> Any:
        """It tells the pool and where the rounds begin, too: each row's number depends on all others."""
        return {"embedding": self.embedding, "fraction": self.fraction, "rounds": self.rounds, "pool": self._pool}

    def score(self, file: File) -> Mapping[str, np.ndarray]:
        assert self.left is not None
        finite = np.asarray(result(self.left.finite, file))
        kept = bits_of(self.left.of(file), 0, len(finite))
        return {"vas_d": np.where(finite, kept.astype(np.float32), np.float32(np.nan))}

    def find(self, passes: Passes, among: Chooser | None) -> tuple[int, int]:
        """Do the rounds, unless their columns are there; how many rows are asked for, and with how many it begins.

        One part does the rounds, the others wait for it. One that is killed is continued from its last whole round.

        Args:
            passes: whose results are kept.
            among: the rows with which the first round begins, each once; None: all.

        Raises:
            UserError: two files have embeddings of different widths, or one cannot be used any more.
        """
        good, begun = (passes.made(kept_bits, one) for one in (Everything(), among or Everything()))
        finite = passes.made(finite_of, self.embedding)
        files = passes.usable()
        wanted = int(sum(len(result(finite, file)) for file in files) * self.fraction)
        count = sum(int(_begun(file, begun, finite).sum()) for file in files)
        self._pool = digest_json([begun.identity(), [[file.name, file.stamp] for file in files]])
        if all(is_made(file, self) for file in files):
            return wanted, count
        with claimed(folder := passes.folder(f"rounds-{digest_json(self.identity())[:16]}"), wait=_WAIT):
            self.left = _Rounds(self, passes, folder, finite).run(good, begun, count, wanted)
        return wanted, count


def finite_of(file: File, embedding: str) -> np.ndarray:
    """Which of a file's embeddings are numbers, bool [rows]."""
    return np.concatenate([np.empty(0, bool), *(finite for _, finite in pieces(file, embedding))])


def _begun(file: File, chosen: Pass, finite: Pass) -> np.ndarray:
    """The rows of a file that a pass of `kept_bits` has kept and that are finite, bool [rows]."""
    numbers = np.asarray(result(finite, file))
    found: np.ndarray = numbers & bits_of(result(chosen, file), 0, len(numbers))
    return found


class _Group(NamedTuple):
    """Files that a worker does at a time.

    Attributes:
        rows: of each.
        starts: where each one's bits begin among the whole pool's, which are padded to whole bytes; and their end.
    """

    files: tuple[File, ...]
    rows: tuple[int, ...]
    starts: tuple[int, ...]

    def bits(self, path: Path) -> np.ndarray:
        """Its own of the whole pool's bits, bool [rows with the padding]."""
        start, stop = self.starts[0], self.starts[-1]
        return np.unpackbits(np.fromfile(path, np.uint8, stop - start, offset=start)).astype(bool)

    def scores(self, path: Path) -> np.ndarray:
        """Its own of the whole pool's scores, float32 [rows with the padding]."""
        start, stop = self.starts[0], self.starts[-1]
        return np.fromfile(path, np.float32, 8 * (stop - start), offset=32 * start)

    def places(self) -> Iterator[tuple[File, slice]]:
        """Each file, and where its rows are among those of the group."""
        for file, rows, start in zip(self.files, self.rows, self.starts, strict=False):
            first = 8 * (start - self.starts[0])
            yield file, slice(first, first + rows)


def _groups(files: Sequence[File], rows: Sequence[int]) -> list[_Group]:
    """Files one after the other, as many as make up a load; they depend on nothing but the files, so that sums do."""
    groups: list[_Group] = []
    first, start = 0, 0
    for last in range(len(files)):
        if last + 1 == len(files) or _size(files[first : last + 2]) > _TOGETHER or last + 1 - first == _MOST:
            some = rows[first : last + 1]
            starts = list(itertools.accumulate((-(-one // 8) for one in some), initial=start))
            groups.append(_Group(tuple(files[first : last + 1]), tuple(some), tuple(starts)))
            first, start = last + 1, starts[-1]
    return groups


def _size(files: Sequence[File]) -> int:
    return sum(file.arrays_size for file in files)


class _Left(NamedTuple):
    """The rows that are left.

    Attributes:
        bits: of all files, one after the other.
        starts: where those of the pool's files begin, by their numbers.
        finite: the pass of `finite_of`.
    """

    bits: Path
    starts: np.ndarray
    finite: Pass

    def of(self, file: File) -> np.ndarray:
        """Those of a file, u1 [rows / 8]."""
        return np.fromfile(
            self.bits, np.uint8, -(-len(result(self.finite, file)) // 8), offset=self.starts[file.number]
        )


class _Rounds:
    """The rounds, each continued from the one before it or from what a killed run has left.

    Of the last round that is done there are: its bits, and S for the next one with the sum of the products of the rows
    that are left, float64 [2, width, width].
    """

    def __init__(self, scorer: VasD, passes: Passes, folder: Path, finite: Pass) -> None:
        self._scorer, self._passes, self._folder, self._finite = scorer, passes, folder, finite
        files = passes.usable()
        self._groups = _groups(files, [len(result(finite, file)) for file in files])
        self._said = folder / "round.json"  # written last of a round

    def run(self, good: Pass, begun: Pass, count: int, wanted: int) -> _Left:
        """Do what is missing.

        Args:
            good: the pass that has the rows whose S the first round uses, `begun` those with which it begins.
            count: how many these are.
            wanted: how many shall be left.
        """
        if not self._said.exists():
            self._begin(good, begun, count)
        rounds, step = self._scorer.rounds, -(-(count - wanted) // self._scorer.rounds)
        done, count = (int(read_json(self._said)[name]) for name in ("round", "rows"))
        for number in tqdm(range(done + 1, rounds + 1), desc="rounds", unit="round", disable=None, leave=False):
            keep = wanted if number == rounds else max(wanted, count - step)
            if keep >= count:
                break
            self._round(number, keep)
            done, count = number, keep
        starts = np.zeros(len(self._passes.files), np.int64)
        for group in self._groups:
            starts[[file.number for file in group.files]] = group.starts[:-1]
        return _Left(self._bits(done), starts, self._finite)

    def _begin(self, good: Pass, begun: Pass, count: int) -> None:
        """What the first round needs.

        Raises:
            UserError: two files have embeddings of different widths.
        """
        steps = [step._replace(arguments=()) for step in (good, begun, self._finite)]  # which may be large
        first, every, total = "", 0, np.zeros((2, 0, 0))
        with atomic(self._bits(0), "wb") as stream:
            for found in self._gathered(first_sums, *steps):
                stream.write(np.packbits(found.begun).tobytes())
                if found.arrays:
                    if first and total.shape != found.sums.shape:
                        raise UserError(f"{found.arrays} has embeddings of another width than {first}")
                    total, first = total + found.sums if first else found.sums, first or found.arrays
                every += found.good
        self._keep(0, count, total[0] / max(every, 1), total[1])

    def _round(self, number: int, keep: int) -> None:
        before, sums, scores = self._bits(number - 1), self._sums(number - 1), self._folder / "scores"
        with writing(scores), scores.open("wb") as stream:
            for found in self._gathered(round_scores, before, sums):
                stream.write(found.tobytes())
        best = best_of(self._groups, scores, keep)
        of_left = np.load(sums)[1]
        with atomic(self._bits(number), "wb") as stream:
            for kept, products in self._gathered(round_dropped, scores, best):
                stream.write(np.packbits(kept).tobytes())
                # Their order makes a difference of some 1e-16 of the sum, as often as there are rounds.
                of_left -= products if products.size else 0
        self._keep(number, keep, of_left / max(keep, 1), of_left)

    def _keep(self, number: int, count: int, matrix: np.ndarray, of_left: np.ndarray) -> None:
        """Note that a round is done; `matrix` is S of the next one."""
        with atomic(self._sums(number), "wb") as file:
            np.save(file, np.stack([matrix, of_left]))
        write_json(self._said, {"round": number, "rows": count})
        for path in (self._bits(number - 1), self._sums(number - 1)):
            path.unlink(missing_ok=True)

    def _gathered(self, function: Callable[..., Any], *arguments: Any) -> Iterator[Any]:
        scorer = self._scorer
        return self._passes.gathered(function, self._groups, scorer.embedding, scorer.device, *arguments)

    def _bits(self, number: int) -> Path:
        return self._folder / f"left-{number}.bits"

    def _sums(self, number: int) -> Path:
        return self._folder / f"sums-{number}.npy"


class _First(NamedTuple):
    """What `first_sums` finds.

    Attributes:
        begun: the rows with which the first round begins, bool [rows with the padding].
        good: how many rows S of the first round is of.
        arrays: the npz whose width the sums have, "" where no file has a row.
        sums: of the products with themselves of those rows, and of those with which it begins, [2, width, width].
    """

    begun: np.ndarray
    good: int
    arrays: str
    sums: np.ndarray


def first_sums(group: _Group, embedding: str, device: str, good: Pass, begun: Pass, finite: Pass) -> _First:
    """See _First.

    Raises:
        BadFile: a file has embeddings of another width than one before it.
    """
    found, every, first, total = np.zeros(8 * (group.starts[-1] - group.starts[0]), bool), 0, "", np.zeros((2, 0, 0))
    for file, place in group.places():
        both = [_begun(file, step, finite) for step in (good, begun)]
        every, found[place] = every + int(both[0].sum()), both[1]
        start = 0
        for vectors in read_array(file, embedding, len(both[0]), AT_ONCE):
            if not first:
                first, total = file.arrays, np.zeros((2, vectors.shape[1], vectors.shape[1]))
            if vectors.shape[1] != total.shape[1]:
                raise BadFile(f"{file.arrays} has embeddings of another width than {first}")
            for which, rows in enumerate(both):
                total[which] += gram(vectors[rows[start : start + len(vectors)]], opened(device))
            start += len(vectors)
    return _First(found, every, first, total)


def round_scores(group: _Group, embedding: str, device: str, before: Path, sums: Path) -> np.ndarray:
    """The scores of the rows that are left, float32 [rows with the padding], NaN for the others."""
    left = group.bits(before)
    form = Quadratic(np.load(sums)[0], opened(device))
    found = np.full(len(left), np.nan, np.float32)
    parts = [form(some, lambda values: values) for some in _vectors(group, embedding, left)]
    found[left] = np.concatenate([np.empty(0, np.float32), *parts])
    return found


def round_dropped(
    group: _Group, embedding: str, device: str, scores: Path, best: Best
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows a round leaves, bool [rows with the padding], and the sum of the products with themselves of those
    that it drops, float64 [width, width]; empty of no rows."""
    values = group.scores(scores)
    kept, total = np.zeros(len(values), bool), np.zeros((0, 0))
    for file, place in group.places():
        kept[place] = _kept(file, values[place], best)
    for some in _vectors(group, embedding, ~np.isnan(values) & ~kept):
        found = gram(some, opened(device))
        total = total + found if total.size else found
    return kept, total


def _kept(file: File, values: np.ndarray, best: Best) -> np.ndarray:
    """Which of a file's rows are among the best, bool [rows]; uids are only read where they decide."""
    if not best.uid or not (values == best.threshold).any():
        return best._replace(uid="").keep(values, {})
    kept, start = np.zeros(len(values), bool), 0
    for rows in read(file, (), (PLACE,)):
        at = start + np.flatnonzero(rows.good)
        kept[at] = best.keep(values[at], rows.arrays)
        start += len(rows.good)
    return kept


def _vectors(group: _Group, embedding: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
    """The embeddings of some rows, bool [rows with the padding], AT_ONCE of them or more at a time."""
    waiting: list[np.ndarray] = []
    for file, place in group.places():
        some, start = wanted[place], 0
        if some.any():
            for vectors in read_array(file, embedding, len(some), AT_ONCE):
                waiting.append(vectors[some[start : start + len(vectors)]])
                start += len(vectors)
                if sum(map(len, waiting)) >= AT_ONCE:
                    yield np.concatenate(waiting)
                    waiting = []
    if waiting:
        yield np.concatenate(waiting)


def best_of(groups: Sequence[_Group], scores: Path, count: int) -> Best:
    """The rows with the `count` largest of the scores, ties by uid; there are more than that."""
    prefix, above = 0, 0
    for level in (0, 1):
        counts = np.zeros(2**16, np.int64)
        for keys in map(_keys, _pieces_of(scores)):
            some = keys >> 16 if level == 0 else keys[keys >> 16 == prefix] & 0xFFFF
            counts += np.bincount(some, minlength=2**16)
        passed = above + np.cumsum(counts[::-1])
        place = int(np.searchsorted(passed, count))  # of the first digit from above at which there are enough
        digit = 2**16 - 1 - place
        above, ties = int(passed[place] - counts[digit]), int(counts[digit])
        prefix = prefix << 16 | digit
    threshold = _float(prefix)
    if above + ties == count:
        return Best(threshold, "", 0, count, count)
    first = _first_tied(groups, scores, threshold, count - above)
    last = first[-1]
    return Best(threshold, uid_text((int(last["uid"]["f0"]), int(last["uid"]["f1"]))), int(last["place"]), count, count)


def _pieces_of(scores: Path) -> Iterator[np.ndarray]:
    """The scores of a file of them, some at a time."""
    with scores.open("rb") as stream:
        while len(found := np.fromfile(stream, np.float32, _LOOKED_AT)):
            yield found


def _first_tied(groups: Sequence[_Group], scores: Path, threshold: float, count: int) -> np.ndarray:
    """The first `count` by uid of the rows with a score, sorted."""
    first = np.empty(0, _RANKED)
    for group in groups:
        tied = group.scores(scores) == threshold
        for file, place in group.places():
            if tied[place].any():
                every = np.concatenate([first, _ranked(file, tied[place])])
                order = np.lexsort((every["place"], every["uid"]["f1"], every["uid"]["f0"]))
                first = every[order[:count]]
    return first


def _ranked(file: File, wanted: np.ndarray) -> np.ndarray:
    """Uids and places of some rows of a file, all of which have a good uid, of _RANKED."""
    parts, start = [np.empty(0, _RANKED)], 0
    for rows in read(file, (), (PLACE,)):
        some = wanted[start : start + len(rows.good)][rows.good]
        start += len(rows.good)
        part = np.empty(int(some.sum()), _RANKED)
        part["uid"], part["place"] = rows.arrays["uid"][some], rows.arrays[PLACE][some]
        parts.append(part)
    return np.concatenate(parts)


def _keys(values: np.ndarray) -> np.ndarray:
    """Scores, none of them negative, as integers of the same order; without those that are NaN."""
    found = np.asarray(values[~np.isnan(values)], np.float32) + np.float32(0)
    return found.view(np.uint32).astype(np.int64)


def _float(key: int) -> float:
    return float(np.array([key], np.uint32).view(np.float32)[0])
