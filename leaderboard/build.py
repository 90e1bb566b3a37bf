"""From a folder of submissions to leaderboard.json and a page.

    python -m leaderboard build leaderboard/submissions out=site

Every `submission.json` and `*.submission.json` below the folder is checked; a refused one is named on stderr and left
out. The same submissions give the same bytes, in whatever order they are found and whenever they are built. Published
results stand beside them (`references=false` leaves them out); `page=false` writes leaderboard.json alone. For each
board it is printed what the best method gains over the whole pool.
"""

import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from leaderboard.methods import methods, sentence
from leaderboard.models import (
    FORMAT,
    TRACKS,
    Board,
    BoardTask,
    Entry,
    Leaderboard,
    Reference,
    Score,
    Submission,
    Track,
)
from leaderboard.rank import constants, order, places, standard_error
from leaderboard.references import references
from leaderboard.validate import main_metrics, read_submission, suite_tasks
from poolbench import machine, recipes
from poolbench.errors import UserError
from poolbench.files import atomic, claimed, files_below
from poolbench.options import option, output
from tasks.aggregates import AGGREGATES_VERSION, aggregates, members
from tasks.grade import GRADES, Grade
from tasks.registry import suite_of

_MANY = 400  # files from which on further processes, which take a second to start, are worth it
_PATIENCE = 600.0  # seconds that another build into the same folder is given to end

References = Callable[[Track, str], list[Reference]]


@dataclass
class BuildOptions:
    """The options of `build`."""

    out: str = output("folder of leaderboard.json and index.html")
    references: bool = option("false: without the published results beside the entries", True)
    page: bool = option("false: no index.html", True)


class Placed(NamedTuple):
    """An entry and the board it belongs to."""

    track: Track
    scale: str
    entry: Entry


class _Read(NamedTuple):
    """What came of a file. The entry is JSON: of all forms, that passes between processes the fastest."""

    refusals: list[str]
    track: Track | None = None
    scale: str | None = None
    entry: str | None = None


def build(folders: Sequence[str], options: BuildOptions) -> int:
    """Write `<out>/leaderboard.json` and `<out>/index.html`. The exit status is 1 where a submission was refused.

    Of builds into one folder at a time, each waits for the one before it and then reads: the last one to end has seen
    every submission that was there when it was started.

    Raises:
        UserError: not one folder is named, it cannot be read, nothing is in it, or `out` cannot be written.
    """
    if len(folders) != 1:
        raise UserError("build needs one folder of submissions: python -m leaderboard build FOLDER out=DIR")
    folder, out = Path(folders[0]), Path(options.out)
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder; build needs the folder that holds the submissions")
    if not options.references and not find(folder):
        raise UserError(_empty(folder))
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file; name a folder")
    try:
        with claimed(out, wait=_PATIENCE):
            return _build(folder, out, options)
    except OSError as error:
        raise UserError(f"out={out} cannot be written: {error.strerror or error}") from None


def find(folder: Path) -> list[Path]:
    """The submission files below a folder, sorted by path.

    Raises:
        UserError: a folder cannot be read.
    """
    return sorted(path for path in files_below(folder) if f".{path.name}".endswith(".submission.json"))


def collect(paths: Sequence[Path]) -> tuple[list[Placed], list[str]]:
    """The entries of submissions that are accepted, and "<file>: <field>: <reason>" for each reason against the others.

    Raises:
        UserError: a process that reads them was killed.
    """
    reads = dict(zip(paths, _read_all(paths), strict=True))
    refusals = [f"{path}: {reason}" for path, read in reads.items() for reason in read.refusals]
    placed = {path: placement for path, read in reads.items() if (placement := _placed(read)) is not None}
    repeats = _repeats(placed)
    refusals += [f"{path}: {reason}" for path, reason in repeats.items()]
    return [placement for path, placement in placed.items() if path not in repeats], sorted(refusals)


def place(submission: Submission) -> Placed:
    """The entry of an accepted submission, without a rank yet."""
    suite = suite_of(submission.scale)
    scores = {
        result.key: Score(value=result.metrics["main_metric"], stderr=result.stderr) for result in submission.tasks
    }
    values = aggregates(main_metrics(submission.tasks), suite)
    entry = Entry(
        rank=None,
        rank_last=None,
        digest=submission.digest,
        method=submission.method,
        author=submission.author,
        writeup=submission.writeup,
        aggregates={
            name: Score(value=values[name], stderr=standard_error(keys, scores))
            for name, keys in members(suite).items()
        },
        scores={task.key: scores[task.key] for task in suite_tasks(submission.scale) if task.key in scores},
        dataset_size=submission.dataset_size,
        samples_seen=submission.samples_seen,
        seed=submission.seed,
        precision=submission.precision,
        official=submission.official,
        grade=submission.grade,
        deviations=submission.deviations,
        recipe_digest=submission.recipe_digest,
        data_digest=submission.data.digest,
        subset_digest=submission.subset.digest if submission.subset else None,
        checkpoint_sha256=submission.checkpoint_sha256,
        bad=submission.bad,
        version=submission.code.version,
        finished=submission.finished,
    )
    return Placed(submission.track, submission.scale, entry)


def compose(placed: Iterable[Placed], published: References | None = None) -> Leaderboard:
    """The boards that have an entry or a published result: filtering before byod, scales by size, the demo's last."""
    entries: dict[tuple[Track, str], list[Entry]] = defaultdict(list)
    for track, scale, entry in placed:
        entries[track, scale].append(entry)
    scales = sorted(recipes.scales(), key=lambda scale: suite_of(scale) != "main")
    boards = [
        _board(track, scale, entries[track, scale], (published or _no_references)(track, scale))
        for track in TRACKS
        for scale in scales
    ]
    filled = [board for board in boards if board.ranked or board.unverified or board.unranked or board.references]
    return Leaderboard(format=FORMAT, aggregates_version=AGGREGATES_VERSION, boards=filled)


def _build(folder: Path, out: Path, options: BuildOptions) -> int:
    paths = find(folder)
    if not paths:
        print(f"note: {_empty(folder)}", file=sys.stderr)
    for forgotten in _forgotten(folder):
        print(f"note: {forgotten} has results and no submission.json", file=sys.stderr)
    placed, refusals = collect(paths)
    for line in refusals:
        print(f"refused: {line}", file=sys.stderr)
    leaderboard = compose(placed, references if options.references else _no_references)
    # pydantic's own serialiser: json.dump takes ten times as long over 10,000 entries.
    _write(out / "leaderboard.json", leaderboard.model_dump_json(indent=2) + "\n")
    written = [out / "leaderboard.json"]
    if options.page:
        from leaderboard.page import page  # with scipy, which the processes that only read would wait for

        _write(out / "index.html", page(leaderboard))
        written.append(out / "index.html")
    print(f"{len(placed)} of {len(paths)} submissions: {', '.join(map(str, written))}")
    for board in leaderboard.boards:
        if (gained := sentence(board)) is not None:
            print(f"{board.track}, {board.scale}: {gained}")
    return 1 if refusals else 0


def _empty(folder: Path) -> str:
    return f"{folder} holds no submission.json; python -m leaderboard submit run=... writes one"


def _write(path: Path, text: str) -> None:
    with atomic(path) as file:
        file.write(text)


def _forgotten(folder: Path) -> list[Path]:
    """Folders of runs with results that nobody has made a submission of."""
    runs = sorted({path.parent for path in files_below(folder) if path.name == "eval_results.jsonl"})
    return [run for run in runs if (run / "run.json").exists() and not (run / "submission.json").exists()]


def _read_all(paths: Sequence[Path]) -> Iterator[_Read]:
    """What comes of each file, in the order of the paths."""
    processes = min(machine.cores(), len(paths) // _MANY + 1)
    if processes == 1:
        yield from map(_read, paths)
        return
    # Fresh processes: a fork of one that has threads may never come to life.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_read, paths, chunksize=32)
        except BrokenProcessPool:
            raise UserError("a process that read the submissions was killed; is there enough memory?") from None


def _read(path: Path) -> _Read:
    submission, refusals = read_submission(path)
    if submission is None or refusals:
        return _Read(refusals)
    placed = place(submission)
    return _Read([], placed.track, placed.scale, placed.entry.model_dump_json())


def _placed(read: _Read) -> Placed | None:
    if read.track is None or read.scale is None or read.entry is None:
        return None
    return Placed(read.track, read.scale, Entry.model_validate_json(read.entry))


def _repeats(placed: dict[Path, Placed]) -> dict[Path, str]:
    """Why files are refused that have the same checkpoint on the same track as others.

    Of equal submissions one is kept; of differing ones none, because nothing in them says which is right. What is kept
    does not depend on the names of the files.
    """
    groups: dict[tuple[Track, str], list[Path]] = defaultdict(list)
    for path, (track, _, entry) in placed.items():
        groups[track, entry.checkpoint_sha256].append(path)
    reasons = {}
    for paths in groups.values():
        if len({placed[path].entry.digest for path in paths}) == 1:
            reasons.update(dict.fromkeys(paths[1:], f"checkpoint_sha256: the same submission as {paths[0]}"))
            continue
        for path in paths:
            other = next(other for other in paths if placed[other].entry.digest != placed[path].entry.digest)
            reasons[path] = f"checkpoint_sha256: {other} has the same checkpoint and other content; keep one of them"
    return reasons


def _no_references(track: Track, scale: str) -> list[Reference]:
    return []


def _board(track: Track, scale: str, entries: Sequence[Entry], published: list[Reference]) -> Board:
    entries = sorted(entries, key=order)
    suite = suite_of(scale)
    noise = constants().noise.get(suite)
    pool_size = constants().pools.get(scale) if track == "filtering" else None
    kinds = {grade: [entry for entry in entries if _kind(entry) == grade] for grade in GRADES}
    ranked = _ranked(kinds["official"], noise.values["average"] if noise else 0.0)
    return Board(
        track=track,
        scale=scale,
        pool_size=pool_size,
        aggregates=list(members(suite)),
        tasks=[
            BoardTask(key=task.key, name=task.name, main_metric=task.main_metric, groups=list(task.groups))
            for task in suite_tasks(scale)
        ],
        noise=noise,
        ranked=ranked,
        unverified=kinds["unverified"],
        unranked=kinds["unofficial"],
        references=published,
        methods=methods(ranked, list(members(suite)), pool_size),
    )


def _kind(entry: Entry) -> Grade:
    """By what an entry is listed: its grade, but for one without an average there is no place but the last."""
    return entry.grade if entry.aggregates["average"].value is not None else "unofficial"


def _ranked(entries: Sequence[Entry], seed_noise: float) -> list[Entry]:
    """Sorted entries with their ranks."""
    first, last = places([entry.aggregates["average"] for entry in entries], seed_noise)
    return [
        entry.model_copy(update={"rank": rank, "rank_last": rank_last})
        for entry, rank, rank_last in zip(entries, first, last, strict=True)
    ]
